"""Other people's documents, run end to end: real gate, store, policies and upstream, with their own approvals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from charter.errors import Denied, Refused
from charter.manifests.dialects.bindings import NONE, Bindings, read_bindings
from charter.manifests.templates import load_template
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.model.signal import Signal
from charter.model.template import Template
from charter.workflows.expressions import problem
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import BOB, OPS, Desk, Work
from tests.manifests.foreign import CONTRACT, CONTRACT_BINDINGS, INDEXED, SIGNAL

pytestmark = pytest.mark.anyio
INPUTS = Path(__file__).resolve().parents[3] / "shared" / "inputs"
theirs = pytest.mark.skipif(not INPUTS.is_dir(), reason="the documents are not here")
MAKER = Principal(id="agent:maker", kind="agent", roles=("agent", "maker"), acts_for="ann")


def person(role: str) -> Principal:
    return Principal(id=f"the-{role}", kind="human", roles=(role,))


def own(document: dict[str, Any], bindings: str = "") -> Template:
    found = read_bindings(bindings, "doc.bindings.yaml") if bindings else NONE
    return load_template(json.dumps(document), "doc.json", check_expression=problem, bindings=found)


def given(name: str, bindings: str) -> Template:
    text, found = (INPUTS / name).read_text("utf-8"), read_bindings(bindings, "b.yaml")
    return load_template(text, name, check_expression=problem, bindings=found)


async def signalled(desk: Desk, type_: str, data: dict[str, Any]) -> Any:
    """What a signal came to; the engine has driven everything that was due."""
    signal = Signal(id=f"s-{desk.clock.ms}", source="elsewhere", type=type_, data=data)
    sent = await desk.gate.handle(OPS, cmd.SendSignal(signal=signal))
    await desk.engine.settle()
    return sent


async def view(desk: Desk, workflow_id: str) -> Any:
    return await desk.queries.workflow(OPS, workflow_id)


async def pending(desk: Desk, workflow_id: str) -> dict[str, str]:
    """What people are asked: steps and their approvals."""
    state = await desk.gate.states.fresh("default", workflow_id)
    assert state is not None
    return {item.request.step_id: key for key, item in state.approvals.items() if item.status == "pending"}


async def say_yes(desk: Desk, workflow_id: str, by: Principal = BOB) -> list[str]:
    """Yes to everything that is asked; the steps that asked."""
    asked = await pending(desk, workflow_id)
    for approval_id in asked.values():
        if approval_id in (await pending(desk, workflow_id)).values():
            await desk.decide(approval_id, by=by)
    await desk.engine.settle()
    return list(asked)


async def working(desk: Desk, workflow_id: str, by: Principal) -> Work:
    found = await desk.queries.workflow(by, workflow_id)
    return Work(desk, workflow_id, found.invocations[0].agent_invocation_id, by)


# -- the index-based form


PAY = """
signals: {on_transfer: transfer.made, on_claim: claim.made}
actions: {NAME: {tool: counter__read, rename: {ID: what}}}
"""


def pay(name: str, argument: str) -> str:
    return PAY.replace("NAME", name).replace("ID", argument)


@pytest.mark.parametrize(("total", "roles"), [(20, []), (500, ["lead"]), (6000, ["board", "lead"])])
async def test_each_way_through_an_index_based_document(
    opened: Open, upstream: Counting, total: int, roles: list[str]
) -> None:
    desk = await opened(templates=(own(INDEXED, pay("pay_claim", "claim")),))
    (workflow_id,) = (await signalled(desk, "claim.made", {"kind": "travel", "total": total, "id": "c1"})).started
    for role in roles:
        assert list(await pending(desk, workflow_id)) == [role]
        with pytest.raises(Denied):
            await say_yes(desk, workflow_id, person("stranger"))
        assert upstream.calls() == []
        await say_yes(desk, workflow_id, person(role))
    assert (await view(desk, workflow_id)).status == "completed"
    assert [call["what"] for call in upstream.calls("read")] == ["c1"]
    await desk.check_record()


@pytest.mark.parametrize("data", [{"kind": "travel", "id": "c1"}, {"kind": "travel", "total": "20", "id": "c1"}])
async def test_an_amount_that_is_missing_or_a_text_starts_nothing_and_pays_nothing(
    opened: Open, upstream: Counting, data: dict[str, Any]
) -> None:
    desk = await opened(templates=(own(INDEXED, pay("pay_claim", "claim")),))
    sent = await signalled(desk, "claim.made", data)
    assert sent.started == ()
    assert "expression_error" in sent.not_started["expense-claim@1"]
    run = await desk.start("expense-claim", input=data)
    await desk.engine.settle()
    assert (await view(desk, run.workflow_id)).status == "failed"
    assert upstream.calls() == []
    await desk.check_record()


async def test_a_signal_that_the_conditions_do_not_match_starts_nothing(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(own(INDEXED, pay("pay_claim", "claim")),))
    sent = await signalled(desk, "claim.made", {"kind": "gifts", "total": 20, "id": "c1"})
    assert (sent.started, sent.not_started) == ((), {})


@theirs
@pytest.mark.parametrize(("amount", "roles"), [(1000, []), (1000.01, ["cfo", "finance_manager"])])
async def test_a_procurement(opened: Open, upstream: Counting, amount: float, roles: list[str]) -> None:
    desk = await opened(templates=(given("procurement_approval.json", pay("execute_transfer", "transfer_id")),))
    data = {"id": "t9", "amount": amount, "metadata": {"type": "procurement"}}
    (workflow_id,) = (await signalled(desk, "transfer.made", data)).started
    for role in roles:
        assert upstream.calls() == []
        await say_yes(desk, workflow_id, person(role))
    assert (await view(desk, workflow_id)).status == "completed"
    assert [call["what"] for call in upstream.calls("read")] == ["t9"]
    await desk.check_record()


@theirs
async def test_a_procurement_that_the_cfo_rejects_pays_nothing(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(given("procurement_approval.json", pay("execute_transfer", "transfer_id")),))
    data = {"id": "t9", "amount": 5000, "metadata": {"type": "procurement"}}
    (workflow_id,) = (await signalled(desk, "transfer.made", data)).started
    (approval_id,) = (await pending(desk, workflow_id)).values()
    await desk.decide(approval_id, "reject", by=person("cfo"))
    await desk.engine.settle()
    assert (await view(desk, workflow_id)).status == "rejected"
    assert upstream.calls() == []


# -- the signal form


POST = (
    "{agents: {AGENT: 'role:maker'}, actions: {NAME: {tool: counter__write_idempotent, rename: {A: what, B: value}}}}"
)


async def _posted(desk: Desk, upstream: Counting, type_: str, data: dict[str, Any], output: dict[str, Any]) -> Any:
    (workflow_id,) = (await signalled(desk, type_, data)).started
    await (await working(desk, workflow_id, MAKER)).complete(output)
    await desk.engine.settle()
    assert upstream.calls() == []
    await say_yes(desk, workflow_id)
    assert (await view(desk, workflow_id)).status == "completed"
    await desk.check_record()
    return upstream.calls("write_idempotent")


async def test_a_document_in_the_signal_form(opened: Open, upstream: Counting) -> None:
    bound = (
        POST.replace("AGENT", "drafter").replace("NAME", "ticket.reply").replace("A:", "ticket:").replace("B:", "text:")
    )
    desk = await opened(templates=(own(SIGNAL, bound),))
    data = {"ticket": {"id": "k1", "tags": ["late"]}}
    (call,) = await _posted(desk, upstream, "ticket.opened", data, {"text": "soon"})
    assert (call["what"], call["value"]) == ("k1", "Hello {{ name }}: soon (late)")


@theirs
async def test_a_forum_thread(opened: Open, upstream: Counting) -> None:
    bound = POST.replace("AGENT", "forum_summary_agent").replace("NAME", "forum.post.create")
    bound = bound.replace("A:", "thread_id:").replace("B:", "content:")
    desk = await opened(templates=(given("forum_new_thread_triage.json", bound),))
    data = {"subject": {"id": "th1"}, "title": "Help"}
    (call,) = await _posted(desk, upstream, "forum.thread.created", data, {"summary": "They need help."})
    assert (call["what"], call["value"]) == ("th1", "They need help.")


# -- the phase contract


async def test_a_contract_to_its_honest_end(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(own(CONTRACT, CONTRACT_BINDINGS),))
    run = await desk.start("change")
    work = await working(desk, run.workflow_id, Work.by)
    with pytest.raises(Denied, match="must match one of notes"):
        await work.invoke("counter__write_idempotent", what="src/a", value="x")
    with pytest.raises(Denied):
        await work.invoke("counter__charge", account="a", cents=1)
    assert (await work.invoke("counter__write_idempotent", what="notes/a", value="x")).status == "pending_approval"
    with pytest.raises(Refused, match="has_reason"):
        await work.complete({"change_note": {"reason": "", "name": "plan"}})
    assert upstream.calls() == []

    # What the agent says of the note is not asked: Charter reads it, and it is another one.
    done = await work.complete({"change_note": {"reason": "because it is late in the year", "name": "other"}})
    assert done.status == "submitted"
    await desk.engine.settle()
    assert [call["what"] for call in upstream.calls("read")] == ["other"]
    held = (await desk.queries.workflow(work.by, run.workflow_id)).invocations[0]
    assert "note_is_filed" in held.returned[0]

    work = await working(desk, run.workflow_id, work.by)
    await work.complete({"change_note": {"reason": "because it is late in the year", "name": "plan"}})
    await desk.engine.settle()
    assert (await desk.last(run.workflow_id, "GATE_CHECKED"))["outcome"] == "open"
    checked = [event.data for event in await desk.events(run.workflow_id) if event.type == "GATE_CHECKED"]
    found = {item["check"]: item["outcome"] for item in checked[-2]["results"]}
    assert found == {"has_reason": "passed", "note_is_short": "failed"}

    # The second phase: people say no, and the contract goes back to the first one.
    work = await working(desk, run.workflow_id, work.by)
    await work.complete({"result": {"done": True}})
    await desk.engine.settle()
    (approval_id,) = (await pending(desk, run.workflow_id)).values()
    await desk.decide(approval_id, "reject", comment="not yet")
    await desk.engine.settle()
    assert (await view(desk, run.workflow_id)).steps == {
        "draft": "open",
        "apply": "pending",
        "tell.before.0": "pending",
        "tell": "pending",
    }
    for output in ({"change_note": {"reason": "now", "name": "plan"}}, {"result": {"done": True}}):
        work = await working(desk, run.workflow_id, work.by)
        await work.complete(output)
        await desk.engine.settle()
    assert await say_yes(desk, run.workflow_id) == ["apply.gate"]
    work = await working(desk, run.workflow_id, work.by)
    await work.complete({"told": True})
    assert (await view(desk, run.workflow_id)).status == "completed"
    assert [call["what"] for call in upstream.calls("read")] == ["other", "plan", "plan", "applied"]
    assert (await desk.types(run.workflow_id)).count("PHASE_WENT_BACK") == 1
    await desk.check_record()


async def test_a_gate_whose_time_is_over_waits_for_an_operator(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(own(CONTRACT, CONTRACT_BINDINGS),))
    run = await desk.start("change")
    for output in ({"change_note": {"reason": "now", "name": "plan"}}, {"result": {"done": True}}):
        await (await working(desk, run.workflow_id, Work.by)).complete(output)
        await desk.engine.settle()
    desk.clock.wait(3601)
    await desk.engine.settle()
    assert (await view(desk, run.workflow_id)).steps["apply"] == "review"
    assert await pending(desk, run.workflow_id) == {}
    await desk.check_record()


async def test_a_gate_outlives_the_process(opened: Open, upstream: Counting) -> None:
    templates = (own(CONTRACT, CONTRACT_BINDINGS),)
    desk = await opened(templates=templates)
    run = await desk.start("change")
    await (await working(desk, run.workflow_id, Work.by)).complete({"change_note": {"reason": "now", "name": "plan"}})
    other = await opened(templates=templates)  # the first one has gathered nothing yet
    await other.engine.settle()
    assert (await view(other, run.workflow_id)).steps["draft"] == "completed"
    assert len(upstream.calls("read")) == 1
    await other.check_record()


@theirs
async def test_somebodys_contract_to_its_end(opened: Open, upstream: Counting) -> None:
    """Unmodified, with one check bound to evidence; every other name is a question that a person answers."""
    bound = """
    actions:
      spawn_review_agents: {tool: counter__read, arguments: {what: reviews}}
      update_prd_state: {tool: counter__read, rename: {status: what}}
      notify_orchestrator: {tool: counter__read, rename: {event: what}}
    checks:
      tests_were_run:
        evidence: {tool: counter__read, arguments: {what: "{{ artifacts.test_run_result.command }}"}}
        expression: evidence.result == "this is xxxxxx"
    """
    text = (INPUTS / "agent_workflow.yaml").read_text("utf-8")
    found: Bindings = read_bindings(bound, "b.yaml")
    template = load_template(text, "agent_workflow.yaml", check_expression=problem, bindings=found)
    desk = await opened(templates=(template,))
    run = await desk.start(template.name)
    for step in [item for item in template.steps if item.type == "agent"]:
        work = await working(desk, run.workflow_id, Work.by)
        await work.complete({item.name: _example(item.document_schema) for item in step.artifacts})
        await desk.engine.settle()
        asked = await say_yes(desk, run.workflow_id)
        assert all(name.startswith(f"{step.id}.gate") for name in asked)
    assert (await view(desk, run.workflow_id)).status == "completed"
    read = [call["what"] for call in upstream.calls("read")]
    assert read == ["xxxxxx", "xxxxxx", "reviews", "completed", "task_completed"]
    await desk.check_record()


def _example(schema: dict[str, Any]) -> Any:
    """A value that a schema of the contract accepts."""
    made: dict[str, Callable[[], Any]] = {
        "object": lambda: {
            name: _example(schema.get("properties", {}).get(name, {})) for name in schema.get("required", ())
        },
        "array": lambda: [_example(schema.get("items", {})) for _ in range(schema.get("minItems", 0))],
        "string": lambda: "2027-01-31T09:00:00Z" if "format" in schema else "x" * schema.get("minLength", 6),
        "integer": lambda: 1,
    }
    return made[schema.get("type", "string")]()
