"""Signals at the gate: let in by the policy, delivered by a lookup, once each, and on record before they are acknowledged."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from charter.errors import Denied, InvalidInput, Unavailable
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.model.reply import SignalSent
from charter.model.signal import Signal
from charter.model.template import Template
from charter.policies.shipped import shipped_files
from charter.server.evaluator import PolicySets
from charter.store.port import Filter, Page
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, OPS, Desk, template

pytestmark = pytest.mark.anyio
WAIT = {"id": "paid", "type": "wait", "signal": {"type": "invoice.paid", "where": "signal.data.no == trigger.no"}}
BILL = template("bill", WAIT, output="{{ steps.paid.output.signal.data.by }}")
TWICE = template("twice", WAIT, {**WAIT, "id": "again"})
ELSEWHERE = Principal(id="ops", kind="human", roles=("operator",), tenant="other")


async def send(desk: Desk, no: int = 7, id_: str = "s1", by: Principal = OPS, **more: Any) -> SignalSent:
    signal = Signal(id=id_, source="billing", type="invoice.paid", data={"no": no, "by": "ann", **more.pop("data", {})})
    answer: SignalSent = await desk.gate.handle(by, cmd.SendSignal(signal=signal, **more))
    return answer


async def status(desk: Desk, run: Any) -> str:
    return str((await desk.queries.workflow(ANN, run.workflow_id)).status)


async def test_a_signal_wakes_the_runs_that_it_matches_and_is_on_both_records(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL,))
    mine, other = await desk.start("bill", input={"no": 7}), await desk.start("bill", input={"no": 8})
    sent = await send(desk)
    assert sent == SignalSent(status="received", woken=(mine.workflow_id,))
    assert [await status(desk, run) for run in (mine, other)] == ["completed", "waiting"]
    (received,) = [event for event in await desk.events("tenant:default") if event.type == "SIGNAL_RECEIVED"]
    (delivered,) = [event for event in await desk.events(mine.workflow_id) if event.type == "SIGNAL_DELIVERED"]
    assert received.causation_id == delivered.causation_id
    assert received.data["woken"] == [mine.workflow_id]
    assert await desk.store.waiting_for("default", "invoice.paid", "", 9) == [other.workflow_id]
    await desk.check_record()


async def test_the_same_signal_again_wakes_nothing_twice(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL, TWICE))
    run = await desk.start("twice", input={"no": 7})
    await send(desk)
    late = await desk.start("bill", input={"no": 7})
    assert await send(await opened(templates=(BILL, TWICE))) == SignalSent(status="duplicate")
    assert (await status(desk, run), await status(desk, late)) == ("waiting", "waiting")
    assert (await send(desk, id_="s2")).woken == tuple(sorted((run.workflow_id, late.workflow_id)))
    assert await status(desk, run) == "completed"
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_a_sender_that_got_no_answer_sends_again_and_each_run_takes_it_once(
    opened: Open, upstream: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is gone after the first of two runs went on, before anything was acknowledged."""
    desk = await opened(templates=(TWICE,))
    runs = [await desk.start("twice", input={"no": 7}) for _ in range(2)]
    append, left = desk.store.append, [1]

    async def dying(batch: Any) -> Any:
        if not left:
            raise Unavailable("gone")
        left.pop()
        return await append(batch)

    monkeypatch.setattr(desk.store, "append", dying)
    with pytest.raises(Unavailable):
        await send(desk)
    after = await opened(templates=(TWICE,))
    assert len((await send(after)).woken) == 1
    for run in runs:
        assert (await after.types(run.workflow_id)).count("SIGNAL_DELIVERED") == 1
    await after.check_record()


async def test_the_same_signal_twice_at_once_wakes_each_run_once(opened: Open, upstream: Counting) -> None:
    one, other = await opened(templates=(TWICE,)), await opened(templates=(TWICE,))
    runs = [await one.start("twice", input={"no": 7}) for _ in range(3)]
    await asyncio.gather(*(send(desk) for desk in (one, other, one, other)))
    for run in runs:
        assert (await one.types(run.workflow_id)).count("SIGNAL_DELIVERED") == 1
    assert (await one.types("tenant:default")).count("SIGNAL_RECEIVED") == 1
    await one.check_record()


async def test_who_may_send(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL,))
    run, other = await desk.start("bill", input={"no": 7}), await desk.start("bill", input={"no": 7})
    service = Principal(id="billing", kind="service")
    for somebody in (AGENT, ANN, service, AGENT.model_copy(update={"roles": ("operator",)})):
        with pytest.raises(Denied):
            await send(desk, by=somebody)
        with pytest.raises(Denied):
            await send(desk, by=somebody.model_copy(update={"roles": ()}), workflow_id=run.workflow_id)
    assert (await desk.types("tenant:default")).count("POLICY_DECISION") == 8
    assert (await send(desk, workflow_id=run.workflow_id)).woken == (run.workflow_id,)
    assert await status(desk, other) == "waiting"
    assert (await send(desk, by=service.model_copy(update={"roles": ("operator",)}))).woken == (other.workflow_id,)
    await desk.check_record()


