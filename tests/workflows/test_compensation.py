"""A run that ends without its result first undoes what it did, the last step first, and says so."""

from __future__ import annotations

from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.model import commands as cmd
from charter.workflows import children
from charter.workflows import decide as rules
from tests.workflows.build import BOB, ENGINE, Run, asked, code_of, effect_of, envelopes, template


def step(step_id: str, **more: Any) -> dict[str, Any]:
    undo = {"tool": "box__read", "arguments": {"undo": f"{{{{ steps.{step_id}.output.n }}}}"}}
    return {"id": step_id, "type": "action", "tool": "box__read", "compensate": undo, **more}


def did(run: Run, *steps: str, **more: Any) -> Run:
    """The engine runs these, one after the other; each answers with its own name."""
    for step_id in steps:
        assert step_id in rules.runnable_steps(run.state), (step_id, rules.runnable_steps(run.state))
        run.outcome(effect_of(run.run_step(step_id)).effect_id, output={"n": step_id}, **more)
    return run


def run_of(*steps: dict[str, Any]) -> Run:
    return Run(template(*steps)).start()


def ends_well(run: Run) -> None:
    assert validate_trace(envelopes(run)) == ()
    assert run.refolded() == run.state


def test_a_failure_undoes_the_last_first_with_what_each_step_gave() -> None:
    run = run_of(step("book"), step("pay"), step("send"))
    did(run, "book", "pay")
    run.outcome(effect_of(run.run_step("send")).effect_id, "failed")
    assert (run.state.status, rules.runnable_steps(run.state)) == ("compensating", ["undo:pay"])
    assert run.context().steps["undo:pay"] == "open"
    did(run, "undo:pay")
    assert rules.runnable_steps(run.state) == ["undo:book"]
    did(run, "undo:book")
    assert run.state.status == "failed"
    ended = run.log[-1].data
    assert (run.log[-1].type, ended.code, ended.compensated) == ("WORKFLOW_FAILED", "tool_error", ("pay", "book"))
    undone = [event.data.arguments for event in run.log if event.type == "TOOL_INVOKE"][-2:]
    assert undone == [{"undo": "pay"}, {"undo": "book"}]
    ends_well(run)


@pytest.mark.parametrize("paused", [False, True])
def test_cancelling_undoes_too_even_from_a_pause(paused: bool) -> None:
    run = did(run_of(step("book"), {"id": "work", "type": "agent", "allowed_tools": ["*"]}), "book")
    if paused:
        run.hold(True)
    run.cancel("not wanted")
    assert (run.state.status, run.types().count("COMPENSATION_STARTED")) == ("compensating", 1)
    assert [item.status for item in run.state.invocations.values()] == ["ended"]
    assert code_of(run.invoke("read")) == "no_invocation", "the agent has nothing to do here any more"
    assert code_of(run.cancel()) == "already_ending"
    assert code_of(run.hold(True)) == code_of(run.hold(False)) == "already_ending"
    did(run, "undo:book")
    assert (run.state.status, run.log[-1].data.reason) == ("cancelled", "not wanted")
    ends_well(run)


def test_a_rejection_undoes_what_was_done_before_people_were_asked() -> None:
    run = did(run_of(step("book"), {"id": "ok", "type": "approval", "question": "?"}), "book")
    run.answer(run.approval_id(), "reject")
    did(run, "undo:book")
    assert run.state.status == "rejected"
    ends_well(run)


def test_a_run_that_did_nothing_or_came_to_its_end_undoes_nothing() -> None:
    assert run_of(step("book")).cancel().state.status == "cancelled"
    run = did(run_of(step("book")), "book")
    assert run.state.status == "completed"
    assert "COMPENSATION_STARTED" not in run.types()


def test_an_undoing_that_fails_waits_for_a_person_and_is_never_silent() -> None:
    run = did(run_of(step("book"), step("pay"), {"id": "w", "type": "wait", "seconds": 5}), "book", "pay")
    run.cancel()
    did(run, "undo:pay", status="failed")
    assert run.steps()["undo:pay"] == "review"
    assert rules.runnable_steps(run.state) == []
    [blocker] = run.context().blocked_by
    assert (blocker.what, blocker.step_id) == ("review", "undo:pay")
    run.review("undo:pay", "retry")
    did(run, "undo:pay", is_error=True)
    run.review("undo:pay", "skip")
    did(run, "undo:book")
    assert (run.state.status, run.log[-1].data.compensated) == ("cancelled", ("book",))
    assert run.log[-1].data.not_compensated == ("pay",)
    ends_well(run)


