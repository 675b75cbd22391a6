"""Effects: under one key, at most once unless idempotent, in doubt where nobody knows, and settled after a crash."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from charter.errors import Denied, Refused, Unavailable
from charter.model import commands as cmd
from charter.model.effect import EffectOutcome
from charter.model.principal import service
from charter.model.tool import Quarantine, ToolManifest
from charter.store.port import Batch, Store
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, BOB, Desk, Work

pytestmark = pytest.mark.anyio

ENGINE = service("engine", "default")


@pytest.mark.guarantee("G5")
async def test_an_idempotent_tool_whose_answer_is_lost_is_tried_again_under_the_same_key(
    desk: Desk, upstream: Counting
) -> None:
    work = await desk.session()
    proposal_id = await work.approved("counter__write_idempotent", what="a", value="1", lose=True)
    outcome = await work.run(proposal_id)
    assert (outcome.status, outcome.content[0]["text"]) == ("succeeded", "a is 1")
    intents = [event.data for event in await desk.events(work.workflow_id) if event.type == "TOOL_INVOKE"]
    assert [intent.get("attempt") for intent in intents] == [1, 2]
    assert list(upstream.counts("write_idempotent").values()) == [2], "one key, two requests"
    await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_any_other_tool_whose_answer_is_lost_is_in_doubt_and_never_repeated(
    desk: Desk, upstream: Counting
) -> None:
    work = await desk.session()
    outcome = await work.run(await work.approved("counter__slow", seconds=60))
    assert (outcome.status, outcome.error_code) == ("in_doubt", "upstream_timeout")
    assert "Do not repeat" in outcome.next_step
    blocker = next(b for b in (await work.context()).blocked_by if b.what == "effect_in_doubt")
    assert blocker.effect_id == outcome.effect_id
    assert len(upstream.calls()) == 1
    await desk.check_record()


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize(("resolution", "calls"), [("ran", 1), ("did_not_run", 1), ("retry", 2)])
async def test_an_operator_finds_out_what_became_of_it(
    desk: Desk, upstream: Counting, resolution: str, calls: int
) -> None:
    work = await desk.session()
    doubt = await work.run(await work.approved("counter__slow", seconds=60))
    for nobody in (AGENT, BOB):
        with pytest.raises(Denied):
            await desk.resolve(work.workflow_id, doubt.effect_id, resolution, by=nobody)
    await desk.resolve(work.workflow_id, doubt.effect_id, resolution, comment="I looked.")
    with pytest.raises(Refused) as refused:
        await desk.resolve(work.workflow_id, "eff_nobody", resolution)
    assert refused.value.error_code == "not_in_doubt"
    assert len(upstream.calls()) == calls
    assert len(upstream.counts("slow")) == 1, "always the same key"
    await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_a_lost_read_is_a_failure_because_nothing_happened(opened: Open, upstream: Counting) -> None:
    desk = await opened(runner=Lost())
    work = await desk.session()
    outcome = await work.invoke("counter__read", what="x")
    assert (outcome.status, outcome.error_code) == ("failed", "upstream_lost")
    told = f"{outcome.error_message} {outcome.next_step}"
    assert "may have run or still be running" in told
    assert "nothing was changed" in told
    assert "did not run" not in told
    assert not await desk.effects()


class Lost:
    """A runner whose answers never come."""

    async def run(self, effect: Any, **_: Any) -> EffectOutcome:
        return EffectOutcome(status="unknown", error_code="upstream_lost", error_message="The connection broke.")

    async def preview(self, *_: Any) -> None:
        return None


class Died(BaseException):
    """The process is gone: nothing after this point happens in it."""


class Dying:
    """Runs the tool, or not, and dies before the outcome can be written."""

    def __init__(self, runner: Runner, *, sends: bool) -> None:
        self._runner, self._sends = runner, sends

    async def run(self, effect: Any, **more: Any) -> Any:
        if self._sends:
            await self._runner.run(effect, **more)
        raise Died

    async def preview(self, *_: Any) -> None:
        return None


@asynccontextmanager
async def after_a_crash(
    opened: Open, runner: Runner, tool: str, arguments: dict[str, Any], *, sends: bool, **more: Any
) -> AsyncIterator[tuple[Desk, Work, str]]:
    """A process that died in the middle of a call, and another one on the same file. ``dead``: the first one's tools."""
    first = {"tools": more.pop("dead")} if "dead" in more else {}
    dead = await opened(runner=Dying(runner, sends=sends), **first)
    work = await dead.session()
    proposal_id = await work.approved(tool, **arguments)
    with pytest.raises(Died):
        await work.run(proposal_id)
    dead.store._instances.close()  # type: ignore[attr-defined]
    desk = await opened(**more)
    yield desk, work.at(desk), proposal_id


