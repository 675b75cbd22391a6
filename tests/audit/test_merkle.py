"""The tree is RFC 6962's: pymerkle and the RFC's own recursive text are the oracles."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from charter.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    Tree,
    consistency_plan,
    fold,
    inclusion_plan,
    leaf_hash,
    node_hash,
    root_plan,
    subtrees,
    verify_consistency,
    verify_inclusion,
)
from charter.errors import InvalidInput

logs = st.lists(st.binary(max_size=8), max_size=70)


def oracle(leaves: list[bytes]) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for leaf in leaves:
        tree.append_entry(leaf)
    return tree


def mth(hashes: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    return sha256(b"\x01" + mth(hashes[:k]) + mth(hashes[k:])).digest()


def subproof(m: int, hashes: list[bytes], whole: bool) -> list[bytes]:
    """RFC 6962 section 2.1.2, word for word."""
    if m == len(hashes):
        return [] if whole else [mth(hashes)]
    k = 1 << ((len(hashes) - 1).bit_length() - 1)
    if m <= k:
        return [*subproof(m, hashes[:k], whole), mth(hashes[k:])]
    return [*subproof(m - k, hashes[k:], False), mth(hashes[:k])]


@given(logs)
def test_root_and_inclusion_paths_are_those_of_pymerkle(leaves: list[bytes]) -> None:
    theirs, ours = oracle(leaves), Tree(map(leaf_hash, leaves))
    for size in range(len(leaves) + 1):
        assert ours.root(size) == theirs.get_root(size)
    for index in range(len(leaves)):
        assert ours.inclusion(index) == theirs.prove_inclusion(index + 1).path[1:]


@given(logs)
def test_the_frontier_gives_the_same_root_at_every_size_and_survives_its_bytes(leaves: list[bytes]) -> None:
    tree, frontier = Tree(map(leaf_hash, leaves)), Frontier()
    for size, leaf in enumerate(leaves):
        assert frontier.root() == tree.root(size)
        frontier = Frontier.from_bytes(frontier.to_bytes())
        frontier.append(leaf_hash(leaf))
    assert (frontier.size, frontier.root()) == (len(leaves), tree.root())


@given(logs)
def test_the_frontier_tells_each_inner_node_once(leaves: list[bytes]) -> None:
    frontier, nodes = Frontier(), {}
    for leaf in leaves:
        for level, index, value in frontier.append_with_nodes(leaf_hash(leaf)):
            assert (level, index) not in nodes
            nodes[level, index] = value
    tree = Tree(map(leaf_hash, leaves))
    assert nodes == {
        (level, index): value for level, row in enumerate(tree.levels) if level for index, value in enumerate(row)
    }


@given(logs.filter(bool), st.data())
def test_inclusion_proofs_verify_and_nothing_else_does(leaves: list[bytes], data: st.DataObject) -> None:
    tree = Tree(map(leaf_hash, leaves))
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    proof, root, mine = tree.inclusion(index, size), tree.root(size), leaf_hash(leaves[index])
    assert verify_inclusion(mine, index, size, proof, root)
    assert not verify_inclusion(leaf_hash(b"something else"), index, size, proof, root)
    assert not verify_inclusion(mine, index, size, [*proof, root], root)
    assert not verify_inclusion(mine, index, size, proof, leaf_hash(b"x"))
    assert not verify_inclusion(mine, size, size, proof, root)
    assert not verify_inclusion(mine, -1, size, proof, root)
    if proof:
        assert not verify_inclusion(mine, index, size, proof[:-1], root)
        at = data.draw(st.integers(0, len(proof) - 1))
        assert not verify_inclusion(mine, index, size, [*proof[:at], EMPTY_ROOT, *proof[at + 1 :]], root)


@given(logs, st.data())
def test_consistency_proofs_are_the_rfcs_and_verify(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    tree = Tree(hashes)
    new = data.draw(st.integers(0, len(leaves)))
    old = data.draw(st.integers(0, new))
    proof = tree.consistency(old, new)
    assert proof == (subproof(old, hashes[:new], True) if 0 < old < new else [])
    assert verify_consistency(old, tree.root(old), new, tree.root(new), proof)
    if old:
        assert not verify_consistency(old, leaf_hash(b"another past"), new, tree.root(new), proof)
        assert not verify_consistency(old, tree.root(old), new, leaf_hash(b"another present"), proof)
    assert not verify_consistency(old, tree.root(old), new, tree.root(new), [*proof, EMPTY_ROOT])
    if proof:
        assert not verify_consistency(old, tree.root(old), new, tree.root(new), proof[:-1])


def test_a_shrunk_log_is_never_consistent() -> None:
    tree = Tree(leaf_hash(bytes([n])) for n in range(8))
    assert not verify_consistency(8, tree.root(8), 7, tree.root(7), [])
    assert not verify_consistency(8, tree.root(8), 8, tree.root(7), [])


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_plans_ask_for_few_complete_nodes(index: int, more: int) -> None:
    size = index + more
    for plan in (inclusion_plan(index, size), consistency_plan(index, size), root_plan(size)):
        assert len(plan.wanted) <= 2 * size.bit_length()
        assert all((place + 1) << level <= size for level, place in plan.wanted)


@given(st.integers(0, 3000))
def test_subtrees_cover_a_range_once(size: int) -> None:
    covered = [leaf for level, index in subtrees(0, size) for leaf in range(index << level, (index + 1) << level)]
    assert covered == list(range(size))


def test_small_known_answers() -> None:
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert fold([leaf_hash(b"a"), leaf_hash(b"b")]) == node_hash(leaf_hash(b"a"), leaf_hash(b"b"))


@pytest.mark.parametrize("data", [b"", b"\x00" * 7 + b"\x01", b"\x00" * 8 + b"\x00" * 32])
def test_bytes_that_are_no_frontier_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        Frontier.from_bytes(data or b"\x00" * 7 + b"\x03")


def test_proofs_outside_the_tree_are_refused() -> None:
    for plan, first, size in ((inclusion_plan, 3, 3), (inclusion_plan, -1, 3), (consistency_plan, 4, 3)):
        with pytest.raises(InvalidInput):
            plan(first, size)