async def test_a_signal_to_one_run_uses_up_no_name_of_those_to_all(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(TWICE,))
    run = await desk.start("twice", input={"no": 7})
    await send(desk, workflow_id=run.workflow_id)
    assert (await send(desk, workflow_id=run.workflow_id)).status == "duplicate"
    assert (await send(desk)).woken == (run.workflow_id,)


@pytest.mark.guarantee("G9")
async def test_a_signal_stays_in_its_tenant(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL,))
    run = await desk.start("bill", input={"no": 7})
    assert (await send(desk, by=ELSEWHERE)).woken == ()
    assert await status(desk, run) == "waiting"
    assert (await send(desk)).status == "received"


@pytest.mark.guarantee("G10")
async def test_data_that_is_too_large_is_refused_and_nothing_is_recorded(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL,))
    with pytest.raises(InvalidInput) as caught:
        await send(desk, data={"text": "x" * 70_000})
    assert caught.value.error_code == "signal_too_large"
    assert await desk.whole_log() == []


async def test_a_cancelled_run_is_found_no_more(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL,))
    run = await desk.start("bill", input={"no": 7})
    await desk.gate.handle(ANN, cmd.CancelWorkflow(workflow_id=run.workflow_id))
    assert await desk.store.waiting_for("default", "invoice.paid", "", 9) == []
    assert (await send(desk)).woken == ()


def starting(name: str, where: str | None = None, **more: Any) -> Template:
    on_signal = [{"type": "invoice.paid", **({"where": where} if where else {})}]
    steps = [{"id": "work", "type": "agent"}]
    return Template.model_validate({"name": name, "version": "1", "on_signal": on_signal, "steps": steps, **more})


STRICT = {"type": "object", "required": ["customer"]}


async def test_a_signal_starts_what_asks_for_it_and_a_template_that_refuses_hinders_no_other(
    opened: Open, upstream: Counting
) -> None:
    templates = (
        starting("broken", "signal.data.none == 1"),
        starting("large", "signal.data.no > 100"),
        starting("strict", input=STRICT),
        starting("thanks", "signal.data.no == 7"),
    )
    desk = await opened(templates=templates)
    sent = await send(desk)
    (workflow_id,) = sent.started
    assert {ref: why.partition(":")[0] for ref, why in sent.not_started.items()} == {
        "broken@1": "expression_error",
        "strict@1": "invalid_arguments",
    }
    first = (await desk.events(workflow_id))[0]
    assert (first.data["template"], first.data["input"]) == ("thanks@1", {"no": 7, "by": "ann"})
    received = (await desk.events("tenant:default"))[-1]
    assert received.causation_id == first.causation_id
    assert received.data["started"] == [workflow_id]
    assert "POLICY_DECISION" in await desk.types(workflow_id)
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_a_signal_again_starts_nothing_twice_whoever_sends_it_and_whatever_was_acknowledged(
    opened: Open, upstream: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await opened(templates=(starting("one"), starting("two")))
    append, left = desk.store.append, [1]

    async def dying(batch: Any) -> Any:
        if not left:
            raise Unavailable("gone")
        left.pop()
        return await append(batch)

    with monkeypatch.context() as broken:
        broken.setattr(desk.store, "append", dying)
        with pytest.raises(Unavailable):
            await send(desk)
    billing = Principal(id="billing", kind="service", roles=("operator",))
    assert len((await send(desk, by=billing)).started) == 2
    assert await send(desk) == SignalSent(status="duplicate")
    assert len((await desk.store.workflows("default", Filter(), Page()))[0]) == 2
    await desk.check_record()


async def test_a_start_that_the_policy_denies_is_on_record_and_the_signal_too(
    opened: Open, upstream: Counting, tools: tuple[Governed, Runner], tmp_path: Path
) -> None:
    files = shipped_files()
    files["authorise.cedar"] += """
@id("no-starts") @reason("Not today.") @code("closed") @next("Tomorrow.")
forbid (principal, action == Charter::Action::"workflow.start", resource);
"""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    sets = PolicySets(tmp_path, None, tools[0].all())
    desk = await opened(templates=(starting("one"), BILL), policies=sets)
    sent = await send(desk)
    assert (sent.status, sent.started) == ("received", ())
    assert sent.not_started["one@1"].startswith("closed: ")
    verdicts = [event.data["verdict"] for event in await desk.events("tenant:default") if "verdict" in event.data]
    assert verdicts == ["deny", "permit"]


async def test_a_signal_to_one_run_starts_nothing(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(BILL, starting("one")))
    run = await desk.start("bill", input={"no": 7})
    assert (await send(desk, workflow_id=run.workflow_id)).started == ()
