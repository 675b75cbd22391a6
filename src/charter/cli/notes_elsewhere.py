"""Checkpoints that are kept outside the database: the published file, the file beside the keys, those given by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from charter.audit.checkpoint import VerifierKey, origin_of, verify_checkpoint
from charter.audit.findings import Finding
from charter.audit.note_file import read_notes
from charter.audit.verify import SizedNote
from charter.errors import CharterError, InvalidInput

if TYPE_CHECKING:
    from charter.server.app import Charter


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The notes of one log, each with the file that it stands in, and what to tell about the files."""

    notes: tuple[tuple[bytes, Path], ...]
    notices: tuple[str, ...]

    def sized(self) -> list[SizedNote]:
        """For the verifier."""
        return [SizedNote(note) for note, _ in self.notes]

    def missing(self, sizes: set[int], trusted: Sequence[VerifierKey], origin: str) -> list[Finding]:
        """Those that a trusted key signed and of whose size the store, which is written first, has none."""
        found: dict[int, Finding] = {}
        for note, file in self.notes:
            try:
                size = verify_checkpoint(note, trusted, origin).checkpoint.size
            except CharterError:
                continue  # the verifier's finding
            if size not in sizes:
                text = f"The checkpoint of size {size} stands in {file} and not in the store: it was deleted there."
                found.setdefault(size, Finding("checkpoint_missing", text))
        return list(found.values())


def notes_elsewhere(charter: Charter, extra: Sequence[Path], known: Sequence[str]) -> Elsewhere:
    """What the files hold of the tenant's log. ``known`` are this server's tenants, which may share the published file.

    Notes of other logs are passed over, and told of where no tenant here has such a log. Raises ``InvalidInput``
    (``no_checkpoint``) where a file that was named by hand holds none of this log.
    """
    from charter.server.app import kept_notes

    tenant, published = charter.settings.tenant, charter.settings.audit.publish_file
    origin, ours = origin_of(tenant), {origin_of(each) for each in known}
    kept = kept_notes(charter.settings).path(tenant)
    notes: list[tuple[bytes, Path]] = []
    notices: list[str] = []
    for file in [*extra, *(file for file in (published, kept) if file is not None and file.is_file())]:
        read = read_notes(file.read_bytes())
        found = read.notes if file == kept else read.of(origin)  # that file is of this log alone
        if file in extra and not found:
            raise InvalidInput(
                f"{file} holds no checkpoint of {origin}.",
                code="no_checkpoint",
                next_step="Give a file of notes of this tenant's log, as `charter audit checkpoint` prints them.",
            )
        notes += [(note, file) for note in found]
        notices += _told(file, [other for other in read.others(origin) if other not in ours], read.torn)
    return Elsewhere(tuple(notes), tuple(notices))


def _told(file: Path, strange: Sequence[str], torn: int) -> list[str]:
    told = []
    if strange:
        told.append(f"{file} has checkpoints of logs that are not here, which were passed over: {', '.join(strange)}.")
    if torn:
        told.append(
            f"{file} has {torn} incomplete checkpoint{'s' if torn > 1 else ''}: text or signatures are missing."
        )
    return told
