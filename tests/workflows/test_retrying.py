"""A failed run goes on because an operator said so: from what failed, with what was open beside it, on its own record."""

from __future__ import annotations

from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.workflows import decide as rules
from tests.workflows.build import AGENT, BOB, Run, code_of, deny, effect_of, envelopes, permit, template, under


def action(step_id: str = "go", **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "action", "tool": "box__read", **more}


def failed(*steps: dict[str, Any]) -> Run:
    run = Run(template(*steps)).start()
    run.outcome(effect_of(run.run_step("go")).effect_id, "failed")
    assert run.state.status == "failed"
    return run


def test_it_goes_on_from_the_step_that_failed_and_keeps_what_was_done() -> None:
    run = Run(template(action("first"), action("go"), output="{{ steps.first.output }}")).start()
    run.outcome(effect_of(run.run_step("first")).effect_id, output={"n": 1})
    run.outcome(effect_of(run.run_step("go")).effect_id, "failed")
    run.retry()
    assert (run.state.status, run.state.reason, rules.runnable_steps(run.state)) == ("running", None, ["go"])
    assert run.log[-2].data.steps == ("go",)
    run.outcome(effect_of(run.run_step("go")).effect_id, output={})
    assert (run.state.status, run.state.output) == ("completed", {"n": 1})
    assert run.types().count("TOOL_INVOKE") == 3
    assert validate_trace(envelopes(run)) == ()
    assert run.refolded() == run.state


def test_what_was_open_beside_it_is_opened_again() -> None:
    """Its invocation ended and its question was withdrawn with the run: nobody could go on with them."""
    run = failed(
        action(),
        {"id": "work", "type": "agent", "needs": [], "allowed_tools": ["*"]},
        {"id": "ok", "type": "approval", "needs": [], "question": "?"},
        {"id": "w", "type": "wait", "needs": [], "seconds": 60},
    )
    run.retry()
    assert run.steps() == {"go": "open", "work": "open", "ok": "open", "w": "open"}
    run.outcome(effect_of(run.run_step("go")).effect_id, output={})
    run.complete({"done": True})
    run.answer(run.approval_id())
    run.wait(60).advance()
    assert run.state.status == "completed"
    assert validate_trace(envelopes(run)) == ()


def test_an_agent_step_and_a_wait_that_failed_have_their_whole_time_again() -> None:
    steps = {"id": "work", "type": "agent", "expires_after_seconds": 60}
    run = Run(
        template(
            steps, {"id": "w", "type": "wait", "signal": {"type": "x"}, "timeout_seconds": 9, "on_timeout": "fail"}
        )
    )
    run.start().wait(60).advance()
    assert run.state.status == "failed"
    run.retry()
    run.complete({})
    run.wait(9).advance()
    assert (run.state.status, run.steps()["w"]) == ("failed", "failed")
    run.retry()
    run.wait(8).advance()
    run.signal("x")
    assert run.state.status == "completed"
    assert validate_trace(envelopes(run)) == ()


@pytest.mark.parametrize("end", ["complete", "cancel", "reject", "running"])
def test_only_a_failed_run_is_retried(end: str) -> None:
    run = Run(template({"id": "ok", "type": "approval", "question": "?"})).start()
    if end == "complete":
        run.answer(run.approval_id())
    elif end == "reject":
        run.answer(run.approval_id(), "reject")
    elif end == "cancel":
        run.cancel()
    before = run.state.status
    assert code_of(run.retry()) == "not_failed"
    assert run.state.status == before
    assert run.types()[-1] == "COMMAND_REFUSED"


def test_what_would_fail_again_or_was_undone_is_not_retried() -> None:
    run = Run(template(action(**{"if": "trigger.missing"}))).start()
    assert code_of(run.retry()) == "cannot_retry"
    run = Run(template(action(), output="{{ steps.go.output.missing }}")).start()
    run.outcome(effect_of(run.run_step("go")).effect_id, output={})
    assert code_of(run.retry()) == "cannot_retry"
    undone = action("first", compensate={"tool": "box__read"})
    run = Run(template(undone, action("go"))).start()
    for step_id, status in (("first", "succeeded"), ("go", "failed"), ("undo:first", "succeeded")):
        run.outcome(effect_of(run.run_step(step_id)).effect_id, status, output={})
    assert run.state.status == "failed"
    assert code_of(run.retry()) == "cannot_retry"


def test_the_policy_decides_who_may() -> None:
    run = under(failed(action()), lambda asked: deny() if asked.principal == AGENT else permit())
    assert code_of(run.retry(by=AGENT)) == "forbidden"
    assert run.state.status == "failed"
    assert run.retry(by=BOB).error is None


def test_a_call_whose_outcome_nobody_knows_is_not_made_beside_its_retry() -> None:
    run = Run(template(action(), action("slow", needs=[]))).start()
    slow = effect_of(run.run_step("slow"))
    run.outcome(effect_of(run.run_step("go")).effect_id, "failed")
    run.retry()
    assert rules.runnable_steps(run.state) == ["go"]
    run.outcome(slow.effect_id, output={})
    assert run.steps()["slow"] == "completed"


def test_a_record_that_goes_on_after_its_failure_by_itself_is_found() -> None:
    run = failed(action())
    run.retry()
    events = [event for event in envelopes(run) if event.type != "WORKFLOW_RETRIED"]
    assert {"nothing_after_the_end"} <= {finding.rule for finding in validate_trace(events)}
