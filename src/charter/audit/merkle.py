"""The Merkle tree of RFC 6962 section 2.1 (SHA-256), in the words of RFC 9162 section 2.

A *node* ``(level, index)`` is the root of the complete subtree over the leaves ``index * 2**level`` up to,
without, ``(index + 1) * 2**level``; level 0 are the leaf hashes. Proofs are asked for in two steps, so that a
store can fetch all nodes at once: a :class:`Plan` names what it wants and builds the answer from their hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from charter.errors import InvalidInput

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
Node = tuple[int, int]


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's bytes."""
    return sha256(b"\x00" + leaf).digest()


def leaf_hashes(leaves: Iterable[bytes]) -> list[bytes]:
    """The hashes of many leaves: the prefix is hashed once, and no leaf is copied."""
    begin, hashes = sha256(b"\x00").copy, []
    for leaf in leaves:
        state = begin()
        state.update(leaf)
        hashes.append(state.digest())
    return hashes


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node from its children's."""
    return sha256(b"\x01" + left + right).digest()


def fold(peaks: Sequence[bytes]) -> bytes:
    """The root over complete subtrees given from the largest (left) to the smallest (right)."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


@dataclass(slots=True)
class Frontier:
    """The right edge of a log: how many leaves, and the roots of its complete subtrees, largest first.

    It is all that is needed to append and to know the root; ``to_bytes`` is at most 8 + 64 * 32 bytes.
    """

    size: int = 0
    peaks: list[bytes] = field(default_factory=list)

    def append(self, hash_: bytes) -> None:
        """Add one leaf hash; O(1) amortised."""
        size, peaks = self.size, self.peaks
        while size & 1:
            hash_ = sha256(b"\x01" + peaks.pop() + hash_).digest()
            size >>= 1
        peaks.append(hash_)
        self.size += 1

    def append_with_nodes(self, hash_: bytes) -> list[tuple[int, int, bytes]]:
        """Add one leaf hash; return the inner nodes it completed, ``(level, index, hash)`` from level 1."""
        made: list[tuple[int, int, bytes]] = []
        rest, level, peaks = self.size, 0, self.peaks
        while rest & 1:
            hash_ = sha256(b"\x01" + peaks.pop() + hash_).digest()
            rest >>= 1
            level += 1
            made.append((level, rest, hash_))
        peaks.append(hash_)
        self.size += 1
        return made

    def root(self) -> bytes:
        """The RFC 6962 root over all the leaves; O(log n)."""
        return fold(self.peaks)

    def copy(self) -> Frontier:
        """Another one that moves on its own."""
        return Frontier(self.size, list(self.peaks))

    def to_bytes(self) -> bytes:
        """Eight bytes of size, big-endian, then the peaks."""
        return self.size.to_bytes(8, "big") + b"".join(self.peaks)

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """Read ``to_bytes`` back. Raises ``InvalidInput`` when the length does not fit the size."""
        size = int.from_bytes(data[:8], "big")
        if len(data) != 8 + HASH_BYTES * size.bit_count():
            raise InvalidInput("These bytes are no Merkle frontier.", code="bad_frontier")
        return cls(size, [data[at : at + HASH_BYTES] for at in range(8, len(data), HASH_BYTES)])


def subtrees(start: int, end: int) -> list[Node]:
    """The complete subtrees that cover ``start <= leaf < end``, from left to right."""
    found: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        found.append((level, start >> level))
        start += 1 << level
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """A proof (or root) to be: each group of nodes folds to one of its hashes."""

    groups: tuple[tuple[Node, ...], ...]

    @property
    def wanted(self) -> list[Node]:
        """The nodes whose hashes ``build`` takes, in this order; O(log² n) at most."""
        return [node for group in self.groups for node in group]

    def build(self, hashes: Sequence[bytes]) -> list[bytes]:
        """The proof's hashes from those of ``wanted``."""
        proof, at = [], 0
        for group in self.groups:
            proof.append(fold(hashes[at : at + len(group)]))
            at += len(group)
        return proof

    def from_lookup(self, nodes: Callable[[int, int], bytes]) -> list[bytes]:
        """The proof's hashes, where ``nodes(level, index)`` gives one."""
        return self.build([nodes(level, index) for level, index in self.wanted])


