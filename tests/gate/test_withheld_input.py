"""Input that goes into sensitive arguments: sealed at the start, used only there, and nowhere else in the clear."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from charter.audit.export import leaf_line
from charter.errors import Conflict, InvalidInput
from charter.gate import Limits
from charter.manifests.withheld import Here, withheld
from charter.model import commands as cmd
from charter.model.signal import Signal
from charter.model.template import Template
from charter.model.tool import ToolManifest
from charter.server.telemetry import Telemetry
from charter.store.port import Filter, Page
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.gate.test_secrets import SECRET, TOOL, everything_on_disk, said
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import BOB, OPS, Desk, Published, template

pytestmark = [pytest.mark.anyio, pytest.mark.guarantee("G8")]

USE = {"id": "use", "type": "action", "tool": TOOL, "arguments": {"password": "{{ trigger.pin }}", "note": "mine"}}
LATER = {
    "id": "use",
    "type": "action",
    "tool": TOOL,
    "arguments": {"password": "{{ trigger.secret }}", "note": "child"},
}
AGREE = {"id": "agree", "type": "approval", "question": "For {{ trigger.who }}?", "show": {"input": "{{ trigger }}"}}
SUB = {"id": "sub", "type": "workflow", "template": "child", "input": {"secret": "{{ trigger.pin }}"}}
VAULT = template("vault", AGREE, USE, SUB, output={"for": "{{ trigger.who }}"})
CHILD = template("child", LATER)
INPUT = {"who": "Ann", "pin": SECRET}


Opening = Callable[..., Awaitable[Desk]]


@pytest.fixture
def desk_with(opened: Open) -> Opening:
    """A desk with these templates."""

    async def with_templates(*templates: Template) -> Desk:
        return await opened(templates=templates)

    return with_templates


async def yes_to_all(desk: Desk) -> None:
    """Drive the engine, and say yes to whatever is asked, until nothing is."""
    await desk.engine.settle()
    while found := (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]:
        for approval in found:
            await desk.decide(approval.approval_id)
        await desk.engine.settle()


async def told(desk: Desk, workflow_id: str) -> str:
    """What the tool answered in this run, which says what it was sent; it is sealed."""
    result = await desk.last(workflow_id, "TOOL_RESULT")
    return json.dumps(await desk.gate.prepare.secret("default", result["result_ref"]))


async def test_it_is_in_no_leaf_row_span_log_line_export_or_file(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, upstream: Counting
) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    shown: list[Any] = []
    with caplog.at_level(logging.DEBUG):
        desk = await opened(templates=(VAULT, CHILD), tracing=Telemetry(provider), limits=Limits(snapshot_every=1))
        run = await desk.start("vault", input=INPUT)
        await desk.engine.settle()
        [asked] = (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]
        shown += [run, asked, await desk.queries.approval(BOB, asked.approval_id)]
        other = await opened(templates=(VAULT, CHILD), tracing=Telemetry(provider))  # another process goes on with it
        await yes_to_all(other)
        view = await other.queries.workflow(OPS, run.workflow_id)
    assert view.status == "completed"
    started = await other.last(run.workflow_id, "WORKFLOW_STARTED")
    assert (started["input"], started["withheld"]) == ({"who": "Ann", "pin": {"$redacted": True}}, ["/pin"])
    assert "$redacted" in repr(shown[1]), "who decides sees that there is something"
    assert len(upstream.calls()) == 2, "the run's own call and its child's"
    for workflow_id in (run.workflow_id, view.children["sub"]):
        assert SECRET in await told(other, workflow_id), "the tool got what it is for"
    assert SECRET not in repr([*shown, view]) + caplog.text + said(spans.get_finished_spans())
    exported = b"".join(leaf_line(row.leaf) for row in await other.whole_log())
    assert SECRET.encode() not in exported + everything_on_disk(tmp_path)
    await other.check_record()


async def test_the_same_start_again_is_the_same_run_and_another_secret_is_another_start(desk_with: Opening) -> None:
    desk = await desk_with(VAULT, CHILD)
    first = await desk.start("vault", input=INPUT, idempotency_key="k")
    again = await desk.start("vault", input=INPUT, idempotency_key="k")
    assert again.workflow_id == first.workflow_id
    with pytest.raises(Conflict) as other:
        await desk.start("vault", input={**INPUT, "pin": "another"}, idempotency_key="k")
    assert other.value.error_code == "idempotency_key_reused"


async def test_once_it_is_erased_the_step_fails_and_the_record_stays_whole(
    desk_with: Opening, upstream: Counting
) -> None:
    desk = await desk_with(VAULT, CHILD)
    run = await desk.start("vault", input=INPUT, idempotency_key="k")
    ref = (await desk.last(run.workflow_id, "WORKFLOW_STARTED"))["sealed_ref"]
    await desk.gate.handle(OPS, cmd.EraseSealed(ref=ref, reason="Ann asked for it."))
    assert (await desk.start("vault", input=INPUT, idempotency_key="k")).workflow_id == run.workflow_id
    await yes_to_all(desk)
    failed = await desk.last(run.workflow_id, "WORKFLOW_FAILED")
    assert (failed["code"], upstream.calls()) == ("erased", [])
    await desk.check_record()


async def test_a_call_that_is_begun_with_the_start_itself_gets_it_too(
    desk_with: Opening, tmp_path: Path, upstream: Counting
) -> None:
    """Where an engine runs, the intent of the first call is in the commit that seals the input."""
    desk = await desk_with(template("one", USE))
    runs: list[str] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(desk.engine.run)
        with anyio.fail_after(60):
            while desk.gate.driving.carrier is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            for _ in range(2):  # the first start of a template puts it into the store, and begins no call
                runs.append((await desk.start("one", input=INPUT)).workflow_id)
                while not (found := (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]):  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                await desk.decide(found[0].approval_id)
                while (await desk.queries.workflow(OPS, runs[-1])).status != "completed":  # noqa: ASYNC110
                    await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert [SECRET in await told(desk, run) for run in runs] == [True, True]
    assert len(upstream.calls()) == 2
    assert SECRET.encode() not in everything_on_disk(tmp_path)
    await desk.check_record()


@pytest.mark.parametrize(
    "step",
    [
        {"id": "b", "type": "action", "tool": "counter__read", "arguments": {"key": "{{ trigger.pin }}"}},
        {"id": "b", "type": "condition", "expression": "trigger.pin == 'x'"},
        {"id": "b", "type": "approval", "question": "Is {{ trigger.pin }} right?"},
    ],
)
async def test_a_template_that_would_put_it_on_record_is_not_started(
    desk_with: Opening, tmp_path: Path, step: dict[str, Any]
) -> None:
    desk = await desk_with(template("leaky", USE, step))
    with pytest.raises(InvalidInput) as refused:
        await desk.start("leaky", input=INPUT)
    assert refused.value.error_code == "input_withheld"
    assert "/steps/1/" in refused.value.message
    assert await desk.whole_log() == []
    assert SECRET.encode() not in everything_on_disk(tmp_path)
    assert (await desk.start("leaky", input={"who": "Ann"})).workflow_id, "without it there is nothing to keep"


async def test_a_signal_does_not_start_what_its_data_would_give_away(desk_with: Opening) -> None:
    started = Template.model_validate({**VAULT.model_dump(by_alias=True), "on_signal": [{"type": "hired"}]})
    desk = await desk_with(started, CHILD)
    signal = Signal(id="s1", source="test", type="hired", data=INPUT)
    sent = await desk.gate.handle(OPS, cmd.SendSignal(signal=signal))
    assert (sent.started, list(sent.not_started)) == ((), ["vault@1"])


async def test_an_expression_that_fails_does_not_quote_it(desk_with: Opening, tmp_path: Path) -> None:
    fails = {**USE, "arguments": {"password": "{{ string(int(trigger.pin)) }}", "note": "x"}}
    desk = await desk_with(template("fails", fails))
    run = await desk.start("fails", input=INPUT)
    await desk.engine.settle()
    failed = await desk.last(run.workflow_id, "WORKFLOW_FAILED")
    assert failed["code"] == "expression_error"
    assert SECRET not in json.dumps([event.data for event in await desk.events(run.workflow_id)])
    assert SECRET.encode() not in everything_on_disk(tmp_path)


async def test_a_manifest_that_was_changed_meanwhile_sends_nothing_in_the_clear(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    class Tamed(Governed):
        def find(self, name: str) -> ToolManifest | None:
            found = tools[0].find(name)
            return None if found is None else found.model_copy(update={"sensitive_arguments": ()})

    desk = await opened(templates=(template("one", USE),))
    run = await desk.start("one", input=INPUT)
    tamed = Tamed.__new__(Tamed)
    tamed.__dict__.update(tools[0].__dict__)
    other = await opened(templates=(template("one", USE),), tools=tamed)
    await yes_to_all(other)
    failed = await other.last(run.workflow_id, "WORKFLOW_FAILED")
    assert (failed["code"], upstream.calls()) == ("input_withheld", [])


async def test_a_template_is_read_once_and_anew_when_what_it_depends_on_is_another(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counted(made: Template, here: Here) -> tuple[str, ...]:
        read.append(made.name)
        return withheld(made, here)

    class Tools(Governed):
        sensitive: tuple[str, ...] = ("/password",)
        known: ClassVar[dict[tuple[str, ...], ToolManifest]] = {}

        def find(self, name: str) -> ToolManifest | None:
            found = tools[0].find(name)
            if found is None or name != TOOL:
                return found
            changed = found.model_copy(update={"sensitive_arguments": self.sensitive})
            return self.known.setdefault(self.sensitive, changed)

    monkeypatch.setattr("charter.gate.withholding.withheld", counted)
    changing = Tools.__new__(Tools)
    changing.__dict__.update(tools[0].__dict__)
    desk = await opened(templates=(VAULT, CHILD), tools=changing)
    for _ in range(3):
        run = await desk.start("vault", input=INPUT)
        assert (await desk.last(run.workflow_id, "WORKFLOW_STARTED"))["withheld"] == ["/pin"]
    assert read == ["vault"]
    changing.sensitive = ()
    run = await desk.start("vault", input=INPUT)
    assert "withheld" not in await desk.last(run.workflow_id, "WORKFLOW_STARTED")
    changing.sensitive = ("/password",)
    published = desk.gate.parts.templates
    assert isinstance(published, Published)
    await desk.start("vault", input=INPUT)
    other = template(
        "child", {**LATER, "arguments": {"password": "{{ trigger.another }}", "note": "{{ trigger.secret }}"}}
    )
    published.templates["child"] = published.templates["child@1"] = other
    with pytest.raises(InvalidInput):  # the child would show what the run of now seals
        await desk.start("vault", input=INPUT)
    assert read == ["vault"] * 4


async def test_a_run_without_sensitive_arguments_is_recorded_as_before(desk: Desk) -> None:
    run = await desk.start(input={"pin": "1234"})
    started = await desk.last(run.workflow_id, "WORKFLOW_STARTED")
    assert started["input"] == {"pin": "1234"}
    assert not {"withheld", "sealed_ref", "input_digest"} & set(started)
