"""Agent steps as phases: what is handed in is judged, by Charter and by people, before the run goes on; and the ways back."""

from __future__ import annotations

from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.model.template import Template
from tests.workflows.build import AGENT, BOB, CAT, OTHER_AGENT, Run, code_of, effect_of, envelopes, template

WORK = {"id": "work", "type": "agent", "allowed_tools": ["box__*"], "artifacts": [{"name": "plan"}]}
SHORT = {"id": "short", "expression": "size(artifacts.plan.text) < 10", "message": "Keep it short."}
TESTS = {
    "id": "tests",
    "expression": "evidence.failed == 0",
    "evidence": {"tool": "box__read", "arguments": {"path": "{{ artifacts.plan.path }}"}},
}
ASKED = {"id": "sound", "question": "Is the plan sound?"}
GOOD = {"plan": {"text": "do it", "path": "tests"}}
LONG = {"plan": {"text": "a very long plan", "path": "tests"}}


def work(*checks: dict[str, Any], approval: bool = False, **gate: Any) -> dict[str, Any]:
    asks = {"approval": {"requirements": [{"approvers": 1}]}} if approval else {}
    return {**WORK, "gate": {"checks": list(checks), **asks, **gate}}


def run_of(*steps: dict[str, Any], **more: Any) -> Run:
    return Run(template(*steps), **more).start()


def sound(run: Run) -> None:
    """The log alone gives the same state, and it obeys the rules of traces."""
    assert run.refolded() == run.state
    assert validate_trace(envelopes(run)) == ()


def evidence(run: Run, step: str = "work.gate.tests", **result: Any) -> None:
    run.outcome(effect_of(run.run_step(step)).effect_id, **result)


def answer(run: Run, step: str, decision: str = "approve", comment: str | None = None, **by: Any) -> None:
    """A person answers what a step of a gate asks."""
    found = next(
        key for key, item in run.state.approvals.items() if item.request.step_id == step and item.status == "pending"
    )
    run.answer(found, decision, comment=comment, **by)


# -- checks that can be judged at once


def test_a_gate_that_passes_completes_the_step_with_what_was_handed_in() -> None:
    run = run_of(work(SHORT))
    run.complete(GOOD)
    assert run.state.status == "completed"
    assert run.state.steps["work"].output == GOOD
    assert [event.data.outcome for event in run.log if event.type == "GATE_CHECKED"] == ["open"]
    sound(run)


def test_a_blocking_check_keeps_the_gate_shut_and_the_agent_may_try_again_with_the_same_invocation() -> None:
    run = run_of(work(SHORT))
    draft = run.complete(LONG)
    assert code_of(draft) == "gate_blocked"
    assert "short: Keep it short." in str(draft.error)
    assert run.steps() == {"work": "open"}
    run.complete(GOOD)
    assert run.state.status == "completed"
    sound(run)


@pytest.mark.parametrize("output", [{"plan": {}}, {"plan": {"text": 7}}, {"plan": None}])
def test_a_check_that_has_no_value_has_not_passed(output: Any) -> None:
    run = run_of(work(SHORT))
    assert code_of(run.complete(output)) == "gate_blocked"
    result = run.log[-1].data.results[0]
    assert result.outcome == "error"
    assert "size(artifacts.plan.text)" in result.detail


def test_a_check_that_is_no_truth_value_has_not_passed() -> None:
    run = run_of(work({"id": "odd", "expression": "artifacts.plan.text"}))
    assert code_of(run.complete(GOOD)) == "gate_blocked"


@pytest.mark.parametrize("output", [LONG, {"plan": {}}])
def test_a_warning_is_recorded_and_hinders_nothing(output: Any) -> None:
    run = run_of(work({**SHORT, "severity": "warning"}))
    run.complete(output)
    assert run.state.status == "completed"
    result = next(event for event in run.log if event.type == "GATE_CHECKED").data.results[0]
    assert (result.severity, result.outcome) == ("warning", "failed" if output == LONG else "error")
    sound(run)


def test_after_the_last_try_the_step_fails() -> None:
    run = run_of(work(SHORT, attempts=2))
    run.complete(LONG)
    run.complete(LONG)
    assert (run.state.status, run.state.steps["work"].code) == ("failed", "gate_blocked")
    sound(run)


def test_an_expression_reads_the_parameters_of_its_check() -> None:
    check = {"id": "most", "expression": "artifacts.plan.covered >= params.threshold", "params": {"threshold": 80}}
    run = run_of(work(check))
    assert code_of(run.complete({"plan": {"covered": 79}})) == "gate_blocked"
    run.complete({"plan": {"covered": 80}})
    assert run.state.status == "completed"


