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

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from charter.audit.checkpoint import VerifierKey, origin_of, verify_checkpoint
from charter.audit.findings import Finding, Findings, Report
from charter.audit.growing import GrowingTree
from charter.audit.merkle import leaf_hashes
from charter.audit.rows import LeafRow, disagreeing, disagreement, not_canonical
from charter.errors import CharterError


@dataclass(frozen=True, slots=True)
class SizedNote:
    """A checkpoint as it is kept: its signed note, and the size under which it was filed, where there is one."""

    note: bytes
    size: int | None = None


def trusted_checkpoints(
    notes: Iterable[SizedNote], trusted: Sequence[VerifierKey], origin: str, found: Findings, *, whole: bool
) -> dict[int, bytes]:
    """Root by size of the notes that verify; findings for the others, and for those that these say were before them.

    ``whole``: the notes are all that there are.
    """
    roots: dict[int, bytes] = {}
    before: dict[int, int] = {}
    for each in notes:
        filed = "" if each.size is None else f" filed under size {each.size}"
        try:
            point = verify_checkpoint(each.note, trusted, origin).checkpoint
        except CharterError as error:
            found.add(Finding("checkpoint_invalid", f"Checkpoint{filed}: {error.message}"))
            continue
        if each.size not in (None, point.size):
            found.add(Finding("checkpoint_invalid", f"Checkpoint{filed} says size {point.size}."))
        if point.previous is not None:
            before.setdefault(point.previous, point.size)
        if roots.setdefault(point.size, point.root) != point.root:
            text = f"Two signed checkpoints of size {point.size} have different roots: the log was forked."
            found.add(Finding("checkpoint_fork", text))
    for size in sorted(before.keys() - roots) if whole else ():
        text = f"The checkpoint of size {size}, signed before that of size {before[size]}, is missing: it was deleted."
        found.add(Finding("checkpoint_missing", text))
    return roots


