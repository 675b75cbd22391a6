"""A file of signed notes, one after the other, as checkpoints are published: of one log or of several."""

from __future__ import annotations

from dataclasses import dataclass

_SIGNED = "— ".encode()


@dataclass(frozen=True, slots=True)
class NoteFile:
    """What such a file holds. ``torn`` counts the parts that are no whole note: a text or signatures alone."""

    notes: tuple[bytes, ...]
    torn: int = 0

    def of(self, origin: str) -> tuple[bytes, ...]:
        """The notes that claim this origin, whoever signed them."""
        return tuple(note for note in self.notes if origin_line(note) == origin)

    def others(self, origin: str) -> tuple[str, ...]:
        """The other origins that its notes claim, each once."""
        return tuple(sorted({origin_line(note) for note in self.notes} - {origin}))


def read_notes(data: bytes) -> NoteFile:
    """The notes of a file: text, an empty line, signature lines, an empty line, and so on."""
    notes: list[bytes] = []
    text: bytes | None = None
    torn = 0
    for part in (part.strip(b"\n") for part in data.split(b"\n\n")):
        if not part:
            continue
        signed = part.startswith(_SIGNED)
        if signed and text is not None:
            notes.append(text + b"\n\n" + part + b"\n")
            text = None
        elif signed:
            torn += 1
        else:
            torn += text is not None
            text = part
    return NoteFile(tuple(notes), torn + (text is not None))


def origin_line(note: bytes) -> str:
    """The log that a note says it is of: its first line. Nothing is verified."""
    return note.partition(b"\n")[0].decode("utf-8", "replace")
