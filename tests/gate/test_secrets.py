"""Sensitive arguments and results: nowhere in the clear, and gone for good when they are erased."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from charter.errors import Denied, InvalidInput, NotFound, Unavailable
from charter.gate import Limits
from charter.model import commands as cmd
from charter.server.telemetry import Telemetry
from charter.store.port import Filter, Page
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, BOB, OPS, Desk, template

pytestmark = pytest.mark.anyio

SECRET = "hunter2-correct-horse-battery"
TOOL = "counter__secret_echo"


def everything_on_disk(folder: Path) -> bytes:
    """The database, its write-ahead log and whatever else lies there."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def said(spans: tuple[ReadableSpan, ...]) -> str:
    return "\n".join(span.to_json() for span in spans)


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("fail", [False, True])
async def test_a_secret_is_in_no_leaf_row_span_log_line_or_file(
    opened: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, upstream: Counting, fail: bool
) -> None:
    spans, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    desk = await opened(tracing=Telemetry(provider))
    with caplog.at_level(logging.DEBUG):
        work = await desk.session()
        arguments: dict[str, Any] = {"password": SECRET, "note": "for the door", "fail": fail}
        proposal = await work.propose(TOOL, **arguments)
        request = await work.ask(proposal.proposal_id)
        view = await desk.queries.approval(BOB, request.approval_id)
        rows, _ = await desk.store.approvals("default", Filter(), Page())
        await desk.decide(request.approval_id)
        outcome = await work.run(proposal.proposal_id)
        with pytest.raises(InvalidInput) as invalid:
            await work.invoke(TOOL, password=[SECRET], note="")
    assert SECRET in json.dumps(outcome.model_dump()), "the caller gets the answer"
    shown = [proposal, request, view, invalid.value.as_json(), rows, await work.context(), caplog.text]
    assert SECRET not in repr(shown)
    assert "sensitive" in repr(view.request.shown)
    assert SECRET not in said(spans.get_finished_spans())
    assert any(TOOL in span.name for span in spans.get_finished_spans())
    assert all(SECRET.encode() not in row.leaf for row in await desk.whole_log())
    assert SECRET.encode() not in everything_on_disk(tmp_path)
    assert len(upstream.calls()) == 1


@pytest.mark.guarantee("G8")
async def test_a_workflow_s_own_step_keeps_its_secrets_too(opened: Open, tmp_path: Path) -> None:
    call = {"password": "{{ 'hunter2-' + 'correct-' + 'horse-battery' }}", "note": "x"}
    step = {"id": "use", "type": "action", "tool": TOOL, "arguments": call}
    desk = await opened(templates=(template("vault", step),))
    run = await desk.start("vault")
    await desk.engine.settle()
    approval, *_ = (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]
    await desk.decide(approval.approval_id)
    await desk.engine.settle()
    assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_COMPLETED"
    result = await desk.last(run.workflow_id, "TOOL_RESULT")
    assert SECRET not in json.dumps(result)
    assert SECRET.encode() not in everything_on_disk(tmp_path)
    sealed = await desk.gate.prepare.secret("default", result["result_ref"])
    assert SECRET in json.dumps(sealed), "sealed, for whoever may read it"


@pytest.mark.guarantee("G7")
@pytest.mark.guarantee("G8")
async def test_erasing_a_secret_leaves_the_record_whole(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    done = await work.approved(TOOL, password=SECRET, note="1")
    await work.run(done)
    waiting = await work.approved(TOOL, password=SECRET, note="2")
    for event in await desk.events(work.workflow_id):
        if ref := event.data.get("sealed_ref"):
            await desk.store.erase("default", ref)
    await desk.check_record()
    with pytest.raises(NotFound) as erased:
        await work.run(waiting)
    assert erased.value.error_code == "erased"
    # The tool itself is as usable as before.
    again = await work.approved(TOOL, password=SECRET, note="2")
    assert (await work.run(again)).status == "succeeded"
    assert len(upstream.calls()) == 2
    await desk.check_record()


@pytest.mark.guarantee("G7")
@pytest.mark.guarantee("G8")
async def test_an_erasure_is_on_record_before_the_bytes_go(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = await desk.session()
    await work.propose(TOOL, password=SECRET, note="1")
    ref = (await desk.last(work.workflow_id, "PROPOSAL_MADE"))["sealed_ref"]
    command = cmd.EraseSealed(ref=ref, reason="Ann asked for it.")
    for by in (BOB, AGENT.model_copy(update={"roles": ("admin",)}), OPS.model_copy(update={"tenant": "other"})):
        with pytest.raises((Denied, NotFound)):
            await desk.gate.handle(by, command)
    assert await desk.store.unseal("default", ref) is not None
    assert "SEALED_ERASED" not in await desk.types("tenant:default")

    async def power_cut(_tenant: str, _ref: str) -> bool:
        raise Unavailable("The disk went away.")

    with monkeypatch.context() as patched:
        patched.setattr(desk.store, "erase", power_cut)
        with pytest.raises(Unavailable):
            await desk.gate.handle(OPS, command)
    assert (await desk.types("tenant:default"))[-1] == "SEALED_ERASED", "interrupted: on record, to be repeated"
    await desk.gate.handle(OPS, command)
    assert await desk.store.unseal("default", ref) is None
    erased = await desk.last("tenant:default", "SEALED_ERASED")
    assert erased == {"ref": ref, "erased_by": "ops", "reason": "Ann asked for it."}
    with pytest.raises(NotFound) as gone:
        await desk.gate.handle(OPS, command)
    assert gone.value.error_code == "erased"
    await desk.check_record()


@pytest.mark.guarantee("G8")
async def test_two_calls_with_one_secret_have_digests_that_tell_nothing(desk: Desk) -> None:
    work, other = await desk.session(), await desk.session()
    first = await work.propose(TOOL, password=SECRET, note="1")
    again = await work.propose(TOOL, password=SECRET, note="1")
    second = await other.propose(TOOL, password=SECRET, note="1")
    assert first.proposal_id == again.proposal_id, "the same open call is the same proposal"
    assert first.digest != second.digest, "salted"
    assert "salt" not in await desk.last(work.workflow_id, "PROPOSAL_MADE")


async def test_an_oversized_result_is_sealed_and_readable_by_those_who_may_read_the_run(
    opened: Open, tmp_path: Path
) -> None:
    desk = await opened(limits=Limits(result_bytes=1_000))
    work = await desk.session()
    small = await work.invoke("counter__huge", size=500)
    assert small.result_ref is None
    large = await work.invoke("counter__huge", size=5_000)
    assert (large.status, large.content, large.structured) == ("succeeded", (), None)
    assert large.result_ref is not None
    assert large.result_bytes > 5_000
    assert large.effect_id is not None
    content = await desk.queries.result(work.by, work.workflow_id, large.effect_id)
    assert content["content"][0]["text"] == "x" * 5_000
    assert b"x" * 1_000 not in everything_on_disk(tmp_path)
    assert (await desk.last(work.workflow_id, "TOOL_RESULT"))["result_ref"] == large.result_ref
    with pytest.raises(NotFound):
        await desk.queries.result(work.by, work.workflow_id, "eff_nobody")
    await desk.check_record()
