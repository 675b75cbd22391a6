"""What leaves: each lifecycle event once or more, in order, to whoever asks; nobody waits for anybody else."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

from charter.engine.outbox import Inside, Outbox, Subscriber, UndeliveredError
from charter.engine.webhooks import Webhook
from charter.errors import Denied, NotFound
from charter.gate.outgoing import Outgoing, Outlet
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.template import Template
from charter.policies.shipped import shipped_files
from charter.server.evaluator import PolicySets
from charter.store.port import Filter, Page
from charter.tools.egress import Egress, GuardedClient
from charter.tools.runner import Runner
from charter.tools.webhooks import key_of, verify
from tests.engine.receiving import receiver
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, OPS, Clock, Desk, desk_on, template

pytestmark = pytest.mark.anyio
SECRET = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
ASK = template("ask", {"id": "sure", "type": "approval", "question": "Sure, {{ trigger.secret }}?"})
SAY = template(
    "say",
    {
        "id": "tell",
        "type": "signal",
        "signal": {"type": "invoice.due", "subject": "no {{ trigger.no }}", "data": {"no": "{{ trigger.no }}"}},
    },
)


def hears(name: str, type_: str, *steps: JsonObject, where: str | None = None) -> Template:
    steps = steps or ({"id": "work", "type": "agent"},)
    start = {"type": type_, **({"where": where} if where else {})}
    return Template.model_validate({"name": name, "version": "1", "on_signal": [start], "steps": list(steps)})


class Listener:
    """Remembers what it was told; ``answer`` may raise or wait."""

    def __init__(self, name: str = "listener", answer: Callable[[Outgoing], Any] | None = None) -> None:
        self.name, self.attempts, self.heard = name, 3, list[Outgoing]()
        self._answer, self._more = answer, asyncio.Event()

    def pause(self, attempt: int) -> float:
        return 0.001

    async def deliver(self, tenant: str, item: Outgoing) -> bool:
        if self._answer is not None:
            answered = self._answer(item)
            if asyncio.iscoroutine(answered):
                await answered
        self.heard.append(item)
        self._more.set()
        return True

    @property
    def types(self) -> list[str]:
        return [item.signal.type for item in self.heard]

    async def until(self, enough: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not enough():
                self._more.clear()
                await self._more.wait()


async def eventually(look: Callable[[], Awaitable[Any]]) -> Any:
    """What ``look`` finds, as soon as it finds anything."""
    with anyio.fail_after(30):
        while True:
            if found := await look():
                return found
            await anyio.sleep(0.005)


async def _kept(desk: Desk, tenant: str, name: str) -> bool:
    return await desk.store.place(tenant, name) is not None


@asynccontextmanager
async def outbox(desk: Desk, *subscribers: Subscriber, tenant: str = "default") -> AsyncIterator[Outlet]:
    outlet = Outlet(desk.gate)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Outbox(desk.gate, outlet, everywhere=(), by_tenant={tenant: subscribers}).run)
        for each in subscribers:
            await eventually(partial(_kept, desk, tenant, each.name))
        yield outlet
        tasks.cancel_scope.cancel()


async def test_a_run_is_told_from_its_start_to_its_end(opened: Open, upstream: Counting) -> None:
    desk, listener = await opened(templates=(ASK,)), Listener()
    async with outbox(desk, listener):
        run = await desk.start("ask", input={"secret": "s3cret"}, case_id="case-9")
        (approval,), _ = await desk.queries.approvals(OPS, **_pending())
        await desk.decide(approval.approval_id, by=OPS.model_copy(update={"roles": ("approver",)}))
        await listener.until(lambda: "workflow.run.completed" in listener.types)
    assert listener.types == [
        "workflow.run.started",
        "workflow.step.opened",
        "approval.requested",
        "approval.decided",
        "workflow.step.completed",
        "workflow.run.completed",
    ]
    events = {event.id: event for event in await desk.events(run.workflow_id)}
    for item in listener.heard:
        signal = item.signal
        assert events[signal.id].seq == item.seq
        assert (signal.source, signal.subject) == (f"urn:charter:default:{run.workflow_id}", run.workflow_id)
        assert (signal.correlation_id, signal.causation_id) == (run.workflow_id, events[signal.id].causation_id)
        assert signal.data["template"] == "ask@1"
        assert signal.data["case_id"] == "case-9"
        assert "s3cret" not in signal.model_dump_json()
    requested = listener.heard[2].signal.data
    assert requested["approval_id"] == approval.approval_id
    await desk.check_record()


def _pending() -> dict[str, Any]:
    return {"where": Filter(status="pending"), "page": Page()}


@pytest.mark.guarantee("G6")
async def test_what_was_not_acknowledged_is_told_again_by_the_next_process_in_order(
    opened: Open,
    upstream: Counting,
    tools: tuple[Governed, Runner],
    shipped: PolicySets,
    clock: Clock,
    tmp_path: Path,
) -> None:
    """The first process is gone in the middle of a delivery; another goes on with that signal."""
    hang, begun = anyio.Event(), anyio.Event()

    async def dying(item: Outgoing) -> None:
        if len(first.heard) == 3:
            begun.set()
            await hang.wait()

    first, second = Listener("hook", dying), Listener("hook")
    path = tmp_path / "charter.sqlite"
    async with desk_on(path, *tools, clock, templates=(SAY,), policies=shipped) as one, outbox(one, first):
        for number in range(3):
            await one.start("say", input={"no": number})
        with anyio.fail_after(30):
            await begun.wait()
    other = await opened(templates=(SAY,))
    async with outbox(other, second):
        await other.start("say", input={"no": 3})
        await second.until(
            lambda: second.types.count("workflow.run.completed") == 4 - first.types.count("workflow.run.completed")
        )
    told = [(item.signal.subject, item.seq) for item in (*first.heard, *second.heard)]
    every = [row.seq for row in await other.whole_log() if row.type.startswith(("WORKFLOW", "SIGNAL"))]
    assert sorted({seq for _, seq in told}) == every
    assert [seq for _, seq in told] == sorted(seq for _, seq in told)


async def test_only_one_process_delivers(opened: Open, upstream: Counting) -> None:
    one, other = await opened(templates=(SAY,)), await opened(templates=(SAY,))
    mine, yours = Listener("hook"), Listener("hook")
    async with outbox(one, mine), anyio.create_task_group() as tasks:
        tasks.start_soon(Outbox(other.gate, Outlet(other.gate), by_tenant={"default": (yours,)}).run)
        await other.start("say", input={"no": 1})
        await mine.until(lambda: "workflow.run.completed" in mine.types)
        tasks.cancel_scope.cancel()
    assert yours.heard == []


async def test_a_slow_receiver_stalls_no_other(opened: Open, upstream: Counting) -> None:
    never = anyio.Event()
    slow, quick = Listener("slow", lambda _: never.wait()), Listener("quick")
    desk = await opened(templates=(SAY,))
    async with outbox(desk, slow, quick):
        await desk.start("say", input={"no": 1})
        await quick.until(lambda: "workflow.run.completed" in quick.types)
    assert slow.heard == []


async def test_what_nobody_takes_is_put_on_record_once_and_left_behind(opened: Open, upstream: Counting) -> None:
    def refuses(item: Outgoing) -> None:
        tries.append(item.seq)
        if item.signal.type == "invoice.due":
            raise UndeliveredError("HTTP 500")

    tries: list[int] = []
    desk, listener = await opened(templates=(SAY,)), Listener("hook", refuses)
    async with outbox(desk, listener) as outlet:
        run = await desk.start("say", input={"no": 1})
        await listener.until(lambda: "workflow.run.completed" in listener.types)
        (left,) = await outlet.undelivered(OPS)
        with pytest.raises(Denied):
            await outlet.undelivered(AGENT)
    assert (left["subscriber"], left["signal_type"], left["attempts"]) == ("hook", "invoice.due", 3)
    assert tries.count(left["seq"]) == 3
    assert "invoice.due" not in listener.types
    assert left["signal_id"] in [event.id for event in await desk.events(run.workflow_id)]
    await desk.check_record()


async def test_what_was_given_up_goes_out_again_when_an_operator_says_so(opened: Open, upstream: Counting) -> None:
    left = ["invoice.due"]

    def refuses(item: Outgoing) -> None:
        if item.signal.type in left:
            raise UndeliveredError("HTTP 500")

    desk, listener, other = await opened(templates=(SAY,)), Listener("hook", refuses), Listener("other")
    async with outbox(desk, listener, other) as outlet:
        await desk.start("say", input={"no": 1})
        await listener.until(lambda: "workflow.run.completed" in listener.types)
        (first,) = await outlet.undelivered(OPS)
        again = cmd.ResendSignal(signal_id=first["signal_id"])
        with pytest.raises(Denied):
            await desk.gate.handle(AGENT, again)
        with pytest.raises(NotFound):
            await desk.gate.handle(OPS, cmd.ResendSignal(signal_id=first["signal_id"], subscriber="other"))
        assert await desk.gate.handle(OPS, again) == ("hook",)
        second = await eventually(lambda: outlet.undelivered(OPS))
        assert second[0]["seq"] > first["seq"], "given up again, it is listed again"
        left.clear()
        assert await desk.gate.handle(OPS, again) == ("hook",)
        await listener.until(lambda: "invoice.due" in listener.types)
        with pytest.raises(NotFound):
            await desk.gate.handle(OPS, again)
        assert await outlet.undelivered(OPS) == []
        told, _ = await outlet.newest(OPS, 100)
    assert listener.heard[-1].signal == next(item.signal for item in other.heard if item.signal.type == "invoice.due")
    assert [other.types.count("invoice.due"), [item.signal.type for item in told].count("invoice.due")] == [1, 1]
    await desk.check_record()


async def test_a_mistake_in_a_subscriber_stalls_nobody_and_loses_nothing(
    opened: Open, upstream: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charter.engine.outbox.STUCK_SECONDS", 0.001)
    wrong = [True]

    def mistaken(_item: Outgoing) -> None:
        if wrong:
            wrong.pop()
            raise ZeroDivisionError

    desk, listener = await opened(templates=(SAY,)), Listener("hook", mistaken)
    async with outbox(desk, listener):
        await desk.start("say", input={"no": 1})
        await listener.until(lambda: "workflow.run.completed" in listener.types)
    assert listener.types[0] == "workflow.run.started"


async def test_tool_calls_keep_no_place_and_add_no_events(
    opened: Open, upstream: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hot path pays nothing: the event that is there anyway is the outbox."""
    desk, listener = await opened(), Listener("hook")
    moved: list[int] = []
    move = desk.store.move_place

    async def counted(tenant: str, name: str, seq: int) -> None:
        moved.append(seq)
        await move(tenant, name, seq)

    async with outbox(desk, listener) as outlet:
        work = await desk.session()
        await listener.until(lambda: len(listener.heard) == 2)
        monkeypatch.setattr(desk.store, "move_place", counted)
        before, token = len(await desk.whole_log()), await outlet.more(-1)
        for number in range(5):
            await work.invoke("counter__read", what=str(number))
        assert await outlet.more(token, 0) == token, "a call wakes nobody"
        each = (len(await desk.whole_log()) - before) / 5
        await work.complete()
        assert await outlet.more(token, 0) > token
        await listener.until(lambda: "workflow.run.completed" in listener.types)
    assert each == 3  # the decision, the intent, the outcome
    assert len(moved) <= 3


