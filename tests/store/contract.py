"""What every store must do with the log. An implementation subclasses these and gives ``another`` and ``store``.

``another`` opens one more store on the same data, as a second process would; ``store`` is the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from charter.audit.envelope import leaf_bytes
from charter.audit.merkle import EMPTY_ROOT, Tree, inclusion_plan, verify_inclusion
from charter.errors import Conflict, InvalidInput, Unavailable
from charter.store.port import AlreadyClaimed, Appended, Batch, Claim, Sealed, Store, VersionConflict
from tests.store.making import a_batch, a_workflow, an_approval, an_effect, an_event, whole_log

Another = Callable[[], Awaitable[Store]]


class LogContract:
    """Events, versions, and who comes first."""

    async def test_an_event_comes_back_as_the_canonical_bytes_that_were_hashed(self, store: Store) -> None:
        event = an_event("WORKFLOW_STARTED", amount="12.50", nested={"b": [1, None], "a": "é"})
        appended = await store.append(Batch("acme", "wf_1", 0, (event,)))
        (stored,) = await store.load("acme", "wf_1")
        assert appended == Appended(first_seq=0, version=1)
        assert stored.leaf == leaf_bytes("acme", "wf_1", 0, 1, event)
        assert (stored.id, stored.type, stored.time) == (event.id, event.type, event.time)

    async def test_versions_count_a_streams_events_and_seq_all_of_the_tenants(self, store: Store) -> None:
        await store.append(a_batch("wf_1", 0, events=2))
        await store.append(a_batch("wf_2", 0, events=1))
        assert await store.append(a_batch("wf_1", 2, events=2)) == Appended(first_seq=3, version=4)
        assert await store.append(a_batch("wf_1", 0, tenant="other")) == Appended(first_seq=0, version=1)
        assert len(await whole_log(store, "acme")) == 5
        assert await store.tenants() == ["acme", "other"]

    async def test_a_stream_that_moved_refuses_the_batch_and_keeps_nothing_of_it(self, store: Store) -> None:
        await store.append(a_batch("wf_1", 0))
        refused = a_batch("wf_1", 0, workflow=a_workflow("wf_1"), claims=(Claim("request", "k", "v"),))
        with pytest.raises(VersionConflict) as caught:
            await store.append(refused)
        assert caught.value.detail == {"version": 1, "expected": 0}
        assert await store.version("acme", "wf_1") == 1
        assert await store.workflow("acme", "wf_1") is None
        assert await store.claimed("acme", "request", "k") is None

    async def test_a_batch_for_a_later_version_of_nothing_is_refused(self, store: Store) -> None:
        with pytest.raises(VersionConflict):
            await store.append(a_batch("wf_new", 3))
        assert await store.version("acme", "wf_new") == 0
        assert await store.tenants() == []

    async def test_without_an_expected_version_a_batch_goes_to_the_end(self, store: Store) -> None:
        await asyncio.gather(*(store.append(a_batch("tenant", None)) for _ in range(20)))
        assert await store.version("acme", "tenant") == 20

    async def test_of_many_who_expect_the_same_version_one_wins(self, store: Store, another: Another) -> None:
        second = await another()
        tries = [(store, second)[n % 2].append(a_batch("wf_1", 0)) for n in range(30)]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        assert [answer for answer in answers if isinstance(answer, Appended)] == [Appended(0, 1)]
        assert sum(isinstance(answer, VersionConflict) for answer in answers) == 29

    async def test_two_stores_on_one_log_number_it_without_gaps(self, store: Store, another: Another) -> None:
        second = await another()

        async def write(own: Store, stream: str) -> None:
            for version in range(25):
                assert await own.version("acme", stream) == version
                await own.append(a_batch(stream, version))

        await asyncio.gather(*(write(own, f"wf_{n}") for n, own in enumerate([store, second, store, second])))
        assert len(await whole_log(store, "acme")) == 100

    async def test_load_gives_any_part_of_a_long_stream(self, store: Store) -> None:
        for _ in range(3):
            await store.append(a_batch("wf_1", events=100))
            await store.append(a_batch("wf_2", events=1))
        for after, limit in [(0, None), (0, 1), (63, 1), (64, 1), (10, 60), (100, 128), (299, 5), (300, 5), (0, 0)]:
            loaded = await store.load("acme", "wf_1", after, limit)
            end = 300 if limit is None else min(300, after + limit)
            assert [event.version for event in loaded] == list(range(after + 1, end + 1))
        assert await store.load("acme", "wf_unknown") == []
        assert await store.load("unknown", "wf_1") == []

    async def test_the_log_gives_any_part_and_can_be_filtered_by_type(self, store: Store) -> None:
        events = [an_event("POLICY_DECISION" if n % 3 else "TOOL_INVOKE", n=n) for n in range(200)]
        await store.append(Batch("acme", "wf_1", 0, tuple(events)))
        assert [event.seq for event in await store.log("acme", 150, 10)] == list(range(150, 160))
        assert len(await store.log("acme", 0, 1000)) == 200
        some = await store.log("acme", 10, 4, ["TOOL_INVOKE", "NEVER"])
        assert [event.seq for event in some] == [12, 15, 18, 21]
        assert await store.log("unknown", 0, 10) == []

    async def test_bad_json_is_refused_before_anything_is_written(self, store: Store) -> None:
        for bad in [float("nan"), 2**60, "\ud800", object()]:
            with pytest.raises(InvalidInput):
                await store.append(Batch("acme", "wf_1", 0, (an_event(), an_event(bad=bad))))
        assert await store.version("acme", "wf_1") == 0

    async def test_a_batch_that_cannot_be_stored_does_not_harm_its_neighbours(self, store: Store) -> None:
        bad = a_batch("wf_bad", 0, workflow=a_workflow("wf_bad", purpose="\ud800"))
        batches = [a_batch("wf_1", 0), bad, a_batch("wf_2", 0)]
        answers = await asyncio.gather(*(store.append(batch) for batch in batches), return_exceptions=True)
        assert isinstance(answers[1], InvalidInput)
        assert isinstance(answers[0], Appended)
        assert isinstance(answers[2], Appended)
        assert {event.stream for event in await whole_log(store, "acme")} == {"wf_1", "wf_2"}

    async def test_a_closed_store_says_so(self, store: Store, another: Another) -> None:
        second = await another()
        await second.append(a_batch())
        await second.close()
        await second.close()
        with pytest.raises(Unavailable):
            await second.append(a_batch())
        with pytest.raises(Unavailable):
            await second.load("acme", "wf_1")
        assert await store.version("acme", "wf_1") == 1
        await second.open()
        assert await second.version("acme", "wf_1") == 1

    async def test_the_token_of_the_others_leaves_one_s_own_appends_out(self, store: Store, another: Another) -> None:
        other = await another()
        token = await store.others_token()
        await store.append(a_batch("wf_1", 0))
        assert await store.others_token() == token
        await other.append(a_batch("wf_2", 0))
        assert await store.others_token() != token

    async def test_the_change_token_tells_of_appends_by_anybody(self, store: Store, another: Another) -> None:
        second = await another()
        token = await store.change_token()
        assert await store.change_token() == token
        await store.append(a_batch())
        after_own = await store.change_token()
        await second.append(a_batch())
        assert len({token, after_own, await store.change_token()}) == 3


class LedgerContract:
    """The Merkle tree, checkpoints, and what lies beside the log."""

    async def test_an_empty_log_has_the_empty_root(self, store: Store) -> None:
        head = await store.head("nobody")
        assert (head.size, head.root) == (0, EMPTY_ROOT)
        assert await store.leaf_hashes("nobody", 0, 10) == []

    async def test_any_complete_node_can_be_had_and_proofs_made_of_them_verify(self, store: Store) -> None:
        for size in (255, 1, 1, 400, 1):
            await store.append(a_batch(events=size))
        hashes = await store.leaf_hashes("acme", 0, 658)
        tree = Tree(hashes)
        every = [(level, index) for level, nodes in enumerate(tree.levels) for index in range(len(nodes))]
        assert await store.tree_nodes("acme", every) == [tree.node(*node) for node in every]
        plan = inclusion_plan(300, 658)
        proof = plan.build(await store.tree_nodes("acme", plan.wanted))
        assert verify_inclusion(hashes[300], 300, 658, proof, (await store.head("acme")).root)
        for incomplete in [(0, 658), (8, 2), (10, 0), (-1, 0)]:
            with pytest.raises(InvalidInput):
                await store.tree_nodes("acme", [incomplete])

    async def test_a_checkpoint_is_kept_as_first_given(self, store: Store) -> None:
        await store.put_checkpoint("acme", 7, b"first")
        await store.put_checkpoint("acme", 3, b"earlier")
        await store.put_checkpoint("acme", 7, b"second")
        assert await store.checkpoints("acme") == [(3, b"earlier"), (7, b"first")]
        assert await store.checkpoints("other") == []

    async def test_a_claim_is_taken_once_and_remembers_what_the_first_said(self, store: Store) -> None:
        await store.append(a_batch(claims=(Claim("request", "k", "first"),)))
        with pytest.raises(AlreadyClaimed) as caught:
            await store.append(
                a_batch("wf_2", 0, claims=(Claim("request", "new", "x"), Claim("request", "k", "again")))
            )
        assert (caught.value.scope, caught.value.key, caught.value.value) == ("request", "k", "first")
        assert await store.claimed("acme", "request", "new") is None
        assert await store.version("acme", "wf_2") == 0
        await store.append(a_batch(tenant="other", claims=(Claim("request", "k", "own"),)))
        await store.append(a_batch(claims=(Claim("other-scope", "k", "own"),)))
        assert await store.claimed("acme", "request", "k") == "first"
        assert await store.claimed("other", "request", "k") == "own"

    async def test_of_many_who_claim_one_key_one_wins_and_all_learn_what_it_said(
        self, store: Store, another: Another
    ) -> None:
        second = await another()
        tries = [
            (store, second)[n % 2].append(a_batch(f"wf_{n}", 0, claims=(Claim("once", "k", str(n)),)))
            for n in range(30)
        ]
        answers = await asyncio.gather(*tries, return_exceptions=True)
        winners = [str(n) for n, answer in enumerate(answers) if isinstance(answer, Appended)]
        assert len(winners) == 1
        assert {answer.value for answer in answers if isinstance(answer, AlreadyClaimed)} == set(winners)
        assert len(await whole_log(store, "acme")) == 1

    async def test_a_key_claimed_twice_in_one_batch_is_refused(self, store: Store) -> None:
        with pytest.raises(AlreadyClaimed):
            await store.append(a_batch(claims=(Claim("s", "k", "a"), Claim("s", "k", "b"))))

    async def test_erasing_sealed_bytes_leaves_log_and_proofs_whole(self, store: Store) -> None:
        sealed = Sealed("seal_1", "key-1", b"\x00secret")
        await store.append(a_batch(events=3, sealed=(sealed,)))
        before = await store.head("acme")
        assert await store.unseal("acme", "seal_1") == sealed
        assert await store.unseal("other", "seal_1") is None
        assert not await store.erase("other", "seal_1")
        assert await store.erase("acme", "seal_1")
        assert not await store.erase("acme", "seal_1")
        assert await store.unseal("acme", "seal_1") is None
        assert await store.head("acme") == before
        assert len(await whole_log(store, "acme")) == 3

    async def test_a_sealed_reference_is_used_once(self, store: Store) -> None:
        await store.append(a_batch(sealed=(Sealed("seal_1", "key-1", b"a"),)))
        with pytest.raises(Conflict):
            await store.append(a_batch("wf_2", 0, sealed=(Sealed("seal_1", "key-1", b"b"),)))
        assert await store.version("acme", "wf_2") == 0

    async def test_everything_of_a_batch_is_there_or_nothing(self, store: Store) -> None:
        whole = a_batch(
            "wf_1",
            0,
            workflow=a_workflow("wf_1"),
            approvals=(an_approval("appr_1"),),
            effects=(an_effect("eff_1"),),
            claims=(Claim("s", "k", "v"),),
            sealed=(Sealed("seal_1", "key-1", b"x"),),
        )
        await store.append(whole)
        assert await store.workflow("acme", "wf_1") == whole.workflow
        assert await store.approval("acme", "appr_1") == whole.approvals[0]
        assert await store.effect("acme", "eff_1") == whole.effects[0]
        again = replace(
            whole,
            stream="wf_2",
            workflow=a_workflow("wf_2"),
            approvals=(an_approval("appr_2"),),
            effects=(an_effect("eff_2"),),
            claims=(Claim("s", "k2", "v"),),
        )  # its sealed reference is taken
        with pytest.raises(Conflict):
            await store.append(again)
        assert await store.workflow("acme", "wf_2") is None
        assert await store.approval("acme", "appr_2") is None
        assert await store.effect("acme", "eff_2") is None
        assert await store.claimed("acme", "s", "k2") is None
        assert len(await whole_log(store, "acme")) == 1

    async def test_a_snapshot_is_the_newest_of_its_shape(self, store: Store) -> None:
        assert await store.snapshot("acme", "wf_1", 1) is None
        await store.put_snapshot("acme", "wf_1", 5, 1, b"five")
        await store.put_snapshot("acme", "wf_1", 3, 1, b"three")
        assert await store.snapshot("acme", "wf_1", 1) == (5, b"five")
        await store.put_snapshot("acme", "wf_1", 5, 2, b"new shape")
        assert await store.snapshot("acme", "wf_1", 2) == (5, b"new shape")
        assert await store.snapshot("acme", "wf_1", 1) is None
        assert await store.snapshot("other", "wf_1", 2) is None