def test_the_policy_decides_on_undoing_as_on_anything_else() -> None:
    asked = step("book", compensate={"tool": "box__write"})
    run = did(run_of(asked, {"id": "w", "type": "wait", "seconds": 5}), "book")
    run.cancel()
    run.run_step("undo:book")
    run.answer(run.approval_id(), "reject")
    assert run.steps()["undo:book"] == "review", "a no to the undoing is no end: the deed is still done"
    run.review("undo:book", "retry")
    run.run_step("undo:book")
    run.answer(run.approval_id(), by=BOB)
    did(run, "undo:book")
    assert run.log[-1].data.compensated == ("book",)
    ends_well(run)
    denied = step("book", compensate={"tool": "box__drop"})
    run = did(run_of(denied, {"id": "w", "type": "wait", "seconds": 5}), "book")
    run.cancel()
    run.run_step("undo:book")
    assert run.steps()["undo:book"] == "review"


def test_nothing_is_undone_while_nobody_knows_what_was_done() -> None:
    run = run_of(step("book"), step("pay", needs=[], tool="box__read"), {"id": "w", "type": "wait", "seconds": 9})
    did(run, "book")
    effect = effect_of(run.run_step("pay"))
    run.cancel()
    assert rules.runnable_steps(run.state) == []
    assert run.context().blocked_by[0].what == "effect"
    run.outcome(effect.effect_id, "unknown")
    assert run.context().blocked_by[0].what == "effect_in_doubt"
    run.resolve(effect.effect_id, "ran", {"n": "pay"})
    did(run, "undo:pay", "undo:book")
    assert run.log[-1].data.compensated == ("pay", "book"), "the one that was known last was done last"
    ends_well(run)


def test_a_call_that_ran_after_its_step_was_given_up_is_undone() -> None:
    run = run_of(step("book", timeout_seconds=5, on_timeout="skip"), {"id": "w", "type": "wait", "seconds": 900})
    effect = effect_of(run.run_step("book"))
    run.wait(5).advance()
    run.outcome(effect.effect_id, output={"n": "book"})
    assert run.steps()["book"] == "skipped"
    run.cancel()
    assert run.steps()["undo:book"] == "open"


def test_what_fails_meanwhile_needs_no_undoing_and_is_not_tried_again() -> None:
    retry = {"attempts": 3}
    run = run_of(step("book"), step("pay", needs=[], retry=retry), {"id": "w", "type": "wait", "seconds": 9})
    did(run, "book")
    effect = effect_of(run.run_step("pay"))
    run.cancel()
    run.outcome(effect.effect_id, "failed")
    assert run.steps()["pay"] == "failed"
    did(run, "undo:book")
    assert (run.state.status, run.log[-1].data.compensated) == ("cancelled", ("book",))
    ends_well(run)


def test_undoing_retries_within_its_own_limits_before_it_asks() -> None:
    undo = {"tool": "box__read", "retry": {"attempts": 2, "backoff_seconds": 60}}
    run = did(run_of(step("book", compensate=undo), {"id": "w", "type": "wait", "seconds": 30}), "book")
    run.cancel()
    did(run, "undo:book", status="failed")
    assert run.steps()["undo:book"] == "retrying"
    run.wait(60).advance()
    assert run.steps()["w"] == "open", "the timer of a step that is not undone does not fire any more"
    did(run, "undo:book")
    assert run.state.status == "cancelled"
    ends_well(run)


# -- other steps than actions, and steps that undo

LAST = {"id": "w", "type": "wait", "seconds": 900}
UNDO = {"tool": "box__read", "arguments": {"of": "{{ steps.first.output }}"}}
HTTP = {"id": "first", "type": "external", "url": "https://example.com/order", "method": "POST"}
MAIL = {
    "id": "first",
    "type": "notification",
    "wait": True,
    "email": {"to": ["ann@example.com"], "subject": "Booked", "text": "So."},
}
WORK = {"id": "first", "type": "agent", "allowed_tools": ["*"]}