# -- inside


@asynccontextmanager
async def inside(desk: Desk) -> AsyncIterator[Listener]:
    """The tenant's own runs and templates, and one who listens."""
    listener = Listener()
    async with outbox(desk, Inside(desk.gate), listener):
        yield listener


async def test_what_one_run_says_starts_and_wakes_others(opened: Open, upstream: Counting) -> None:
    wait = template(
        "wait", {"id": "due", "type": "wait", "signal": {"type": "invoice.due", "where": "signal.data.no == 7"}}
    )
    note = {"id": "done", "type": "condition", "expression": "true"}
    desk = await opened(templates=(SAY, wait, hears("remind", "invoice.due", note), hears("other", "invoice.paid")))
    async with inside(desk) as listener:
        waiting = await desk.start("wait")
        said = await desk.start("say", input={"no": 7})
        await listener.until(lambda: listener.types.count("workflow.run.completed") == 3)
    reminded = next(item.signal for item in listener.heard if item.signal.data.get("template") == "remind@1")
    first = (await desk.events(reminded.subject or ""))[0]
    assert first.data["input"] == {"no": 7}
    cause = first.data["caused_by"]
    assert cause["signal_source"] == f"urn:charter:default:{said.workflow_id}"
    assert cause["signal_id"] in [event.id for event in await desk.events(said.workflow_id)]
    assert reminded.correlation_id == said.workflow_id
    assert "SIGNAL_DELIVERED" in await desk.types(waiting.workflow_id)
    assert "POLICY_DECISION" in await desk.types(reminded.subject or "")
    await desk.check_record()


