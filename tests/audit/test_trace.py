"""A governed run's record obeys the rules; whatever breaks one of them is named.

The records come from the real decider, so each mutation below is the smallest lie that a rule must catch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings

from charter.audit.envelope import Envelope, leaf_bytes, parse_leaf
from charter.audit.findings import Finding
from charter.audit.trace import TRACE_RULES, validate_trace
from charter.model.approval import GrantBounds
from charter.model.commands import ConfirmChild, EndChild, GiveGrant
from charter.model.events import PAYLOADS
from charter.model.principal import Principal
from tests.audit.logs import Event
from tests.workflows.build import AGENT, ANN, BOB, CAT, ENGINE, Run, asked, effect_of, stored, template
from tests.workflows.test_stateful import Governed

Trace = list[Envelope]
DAN = Principal(id="dan", kind="human", roles=("sales",))
EVE = Principal(id="eve", kind="human", roles=("legal",))


def record(run: Run) -> Trace:
    """The run's events as they stand in a log."""
    out = []
    for index, each in enumerate(run.log):
        data = stored(each).data.model_dump(mode="json", exclude_defaults=True)
        made = Event(f"evt_{index}", each.type, each.time, {}, data, "cmd", run.state.workflow_id, None)
        out.append(parse_leaf(leaf_bytes("default", run.state.workflow_id, 10 + index, index + 1, made)))
    return out


def rules(trace: Trace) -> list[str]:
    found: tuple[Finding, ...] = validate_trace(trace)
    assert {each.rule for each in found} <= TRACE_RULES.keys()
    return [each.rule for each in found]


def renumbered(trace: Trace) -> Trace:
    """As a forger would, so that only the meaning is wrong."""
    return [replace(each, seq=10 + index, version=index + 1) for index, each in enumerate(trace)]


def at(trace: Trace, type_: str, nth: int = 0) -> int:
    return [index for index, each in enumerate(trace) if each.type == type_][nth]


def without(trace: Trace, type_: str, nth: int = 0) -> Trace:
    index = at(trace, type_, nth)
    return renumbered([*trace[:index], *trace[index + 1 :]])


def twice(trace: Trace, type_: str, nth: int = 0) -> Trace:
    index = at(trace, type_, nth)
    return renumbered([*trace[: index + 1], *trace[index:]])


def moved(trace: Trace, type_: str, to: int, nth: int = 0) -> Trace:
    index = at(trace, type_, nth)
    left = [*trace[:index], *trace[index + 1 :]]
    return renumbered([*left[:to], trace[index], *left[to:]])


def with_data(trace: Trace, type_: str, nth: int = 0, **changes: Any) -> Trace:
    index = at(trace, type_, nth)
    return [*trace[:index], replace(trace[index], data={**trace[index].data, **changes}), *trace[index + 1 :]]


def with_request(trace: Trace, **changes: Any) -> Trace:
    request = trace[at(trace, "APPROVAL_REQUESTED")].data["request"]
    return with_data(trace, "APPROVAL_REQUESTED", request={**request, **changes})


def with_time(trace: Trace, type_: str, time: str) -> Trace:
    index = at(trace, type_)
    return [*trace[:index], replace(trace[index], time=time), *trace[index + 1 :]]


def approved_run() -> Run:
    """A write that people approve, a payment that needs two, a read, and the end."""
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id, by=BOB)
    run.outcome(effect_of(run.invoke(proposal_id=proposal_id)).effect_id)
    proposal_id, approval_id = asked(run, "pay", {"amount": "5"})
    run.answer(approval_id, by=BOB)
    run.answer(approval_id, by=CAT)
    run.outcome(effect_of(run.invoke(proposal_id=proposal_id)).effect_id)
    run.outcome(effect_of(run.invoke("read")).effect_id)
    run.complete({"done": True})
    return run


