"""An action's time is its own: from its opening to its end, whatever attempts and approvals are in between."""

from __future__ import annotations

from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.workflows import decide as rules
from tests.workflows.build import Run, effect_of, envelopes, template


def run_of(tool: str = "read", **more: Any) -> Run:
    step = {"id": "a", "type": "action", "tool": f"box__{tool}", "timeout_seconds": 100, **more}
    return Run(template(step, {"id": "then", "type": "agent"})).start()


@pytest.mark.parametrize(
    ("more", "status", "steps"),
    [
        ({}, "failed", {"a": "failed"}),
        ({"on_timeout": "fail", "on_failure": "skip"}, "running", {"a": "skipped", "then": "open"}),
        ({"on_failure": "human_review"}, "running", {"a": "review"}),
        ({"on_timeout": "reject"}, "rejected", {"a": "expired"}),
        ({"on_timeout": "skip"}, "running", {"a": "skipped", "then": "open"}),
    ],
)
def test_nobody_approved_it_in_time(more: dict[str, Any], status: str, steps: dict[str, str]) -> None:
    run = run_of("write", **more)
    run.run_step("a")
    approval_id = run.approval_id()
    assert run.wait(99).advance().events == []
    run.wait(1).advance()
    assert (run.state.status, run.steps(), run.state.steps["a"].code) == (status, steps, "step_timeout")
    assert run.state.approvals[approval_id].status == "withdrawn"
    assert validate_trace(envelopes(run)) == ()


def test_the_time_goes_on_over_attempts_and_ends_between_them() -> None:
    run = run_of(retry={"attempts": 5, "backoff_seconds": 60})
    run.outcome(effect_of(run.run_step("a")).effect_id, "failed")
    run.wait(60).advance()
    run.outcome(effect_of(run.run_step("a")).effect_id, "failed")
    assert run.steps() == {"a": "retrying"}
    run.wait(40).advance()
    assert (run.state.status, run.state.steps["a"].code) == ("failed", "step_timeout")
    assert validate_trace(envelopes(run)) == ()


def test_a_person_who_says_once_more_gives_the_step_its_whole_time_again() -> None:
    run = run_of(on_failure="human_review")
    run.wait(100).advance()
    run.wait(50).review("a", "retry")
    assert run.wait(99).advance().events == []
    run.wait(1).advance()
    assert run.steps() == {"a": "review"}


def test_a_call_that_runs_when_the_time_is_over_is_told_and_changes_no_step() -> None:
    run = run_of(on_timeout="skip")
    effect = effect_of(run.run_step("a"))
    run.wait(100).advance()
    run.outcome(effect.effect_id, output={"late": True})
    assert run.types()[-1] == "TOOL_RESULT"
    assert run.steps() == {"a": "skipped", "then": "open"}
    assert validate_trace(envelopes(run)) == ()


def test_the_step_is_not_tried_again_while_nobody_knows_what_became_of_its_call() -> None:
    """A timeout is no outcome: a second call beside the first could be the same thing done twice."""
    run = run_of(on_failure="human_review")
    effect = effect_of(run.run_step("a"))
    run.wait(100).advance()
    run.review("a", "retry")
    assert rules.runnable_steps(run.state) == []
    run.outcome(effect.effect_id, output={"late": True})
    assert run.state.steps["a"].status == "completed"
    assert validate_trace(envelopes(run)) == ()