class LogVerifier:
    """Reads a log from its beginning, page by page, and reports at the end.

    ``notes`` are checkpoints, from the store and from anywhere else. ``head`` is the size and root that the store
    keeps of its own log. ``deep`` also proves that each leaf is canonical JSON (RFC 8785) of an envelope, which takes
    three times as long.
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
        self._roots = trusted_checkpoints(notes, trusted, origin_of(tenant), self._found, whole=True)
        self._tree = GrowingTree(self._roots)
        self._kept: GrowingTree | None = None  # over the stored hashes, once they differ from the fresh ones
        self._whole = True  # no fault in the sequence so far, so positions in the tree can be told
        self._next = 0
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
        del self._recent[: len(self._recent) - self._last_page]
        self._recent += rows
        self._last_page = len(rows)
        fresh = leaf_hashes([row.leaf for row in rows])
        kept = self._kept_hashes(rows, fresh, hashes)
        changed = frozenset(index for index, hash_ in enumerate(kept) if hash_ != fresh[index]) if kept else ()
        first = self._next
        if [row.seq for row in rows] == list(range(first, first + len(rows))):
            self._next += len(rows)
            self._grow(fresh, kept)
        else:
            self._out_of_sequence(rows, fresh, kept or fresh)
        self._check_rows(rows, changed)

    def finish(self) -> Report:
        """What was found. Call it once, at the end."""
        root = self._tree.root() if self._whole else None
        covered, matched = self._compare()
        longest = max(self._roots, default=0)
        if longest > self._next:
            text = f"A signed checkpoint covers {longest} events, the log ends after {self._next}."
            self._found.add(Finding("truncated", text, self._next))
        self._check_head(root, covered)
        return Report(self._tenant, self._next, root, covered, matched, self._found.ordered(), self._found.more)

    def _kept_hashes(
        self, rows: Sequence[LeafRow], fresh: list[bytes], stored: Sequence[bytes] | None
    ) -> list[bytes] | None:
        """The stored hash of each row where they are not the fresh ones; None when all is well."""
        if stored is None or list(stored) == fresh:
            return None
        first = rows[0].seq
        by_seq = len(stored) == rows[-1].seq - first + 1 and len(stored) != len(rows)
        kept = []
        for index, row in enumerate(rows):
            at = row.seq - first if by_seq else index
            kept.append(stored[at] if 0 <= at < len(stored) else b"")
            if kept[index] != fresh[index]:
                text = "The event's bytes were changed after they were hashed, or the stored hash was."
                self._found.add(Finding("leaf_hash", text, row.seq, row.id))
        return kept

    def _grow(self, fresh: list[bytes], kept: list[bytes] | None) -> None:
        if not self._whole:
            return
        if kept is not None and self._kept is None:
            self._kept = self._tree.copy()
        self._tree.grow(fresh)
        if self._kept is not None:
            self._kept.grow(kept or fresh)

    def _out_of_sequence(self, rows: Sequence[LeafRow], fresh: list[bytes], kept: list[bytes]) -> None:
        for index, row in enumerate(rows):
            if row.seq == self._next:
                self._next += 1
                self._grow([fresh[index]], [kept[index]])
                continue
            self._whole = False
            if row.seq > self._next:
                text = f"Events {self._next} to {row.seq - 1} are missing."
                self._found.add(Finding("seq_gap", text, self._next))
                self._next = row.seq + 1
                continue
            text = f"Event {row.seq} stands after event {self._next - 1}."
            instead = index + 1 < len(rows) and rows[index + 1].seq == self._next + 1
            self._found.add(Finding("seq_order", text, self._next if instead else row.seq, row.id))
            self._next += instead

    def _check_rows(self, rows: Sequence[LeafRow], changed: Container[int]) -> None:
        versions, tenant = self._versions, self._tenant
        odd = disagreeing(rows)
        if not odd and not self._deep and {row.tenant for row in rows} == {tenant} and self._versions_go_on(rows):
            return
        for index, row in enumerate(rows):
            stream, version = row.stream, row.version
            last = versions.get(stream, 0)
            versions[stream] = version
            found = None
            if index in odd or row.tenant != tenant:
                alone = index in changed or (index + 1 < len(rows) and index + 1 not in odd)
                found = disagreement(row, None if alone else self._holder) or self._foreign(row)
            elif self._deep:
                found = not_canonical(row)
            if found is None and version != last + 1:
                text = f"Stream {stream} goes from version {last} to {version}."
                found = Finding("version_gap", text, row.seq, row.id)
            if found is not None:
                self._found.add(found)

    def _versions_go_on(self, rows: Sequence[LeafRow]) -> bool:
        """The fast road: move on when each row continues its stream; else leave all as it was."""
        versions = self._versions
        moved: dict[str, int] = {}
        for row in rows:
            stream, version = row.stream, row.version
            if version != (moved.get(stream) or versions.get(stream, 0)) + 1:
                return False
            moved[stream] = version
        versions.update(moved)
        return True

    def _holder(self, seq: int) -> LeafRow | None:
        """The row with this sequence number, if it came in this page or the one before."""
        at = seq - self._recent[0].seq
        row = self._recent[at] if 0 <= at < len(self._recent) else None
        return row if row is not None and row.seq == seq else None

    def _foreign(self, row: LeafRow) -> Finding | None:
        if row.tenant == self._tenant:
            return None
        return Finding("row_mismatch", f"The event belongs to tenant {row.tenant!r}.", row.seq, row.id)

    def _compare(self) -> tuple[int, int]:
        """How many leaves the checkpoints vouch for, and how many checkpoints match; a finding at the first that fails.

        Where the stored hashes give the signed root, the events that differ from them are all that is bad.
        """
        told = self._tree.at_checkpoints()
        kept = self._kept.at_checkpoints() if self._kept is not None else told
        good = [size for size, root in told.items() if root == self._roots[size]]
        first_bad = min(told.keys() - set(good), default=self._next + 1)
        covered = max((size for size in good if size < first_bad), default=0)
        sound = covered
        for size in sorted(told):
            if self._roots[size] not in (told[size], kept[size]):
                text = f"The first {size} events are not those that the signed checkpoint of size {size} covers."
                self._found.add(Finding("root_mismatch", text, sound, last_seq=max(size - 1, 0)))
                break
            sound = size
        return covered, len(good)

    def _check_head(self, root: bytes | None, covered: int) -> None:
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
            self._found.add(Finding("head_mismatch", text, covered, last_seq=max(size - 1, 0)))


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
