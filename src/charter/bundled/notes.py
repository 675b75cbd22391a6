"""A folder of Markdown notes: the real work behind the casebook server. Nothing here knows of MCP.

A note's name is its path in the folder without ``.md``: ``case-12/summary``. Names cannot leave the folder, not by
``..``, not by an absolute path, not by a symbolic link. Writes are atomic: a reader sees the old text or the new one.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 _-]{0,79}(/[A-Za-z0-9][A-Za-z0-9 _-]{0,79}){0,4}$"
MAX_NOTE = 256 * 1024
OUTBOX = "outbox.jsonl"
_NAME = re.compile(NAME_PATTERN)
_CHANGING = threading.Lock()  # appending and sending read before they write; tools run in threads


class NoteError(Exception):
    """What went wrong and what to do, as one text for whoever called."""


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one folder, which is made if it is not there."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Where the note is or would be; raises ``NoteError`` for a name that is not one or leads outside."""
        if not _NAME.match(name) or name.endswith("\n"):
            raise NoteError(f"{name!r} is not a note's name. Use letters, digits, spaces, - and _, with / for folders.")
        path = self.folder / f"{name}.md"
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise NoteError(f"{name!r} leads outside the casebook.")
        return path

    def names(self) -> list[str]:
        """All notes' names, sorted."""
        found = (path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.md"))
        return sorted(name for name in found if _NAME.match(name))

    def read(self, name: str) -> str:
        """The text. Raises ``NoteError`` when there is no such note."""
        try:
            return self.path(name).read_text("utf-8")
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise NoteError(f"There is no note {name!r}. Call list_notes to see which there are.") from None

    def write(self, name: str, text: str) -> bool:
        """Put ``text`` there; True when the note is new. Raises ``NoteError`` over 256 KiB."""
        if len(text.encode()) > MAX_NOTE:
            raise NoteError(f"The note would be larger than {MAX_NOTE // 1024} KiB. Split it.")
        path = self.path(name)
        created = not path.exists()
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as file:
            file.write(text)
        os.replace(file.name, path)
        return created

    def append(self, name: str, text: str) -> str:
        """Add ``text`` on a line of its own to a note that exists; the new text."""
        with _CHANGING:
            before = self.read(name)
            after = before + ("" if before.endswith("\n") or not before else "\n") + text.rstrip("\n") + "\n"
            self.write(name, after)
        return after

    def delete(self, name: str) -> None:
        """Delete the note for good. Raises ``NoteError`` when there is no such note."""
        self.read(name)
        self.path(name).unlink()

    def diff(self, name: str, text: str) -> str:
        """What writing ``text`` would change, as a unified diff; empty when nothing would."""
        exists = self.path(name).exists()
        before = self.read(name) if exists else ""
        lines = difflib.unified_diff(
            before.splitlines(), text.splitlines(), f"{name}.md" if exists else "/dev/null", f"{name}.md", lineterm=""
        )
        return "\n".join(lines)

    def matches(self, name: str, query: str) -> Iterator[tuple[int, str]]:
        """Line number (from 1) and line of each line that contains ``query``, whatever the case."""
        wanted = query.casefold()
        for number, line in enumerate(self.read(name).splitlines(), 1):
            if wanted in line.casefold():
                yield number, line.strip()[:200]

    def send(self, to: str, subject: str, text: str, key: str | None) -> tuple[int, bool]:
        """Add a notice to the outbox file; its number and whether the same key had already sent it."""
        with _CHANGING:
            return self._send(to, subject, text, key)

    def _send(self, to: str, subject: str, text: str, key: str | None) -> tuple[int, bool]:
        outbox = self.folder / OUTBOX
        lines = outbox.read_text("utf-8").splitlines() if outbox.exists() else []
        if key is not None:
            for number, line in enumerate(lines, 1):
                if json.loads(line).get("idempotency_key") == key:
                    return number, True
        notice = {
            "to": to,
            "subject": subject,
            "text": text,
            "sent_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "idempotency_key": key,
        }
        with outbox.open("a", encoding="utf-8") as file:
            file.write(json.dumps(notice, ensure_ascii=False) + "\n")
        return len(lines) + 1, False