def doubtful_run() -> Run:
    """A write in doubt that a person lets run again, and a read that is recovered."""
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    effect_id = effect_of(run.invoke(proposal_id=proposal_id)).effect_id
    run.outcome(effect_id, "unknown")
    run.resolve(effect_id, "retry")
    run.outcome(effect_id, attempt=2)
    read = effect_of(run.invoke("read")).effect_id
    run.recover(read)
    run.outcome(read, attempt=2)
    return run


def long_approval_run() -> Run:
    """A sequence whose first part is handed on, reminders, an escalation; then a step that is for another role."""
    steps: list[dict[str, Any]] = [
        {"id": "one", "order": "sequence", "requirements": [{"role": "finance"}, {"people": ["cat"]}]},
        {"id": "two", "requirements": [{"role": "legal"}]},
    ]
    steps[0] |= {"remind_after_seconds": 60, "escalations": [{"people": ["zoe"], "after_seconds": 90}]}
    run = Run(template(*({"type": "approval", "question": "Go?", **step} for step in steps)), starter=ANN).start()
    first = run.approval_id()
    run.wait(60).advance()
    run.delegate(first, "dan", by=BOB)
    run.wait(30).advance()
    run.answer(first, by=DAN)
    run.answer(first, by=CAT)
    run.answer(run.approval_id(), by=EVE)
    return run


def action_run() -> Run:
    """The workflow's own call."""
    run = Run(template({"id": "go", "type": "action", "tool": "box__read"}), starter=ANN).start()
    run.outcome(effect_of(run.run_step("go")).effect_id)
    return run


def branching_run() -> Run:
    """A condition that leaves one of two steps out."""
    run = Run(
        template(
            {"id": "big", "type": "condition", "expression": "trigger.n > 1", "if_true": ["a"], "if_false": ["b"]},
            {"id": "a", "type": "agent"},
            {"id": "b", "type": "agent"},
        )
    ).start({"n": 5})
    run.complete()
    return run


def reviewed_run() -> Run:
    """An attempt that fails, another, and a person who supplies the output."""
    step = {"id": "go", "type": "action", "tool": "box__read", "on_failure": "human_review"}
    run = Run(template({**step, "retry": {"attempts": 2, "backoff_seconds": 60}})).start()
    run.outcome(effect_of(run.run_step("go")).effect_id, "failed")
    run.wait(60).advance()
    run.outcome(effect_of(run.run_step("go")).effect_id, "failed")
    run.review("go", "supply", output=1)
    return run


def waiting_run() -> Run:
    """A wait that ends."""
    run = Run(template({"id": "w", "type": "wait", "seconds": 60})).start()
    run.wait(60).advance()
    return run


def signalled_run() -> Run:
    """A wait that a signal ends in time."""
    run = Run(template({"id": "w", "type": "wait", "signal": {"type": "go"}, "timeout_seconds": 60})).start()
    run.wait(1).signal("go")
    return run


def saying_run() -> Run:
    """A step that sends a signal."""
    return Run(template({"id": "say", "type": "signal", "signal": {"type": "go"}})).start()


def given_up_run() -> Run:
    """A wait that no signal ended."""
    step = {"id": "w", "type": "wait", "signal": {"type": "go"}, "timeout_seconds": 60, "on_timeout": "skip"}
    run = Run(template(step)).start()
    run.wait(60).advance()
    return run


def paused_run() -> Run:
    """A run that is paused and goes on."""
    run = Run(template({"id": "go", "type": "action", "tool": "box__read"})).start()
    run.hold(True)
    run.hold(False)
    run.outcome(effect_of(run.run_step("go")).effect_id)
    return run


def called_back_run() -> Run:
    """An external step that is called back after its answer."""
    step = {"id": "go", "type": "external", "url": "https://a.test", "callback": {}}
    run = Run(template(step)).start()
    run.outcome(effect_of(run.run_step("go")).effect_id)
    run.callback("go", {"ok": True})
    return run


def polling_run() -> Run:
    """A tool was asked twice."""
    poll = {"tool": "box__read", "until": "result.ok", "every_seconds": 60}
    run = Run(template({"id": "w", "type": "wait", "poll": poll})).start()
    run.outcome(effect_of(run.run_step("w")).effect_id, output={"ok": False})
    run.wait(60).advance()
    run.outcome(effect_of(run.run_step("w")).effect_id, output={"ok": True})
    return run