async def test_runs_that_start_each_other_come_to_an_end(opened: Open, upstream: Counting) -> None:
    note = {"id": "done", "type": "condition", "expression": "true"}
    desk = await opened(
        templates=(hears("echo", "workflow.run.started", note, where="signal.data.template == 'echo@1'"),)
    )
    async with inside(desk) as listener:
        await desk.start("echo")
        await listener.until(lambda: listener.types.count("workflow.run.completed") == 6)

        async def last() -> JsonObject | None:
            found = await desk.last("tenant:default", "SIGNAL_RECEIVED")
            return found if found["signal"].get("depth") == 5 else None

        received = await eventually(last)
    assert listener.types.count("workflow.run.started") == 6
    assert received["not_started"]["echo@1"].startswith("signal_depth: ")


async def test_a_dry_run_starts_nothing(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(SAY, hears("remind", "invoice.due")))
    async with inside(desk) as listener:
        await desk.start("say", input={"no": 1}, dry_run=True)
        await listener.until(lambda: "workflow.run.completed" in listener.types)
        await desk.start("say", input={"no": 2})
        await listener.until(lambda: "remind@1" in [i.signal.data.get("template") for i in listener.heard])
    assert [item.dry_run for item in listener.heard if item.signal.type == "invoice.due"] == [True, False]
    assert listener.heard[0].signal.data["dry_run"] is True
    started = [item for item in listener.heard if item.signal.data.get("template") == "remind@1"]
    assert len([item for item in started if item.signal.type == "workflow.run.started"]) == 1