@pytest.mark.parametrize("first", [HTTP, MAIL, WORK], ids=["external", "notification", "agent"])
def test_every_step_that_does_something_can_be_undone(first: dict[str, Any]) -> None:
    run = run_of({**first, "compensate": UNDO}, LAST)
    if first is WORK:
        run.complete({"n": "first"})
    else:
        did(run, "first")
    run.cancel()
    did(run, "undo:first")
    assert (run.state.status, run.log[-1].data.compensated) == ("cancelled", ("first",))
    undone = [event.data.arguments for event in run.log if event.type == "TOOL_INVOKE"][-1]
    assert undone == {"of": {"n": "first"}}
    ends_well(run)


def test_work_that_was_not_completed_is_not_undone() -> None:
    run = run_of({**WORK, "compensate": UNDO}, LAST)
    run.cancel()
    assert run.state.status == "cancelled"
    assert "COMPENSATION_STARTED" not in run.types()


def test_a_request_that_was_taken_is_undone_though_nobody_has_called_back() -> None:
    run = did(run_of({**HTTP, "callback": {}, "compensate": {"tool": "box__read"}}, LAST), "first")
    assert run.steps()["first"] == "awaiting"
    run.cancel()
    did(run, "undo:first")
    assert run.log[-1].data.compensated == ("first",)
    ends_well(run)


def test_a_message_that_was_given_up_neither_is_undone_nor_keeps_the_run_from_its_end() -> None:
    run = run_of({**MAIL, "retry": None, "compensate": {"tool": "box__read"}}, LAST)
    run.outcome(effect_of(run.run_step("first")).effect_id, "failed")
    assert "EFFECT_DEAD_LETTERED" in run.types()
    run.cancel()
    assert run.state.status == "cancelled"
    ends_well(run)


REFUND = {"id": "refund", "type": "action", "tool": "box__read", "arguments": {"of": "{{ steps.pay.output.n }}"}}
BY_STEP = (
    {"id": "pay", "type": "action", "tool": "box__read", "compensate": {"step": "refund"}},
    REFUND,
    {"id": "then", "type": "agent"},
)


def test_a_step_that_undoes_another_does_nothing_else() -> None:
    run = did(run_of(*BY_STEP), "pay")
    assert run.steps() == {"pay": "completed", "then": "open"}, "what follows it comes after the step before it"
    assert "refund" not in run.context().steps
    run.complete({})
    assert run.state.status == "completed"
    ends_well(run)


def test_it_runs_as_its_own_step_says_when_the_other_is_to_be_undone() -> None:
    refund = {**REFUND, "retry": {"attempts": 2, "backoff_seconds": 60}, "on_failure": "skip", "on_reject": "continue"}
    run = did(run_of(BY_STEP[0], refund, BY_STEP[2]), "pay")
    run.cancel()
    did(run, "undo:pay", status="failed")
    assert run.steps()["undo:pay"] == "retrying"
    run.wait(60).advance()
    did(run, "undo:pay", status="failed")
    assert run.steps()["undo:pay"] == "review", "an undoing that fails is never skipped in silence"
    run.review("undo:pay", "retry")
    did(run, "undo:pay")
    assert run.log[-1].data.compensated == ("pay",)
    asked = [event.data.arguments for event in run.log if event.type == "TOOL_INVOKE"][-1]
    assert asked == {"of": "pay"}
    ends_well(run)


def test_one_step_may_undo_several_each_in_its_turn() -> None:
    steps = [{**BY_STEP[0], "id": name} for name in ("a", "b")]
    run = did(run_of(*steps, {**REFUND, "arguments": {}}, LAST), "a", "b")
    run.cancel()
    did(run, "undo:b", "undo:a")
    assert run.log[-1].data.compensated == ("b", "a")
    ends_well(run)


def test_a_request_may_undo() -> None:
    run = did(run_of(BY_STEP[0], {**HTTP, "id": "refund"}, LAST), "pay")
    run.cancel()
    did(run, "undo:pay")
    assert (run.state.status, run.state.steps["undo:pay"].step_type) == ("cancelled", "external")
    ends_well(run)


CHILD = {"id": "refund", "type": "workflow", "template": "other", "input": {"of": "{{ steps.pay.output.n }}"}}


def child_of(run: Run, status: str, step_id: str = "undo:pay", **more: Any) -> None:
    """The engine starts it, and it ends so."""
    child_id = run.state.steps[step_id].child_workflow_id
    assert child_id is not None
    ids = {"workflow_id": run.state.workflow_id, "child_workflow_id": child_id}
    if status != "never_started":
        run.decide(cmd.ConfirmChild(**ids, template="other@1"), run.given(ENGINE))
        assert rules.runnable_steps(run.state) == []
        assert not children.strays(run.state), "it is waited for"
    run.decide(cmd.EndChild.model_validate({**ids, "status": status, **more}), run.given(ENGINE))