def parents_run() -> Run:
    """A step started another run, which came to its end."""
    run = Run(template({"id": "sub", "type": "workflow", "template": "other"})).start()
    ids = {"workflow_id": run.state.workflow_id, "child_workflow_id": next(iter(run.state.children))}
    run.decide(ConfirmChild(**ids, template="other@1"), run.given(ENGINE))
    run.decide(EndChild(**ids, status="completed", output={"n": 1}), run.given(ENGINE))
    return run


def undone_run(*, retried: bool = False) -> Run:
    """It failed after two steps: they were undone, or it went on because somebody said so."""
    undo = {} if retried else {"compensate": {"tool": "box__read"}}
    one = {"type": "action", "tool": "box__read"}
    run = Run(template({"id": "a", **one, **undo}, {"id": "b", **one, **undo}, {"id": "c", **one})).start()
    for step_id, status in (("a", "succeeded"), ("b", "succeeded"), ("c", "failed")):
        run.outcome(effect_of(run.run_step(step_id)).effect_id, status)
    if retried:
        run.retry()
    for step_id in ("c",) if retried else ("undo:b", "undo:a"):
        run.outcome(effect_of(run.run_step(step_id)).effect_id)
    return run


def phase_run() -> Run:
    """A gate that stays shut once, one that opens, and a way back."""
    gate = {"checks": [{"id": "c", "expression": "artifacts.a > 1"}]}
    back = [{"to": "one", "on": "passed", "when": "artifacts.b == 1"}]
    two = {"id": "two", "type": "agent", "artifacts": [{"name": "b"}], "go_back": back}
    run = Run(template({"id": "one", "type": "agent", "artifacts": [{"name": "a"}], "gate": gate}, two)).start()
    run.complete({"a": 1})
    run.complete({"a": 2})
    run.complete({"b": 1})
    run.complete({"a": 2})
    run.complete({"b": 2})
    return run


GOOD = record(approved_run())
POLL, CHILD, UNDO, RETRIED = (
    record(each) for each in (polling_run(), parents_run(), undone_run(), undone_run(retried=True))
)
DOUBT = record(doubtful_run())
ACTION = record(action_run())
LONG = record(long_approval_run())
BRANCH = record(branching_run())
REVIEW = record(reviewed_run())
WAIT = record(waiting_run())
SIGNAL, SAID, GIVEN_UP = record(signalled_run()), record(saying_run()), record(given_up_run())
PAUSED = record(paused_run())
CALLED = record(called_back_run())
PHASE = record(phase_run())
PAST = "2020-01-01T00:00:00.000Z"
FUTURE = "2999-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "trace",
    [
        *(GOOD, DOUBT, ACTION, BRANCH, REVIEW, WAIT, SIGNAL, SAID, GIVEN_UP, PAUSED, CALLED, GOOD[:9], []),
        *(POLL, CHILD, UNDO, RETRIED),
    ],
    ids=[
        *("good", "doubt", "action", "branch", "review", "wait", "signal", "said", "given up", "paused", "called back"),
        *("half", "none", "poll", "child", "undo", "retried"),
    ],
)
def test_a_governed_run_obeys_the_rules(trace: Trace) -> None:
    assert rules(trace) == []