async def test_who_listens_from_now_on_is_not_told_of_what_was(opened: Open, upstream: Counting) -> None:
    desk, listener = await opened(templates=(SAY,)), Listener()
    await desk.start("say", input={"no": 1})
    async with outbox(desk, listener):
        run = await desk.start("say", input={"no": 2})
        await listener.until(lambda: "workflow.run.completed" in listener.types)
    assert {item.signal.source for item in listener.heard} == {f"urn:charter:default:{run.workflow_id}"}


async def test_a_signal_step_whose_value_fails_or_is_too_large_fails(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(SAY,))
    for given in ({}, {"no": "x" * 70_000}):
        run = await desk.start("say", input=given)
        assert run.status == "failed"
        assert "SIGNAL_SENT" not in await desk.types(run.workflow_id)
    await desk.check_record()


# -- webhooks


def webhook(desk: Desk, url: str, *types: str, private: bool = True, secrets: Sequence[str] = (SECRET,)) -> Webhook:
    networks = (ipaddress.ip_network("127.0.0.0/8"),) if private else ()
    client = GuardedClient(Egress(hosts=("http://127.0.0.1:*",), private=networks))
    return Webhook(
        name="webhook:crm",
        url=url,
        types=types,
        secrets=lambda: secrets,
        client=client,
        clock=desk.clock,
        spread=lambda: 0.5,
        attempts=3,
        first_pause=0.001,
    )


async def test_a_webhook_gets_signed_cloud_events_in_order(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(SAY,))
    async with receiver("503 Busy\r\n", "302 Found\r\nlocation: /other\r\n") as crm:
        hook = webhook(desk, crm.url, "workflow.run.*", "invoice.due")
        async with outbox(desk, hook):
            await desk.start("say", input={"no": 1})
            await crm.until(5)
    events = [orjson.loads(body) for _, body in crm.got]
    assert [event["type"] for event in events] == ["workflow.run.started"] * 3 + [
        "invoice.due",
        "workflow.run.completed",
    ]
    assert len({event["id"] for event in events}) == 3
    now = desk.clock.ms // 1000
    for headers, body in crm.got:
        assert headers["content-type"] == "application/cloudevents+json"
        assert verify((key_of(SECRET),), headers, body, now) == orjson.loads(body)["id"]
    assert events[3]["data"] == {"no": 1}
    assert events[3]["subject"] == "no 1"


