"""The verifier of a tenant's log. It trusts the public keys that it is given and nothing that the store says.

It looks at the exact bytes of each event, in order, and needs about 4 µs an event, so a million take seconds::

    verifier = LogVerifier(tenant, trusted, notes=notes)
    for page in pages:
        verifier.feed(page)
    report = verifier.finish()

What it cannot see: events after the last checkpoint that were dropped or rewritten together with the stored head,
and a log that a holder of the private key rewrote and signed anew. Checkpoints kept elsewhere show both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from charter.audit.checkpoint import VerifierKey, origin_of, verify_checkpoint
from charter.audit.findings import Finding, Findings, Report
from charter.audit.merkle import Frontier, fold, leaf_hashes, levels_of, subtrees
from charter.audit.rows import LeafRow, disagreeing, disagreement, not_canonical
from charter.errors import CharterError

_CHUNK = 1024  # leaves hashed into one subtree at a time


@dataclass(frozen=True, slots=True)
class SizedNote:
    """A checkpoint as it is kept: its signed note, and the size under which it was filed, where there is one."""

    note: bytes
    size: int | None = None


def trusted_checkpoints(
    notes: Iterable[SizedNote], trusted: Sequence[VerifierKey], origin: str, found: Findings
) -> dict[int, bytes]:
    """Root by size of the notes that verify; findings for the others."""
    roots: dict[int, bytes] = {}
    for each in notes:
        filed = "" if each.size is None else f" filed under size {each.size}"
        try:
            point = verify_checkpoint(each.note, trusted, origin).checkpoint
        except CharterError as error:
            found.add(Finding("checkpoint_invalid", f"Checkpoint{filed}: {error.message}"))
            continue
        if each.size not in (None, point.size):
            found.add(Finding("checkpoint_invalid", f"Checkpoint{filed} says size {point.size}."))
        if roots.setdefault(point.size, point.root) != point.root:
            text = f"Two signed checkpoints of size {point.size} have different roots: the log was forked."
            found.add(Finding("checkpoint_fork", text))
    return roots


class LogVerifier:
    """Reads a log from its beginning, page by page, and reports at the end.

    ``notes`` are checkpoints, from the store and from anywhere else. ``head`` is the size and root that the store
    keeps of its own log. ``deep`` also proves that each leaf is canonical JSON (RFC 8785) of an envelope, which takes
    twice the time.
    """

    def __init__(
        self,
        tenant: str,
        trusted: Sequence[VerifierKey],
        *,
        notes: Iterable[SizedNote] = (),
        head: tuple[int, bytes] | None = None,
        deep: bool = True,
    ) -> None:
        self._tenant, self._head, self._deep = tenant, head, deep
        self._found = Findings()
        self._roots = trusted_checkpoints(notes, trusted, origin_of(tenant), self._found)
        self._waiting = sorted(self._roots, reverse=True)  # sizes not reached yet, the next one last
        self._chunks = Frontier()  # over the roots of full chunks
        self._hashes: list[bytes] = []  # of the chunk being filled
        self._whole = True  # sequence numbers without fault so far, so the tree can be told
        self._next = 0
        self._covered = self._matched = 0
        self._mismatch = False
        self._versions: dict[str, int] = {}
        self._recent: list[LeafRow] = []  # the page before and this one
        self._last_page = 0

    def feed(self, rows: Sequence[LeafRow], hashes: Sequence[bytes] | None = None) -> None:
        """The next rows in the order of their sequence numbers.

        ``hashes`` are the leaf hashes that the store keeps, where it does: one a row, or one for each sequence
        number from the first row's to the last's.
        """
        if not rows:
            return
        fresh = leaf_hashes([row.leaf for row in rows])
        self._check_hashes(rows, fresh, hashes)
        first = self._next
        if [row.seq for row in rows] == list(range(first, first + len(rows))):
            self._next += len(rows)
            self._grow(fresh)
        else:
            self._out_of_sequence(rows, fresh)
        del self._recent[: len(self._recent) - self._last_page]
        self._recent += rows
        self._last_page = len(rows)
        self._check_rows(rows)

    def finish(self) -> Report:
        """What was found. Call it once, at the end."""
        root = self._root_now()
        self._settle(self._hashes)
        size = self._next
        longest = max(self._roots, default=0)
        if longest > size:
            text = f"A signed checkpoint covers {longest} events, the log ends after {size}."
            self._found.add(Finding("truncated", text, size))
        self._check_head(root)
        findings = self._found.ordered()
        return Report(self._tenant, size, root, self._covered, self._matched, findings, self._found.more)

    def _check_hashes(self, rows: Sequence[LeafRow], fresh: list[bytes], stored: Sequence[bytes] | None) -> None:
        if stored is None or list(stored) == fresh:
            return
        first = rows[0].seq
        by_seq = len(stored) == rows[-1].seq - first + 1 and len(stored) != len(rows)
        for index, row in enumerate(rows):
            at = row.seq - first if by_seq else index
            if not 0 <= at < len(stored) or stored[at] != fresh[index]:
                text = "The event's bytes were changed after they were hashed, or the stored hash was."
                self._found.add(Finding("leaf_hash", text, row.seq, row.id))

    def _out_of_sequence(self, rows: Sequence[LeafRow], fresh: list[bytes]) -> None:
        for row, hash_ in zip(rows, fresh, strict=True):
            if row.seq == self._next:
                self._next += 1
                self._grow([hash_])
                continue
            if row.seq > self._next:
                text = f"Events {self._next} to {row.seq - 1} are missing."
                self._found.add(Finding("seq_gap", text, self._next))
                self._next = row.seq + 1
            else:
                text = f"Event {row.seq} stands after event {self._next - 1}."
                self._found.add(Finding("seq_order", text, row.seq, row.id))
            self._break()

    def _break(self) -> None:
        """From here on no position in the tree can be told; what came before can still be compared."""
        if self._whole:
            self._settle(self._hashes)
            self._whole = False

    def _check_rows(self, rows: Sequence[LeafRow]) -> None:
        versions, tenant = self._versions, self._tenant
        odd = disagreeing(rows)
        for index, row in enumerate(rows):
            stream, version = row.stream, row.version
            if index in odd or row.tenant != tenant:
                self._add(disagreement(row, self._holder) or self._foreign(row))
            elif self._deep:
                self._add(not_canonical(row))
            last = versions.get(stream, 0)
            versions[stream] = version
            if version != last + 1:
                text = f"Stream {stream} goes from version {last} to {version}."
                self._found.add(Finding("version_gap", text, row.seq, row.id))

    def _add(self, found: Finding | None) -> None:
        if found is not None:
            self._found.add(found)

    def _holder(self, seq: int) -> LeafRow | None:
        """The row with this sequence number, if it came in this page or the one before."""
        at = seq - self._recent[0].seq
        row = self._recent[at] if 0 <= at < len(self._recent) else None
        return row if row is not None and row.seq == seq else None

    def _foreign(self, row: LeafRow) -> Finding | None:
        if row.tenant == self._tenant:
            return None
        return Finding("row_mismatch", f"The event belongs to tenant {row.tenant!r}.", row.seq, row.id)

    def _grow(self, hashes: list[bytes]) -> None:
        if not self._whole:
            return
        held = self._hashes
        held += hashes
        while len(held) >= _CHUNK:
            levels = self._settle(held[:_CHUNK])
            self._chunks.append(levels[-1][0])
            del held[:_CHUNK]

    def _settle(self, hashes: list[bytes]) -> list[list[bytes]]:
        """Compare the checkpoints whose size lies in these leaves, the next ones after the full chunks."""
        levels = levels_of(hashes)
        base = self._chunks.size * _CHUNK
        while self._whole and self._waiting and self._waiting[-1] <= base + len(hashes):
            size = self._waiting.pop()
            inner = [levels[level][index] for level, index in subtrees(0, size - base)]
            self._compare(size, fold([*self._chunks.peaks, *inner]))
        return levels

    def _root_now(self) -> bytes | None:
        if not self._whole:
            return None
        levels = levels_of(self._hashes)
        inner = [levels[level][index] for level, index in subtrees(0, len(self._hashes))]
        return fold([*self._chunks.peaks, *inner])

    def _compare(self, size: int, root: bytes) -> None:
        if root == self._roots[size]:
            self._matched += 1
            if not self._mismatch:
                self._covered = size
        elif not self._mismatch:
            self._mismatch = True
            text = f"The first {size} events are not those that the signed checkpoint of size {size} covers."
            self._found.add(Finding("root_mismatch", text, self._covered, last_seq=max(size - 1, 0)))

    def _check_head(self, root: bytes | None) -> None:
        if self._head is None:
            return
        size, kept = self._head
        if size > self._next:
            text = f"The store's head says {size} events, the log ends after {self._next}."
            self._found.add(Finding("truncated", text, self._next))
        elif size < self._next:
            text = f"The log has {self._next} events, the store's head says {size}."
            self._found.add(Finding("head_mismatch", text, size))
        elif root not in (None, kept):
            text = "The events do not give the root that the store keeps."
            self._found.add(Finding("head_mismatch", text, self._covered, last_seq=max(size - 1, 0)))


def verify_log(
    rows: Sequence[LeafRow],
    tenant: str,
    trusted: Sequence[VerifierKey],
    *,
    notes: Iterable[SizedNote] = (),
    hashes: Sequence[bytes] | None = None,
    head: tuple[int, bytes] | None = None,
    deep: bool = True,
) -> Report:
    """Verify a whole log that is at hand; see :class:`LogVerifier`."""
    verifier = LogVerifier(tenant, trusted, notes=notes, head=head, deep=deep)
    verifier.feed(rows, hashes)
    return verifier.finish()
