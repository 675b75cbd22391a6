"""What a verification says: findings in the order of the log, the first of which names the first bad event."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

MAX_FINDINGS = 100

RULES = {
    "seq_gap": "An event is missing: the sequence numbers have a gap.",
    "seq_order": "An event stands twice or out of order.",
    "leaf_hash": "An event's bytes are not those that were hashed when it was written.",
    "leaf_bytes": "An event's bytes are not a canonical envelope.",
    "row_mismatch": "An event's bytes say another place or name than the row that holds them.",
    "version_gap": "A stream's versions have a gap or repeat.",
    "truncated": "The log is shorter than a signed checkpoint or its own head says.",
    "head_mismatch": "The log is not the one whose head the store keeps.",
    "root_mismatch": "The events are not those that a signed checkpoint covers.",
    "checkpoint_invalid": "A checkpoint is not signed by a trusted key of this log, or is malformed.",
    "checkpoint_fork": "Two signed checkpoints of one size have different roots.",
    "checkpoint_missing": "A signed checkpoint that stands elsewhere, or that the next one names, is not in the store.",
    "proof_invalid": "An event's inclusion proof does not lead to a signed checkpoint.",
    "uncovered": "No valid checkpoint covers these events.",
    "list_differs": "A list, claim or pointer beside the log is not what the log makes of it.",
    "sealed_missing": "What an event refers to is not sealed beside the log, and no erasure of it is on record.",
    "sealed_damaged": "What is sealed beside the log does not open in its place: it was changed, or belongs elsewhere.",
    "template_changed": "The stored text of a template is not the one that its runs were started with.",
    "export_malformed": "The export file does not have the shape that it must have.",
}

# These name the very event; a gap of versions may only be the echo of an earlier event's change.
_SURE = frozenset(("seq_gap", "seq_order", "leaf_hash", "leaf_bytes", "row_mismatch", "proof_invalid"))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``rule`` is a key of :data:`RULES`.

    ``seq`` is the first bad or missing event; with ``last_seq`` only this is known: the first bad event is one of
    ``seq`` to ``last_seq``. ``event_id`` names it where it can be told.
    """

    rule: str
    text: str
    seq: int | None = None
    event_id: str | None = None
    last_seq: int | None = None

    def as_json(self) -> dict[str, str | int | None]:
        """For a report."""
        return {
            "rule": self.rule,
            "text": self.text,
            "seq": self.seq,
            "event_id": self.event_id,
            "last_seq": self.last_seq,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """How a log, or a part of it, verified.

    ``size`` leaves were read and gave ``root`` (None when the log is broken, or only one workflow was read).
    ``covered`` of them, from the beginning, are those that signed checkpoints vouch for; ``checkpoints`` have
    matched. ``more`` findings were left out. ``notices`` are worth a look, and nothing that is wrong.
    """

    tenant: str
    size: int
    root: bytes | None
    covered: int
    checkpoints: int
    findings: tuple[Finding, ...] = ()
    more: int = 0
    notices: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Nothing is wrong. See ``covered`` for how much of the log a signature vouches for."""
        return not self.findings

    @property
    def first_bad(self) -> Finding | None:
        """The finding that names the first bad event."""
        return next((finding for finding in self.findings if finding.seq is not None), None)


class Findings:
    """Collects findings and puts them in order."""

    def __init__(self) -> None:
        self._found: list[Finding] = []
        self.more = 0

    def add(self, finding: Finding) -> None:
        """Keep it, or count it when there are many already. Ranges are always kept: they are few."""
        if len(self._found) < MAX_FINDINGS or finding.last_seq is not None or finding.seq is None:
            self._found.append(finding)
        else:
            self.more += 1

    def ordered(self) -> tuple[Finding, ...]:
        """By sequence number, those without one last.

        A range that contains an event which is bad beyond doubt stands behind it, else where it begins.
        """
        sure = sorted(found.seq for found in self._found if found.rule in _SURE and found.seq is not None)
        return tuple(sorted(self._found, key=lambda found: _place(found, sure)))


def _place(finding: Finding, sure: Iterable[int]) -> tuple[bool, int, int]:
    if finding.seq is None:
        return True, 0, 0
    if finding.last_seq is None:
        return False, finding.seq, 0 if finding.rule in _SURE else 2
    inside = next((seq for seq in sure if finding.seq <= seq <= finding.last_seq), finding.seq)
    return False, inside, 1