def test_a_workflow_may_undo() -> None:
    run = did(run_of(BY_STEP[0], CHILD, LAST), "pay")
    run.cancel()
    assert rules.runnable_steps(run.state) == ["undo:pay"]
    child_of(run, "completed", output={"refunded": True})
    assert (run.state.status, run.log[-1].data.compensated) == ("cancelled", ("pay",))
    ends_well(run)


@pytest.mark.parametrize("how", ["failed", "rejected", "cancelled", "never_started"])
def test_a_workflow_that_did_not_undo_waits_for_a_person(how: str) -> None:
    run = did(run_of(BY_STEP[0], CHILD, LAST), "pay")
    run.cancel()
    first = run.state.steps["undo:pay"].child_workflow_id
    child_of(run, how, reason="so")
    assert (run.state.status, run.steps()["undo:pay"]) == ("compensating", "review")
    run.review("undo:pay", "retry")
    assert run.state.steps["undo:pay"].child_workflow_id != first
    child_of(run, "completed")
    assert run.log[-1].data.compensated == ("pay",)
    ends_well(run)


PERSONALLY = {
    "id": "refund",
    "type": "agent",
    "instructions": "Call {{ steps.pay.output.n }} and have it paid back.",
    "allowed_tools": ["box__*"],
    "expires_after_seconds": 3600,
}


def test_an_agent_may_undo_by_governed_calls() -> None:
    run = did(run_of(BY_STEP[0], PERSONALLY, LAST), "pay")
    run.cancel()
    assert run.state.status == "compensating"
    (given,) = run.context().invocations
    assert (given.step_id, given.instructions) == ("undo:pay", "Call pay and have it paid back.")
    assert [item.what for item in run.context().blocked_by] == ["agent"]
    proposal_id, approval_id = asked(run)
    run.answer(approval_id, by=BOB)
    run.outcome(effect_of(run.invoke(proposal_id=proposal_id)).effect_id)
    assert code_of(run.cancel()) == "already_ending"
    run.complete({"called": "them"})
    assert (run.state.status, run.log[-1].data.compensated) == ("cancelled", ("pay",))
    assert not [item for item in run.state.invocations.values() if item.status == "open"]
    ends_well(run)


def test_an_agent_that_undoes_nothing_in_time_is_followed_by_another_and_then_by_a_person() -> None:
    again = {"retry": {"attempts": 2, "backoff_seconds": 60}}
    run = did(run_of(BY_STEP[0], {**PERSONALLY, **again}, LAST), "pay")
    run.cancel()
    run.wait(3600).advance()
    assert run.steps()["undo:pay"] == "retrying"
    run.wait(60).advance()
    assert len(run.context().invocations) == 1
    run.wait(3600).advance()
    assert (run.steps()["undo:pay"], run.context().invocations) == ("review", ())
    run.review("undo:pay", "supply", output={"by": "hand"})
    assert run.log[-1].data.compensated == ("pay",)
    ends_well(run)


def test_one_agent_after_the_other_in_reverse() -> None:
    steps = [{**BY_STEP[0], "id": name} for name in ("a", "b")]
    run = did(run_of(*steps, {**PERSONALLY, "instructions": "Undo."}, LAST), "a", "b")
    run.cancel()
    for name in ("b", "a"):
        (given,) = run.context().invocations
        assert given.step_id == f"undo:{name}"
        run.complete({}, invocation=given.agent_invocation_id)
    assert run.log[-1].data.compensated == ("b", "a")
    ends_well(run)


def test_a_tampered_order_is_found() -> None:
    run = did(run_of(step("book"), step("pay"), {"id": "w", "type": "wait", "seconds": 5}), "book", "pay")
    run.cancel()
    did(run, "undo:pay", "undo:book")
    events = envelopes(run)
    swapped = {"undo:pay": "undo:book", "undo:book": "undo:pay"}
    for number, event in enumerate(events):
        if event.data.get("step_id") in swapped:
            data = {**event.data, "step_id": swapped[event.data["step_id"]]}
            events[number] = event.__class__(**{**{k: getattr(event, k) for k in event.__slots__}, "data": data})
    assert "undone_in_reverse" in {finding.rule for finding in validate_trace(events)}
