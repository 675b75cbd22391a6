"""Two gates on one file are two processes: they decide on what is so, not on what they remember."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace

import orjson
import pytest
from pydantic import TypeAdapter

from charter.errors import CharterError, Conflict, Denied, Refused
from charter.gate import Limits
from charter.gate.loading import event_of
from charter.workflows.state import SHAPE, State, fold
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import BOB, CAT, OTHER_AGENT, Desk

pytestmark = pytest.mark.anyio

CHARGE = {"account": "acme", "cents": 5}


@pytest.fixture
async def two(opened: Open) -> tuple[Desk, Desk]:
    return await opened(), await opened()


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G5")
async def test_one_approval_invoked_from_everywhere_at_once_runs_once(
    two: tuple[Desk, Desk], upstream: Counting
) -> None:
    one, other = two
    for round_ in range(5):
        work = await one.session()
        proposal_id = await work.approved("counter__charge", account="acme", cents=round_)
        racing = [place.run(proposal_id) for _ in range(3) for place in (work, work.at(other))]
        answers = await asyncio.gather(*racing, return_exceptions=True)
        assert len([a for a in answers if not isinstance(a, CharterError)]) == 1
        assert {a.error_code for a in answers if isinstance(a, CharterError)} <= {"already_used", "busy"}
    assert [call["cents"] for call in upstream.calls()] == list(range(5))
    await one.check_record()


@pytest.mark.guarantee("G4")
async def test_two_people_who_decide_at_once_are_two_decisions_at_most(two: tuple[Desk, Desk]) -> None:
    one, other = two
    for _ in range(5):
        work = await one.session()
        _, approval_id = await work.asked("counter__charge", **CHARGE)
        racing = (one.decide(approval_id, "approve", BOB), other.decide(approval_id, "reject", CAT))
        answers = await asyncio.gather(*racing, return_exceptions=True)
        assert len([a for a in answers if isinstance(a, Refused)]) == 1
        decided = [e.data["decision"] for e in await one.events(work.workflow_id) if e.type == "APPROVAL_DECISION"]
        assert len(decided) == 1
    await one.check_record()


@pytest.mark.guarantee("G1")
async def test_a_process_that_remembers_an_old_state_does_not_act_on_it(
    two: tuple[Desk, Desk], upstream: Counting
) -> None:
    one, other = two
    work = await one.session()
    elsewhere = work.at(other)
    assert (await elsewhere.invoke("counter__read", what="x")).status == "succeeded"  # it remembers the run now
    proposal_id = await work.approved("counter__charge", **CHARGE)
    assert (await elsewhere.run(proposal_id)).status == "succeeded", "and finds what was proposed meanwhile"
    await work.cancel()
    with pytest.raises(Denied):
        await elsewhere.invoke("counter__read", what="y")
    assert (await elsewhere.context()).status == "cancelled"
    assert [call["tool"] for call in upstream.calls()] == ["read", "charge"]
    await one.check_record()


async def test_many_commands_on_one_run_from_two_processes_all_find_their_place(two: tuple[Desk, Desk]) -> None:
    one, other = two
    work = await one.session()
    calls = [place.invoke("counter__read", what=f"{n}") for n in range(10) for place in (work, work.at(other))]
    assert {outcome.status for outcome in await asyncio.gather(*calls)} == {"succeeded"}
    types = await one.types(work.workflow_id)
    assert types.count("TOOL_INVOKE") == types.count("TOOL_RESULT") == 20
    await one.check_record()


@pytest.mark.guarantee("G6")
async def test_a_start_under_one_key_is_one_run_however_often_and_wherever_it_is_sent(two: tuple[Desk, Desk]) -> None:
    one, other = two
    starts = [desk.start(idempotency_key="k", input={"n": 1}) for _ in range(5) for desk in two]
    assert len({started.workflow_id for started in await asyncio.gather(*starts)}) == 1
    for changed in ({"input": {"n": 2}}, {"purpose": "other"}, {"dry_run": True}, {"case_id": "c"}):
        with pytest.raises(Conflict) as conflict:
            await other.start(**{"idempotency_key": "k", "input": {"n": 1}} | changed)
        assert conflict.value.error_code == "idempotency_key_reused"
    assert await one.start(by=OTHER_AGENT, idempotency_key="k"), "a key belongs to who sends it"
    await one.check_record()


async def test_a_snapshot_is_the_fold_of_the_log_and_only_a_cache(opened: Open) -> None:
    desk = await opened(limits=Limits(snapshot_every=5))
    work = await desk.session(case_id="c")
    await desk.grant(work.workflow_id, "counter__write_idempotent")
    for n in range(4):
        await work.invoke("counter__read", what=f"{n}")
    await work.approved("counter__charge", **CHARGE)
    await work.approved("counter__secret_echo", password="p", note="n")
    await work.invoke("counter__write_idempotent", what="a", value="1")
    await desk.gate.states.settle()
    version = await desk.store.version("default", work.workflow_id)
    fresh = await opened(limits=Limits(snapshot_every=5))
    snapshot = await fresh.gate.states._snapshot("default", work.workflow_id)
    assert snapshot is not None
    assert version - 10 < snapshot.version <= version
    stored = [event_of(item) for item in await fresh.store.load("default", work.workflow_id)]
    start = State(workflow_id=work.workflow_id, tenant="default")
    assert asdict(snapshot) == asdict(fold(start, stored[: snapshot.version]))
    assert await fresh.gate.states.fresh("default", work.workflow_id) == fold(start, stored)
    await desk.store.put_snapshot("default", work.workflow_id, version + 1, SHAPE, b"{not json")
    another = await opened()
    assert await another.gate.states.fresh("default", work.workflow_id) == fold(start, stored)


async def test_a_snapshot_that_another_hand_wrote_is_not_believed(opened: Open) -> None:
    """Who can write the database could else put an approval into a state that the log does not hold."""
    desk = await opened(limits=Limits(snapshot_every=2))
    work = await desk.session()
    for n in range(3):
        await work.invoke("counter__read", what=f"{n}")
    await desk.gate.states.settle()
    stored = [event_of(item) for item in await desk.store.load("default", work.workflow_id)]
    true = fold(State(workflow_id=work.workflow_id, tenant="default"), stored)
    forged = TypeAdapter(State).dump_json(replace(true, owner="mallory", version=true.version))
    await desk.store.put_snapshot("default", work.workflow_id, true.version, SHAPE, forged)
    other = await opened()
    assert await other.gate.states.fresh("default", work.workflow_id) == true


@pytest.mark.guarantee("G6")
async def test_a_snapshot_of_an_older_shape_is_left_aside_and_the_log_folded(opened: Open, upstream: Counting) -> None:
    """As an older Charter wrote them: sealed and whole, with other fields; the next snapshot takes its place."""
    limits = Limits(snapshot_every=2)
    desk = await opened(limits=limits)
    work = await desk.session()
    for n in range(3):
        await work.invoke("counter__read", what=f"{n}")
    await desk.gate.states.settle()
    stored = [event_of(item) for item in await desk.store.load("default", work.workflow_id)]
    true = fold(State(workflow_id=work.workflow_id, tenant="default"), stored)
    for shape, body in ((SHAPE - 1, {"run": work.workflow_id, "phase": "old"}), (SHAPE, {"phase": "old"})):
        version = true.version + SHAPE - shape + 1
        name = f"snapshot:{work.workflow_id}:{version}:{shape}"
        sealed = desk.gate.parts.sealer.seal("default", name, orjson.dumps(body | {"version": version}))
        data = sealed.key_id.encode() + b"\0" + sealed.blob
        await desk.store.put_snapshot("default", work.workflow_id, version, shape, data)
        assert await desk.store.snapshot("default", work.workflow_id, shape) == (version, data), "it is there"
        other = await opened(limits=limits)
        assert await other.gate.states.fresh("default", work.workflow_id) == true
    await desk.store.put_snapshot("default", work.workflow_id, 1, SHAPE - 1, b"old")
    other = await opened(limits=limits)
    await work.at(other).invoke("counter__read", what="on")
    await other.gate.states.settle()
    assert await other.store.snapshot("default", work.workflow_id, SHAPE - 1) is None
    assert await other.store.snapshot("default", work.workflow_id, SHAPE) is not None
    await work.at(await opened(limits=limits)).complete()
    await other.check_record()