def test_work_is_not_judged_while_a_call_of_the_agent_still_runs() -> None:
    run = run_of(work(SHORT))
    effect = effect_of(run.invoke("read"))
    assert code_of(run.complete(GOOD)) == "calls_running"
    run.outcome(effect.effect_id)
    run.complete(GOOD)
    assert run.state.status == "completed"
    sound(run)


# -- evidence


def test_evidence_is_a_governed_call_of_the_workflow_and_decides() -> None:
    run = run_of(work(SHORT, TESTS))
    run.complete(GOOD)
    assert run.steps() == {"work": "submitted", "work.gate.tests": "open"}
    assert run.state.steps["work"].output == GOOD
    effect = effect_of(run.run_step("work.gate.tests"))
    assert (effect.tool.name, effect.arguments) == ("box__read", {"path": "tests"})
    run.outcome(effect.effect_id, output={"failed": 0})
    assert run.state.status == "completed"
    sound(run)


def test_the_agent_can_do_nothing_while_its_work_is_judged() -> None:
    run = run_of(work(TESTS))
    invocation = run.invocation_id
    run.complete(GOOD)
    assert run.state.invocations[invocation].status == "ended"
    assert code_of(run.invoke("read")) == "no_invocation"
    assert code_of(run.complete(GOOD)) == "invocation_ended"


def test_failing_evidence_returns_the_work_with_what_is_left_of_calls_and_time() -> None:
    run = run_of({**work(TESTS), "calls": 5, "expires_after_seconds": 1000})
    run.outcome(effect_of(run.invoke("read")).effect_id)
    run.wait(100).complete(GOOD)
    run.wait(5000)
    evidence(run, output={"failed": 3})
    assert run.steps()["work"] == "open"
    held = run.context().invocations[0]
    assert held.calls_left == 4
    assert held.returned == ("tests: evidence.failed == 0 is false.",)
    run.wait(899).advance()
    assert run.state.status == "running"
    run.complete(GOOD)
    evidence(run, output={"failed": 0})
    assert run.state.status == "completed"
    sound(run)


@pytest.mark.parametrize("result", [{"status": "failed"}, {"is_error": True}, {"output": {"text": "all is well"}}, {}])
def test_evidence_that_cannot_be_had_or_read_has_not_passed(result: dict[str, Any]) -> None:
    run = run_of(work(TESTS, attempts=1))
    run.complete(GOOD)
    evidence(run, **result)
    assert (run.state.status, run.state.steps["work"].code) == ("failed", "gate_blocked")
    sound(run)


def test_evidence_that_the_policy_denies_has_not_passed() -> None:
    denied = {**TESTS, "evidence": {"tool": "box__drop"}}
    run = run_of(work(denied, attempts=1))
    run.complete(GOOD)
    run.run_step("work.gate.tests")
    assert run.state.steps["work"].code == "gate_blocked"
    sound(run)


def test_evidence_that_the_policy_asks_people_about_waits_for_them() -> None:
    run = run_of(work({**TESTS, "evidence": {"tool": "box__write"}}))
    run.complete(GOOD)
    run.run_step("work.gate.tests")
    run.answer(run.approval_id())
    evidence(run, output={"failed": 0})
    assert run.state.status == "completed"
    sound(run)


def test_an_answer_that_comes_after_its_gate_was_given_up_moves_nothing() -> None:
    run = run_of(work(TESTS, timeout_seconds=60, on_timeout="return"))
    run.complete(GOOD)
    late = effect_of(run.run_step("work.gate.tests"))
    run.wait(61).advance()
    assert run.steps() == {"work": "open", "work.gate.tests": "pending"}
    run.wait(1).complete(GOOD)
    run.outcome(late.effect_id, output={"failed": 0})
    assert run.steps() == {"work": "submitted", "work.gate.tests": "open"}
    evidence(run, output={"failed": 1})
    assert run.steps()["work"] == "open"
    sound(run)


# -- people


def test_an_approval_opens_the_gate_and_shows_what_was_handed_in_and_found() -> None:
    run = run_of(work({**SHORT, "severity": "warning"}, approval=True))
    run.complete(LONG)
    request = run.state.approvals[run.approval_id()].request
    shown = {line.label: line.value for line in request.shown}
    assert shown["plan"] == '{"path": "tests", "text": "a very long plan"}'
    assert shown["[failed, a warning] short"].startswith("short: Keep it short.")
    assert (request.requested_by, request.step_id) == (AGENT.id, "work.gate")
    answer(run, "work.gate")
    assert run.state.status == "completed"
    sound(run)


