"""A failed attempt is made again at its time; what is in doubt never is; then ``on_failure``, and a person may say how."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import InvalidInput, NotFound
from charter.model import commands as cmd
from charter.workflows import decide as rules
from tests.workflows.build import AGENT, ENGINE, Run, code_of, deny, effect_of, permit, template

READ = {"id": "go", "type": "action", "tool": "box__read"}
THRICE = {**READ, "retry": {"attempts": 3, "backoff_seconds": 10, "max_backoff_seconds": 15}}


def run_of(step: dict[str, Any], *more: dict[str, Any]) -> Run:
    return Run(template(step, *more, output="{{ steps.go.output }}")).start()


def fail(run: Run, status: str = "failed", **more: Any) -> None:
    """One attempt that comes to nothing."""
    run.outcome(effect_of(run.run_step("go")).effect_id, status, **more)


@pytest.mark.parametrize(("status", "is_error"), [("failed", False), ("succeeded", True)])
def test_a_failed_attempt_is_made_again_at_its_time_and_not_before(status: str, is_error: bool) -> None:
    run = run_of(THRICE)
    fail(run, status, is_error=is_error)
    step = run.state.steps["go"]
    assert (step.status, step.attempt, rules.wake_at(run.state)) == ("retrying", 1, step.until)
    assert rules.runnable_steps(run.state) == []
    assert run.wait(9).advance().events == []
    assert [event.data.status for event in run.wait(1).advance().events] == ["reopened"]
    assert run.advance().events == []
    assert rules.runnable_steps(run.state) == ["go"]
    run.outcome(effect_of(run.run_step("go")).effect_id, output={"n": 1})
    assert (run.state.status, run.state.output) == ("completed", {"n": 1})


def test_the_wait_doubles_up_to_its_most_and_the_last_attempt_is_the_last() -> None:
    run = run_of(THRICE)
    fail(run)
    assert run.wait(10).advance().events
    fail(run)
    assert run.wait(14).advance().events == []
    assert run.wait(1).advance().events
    fail(run)
    assert (run.state.status, run.state.steps["go"].attempt) == ("failed", 3)


def test_each_attempt_is_a_call_of_its_own() -> None:
    run = run_of(THRICE)
    fail(run)
    run.wait(10).advance()
    fail(run)
    keys = [event.data.idempotency_key for event in run.log if event.type == "TOOL_INVOKE"]
    assert len(set(keys)) == 2


def test_what_is_in_doubt_is_never_made_again_by_itself() -> None:
    run = run_of({**THRICE, "tool": "box__write", "on_failure": "human_review"})
    run.run_step("go")
    run.answer(run.approval_id())
    fail(run, "unknown")
    assert run.steps() == {"go": "open"}
    assert run.wait(1000).advance().events == []
    assert rules.runnable_steps(run.state) == []
    run.resolve(next(iter(run.state.effects)), "did_not_run")
    assert run.steps() == {"go": "review"}


def test_what_was_asked_wrongly_is_not_asked_again() -> None:
    for error, status in ((NotFound("no tool"), "retrying"), (InvalidInput("bad"), "failed")):
        run = run_of(THRICE)
        command = cmd.RunStep(workflow_id=run.state.workflow_id, step_id="go")
        run.kept(rules.unprepared(run.state, command, run.given(ENGINE), error))
        assert run.steps() == {"go": status}


def test_a_denied_call_is_not_asked_for_again() -> None:
    run = run_of({**THRICE, "tool": "box__drop"})
    run.run_step("go")
    assert run.state.status == "failed"


def test_retries_come_before_what_happens_on_failure() -> None:
    run = run_of({**THRICE, "retry": {"attempts": 2, "backoff_seconds": 0}, "on_failure": "skip"})
    fail(run)
    run.advance()
    fail(run)
    assert (run.state.status, run.steps()) == ("completed", {"go": "skipped"})


# -- review


def in_review(*more: dict[str, Any]) -> Run:
    run = run_of({**READ, "on_failure": "human_review"}, *more)
    fail(run)
    return run


def test_a_step_in_review_waits_for_a_person_and_says_so() -> None:
    run = in_review()
    (blocker,) = run.context().blocked_by
    assert (blocker.what, blocker.who, blocker.step_id) == ("review", "an operator", "go")
    assert "answered with an error" in blocker.detail
    assert rules.wake_at(run.state) is None
    assert run.context().status == "waiting"


def test_a_person_may_have_it_tried_again() -> None:
    run = in_review()
    run.review("go", "retry")
    assert rules.runnable_steps(run.state) == ["go"]
    fail(run)
    assert run.steps() == {"go": "review"}


@pytest.mark.parametrize(
    ("resolution", "status", "step", "output"),
    [
        ("skip", "completed", "skipped", None),
        ("supply", "completed", "completed", {"by": "hand"}),
        ("fail", "failed", "failed", None),
    ],
)
def test_a_person_may_end_it(resolution: str, status: str, step: str, output: Any) -> None:
    run = in_review()
    run.review("go", resolution, output={"by": "hand"})
    assert (run.state.status, run.steps(), run.state.output) == (status, {"go": step}, output)


def test_only_a_person_whom_the_policy_permits_and_only_a_step_in_review() -> None:
    run = in_review()
    assert code_of(run.review("go", "retry", by=AGENT)) == "not_a_person"
    run.policy = lambda asked: deny() if asked.action == "step.review" else permit()
    assert code_of(run.review("go", "retry")) == "forbidden"
    run.policy = lambda _asked: permit()
    assert code_of(run.review("other", "retry")) == "not_in_review"
    assert run.steps() == {"go": "review"}
    run.review("go", "fail")
    assert code_of(run.review("go", "retry")) == "workflow_ended"


def test_a_condition_without_a_value_is_reviewed_and_not_tried_again() -> None:
    run = run_of({**READ, "if": "trigger.none", "on_failure": "human_review"})
    assert run.steps() == {"go": "review"}
    assert code_of(run.review("go", "retry")) == "cannot_retry"
    run.review("go", "skip")
    assert run.state.status == "completed"


def test_other_branches_go_on_while_one_waits_for_review() -> None:
    run = in_review({"id": "work", "type": "agent", "needs": []})
    run.complete({"n": 1})
    assert run.steps() == {"go": "review", "work": "completed"}
    assert run.state.live
    run.review("go", "supply", output=5)
    assert run.state.output == 5
