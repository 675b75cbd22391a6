"""A tree that grows by many leaves at once and remembers its roots at given sizes."""

from __future__ import annotations

from collections.abc import Iterable

from charter.audit.merkle import Frontier, fold, levels_of, subtrees

_CHUNK = 1024  # leaves that are hashed into one complete subtree at a time


class GrowingTree:
    """Twice as fast as a frontier, since a chunk is hashed level by level; keeps at most one chunk of hashes.

    ``sizes`` are those at which the root will be asked for.
    """

    def __init__(self, sizes: Iterable[int]) -> None:
        self._waiting = sorted(sizes, reverse=True)  # not reached yet, the next one last
        self._chunks = Frontier()  # over the roots of full chunks
        self._open: list[bytes] = []
        self._roots: dict[int, bytes] = {}

    def copy(self) -> GrowingTree:
        """Another one that moves on its own."""
        other = GrowingTree(self._waiting)
        other._chunks, other._open, other._roots = self._chunks.copy(), list(self._open), dict(self._roots)
        return other

    def grow(self, hashes: list[bytes]) -> None:
        """Add leaf hashes."""
        self._open += hashes
        while len(self._open) >= _CHUNK:
            levels = self._settle(self._open[:_CHUNK])
            self._chunks.append(levels[-1][0])
            del self._open[:_CHUNK]

    def root(self) -> bytes:
        """The root over all leaves so far."""
        return self._root_over(levels_of(self._open), len(self._open))

    def at_checkpoints(self) -> dict[int, bytes]:
        """The root at each of the sizes that the tree has reached."""
        self._settle(self._open)
        return self._roots

    def _settle(self, hashes: list[bytes]) -> list[list[bytes]]:
        """Keep the roots of the sizes that lie in these leaves, the next ones after the full chunks."""
        levels = levels_of(hashes)
        base = self._chunks.size * _CHUNK
        while self._waiting and self._waiting[-1] <= base + len(hashes):
            size = self._waiting.pop()
            self._roots[size] = self._root_over(levels, size - base)
        return levels

    def _root_over(self, levels: list[list[bytes]], size: int) -> bytes:
        inner = [levels[level][index] for level, index in subtrees(0, size)]
        return fold([*self._chunks.peaks, *inner])