CASES: dict[str, tuple[str, Callable[[], Trace]]] = {
    "no start": ("starts_first", lambda: without(GOOD, "WORKFLOW_STARTED")),
    "two starts": ("starts_first", lambda: twice(GOOD, "WORKFLOW_STARTED")),
    "a gap": ("versions_without_gap", lambda: [*GOOD[:3], *GOOD[4:]]),
    "another workflow's event": ("one_workflow", lambda: [*GOOD[:4], replace(GOOD[4], stream="wf_x"), *GOOD[5:]]),
    "another tenant's event": ("one_workflow", lambda: [*GOOD[:4], replace(GOOD[4], tenant="x"), *GOOD[5:]]),
    "an earlier number": ("one_workflow", lambda: [*GOOD[:4], replace(GOOD[4], seq=2), *GOOD[5:]]),
    "a call after the end": ("nothing_after_the_end", lambda: moved(GOOD, "TOOL_INVOKE", len(GOOD) - 1)),
    "an answer after the end": ("nothing_after_the_end", lambda: moved(GOOD, "APPROVAL_DECISION", len(GOOD) - 1)),
    "two ends": ("nothing_after_the_end", lambda: twice(GOOD, "WORKFLOW_COMPLETED")),
    "a step not opened": ("step_opened_first", lambda: without(GOOD, "WORKFLOW_STEP")),
    "a step opened twice": ("step_opened_first", lambda: twice(GOOD, "WORKFLOW_STEP")),
    "a step ended twice": ("step_opened_first", lambda: twice(GOOD, "WORKFLOW_STEP", 1)),
    "a step that its condition left out": (
        "branch_as_decided",
        lambda: with_data(BRANCH, "WORKFLOW_STEP", 4, status="opened", reason=None),
    ),
    "an attempt before its time": ("retry_in_time", lambda: with_data(REVIEW, "WORKFLOW_STEP", 1, until=FUTURE)),
    "an end while it is to be tried again": (
        "retry_in_time",
        lambda: with_data(REVIEW, "WORKFLOW_STEP", 2, status="completed"),
    ),
    "a wait that ends before its time": ("wait_in_time", lambda: with_data(WAIT, "WORKFLOW_STEP", until=FUTURE)),
    "a wait that no signal ended": ("signal_ends_a_wait", lambda: without(SIGNAL, "SIGNAL_DELIVERED")),
    "a signal by no step of its kind": ("signal_by_its_step", lambda: with_data(SAID, "SIGNAL_SENT", step_id="x")),
    "a signal that it does not wait for": (
        "signal_ends_a_wait",
        lambda: with_data(SIGNAL, "WORKFLOW_STEP", waits_for="stop"),
    ),
    "a signal to a wait that is over": ("signal_ends_a_wait", lambda: twice(SIGNAL, "SIGNAL_DELIVERED")),
    "a signal after its time": ("wait_in_time", lambda: with_data(SIGNAL, "WORKFLOW_STEP", timeout_at=PAST)),
    "given up before its time": ("wait_in_time", lambda: with_data(GIVEN_UP, "WORKFLOW_STEP", timeout_at=FUTURE)),
    "a step that nobody called back": ("callback_ends_a_wait", lambda: without(CALLED, "CALLBACK_RECEIVED")),
    "a callback that comes twice": ("callback_ends_a_wait", lambda: twice(CALLED, "CALLBACK_RECEIVED")),
    "a callback for a step that asked for none": (
        "callback_ends_a_wait",
        lambda: with_data(CALLED, "CALLBACK_RECEIVED", step_id="other"),
    ),
    "a call while it is paused": ("nothing_new_while_paused", lambda: without(PAUSED, "WORKFLOW_RESUMED")),
    "a step that nobody reviewed": ("review_by_a_person", lambda: without(REVIEW, "STEP_REVIEWED")),
    "a review by an agent": (
        "review_by_a_person",
        lambda: with_data(REVIEW, "STEP_REVIEWED", reviewed_by_kind="agent"),
    ),
    "another end than the person said": (
        "review_by_a_person",
        lambda: with_data(REVIEW, "STEP_REVIEWED", resolution="skip"),
    ),
    "a review of an open step": ("review_by_a_person", lambda: moved(REVIEW, "STEP_REVIEWED", 3)),
    "a step opened by a reopening": (
        "step_opened_first",
        lambda: with_data(ACTION, "WORKFLOW_STEP", 0, status="reopened"),
    ),
    "a branch that the value does not take": (
        "branch_as_decided",
        lambda: with_data(BRANCH, "WORKFLOW_STEP", 1, output={"value": 1, "branch": "if_true"}),
    ),
    "an agent before its step": ("step_opened_first", lambda: moved(GOOD, "AGENT_INVOKE", 1)),
    "people asked in no step": ("step_opened_first", lambda: with_request(GOOD, step_id="nowhere")),
    "no agent invoked": ("invocation_granted_first", lambda: without(GOOD, "AGENT_INVOKE")),
    "an agent invoked twice": ("invocation_granted_first", lambda: twice(GOOD, "AGENT_INVOKE")),
    "the agent ended before": ("invocation_granted_first", lambda: moved(GOOD, "AGENT_INVOKE", 4, nth=1)),
    "a tool not allowed": (
        "invocation_granted_first",
        lambda: with_data(GOOD, "AGENT_INVOKE", allowed_tools=["box__read", "other__*"]),
    ),
    "an expired invocation": ("invocation_granted_first", lambda: with_data(GOOD, "AGENT_INVOKE", expires_at=PAST)),
    "a call in no step": ("call_within_step", lambda: with_data(ACTION, "TOOL_INVOKE", step_id="nowhere")),
    "a call of nobody": ("call_within_step", lambda: with_data(GOOD, "TOOL_INVOKE", agent_invocation_id=None)),
    "no decision": ("permit_before_call", lambda: without(ACTION, "POLICY_DECISION", -1)),
    "a decision that asks": (
        "permit_before_call",
        lambda: with_data(ACTION, "POLICY_DECISION", -1, verdict="require_approval"),
    ),
    "a decision about another call": (
        "permit_before_call",
        lambda: with_data(ACTION, "POLICY_DECISION", -1, digest="sha256:other"),
    ),
    "a decision after the call": (
        "permit_before_call",
        lambda: moved(ACTION, "TOOL_INVOKE", at(ACTION, "TOOL_INVOKE") - 1),
    ),
    "one decision for two calls": (
        "permit_before_call",
        lambda: with_data(twice(ACTION, "TOOL_INVOKE"), "TOOL_INVOKE", 1, effect_id="eff_2", proposal_id="prop_2"),
    ),
    "a proposal that runs twice": (
        "proposal_used_once",
        lambda: with_data(twice(ACTION, "TOOL_INVOKE"), "TOOL_INVOKE", 1, effect_id="eff_2"),
    ),
    "a proposal made twice": ("proposal_used_once", lambda: twice(GOOD, "PROPOSAL_MADE")),
    "a call that was not proposed": (
        "proposal_used_once",
        lambda: with_data(GOOD, "PROPOSAL_MADE", digest="sha256:other"),
    ),
    "an attempt skipped": ("effect_attempts", lambda: with_data(DOUBT, "TOOL_INVOKE", 1, attempt=3)),
    "a second attempt first": ("effect_attempts", lambda: with_data(GOOD, "TOOL_INVOKE", attempt=2)),
    "another call in the second attempt": (
        "effect_attempts",
        lambda: with_data(DOUBT, "TOOL_INVOKE", 1, digest="sha256:other"),
    ),
    "a retry that nobody allowed": ("effect_attempts", lambda: without(DOUBT, "EFFECT_RESOLVED")),
    "a retry of what is not idempotent": (
        "effect_attempts",
        lambda: with_data(DOUBT, "TOOL_INVOKE", 2, idempotent=False),
    ),
    "two results": ("result_once", lambda: twice(GOOD, "TOOL_RESULT")),
    "a result of nothing": ("result_once", lambda: with_data(GOOD, "TOOL_RESULT", effect_id="eff_none")),
    "a result before the call": (
        "result_once",
        lambda: moved(ACTION, "TOOL_RESULT", at(ACTION, "TOOL_INVOKE")),
    ),
    "a result of another attempt": ("result_once", lambda: with_data(GOOD, "TOOL_RESULT", attempt=2)),
    "a doubt twice": ("result_once", lambda: twice(DOUBT, "EFFECT_IN_DOUBT")),
    "a resolution of no doubt": ("result_once", lambda: without(DOUBT, "EFFECT_IN_DOUBT")),
    "nobody asked": ("approval_requested_first", lambda: without(GOOD, "APPROVAL_REQUESTED")),
    "asked twice": ("approval_requested_first", lambda: twice(GOOD, "APPROVAL_REQUESTED")),
    "answered before it was asked": (
        "approval_requested_first",
        lambda: moved(GOOD, "APPROVAL_DECISION", at(GOOD, "APPROVAL_REQUESTED")),
    ),
    "an approval from nowhere": (
        "approval_requested_first",
        lambda: with_data(GOOD, "TOOL_INVOKE", approval_ids=["appr_none"]),
    ),
    "asked about something else": ("approval_same_digest", lambda: with_request(GOOD, digest="sha256:other")),
    "answered about something else": (
        "approval_same_digest",
        lambda: with_data(GOOD, "APPROVAL_DECISION", digest="sha256:other"),
    ),
    "answered too late": ("approval_not_closed", lambda: with_time(GOOD, "APPROVAL_DECISION", FUTURE)),
    "answered twice": ("approval_not_closed", lambda: twice(GOOD, "APPROVAL_DECISION")),
    "used without an answer": ("approval_not_closed", lambda: without(GOOD, "APPROVAL_DECISION")),
    "used though rejected": ("approval_not_closed", lambda: with_data(GOOD, "APPROVAL_DECISION", status="rejected")),
    "answered by an agent": (
        "approval_by_another_person",
        lambda: with_data(GOOD, "APPROVAL_DECISION", decided_by_kind="agent"),
    ),
    "answered by who asked": (
        "approval_by_another_person",
        lambda: with_data(GOOD, "APPROVAL_DECISION", decided_by=AGENT.id),
    ),
    "one person counted twice": (
        "approval_quorum",
        lambda: with_data(GOOD, "APPROVAL_DECISION", 2, decided_by=BOB.id),
    ),
    "a role that was not held": ("approval_quorum", lambda: with_data(GOOD, "APPROVAL_DECISION", 2, roles=[])),
    "an approval used twice": (
        "approval_used_once",
        lambda: with_data(GOOD, "TOOL_INVOKE", 2, approval_ids=GOOD[at(GOOD, "TOOL_INVOKE")].data["approval_ids"]),
    ),
    "an approval for another call": (
        "approval_same_digest",
        lambda: with_data(
            without(GOOD, "TOOL_INVOKE"),
            "TOOL_INVOKE",
            0,
            approval_ids=GOOD[at(GOOD, "TOOL_INVOKE")].data["approval_ids"],
        ),
    ),
    "a part handed to who asked": (
        "approval_handed_on",
        lambda: with_data(LONG, "APPROVAL_DELEGATED", delegated_to=ANN.id),
    ),
    "a part handed on twice": ("approval_handed_on", lambda: twice(LONG, "APPROVAL_DELEGATED")),
    "a part that nobody handed on": ("approval_handed_on", lambda: without(LONG, "APPROVAL_DELEGATED")),
    "approved after it was handed on": (
        "approval_handed_on",
        lambda: with_data(LONG, "APPROVAL_DECISION", decided_by=BOB.id, on_behalf_of=[]),
    ),
    "a reminder before its time": ("approval_in_order", lambda: with_time(LONG, "APPROVAL_REMINDED", PAST)),
    "a reminder twice": ("approval_in_order", lambda: twice(LONG, "APPROVAL_REMINDED")),
    "an escalation before its time": ("approval_in_order", lambda: with_time(LONG, "APPROVAL_ESCALATED", PAST)),
    "an escalation twice": ("approval_in_order", lambda: twice(LONG, "APPROVAL_ESCALATED")),
    "the next asked before their turn": (
        "approval_in_order",
        lambda: moved(LONG, "APPROVAL_TURN", at(LONG, "APPROVAL_DECISION")),
    ),
    "one person for two roles": (
        "approval_duties_separate",
        lambda: with_data(LONG, "APPROVAL_DECISION", 2, decided_by=CAT.id, roles=["legal"]),
    ),
    "a sequence cut short": ("approval_quorum", lambda: with_data(LONG, "APPROVAL_DECISION", status="approved")),
    "an agent without a reason": (
        "approval_by_another_person",
        lambda: with_data(LONG, "APPROVAL_DECISION", 2, decided_by_kind="agent"),
    ),
    "an agent of who asked": (
        "approval_by_another_person",
        lambda: with_data(
            LONG, "APPROVAL_DECISION", 2, decided_by_kind="agent", decided_by="x", acts_for=ANN.id, comment="Fine."
        ),
    ),
    "a poll that ends without an answer": ("poll_by_calls", lambda: without(POLL, "TOOL_RESULT", 1)),
    "a poll that does not rest": ("poll_by_calls", lambda: with_data(POLL, "WORKFLOW_STEP", 1, until=FUTURE)),
    "a step that ends before its child": ("child_by_its_step", lambda: without(CHILD, "CHILD_ENDED")),
    "a child that ends twice": ("child_by_its_step", lambda: twice(CHILD, "CHILD_ENDED")),
    "a child of another step": ("child_by_its_step", lambda: with_data(CHILD, "CHILD_STARTED", step_id="other")),
    "an undoing that was not begun": ("undone_in_reverse", lambda: without(UNDO, "COMPENSATION_STARTED")),
    "an end that tells less was undone": (
        "undone_in_reverse",
        lambda: with_data(UNDO, "WORKFLOW_FAILED", compensated=[]),
    ),
    "an end that was not decided": (
        "undone_in_reverse",
        lambda: with_data(UNDO, "COMPENSATION_STARTED", ending="WORKFLOW_CANCELLED"),
    ),
    "a run that goes on by itself": ("nothing_after_the_end", lambda: without(RETRIED, "WORKFLOW_RETRIED")),
    "a step that had not failed goes on": (
        "retried_by_somebody",
        lambda: with_data(RETRIED, "WORKFLOW_RETRIED", steps=["a"]),
    ),
    "a gate that was never open": ("gate_open_first", lambda: with_data(PHASE, "GATE_CHECKED", 1, outcome="waiting")),
    "a gate open before anything is handed in": (
        "gate_open_first",
        lambda: with_data(PHASE, "GATE_CHECKED", 0, outcome="open", results=[]),
    ),
    "a gate open though a check blocks": (
        "gate_open_first",
        lambda: with_data(
            PHASE,
            "GATE_CHECKED",
            1,
            results=[{"check": "c", "kind": "expression", "severity": "blocking", "outcome": "error"}],
        ),
    ),
    "a step again without a way back": ("again_by_a_way_back", lambda: without(PHASE, "PHASE_WENT_BACK")),
    "a way back to another step": (
        "again_by_a_way_back",
        lambda: with_data(PHASE, "PHASE_WENT_BACK", to_step="nowhere"),
    ),
    "a visit that was not counted": ("again_by_a_way_back", lambda: with_data(PHASE, "PHASE_WENT_BACK", visit=5)),
    "an unknown event": ("known_event", lambda: [*GOOD[:4], replace(GOOD[4], type="SOMETHING"), *GOOD[5:]]),
    "a payload of another shape": ("known_event", lambda: with_data(GOOD, "TOOL_INVOKE", surprise=1)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_breaks_a_rule_is_named(name: str) -> None:
    rule, lie = CASES[name]
    assert rule in rules(lie())


def test_the_first_finding_stands_at_the_event_that_breaks_the_rule() -> None:
    index = at(ACTION, "TOOL_INVOKE")
    (found,) = validate_trace(with_data(ACTION, "POLICY_DECISION", -1, verdict="deny"))
    assert (found.seq, found.event_id) == (ACTION[index].seq, ACTION[index].id)
    assert "box__read" in found.text


def granted_run(uses: int, calls: int) -> Trace:
    run = Run().start()
    bounds = GrantBounds(tool="box__read", arguments={}, uses=uses, expires_at=FUTURE)
    command = GiveGrant(workflow_id=run.state.workflow_id, bounds=bounds, channel="cli")
    run.decide(command, run.given(BOB, **run.run_facts(BOB, "grant.give")))
    for _ in range(calls):
        run.outcome(effect_of(run.invoke("read")).effect_id)
    trace = record(run)
    grant_id = trace[at(trace, "GRANT_GIVEN")].data["grant_id"]
    for nth in range(calls):
        trace = with_data(trace, "TOOL_INVOKE", nth, grant_id=grant_id)
    return trace


def test_a_standing_grant_covers_so_many_calls_of_its_tool() -> None:
    assert rules(granted_run(2, 2)) == []
    assert rules(granted_run(1, 2)) == ["grant_within_bounds"]
    trace = granted_run(2, 2)
    bounds = trace[at(trace, "GRANT_GIVEN")].data["bounds"]
    for changes in ({"tool": "box__write"}, {"expires_at": PAST}):
        lie = with_data(trace, "GRANT_GIVEN", bounds={**bounds, **changes})
        assert rules(lie) == ["grant_within_bounds"] * 2


def test_a_standing_grant_covers_no_call_of_who_gave_it_also_where_it_was_given_for_the_case() -> None:
    trace = granted_run(1, 1)
    assert rules(with_data(trace, "GRANT_GIVEN", given_by=AGENT.id.upper())) == ["grant_by_another_person"]
    decided = at(trace, "TOOL_INVOKE") - 1
    facts = trace[decided].data["facts"]
    nth = [event.seq for event in trace if event.type == "POLICY_DECISION"].index(trace[decided].seq)
    for giver, found in ((BOB.id, []), (CAT.id, ["grant_by_another_person"])):
        told = with_data(trace, "POLICY_DECISION", nth, facts={**facts, "grant_given_by": giver})
        assert rules(told) == found
    of_case = without(trace, "GRANT_GIVEN")
    for giver, found in ((BOB.id, []), (AGENT.id, ["grant_by_another_person"])):
        told = with_data(of_case, "POLICY_DECISION", nth, facts={**facts, "grant_given_by": giver})
        assert [rule for rule in rules(told) if rule.startswith("grant")] == found


def under(by: str, *roles: str) -> dict[str, Any]:
    return {"given_by": by, "roles": list(roles), "separation": "roles"}


def test_who_gives_a_grant_has_passed_the_step_that_runs_under_it() -> None:
    trace = granted_run(1, 1)
    for giver, found in ((BOB.id, []), (CAT.id, ["grant_by_another_person"])):
        assert rules(with_data(trace, "TOOL_INVOKE", under_grant=under(giver))) == found
    decided = at(LONG, "APPROVAL_DECISION")
    call = ACTION[at(ACTION, "TOOL_INVOKE")]
    for place in (decided, decided + 1):  # before dan approves in bob's place, and after it
        for giver, apart in ((DAN.id, True), (BOB.id, True), (EVE.id, False)):
            data = {**call.data, "step_id": "elsewhere", "under_grant": under(giver, "treasury")}
            lie = [*LONG[:place], replace(call, data=data), *LONG[place : decided + 1]]
            assert ("approval_duties_separate" in rules(lie)) == apart


def test_every_rule_has_a_lie_that_it_catches() -> None:
    shown_above = {"grant_within_bounds", "grant_by_another_person"}
    assert {rule for rule, _ in CASES.values()} | shown_above == TRACE_RULES.keys()


def test_every_event_type_is_seen_in_some_run() -> None:
    seen = {each.type for each in [*GOOD, *DOUBT, *ACTION]}
    assert seen >= {"WORKFLOW_STARTED", "AGENT_INVOKE", "POLICY_DECISION", "TOOL_INVOKE", "WORKFLOW_COMPLETED"}
    assert seen <= PAYLOADS.keys()


class Traced(Governed):
    """Whatever random people, agents, clocks and crashes do to the decider, its record obeys the rules."""

    def teardown(self) -> None:
        assert validate_trace(record(self.run)) == ()


TestTraced = Traced.TestCase
TestTraced.settings = settings(Governed.TestCase.settings, max_examples=25)