def test_a_no_to_the_gate_rejects_the_run() -> None:
    run = run_of(work(approval=True))
    run.complete(GOOD)
    answer(run, "work.gate", "reject")
    assert (run.state.status, run.steps()["work"]) == ("rejected", "rejected")
    sound(run)


def test_a_no_to_the_gate_returns_the_work_where_the_template_says_so() -> None:
    run = run_of(work(approval=True, on_reject="return", attempts=2))
    run.complete(GOOD)
    answer(run, "work.gate", "reject", "too vague")
    assert run.context().invocations[0].returned == ("bob rejected it: too vague",)
    run.complete(GOOD)
    answer(run, "work.gate", "reject")
    assert run.state.steps["work"].code == "gate_blocked"
    sound(run)


def test_each_question_is_asked_for_itself_and_a_yes_to_all_opens_the_gate() -> None:
    run = run_of(work(ASKED, {"id": "style", "question": "Is it in style?", "severity": "warning"}, approval=True))
    run.complete(GOOD)
    answer(run, "work.gate.sound")
    answer(run, "work.gate")
    assert run.state.status == "running"
    answer(run, "work.gate.style", "reject", "rather not")
    assert run.state.status == "completed"
    last = [event for event in run.log if event.type == "GATE_CHECKED"][-1].data
    found = {item.check: (item.outcome, item.detail) for item in last.results}
    assert found == {
        "sound": ("passed", "bob said yes."),
        "style": ("failed", "bob said no: bob rejected it: rather not"),
    }
    sound(run)


def test_a_no_to_a_blocking_question_returns_the_work_and_withdraws_what_else_was_asked() -> None:
    run = run_of(work(ASKED, approval=True))
    run.complete(GOOD)
    answer(run, "work.gate.sound", "reject")
    assert run.steps()["work"] == "open"
    assert not any(item.open for item in run.state.approvals.values())
    run.complete(GOOD)
    answer(run, "work.gate.sound")
    answer(run, "work.gate", by=CAT)
    assert run.state.status == "completed"
    sound(run)


@pytest.mark.parametrize(
    ("on_timeout", "status", "step"),
    [
        ("reject", "rejected", "expired"),
        ("fail", "failed", "failed"),
        ("return", "running", "open"),
        ("human_review", "running", "review"),
    ],
)
def test_a_gate_that_does_not_open_in_time(on_timeout: str, status: str, step: str) -> None:
    run = run_of(work(ASKED, approval=True, timeout_seconds=60, on_timeout=on_timeout))
    run.complete(GOOD)
    run.wait(60).advance()
    assert (run.state.status, run.steps()["work"]) == (status, step)
    assert not any(item.open for item in run.state.approvals.values())
    sound(run)


def test_an_operator_may_let_the_agent_try_again_after_a_timeout() -> None:
    run = run_of(work(approval=True, timeout_seconds=60, on_timeout="human_review"))
    run.complete(GOOD)
    run.wait(60).advance()
    run.review("work", "retry")
    run.complete(GOOD)
    answer(run, "work.gate")
    assert run.state.status == "completed"
    sound(run)


def test_nothing_of_a_gate_moves_while_the_run_is_paused() -> None:
    run = run_of(work(ASKED, approval=True))
    run.complete(GOOD)
    run.hold(True)
    answer(run, "work.gate.sound", "reject")
    assert run.steps()["work"] == "submitted"
    run.hold(False)
    assert run.steps()["work"] == "open"
    sound(run)


def test_a_cancelled_run_leaves_nothing_of_the_gate_open() -> None:
    run = run_of(work(TESTS, ASKED, approval=True))
    run.complete(GOOD)
    run.cancel()
    assert not any(item.open for item in run.state.approvals.values())
    sound(run)


# -- ways back

PLAN = {"id": "plan", "type": "agent", "artifacts": [{"name": "plan"}]}
BUILD = {"id": "build", "type": "agent", "artifacts": [{"name": "diff"}]}
REVIEW = {"id": "review", "type": "agent", "artifacts": [{"name": "verdict"}]}
BACK = [{"to": "build", "on": "passed", "when": "artifacts.verdict == 'again'"}]


def test_the_run_goes_back_and_does_all_again_from_there() -> None:
    run = run_of(PLAN, BUILD, {**REVIEW, "go_back": BACK})
    run.complete({"plan": 1})
    run.complete({"diff": 1})
    run.complete({"verdict": "again"})
    assert run.steps() == {"plan": "completed", "build": "open", "review": "pending"}
    assert run.context().invocations[0].returned == ("review: artifacts.verdict == 'again' is true.",)
    went = next(event.data for event in run.log if event.type == "PHASE_WENT_BACK")
    assert (went.from_step, went.to_step, went.on, went.visit) == ("review", "build", "passed", 2)
    run.complete({"diff": 2})
    run.complete({"verdict": "fine"})
    assert run.state.status == "completed"
    assert run.state.steps["build"].output == {"diff": 2}
    sound(run)


