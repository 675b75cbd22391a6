"""Tokens taken back before they expire, by their ``jti``: a small file beside the keys, read again when it
changes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from charter.errors import InvalidInput


class RevokedTokens:
    """The list.

    Without a path it lives in memory. Every process that looks at the file sees an addition at once.
    """

    def __init__(self, path: Path | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._path, self._now = path, now
        self._seen: tuple[int, int] | None = None
        self._expiry: dict[str, float] = {}

    def __contains__(self, jti: object) -> bool:
        self._reread()
        return jti in self._expiry

    def add(self, jti: str, expires_at: float) -> None:
        """Take a token back; durable when it returns. ``expires_at``: when the entry may be forgotten."""
        if not jti or any(character.isspace() for character in jti):
            raise InvalidInput("A token id (jti) is a text without spaces.", code="bad_jti")
        self._reread()
        self._expiry[jti] = expires_at
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{jti} {int(expires_at)}\n".encode())
            file.flush()
            os.fsync(file.fileno())

    def _reread(self) -> None:
        if self._path is None:
            return
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return  # never written, or removed: what this process knows stays revoked
        if self._seen == (status.st_mtime_ns, status.st_size):
            return
        self._seen = (status.st_mtime_ns, status.st_size)
        now = self._now()
        for line in self._path.read_text(encoding="utf-8").splitlines():
            jti, _, expiry = line.partition(" ")
            # A line that says no time is kept: forgetting is what must be certain.
            until = float(expiry) if expiry.isdigit() else float("inf")
            if until + 3600 > now:
                self._expiry[jti] = until