def _plan(ranges: Iterable[tuple[int, int]]) -> Plan:
    return Plan(tuple(tuple(subtrees(start, end)) for start, end in ranges))


def _split(size: int) -> int:
    """The largest power of two below ``size``: how many leaves the left child has."""
    return 1 << ((size - 1).bit_length() - 1)


def root_plan(size: int) -> Plan:
    """The root over the first ``size`` leaves: one hash."""
    return _plan([(0, size)])


def inclusion_plan(index: int, size: int) -> Plan:
    """The audit path of leaf ``index`` in the tree of the first ``size`` leaves (RFC 6962 section 2.1.1)."""
    if not 0 <= index < size:
        raise InvalidInput(f"Leaf {index} is not in a tree of {size}.", code="bad_proof_range")
    start, end, ranges = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return _plan(reversed(ranges))


def consistency_plan(old_size: int, new_size: int) -> Plan:
    """The proof that the first ``old_size`` leaves were only added to (RFC 6962 section 2.1.2).

    It is empty when ``old_size`` is 0 or ``new_size``: there is nothing to prove.
    """
    if not 0 <= old_size <= new_size:
        raise InvalidInput(f"A tree of {new_size} cannot continue one of {old_size}.", code="bad_proof_range")
    if old_size in (0, new_size):
        return Plan(())
    start, end, ranges, old_is_whole = 0, new_size, [], True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start, old_is_whole = middle, False
    if not old_is_whole:
        ranges.append((start, end))
    return _plan(reversed(ranges))


class Tree:
    """A whole tree in memory, from leaf hashes: for tests, small logs and offline proofs."""

    def __init__(self, hashes: Iterable[bytes]) -> None:
        self.levels: list[list[bytes]] = levels_of(list(hashes))

    @property
    def size(self) -> int:
        return len(self.levels[0])

    def node(self, level: int, index: int) -> bytes:
        """The hash of one complete subtree."""
        return self.levels[level][index]

    def root(self, size: int | None = None) -> bytes:
        """The root over the first ``size`` leaves, all of them by default."""
        return root_plan(self.size if size is None else size).from_lookup(self.node)[0]

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """The audit path of leaf ``index``."""
        return inclusion_plan(index, self.size if size is None else size).from_lookup(self.node)

    def consistency(self, old_size: int, new_size: int | None = None) -> list[bytes]:
        """The proof that the tree of ``old_size`` is a beginning of the later one."""
        return consistency_plan(old_size, self.size if new_size is None else new_size).from_lookup(self.node)


def levels_of(hashes: list[bytes]) -> list[list[bytes]]:
    """All complete nodes over these leaf hashes, level by level; the fast way to hash many leaves at once."""
    levels, digest = [hashes], sha256
    while len(hashes) > 1:
        pairs = iter(hashes)
        hashes = [digest(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=False)]
        levels.append(hashes)
    return levels


def verify_inclusion(hash_: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Is the leaf with this hash at ``index`` of the tree with this root? (RFC 9162 section 2.1.3.2)"""
    if not 0 <= index < size:
        return False
    here, last = index, size - 1
    for step in proof:
        if last == 0:
            return False
        if here & 1 or here == last:
            hash_ = node_hash(step, hash_)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            hash_ = node_hash(hash_, step)
        here >>= 1
        last >>= 1
    return last == 0 and hash_ == root


def verify_consistency(old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Does the newer tree only add to the older one? (RFC 9162 section 2.1.4.2)"""
    if not 0 <= old_size <= new_size:
        return False
    if old_size in (0, new_size):
        same = old_root == (EMPTY_ROOT if old_size == 0 else new_root)
        return not proof and same
    steps = list(proof)
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    if not steps:
        return False
    here, last = old_size - 1, new_size - 1
    while here & 1:
        here >>= 1
        last >>= 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            return False
        if here & 1 or here == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while not here & 1 and here:
                here >>= 1
                last >>= 1
        else:
            new = node_hash(new, step)
        here >>= 1
        last >>= 1
    return last == 0 and old == old_root and new == new_root