WRITE = {"what": "a", "value": "1"}
CHARGE = {"account": "acme", "cents": 5}


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("sends", [True, False])
async def test_after_a_crash_an_idempotent_call_is_run_again_under_its_key(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting, sends: bool
) -> None:
    async with after_a_crash(opened, tools[1], "counter__write_idempotent", WRITE, sends=sends) as (desk, work, _):
        assert await desk.engine.recover() == 1
        assert (await desk.last(work.workflow_id, "TOOL_RESULT"))["status"] == "succeeded"
        assert list(upstream.counts("write_idempotent").values()) == [1 + sends]
        assert await desk.engine.recover() == 0
        await desk.check_record()


class Judged:
    """Tools of which one is judged otherwise by its manifest; its definition is the same."""

    def __init__(self, tools: Governed, name: str, **judgement: Any) -> None:
        self._tools, self._name, self._judgement = tools, name, judgement

    def find(self, name: str) -> ToolManifest | None:
        found = self._tools.find(name)
        return found.model_copy(update=self._judgement) if found is not None and name == self._name else found

    def quarantine(self, name: str) -> Quarantine | None:
        return self._tools.quarantine(name)

    def all(self) -> tuple[ToolManifest, ...]:
        return self._tools.all()


@pytest.mark.guarantee("G5")
async def test_after_a_crash_a_call_without_side_effects_is_run_again_though_nobody_called_it_idempotent(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    judged = Judged(tools[0], "counter__write_idempotent", side_effects="none", idempotent=False)
    crashed = after_a_crash(opened, tools[1], "counter__write_idempotent", WRITE, sends=True, tools=judged, dead=judged)
    async with crashed as (desk, work, _):
        assert await desk.engine.recover() == 1
        assert (await desk.last(work.workflow_id, "TOOL_RESULT"))["status"] == "succeeded"
        assert list(upstream.counts("write_idempotent").values()) == [2]
        await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_after_a_crash_a_call_that_may_be_repeated_no_more_is_in_doubt(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    """Somebody corrected the manifest meanwhile: what the record of the intent says is not enough."""
    judged = Judged(tools[0], "counter__write_idempotent", idempotent=False)
    crashed = after_a_crash(opened, tools[1], "counter__write_idempotent", WRITE, sends=True, tools=judged)
    async with crashed as (desk, _, _):
        assert await desk.engine.recover() == 1
        assert [row.status for row in await desk.effects()] == ["in_doubt"]
        assert list(upstream.counts("write_idempotent").values()) == [1]
        await desk.check_record()


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("sends", [True, False])
async def test_after_a_crash_any_other_call_is_in_doubt(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting, sends: bool
) -> None:
    async with after_a_crash(opened, tools[1], "counter__charge", CHARGE, sends=sends) as (desk, work, proposal_id):
        assert await desk.engine.recover() == 1
        assert [row.status for row in await desk.effects()] == ["in_doubt"]
        with pytest.raises(Refused) as refused:
            await work.run(proposal_id)
        assert refused.value.error_code == "effect_in_doubt"
        assert "Do not propose it again" in refused.value.next_step
        assert len(upstream.calls()) == sends
        await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_a_living_process_s_calls_are_left_alone(opened: Open, tools: tuple[Governed, Runner]) -> None:
    living = await opened(runner=Dying(tools[1], sends=False))
    work = await living.session()
    with pytest.raises(Died):
        await work.run(await work.approved("counter__charge", **CHARGE))
    other = await opened()
    assert await other.engine.recover() == 0
    assert [row.status for row in await other.effects()] == ["running"]


class Changed:
    """Tools of which one was pinned anew, or no longer matches its pin."""

    def __init__(self, tools: Governed, name: str, *, quarantined: bool) -> None:
        self._tools, self._name, self._quarantined = tools, name, quarantined

    def find(self, name: str) -> ToolManifest | None:
        found = self._tools.find(name)
        if found is None or name != self._name or self._quarantined:
            return found
        return found.model_copy(update={"definition_hash": "sha256:" + "0" * 64})

    def quarantine(self, name: str) -> Quarantine | None:
        if name == self._name and self._quarantined:
            return Quarantine(tool=name, pinned_hash="sha256:a", offered_hash="sha256:b", diff="-old\n+new")
        return None

    def all(self) -> tuple[ToolManifest, ...]:
        return self._tools.all()


@pytest.mark.guarantee("G3")
@pytest.mark.guarantee("G5")
@pytest.mark.parametrize("quarantined", [True, False])
async def test_a_tool_that_changed_meanwhile_is_not_run_again(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting, quarantined: bool
) -> None:
    changed = Changed(tools[0], "counter__write_idempotent", quarantined=quarantined)
    crashed = after_a_crash(opened, tools[1], "counter__write_idempotent", WRITE, sends=False, tools=changed)
    async with crashed as (desk, work, _):
        assert await desk.engine.recover() == 1
        assert [row.status for row in await desk.effects()] == ["in_doubt"]
        with pytest.raises(Refused) as refused:
            await desk.resolve(work.workflow_id, (await desk.effects())[0].effect_id, "retry")
        assert refused.value.error_code == "cannot_retry"
        assert upstream.calls() == []


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("caller", [AGENT, BOB, service("engine", "default").model_copy(update={"roles": ()})])
async def test_the_engine_s_commands_take_no_other_caller(desk: Desk, caller: Any) -> None:
    work = await desk.session()
    for command in (
        cmd.RunStep(workflow_id=work.workflow_id, step_id="work"),
        cmd.RecoverEffect(workflow_id=work.workflow_id, effect_id="eff_1", dead_instance="srv_1"),
    ):
        with pytest.raises(Denied) as denied:
            await desk.gate.handle(caller, command)
        assert denied.value.error_code == "not_for_callers"


class Full:
    """A store that cannot write such events for a while: a full disk, another process's long transaction."""

    def __init__(self, store: Store, type: str) -> None:
        self._append, self._type, self.full = store.append, type, True
        store.append = self.append  # type: ignore[method-assign]

    async def append(self, batch: Batch) -> Any:
        if self.full and any(event.type == self._type for event in batch.events):
            raise Unavailable("The disk is full.", code="store_unavailable")
        return await self._append(batch)


@pytest.mark.guarantee("G5")
@pytest.mark.guarantee("G6")
async def test_no_tool_runs_whose_intent_could_not_be_written(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", **CHARGE)
    full = Full(desk.store, "TOOL_INVOKE")
    with pytest.raises(Unavailable):
        await work.run(proposal_id)
    assert upstream.calls() == []
    full.full = False
    assert (await work.run(proposal_id)).status == "succeeded"
    assert len(upstream.calls()) == 1
    assert await desk.effects() == []


@pytest.mark.guarantee("G5")
async def test_an_outcome_that_could_not_be_written_is_written_later(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id = await work.approved("counter__charge", **CHARGE)
    full = Full(desk.store, "TOOL_RESULT")
    with pytest.raises(Unavailable) as unavailable:
        await work.run(proposal_id)
    assert unavailable.value.error_code == "outcome_not_recorded"
    assert "Do not repeat" in unavailable.value.next_step
    await desk.engine.settle()
    assert [row.status for row in await desk.effects()] == ["running"]
    full.full = False
    await desk.engine.settle()
    assert (await desk.last(work.workflow_id, "TOOL_RESULT"))["status"] == "succeeded"
    assert await desk.effects() == []
    assert len(upstream.calls()) == 1
    await desk.check_record()