async def test_a_receiver_that_is_gone_or_too_often_wrong_is_told_no_more_of_it(
    opened: Open, upstream: Counting
) -> None:
    desk = await opened(templates=(SAY,))
    answers = ("410 Gone\r\n", "500 No\r\n", "500 No\r\n", "500 No\r\n", "200 OK\r\n")
    async with (
        receiver(*answers) as crm,
        outbox(desk, webhook(desk, crm.url, "workflow.run.*", "invoice.due")) as outlet,
    ):
        await desk.start("say", input={"no": 1})
        await crm.until(5)
        left = await outlet.undelivered(OPS)
    assert [(item["signal_type"], item["attempts"], item["reason"]) for item in left] == [
        ("workflow.run.started", 1, "HTTP 410"),
        ("invoice.due", 3, "HTTP 500"),
    ]


@pytest.mark.guarantee("G8")
async def test_a_webhook_that_cannot_be_sent_says_why_without_its_secret(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(SAY,))
    async with receiver() as crm:
        for name, hook in (
            ("private", webhook(desk, crm.url, "workflow.run.started", private=False)),
            ("short", webhook(desk, crm.url, "workflow.run.started", secrets=("whsec_c2hvcnQ=",))),
        ):
            async with outbox(desk, _named(hook, name)) as outlet:
                await desk.start("say", input={"no": 1})
                left = await eventually(partial(_left, outlet, name))
            assert "c2hvcnQ" not in str(left)
            assert left[0]["reason"].startswith(("egress_refused", "bad_webhook_secret"))
    assert crm.got == []


async def _left(outlet: Outlet, name: str) -> list[JsonObject]:
    return [item for item in await outlet.undelivered(OPS) if item["subscriber"] == name]


def _named(hook: Webhook, name: str) -> Webhook:
    return replace(hook, name=name)


def test_a_webhooks_pauses_double_and_are_spread() -> None:
    hook = Webhook(
        name="x",
        url="http://x",
        types=(),
        secrets=lambda: (),
        client=GuardedClient(Egress()),
        clock=lambda: 0,
        spread=lambda: 0.0,
        first_pause=1,
        longest_pause=10,
    )
    assert [hook.pause(attempt) for attempt in (1, 2, 3, 4, 5, 500)] == [0.75, 1.5, 3.0, 6.0, 7.5, 7.5]


async def test_the_policy_may_forbid_what_a_signal_inside_starts(
    opened: Open, upstream: Counting, tools: tuple[Governed, Runner], tmp_path: Path
) -> None:
    """One of two templates that listen is denied: the other starts, the denial is on record, and nothing comes again."""
    files = shipped_files()
    files["authorise.cedar"] += """
@id("not-this") @reason("Not this one.") @code("closed") @next("Ask.")
forbid (principal, action == Charter::Action::"workflow.start", resource == Charter::Template::"first@1");
"""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    sets = PolicySets(tmp_path, None, tools[0].all())
    broken = hears("broken", "invoice.due", where="signal.data.none == 1")
    templates = (SAY, hears("first", "invoice.due"), broken, hears("second", "invoice.due"))
    desk = await opened(templates=templates, policies=sets)
    async with inside(desk) as listener:
        await desk.start("say", input={"no": 1})
        await listener.until(lambda: "second@1" in [i.signal.data.get("template") for i in listener.heard])
        await desk.start("say", input={"no": 2})
        await listener.until(lambda: [i.signal.data.get("template") for i in listener.heard].count("second@1") == 4)
    received = [event for event in await desk.events("tenant:default") if event.type == "SIGNAL_RECEIVED"]
    for each in received:
        assert {ref: why.partition(":")[0] for ref, why in each.data["not_started"].items()} == {
            "first@1": "closed",
            "broken@1": "expression_error",
        }
        assert len(each.data["started"]) == 1
