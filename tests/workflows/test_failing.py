"""``on_failure`` on every type of step: what a failure is there, what follows, and what a person may say of it."""

from __future__ import annotations

from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.workflows import decide as rules
from tests.workflows.build import BOB, CAT, DAY, Run, asked, code_of, effect_of, envelopes, template

HOUR = 3600
WORK = {"id": "go", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": HOUR, "calls": 2}
GATE = {"checks": [{"id": "short", "expression": "size(artifacts.plan) < 5"}], "attempts": 1}
PHASE = {**WORK, "artifacts": [{"name": "plan"}], "gate": GATE}
AGREE = {"id": "go", "type": "approval", "question": "Go?", "expires_after_seconds": HOUR, "on_timeout": "fail"}
CHOICE = {
    "id": "go",
    "type": "condition",
    "expression": "steps.other.output.yes",
    "if_true": ["yes"],
    "if_false": ["no"],
}
PAID = {"id": "go", "type": "wait", "signal": {"type": "paid"}, "timeout_seconds": HOUR, "on_timeout": "fail"}
POLLED = {
    "id": "go",
    "type": "wait",
    "poll": {"tool": "box__read", "until": "result.ok", "every_seconds": 60, "attempts": 2},
    "on_timeout": "fail",
}
SAID = {"id": "go", "type": "signal", "signal": {"type": "done", "data": "{{ trigger.none }}"}}
CHILD = {"id": "go", "type": "workflow", "template": "other", "timeout_seconds": HOUR}


def run_of(step: dict[str, Any], *more: dict[str, Any], **fields: Any) -> Run:
    return Run(template({**step, **fields}, *more, output="{{ steps.go.output }}")).start()


def sound(run: Run) -> None:
    """The log alone gives the same state, and it obeys the rules of traces."""
    assert run.refolded() == run.state
    assert validate_trace(envelopes(run)) == ()


def late(run: Run) -> None:
    run.wait(HOUR).advance()


def never_as_hoped(run: Run) -> None:
    for _ in range(2):
        run.wait(60).advance()
        run.outcome(effect_of(run.run_step("go")).effect_id, output={"ok": False})


def shut(run: Run) -> None:
    run.complete({"plan": "far too long"})


FAILURES = [
    (WORK, late),
    (PHASE, shut),
    (PAID, late),
    (POLLED, never_as_hoped),
    (CHILD, late),
    (SAID, lambda run: None),
]
NAMES = ["an agent is late", "a gate stays shut", "no signal", "no answer", "a child is late", "nothing to say"]


@pytest.mark.parametrize(("step", "fails"), FAILURES, ids=NAMES)
@pytest.mark.parametrize(
    ("on_failure", "status", "so"),
    [("fail_workflow", "failed", "failed"), ("skip", "completed", "skipped"), ("human_review", "running", "review")],
)
def test_what_follows_a_failure_is_the_steps_to_say(
    step: dict[str, Any], fails: Any, on_failure: str, status: str, so: str
) -> None:
    run = run_of(step, on_failure=on_failure)
    fails(run)
    assert (run.state.status, run.steps()["go"], run.state.output) == (status, so, None)
    assert not [item for item in run.state.invocations.values() if item.status == "open"]
    if so == "review":
        assert [item.what for item in run.context().blocked_by] == ["review"]
        assert rules.wake_at(run.state) is None or run.state.children
    sound(run)


@pytest.mark.parametrize(
    ("resolution", "status", "so", "output"),
    [
        ("skip", "completed", "skipped", None),
        ("supply", "completed", "completed", {"by": "hand"}),
        ("fail", "failed", "failed", None),
    ],
)
@pytest.mark.parametrize(("step", "fails"), FAILURES, ids=NAMES)
def test_a_person_may_end_it(
    step: dict[str, Any], fails: Any, resolution: str, status: str, so: str, output: Any
) -> None:
    run = run_of(step, on_failure="human_review")
    fails(run)
    run.review("go", resolution, output={"by": "hand"})
    assert (run.state.status, run.steps()["go"], run.state.output) == (status, so, output)
    sound(run)


@pytest.mark.parametrize(("step", "fails"), FAILURES, ids=NAMES)
def test_a_person_may_have_it_done_again_from_its_beginning(step: dict[str, Any], fails: Any) -> None:
    run = run_of(step, on_failure="human_review")
    fails(run)
    before = run.state.steps["go"]
    run.review("go", "retry")
    after = run.state.steps["go"]
    assert after.attempt == (1 if after.polls else before.attempt + 1), "a poll has all its calls again"
    if step is SAID:  # it has no value a second time
        assert after.status == "review"
    else:
        assert after.status == "open"
        fails(run)
        assert run.steps()["go"] == "review"
    sound(run)


# -- agents


@pytest.mark.parametrize(("step", "fails"), FAILURES[:2], ids=NAMES[:2])
def test_an_agents_attempt_is_made_again_with_calls_and_time_of_its_own(step: dict[str, Any], fails: Any) -> None:
    run = run_of(step, retry={"attempts": 2, "backoff_seconds": 60}, on_failure="human_review")
    effect = effect_of(run.invoke("read", {}))
    run.outcome(effect.effect_id)
    fails(run)
    assert run.steps()["go"] == "retrying"
    assert code_of(run.invoke("read", {})) == "no_invocation", "the first attempt is over"
    assert run.wait(59).advance().events == []
    run.wait(1).advance()
    (grant,) = [item for item in run.state.invocations.values() if item.status == "open"]
    assert (grant.calls_used, grant.calls_budget) == (0, 2)
    fails(run)
    assert run.steps()["go"] == "review", "the last attempt is the last"
    sound(run)


def test_what_people_were_asked_about_a_call_ends_with_the_attempt_that_wanted_it() -> None:
    run = run_of(WORK, retry={"attempts": 2})
    _, approval_id = asked(run)
    late(run)
    assert run.state.approvals[approval_id].status == "withdrawn"
    assert code_of(run.answer(approval_id)) == "already_decided"
    sound(run)


def test_a_gate_is_tried_anew_and_its_evidence_gathered_anew_by_the_next_attempt() -> None:
    tests = {"id": "tests", "expression": "evidence.failed == 0", "evidence": {"tool": "box__read"}}
    run = run_of(PHASE, gate={"checks": [tests], "attempts": 1}, retry={"attempts": 2, "backoff_seconds": 0})
    run.complete({"plan": "a"})
    run.outcome(effect_of(run.run_step("go.gate.tests")).effect_id, output={"failed": 3})
    run.advance()
    assert run.steps()["go"] == "open"
    run.complete({"plan": "b"})
    assert rules.runnable_steps(run.state) == ["go.gate.tests"]
    run.outcome(effect_of(run.run_step("go.gate.tests")).effect_id, output={"failed": 0})
    assert (run.state.status, run.state.output) == ("completed", {"plan": "b"})
    sound(run)


@pytest.mark.parametrize(("on_failure", "so"), [("skip", "skipped"), ("human_review", "review")])
def test_a_question_of_a_gate_that_has_no_value_fails_the_step_whose_gate_it_is(on_failure: str, so: str) -> None:
    asks = {"approval": {"question": "{{ artifacts.none }}?"}}
    run = run_of(PHASE, gate=asks, on_failure=on_failure)
    run.complete({"plan": "a"})
    assert run.steps()["go"] == so
    sound(run)


def test_nobody_is_asked_about_a_gate_when_the_run_is_being_undone() -> None:
    first = {"id": "first", "type": "action", "tool": "box__read", "compensate": {"tool": "box__read"}}
    asks = {"checks": [{"id": "q", "question": "{{ artifacts.none }}?"}], "approval": {}}
    run = Run(template(first, {**PHASE, "gate": asks})).start()
    run.outcome(effect_of(run.run_step("first")).effect_id)
    run.complete({"plan": "a"})
    assert (run.state.status, "go.gate" in run.steps()) == ("compensating", False)
    sound(run)


def test_a_way_back_that_has_no_value_ends_the_attempt() -> None:
    back = [{"to": "go", "on": "blocked", "when": "artifacts.none"}]
    run = run_of(PHASE, go_back=back, on_failure="human_review")
    shut(run)
    assert run.steps()["go"] == "review"
    assert code_of(run.complete({"plan": "a"})) == "invocation_ended"
    sound(run)


# -- approvals


def test_people_are_asked_anew_where_a_person_says_so() -> None:
    run = run_of(AGREE, on_failure="human_review")
    first = run.approval_id()
    late(run)
    assert run.steps()["go"] == "review"
    run.review("go", "retry")
    assert run.approval_id() != first
    run.answer(run.approval_id(), by=CAT)
    assert (run.state.status, run.state.output["approved_by"]) == ("completed", ["cat"])
    sound(run)


def test_an_operator_does_not_answer_in_the_place_of_those_who_are_asked() -> None:
    run = run_of(AGREE, on_failure="human_review", on_reject="fail")
    run.answer(run.approval_id(), "reject", by=BOB)
    assert run.steps()["go"] == "review"
    found = run.review("go", "supply", output={"decision": "approve"})
    assert (code_of(found), run.steps()["go"]) == ("people_decide", "review")
    run.review("go", "fail")
    assert run.state.status == "failed"
    sound(run)


PAY = {"id": "pay", "type": "action", "tool": "box__read", "needs": ["go"]}
SHIP = {"id": "ship", "type": "action", "tool": "box__read", "needs": ["pay", "apart"]}
APART = {"id": "apart", "type": "condition", "expression": "true", "needs": []}
ESCALATED = {"on_timeout": "escalate", "escalations": [{"role": "chief", "expires_after_seconds": HOUR}]}


def left_out(run: Run) -> None:
    """Nothing ran that needs the yes, at whatever distance; all else did."""
    assert run.steps() == {"go": "skipped", "pay": "skipped", "ship": "skipped", "apart": "completed"}
    assert run.state.steps["pay"].code == run.state.steps["ship"].code == "not_agreed"
    assert run.state.status == "completed"
    assert "TOOL_INVOKE" not in run.types()
    sound(run)


@pytest.mark.parametrize("terms", [{}, ESCALATED, {"on_reject": "continue", "if_approved": ["pay"]}])
def test_a_skipped_approval_is_no_approval(terms: dict[str, Any]) -> None:
    run = run_of({**AGREE, **terms}, PAY, SHIP, APART, on_failure="skip")
    late(run)
    if "escalations" in terms:
        assert run.steps()["go"] == "open", "the others are asked first"
        late(run)
    if "if_approved" in terms:
        assert "took none" in (run.state.steps["pay"].reason or "")
        return
    left_out(run)


def test_an_approval_that_comes_after_it_was_skipped_runs_nothing() -> None:
    run = run_of(AGREE, PAY, on_failure="skip")
    approval_id = run.approval_id()
    run.wait(HOUR)
    assert code_of(run.answer(approval_id, by=BOB)) == "already_decided"
    assert run.steps() == {"go": "skipped", "pay": "skipped"}
    assert rules.runnable_steps(run.state) == []
    sound(run)


def test_a_no_is_not_met_by_what_is_for_silence() -> None:
    run = run_of({**AGREE, "retry": {"attempts": 3}}, PAY, on_failure="skip")
    run.answer(run.approval_id(), "reject", by=BOB)
    assert (run.state.status, run.steps()["go"]) == ("rejected", "rejected")
    sound(run)


def test_a_no_that_fails_the_step_skips_what_needs_a_yes_and_is_never_asked_again() -> None:
    run = run_of({**AGREE, "on_reject": "fail", "retry": {"attempts": 3}}, PAY, SHIP, APART, on_failure="skip")
    run.answer(run.approval_id(), "reject", by=BOB)
    left_out(run)


def test_a_question_that_cannot_be_asked_is_skipped_with_what_needs_it() -> None:
    left_out(run_of({**AGREE, "question": "{{ trigger.none }}?"}, PAY, SHIP, APART, on_failure="skip"))


def test_an_operator_may_leave_out_what_needs_the_yes() -> None:
    run = run_of(AGREE, PAY, SHIP, APART, on_failure="human_review")
    late(run)
    run.review("go", "skip")
    left_out(run)


@pytest.mark.parametrize("answered", [True, False])
def test_people_who_did_not_answer_are_asked_anew_so_many_times(answered: bool) -> None:
    run = run_of({**AGREE, "retry": {"attempts": 2, "backoff_seconds": 60}}, PAY, on_failure="fail_workflow")
    first = run.approval_id()
    late(run)
    assert (run.steps()["go"], run.state.approvals[first].status) == ("retrying", "expired")
    assert code_of(run.answer(first, by=BOB)) == "already_decided"
    run.wait(60).advance()
    second = run.approval_id()
    assert second != first
    if answered:
        run.answer(second, by=BOB)
        assert run.steps() == {"go": "completed", "pay": "open"}
        assert [effect_of(run.run_step("pay")).step_id] == ["pay"]
    else:
        late(run)
        assert (run.state.status, run.steps()["go"]) == ("failed", "failed")
    sound(run)


def test_those_to_whom_it_was_escalated_answer_or_it_fails_where_that_is_said() -> None:
    for more, status in (
        ({}, "rejected"),
        ({"on_failure": "human_review"}, "running"),
        ({"retry": {"attempts": 1}}, "failed"),
    ):
        run = run_of({**AGREE, **ESCALATED, **more})
        late(run)
        late(run)
        assert run.state.status == status
        sound(run)


# -- conditions

OTHERS = (
    {"id": "other", "type": "agent", "needs": []},
    {"id": "yes", "type": "wait", "seconds": DAY, "needs": ["go"]},
    {"id": "no", "type": "wait", "seconds": DAY, "needs": ["go"]},
)


def choice(**fields: Any) -> Run:
    run = Run(template({**CHOICE, "needs": ["other"], **fields}, *OTHERS)).start()
    run.complete({"yes": "perhaps"})
    return run


def test_a_condition_that_is_passed_over_takes_neither_branch() -> None:
    run = choice(on_failure="skip")
    assert (run.state.status, run.steps()["yes"], run.steps()["no"]) == ("completed", "skipped", "skipped")
    sound(run)


@pytest.mark.parametrize("given", [True, {"value": True}])
def test_a_person_says_whether_it_is_true(given: Any) -> None:
    run = choice(on_failure="human_review")
    assert code_of(run.review("go", "supply", output={"value": "yes"})) == "not_true_or_false"
    run.review("go", "supply", output=given)
    assert run.state.steps["go"].output == {"value": True, "branch": "if_true", "left_out": ["no"]}
    assert (run.steps()["yes"], run.steps()["no"]) == ("open", "skipped")
    sound(run)


def test_it_is_asked_again_where_a_person_says_so_and_has_no_value_still() -> None:
    run = choice(on_failure="human_review")
    run.review("go", "retry")
    assert run.steps()["go"] == "review"
    run.review("go", "fail")
    assert run.state.status == "failed"
    sound(run)


# -- waits


def test_a_wait_is_awaited_again_for_all_its_time() -> None:
    run = run_of(PAID, on_failure="human_review")
    late(run)
    run.wait(DAY)
    run.review("go", "retry")
    run.wait(HOUR - 1).signal("paid")
    assert run.state.status == "completed"
    sound(run)


def test_a_poll_that_the_policy_denies_is_a_failure() -> None:
    run = run_of(POLLED, poll={**POLLED["poll"], "tool": "box__drop"}, on_failure="skip")  # type: ignore[dict-item]
    run.run_step("go")
    assert run.steps()["go"] == "skipped"
    sound(run)


def test_a_poll_whose_time_is_over_between_two_calls_is_reviewed() -> None:
    run = run_of(POLLED, timeout_seconds=90, on_failure="human_review", poll={**POLLED["poll"], "attempts": 9})  # type: ignore[dict-item]
    run.outcome(effect_of(run.run_step("go")).effect_id, output={"ok": False})
    assert run.steps()["go"] == "polling"
    run.wait(60).advance()
    run.wait(30).advance()
    assert run.steps()["go"] == "review"
    run.review("go", "retry")
    run.outcome(effect_of(run.run_step("go")).effect_id, output={"ok": True})
    assert run.state.status == "completed"
    sound(run)