def test_a_run_that_has_gone_back_too_often_fails() -> None:
    run = run_of(PLAN, {**BUILD, "max_visits": 2}, {**REVIEW, "go_back": BACK})
    run.complete({"plan": 1})
    for _ in range(2):
        run.complete({"diff": 1})
        run.complete({"verdict": "again"})
    assert (run.state.status, run.state.steps["review"].code) == ("failed", "too_many_visits")
    sound(run)


@pytest.mark.parametrize("on", ["blocked", "rejected"])
def test_a_gate_that_stays_shut_sends_the_run_back(on: str) -> None:
    gate = {"checks": [SHORT, ASKED], "approval": {}} if on == "blocked" else {"approval": {}}
    review = {**WORK, "gate": gate, "go_back": [{"to": "build", "on": on}]}
    run = run_of(BUILD, review)
    run.complete({"diff": 1})
    if on == "blocked":
        run.complete(LONG)
        assert run.steps() == {"build": "open", "work": "pending"}
        run.complete({"diff": 2})
        run.complete(GOOD)
        answer(run, "work.gate.sound", "reject")
    else:
        run.complete(GOOD)
        answer(run, "work.gate", "reject", "no")
    assert (run.steps()["build"], run.steps()["work"]) == ("open", "pending")
    sound(run)


def test_a_way_back_whose_condition_has_no_value_fails_the_run() -> None:
    run = run_of(BUILD, {**REVIEW, "go_back": [{**BACK[0], "when": "artifacts.missing"}]})
    run.complete({"diff": 1})
    run.complete({"verdict": "again"})
    assert (run.state.status, run.state.steps["review"].code) == ("failed", "expression_error")
    sound(run)


def test_going_back_opens_the_gate_of_the_earlier_step_anew() -> None:
    build = {**BUILD, "gate": {"checks": [{**TESTS, "evidence": {"tool": "box__read"}}], "approval": {}}}
    run = run_of(build, {**REVIEW, "go_back": BACK})
    for verdict in ("again", "fine"):
        run.complete({"diff": 1})
        evidence(run, "build.gate.tests", output={"failed": 0})
        answer(run, "build.gate")
        run.complete({"verdict": verdict})
    assert run.state.status == "completed"
    sound(run)


# -- who may work, with what


def test_the_first_agent_that_uses_an_open_invocation_has_it() -> None:
    run = run_of({"id": "work", "type": "agent", "agent": "*", "allowed_tools": ["box__*"]})
    assert run.context(OTHER_AGENT).invocations
    assert not run.context(BOB).invocations
    run.outcome(effect_of(run.invoke("read")).effect_id)
    assert run.types().count("AGENT_INVOKE") == 2
    assert run.context(AGENT).invocations
    assert not run.context(OTHER_AGENT).invocations
    run.complete()
    assert run.state.status == "completed"
    sound(run)


def test_a_call_that_is_denied_claims_nothing() -> None:
    run = run_of({"id": "work", "type": "agent", "agent": "*", "allowed_tools": ["box__*"]})
    run.invoke("drop")
    assert run.context(OTHER_AGENT).invocations


def test_what_a_step_forbids_outweighs_what_it_allows() -> None:
    run = run_of({"id": "work", "type": "agent", "allowed_tools": ["box__*"], "forbidden_tools": ["box__re*"]})
    assert code_of(run.invoke("read")) == "no_invocation"
    assert run.invoke("write").error is None


def test_a_rule_for_an_argument_is_a_fact_of_the_call() -> None:
    rule = {"tool": "box__*", "argument": "path", "kind": "path", "allowed": ["tests/**"]}
    run = run_of({"id": "work", "type": "agent", "allowed_tools": ["box__*"], "argument_rules": [rule]})
    facts = run.call(AGENT, "read", {"path": "src/a"}, invocation=run.invocation_id).facts
    assert facts.arguments_refused == "The argument 'path' of box__read must match one of tests/** here."
    assert run.call(AGENT, "read", {"path": "tests/a"}, invocation=run.invocation_id).facts.arguments_refused is None
    assert run.context().invocations[0].argument_rules[0].allowed == ("tests/**",)


def test_a_template_with_phases_survives_its_own_json() -> None:
    found = template({**work(SHORT, TESTS, ASKED, approval=True), "go_back": [{"to": "work", "on": "rejected"}]})
    assert Template.model_validate_json(found.model_dump_json(by_alias=True)) == found
