"""A wait that polls a tool: each call is decided and recorded, and an error is never taken for "not yet"."""

from __future__ import annotations

from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.model.times import later
from charter.workflows import decide as rules
from tests.workflows.build import BOB, Run, effect_of, envelopes, template


def run_of(**more: Any) -> Run:
    poll = {"tool": "box__read", "until": "result.state == 'done'", "every_seconds": 60, **more.pop("poll", {})}
    return Run(template({"id": "w", "type": "wait", "poll": poll, **more}, output="{{ steps.w.output }}")).start()


def asked(run: Run, answer: Any, **more: Any) -> None:
    """The engine makes the call and the tool answers."""
    assert rules.runnable_steps(run.state) == ["w"]
    run.outcome(effect_of(run.run_step("w")).effect_id, output=answer, **more)


def test_it_asks_at_once_and_again_after_its_pause_until_the_answer_is_the_one() -> None:
    run = run_of()
    asked(run, {"state": "busy"})
    assert (run.steps(), rules.wake_at(run.state)) == ({"w": "polling"}, later(run.now, 60))
    assert "asks box__read again at" in run.context().blocked_by[0].detail
    assert run.wait(59).advance().events == []
    run.wait(1).advance()
    asked(run, {"state": "done"})
    assert (run.state.status, run.state.output) == ("completed", {"result": {"state": "done"}, "polls": 2})
    assert run.types().count("POLICY_DECISION") == 1 + 2, "the start, and each call of its own"
    assert validate_trace(envelopes(run)) == ()
    assert run.refolded() == run.state


def test_a_long_absence_is_one_call_and_not_many() -> None:
    run = run_of()
    asked(run, {"state": "busy"})
    run.wait(86_400).advance()
    asked(run, {"state": "busy"})
    assert run.state.steps["w"].attempt == 2


def test_a_tool_that_fails_has_not_answered_and_is_asked_again() -> None:
    run = run_of()
    asked(run, None, status="failed")
    assert run.steps() == {"w": "polling"}
    run.wait(60).advance()
    asked(run, {"state": "done"}, is_error=True)
    assert run.steps() == {"w": "polling"}, "an answer that is an error is no answer"


@pytest.mark.parametrize("answer", [None, {}, {"state": 5}, "done"])
def test_a_condition_without_a_value_fails_the_step_unless_it_is_plainly_false(answer: Any) -> None:
    run = run_of()
    asked(run, answer)
    if answer == {"state": 5}:
        assert run.steps() == {"w": "polling"}
    else:
        assert (run.state.status, run.state.steps["w"].code) == ("failed", "expression_error")


@pytest.mark.parametrize(
    ("on_timeout", "status", "step"),
    [("reject", "rejected", "expired"), ("fail", "failed", "failed"), ("skip", "completed", "skipped")],
)
def test_what_follows_when_the_time_or_the_calls_are_used_up(on_timeout: str, status: str, step: str) -> None:
    run = run_of(timeout_seconds=90, on_timeout=on_timeout)
    asked(run, {"state": "busy"})
    run.wait(60).advance()
    asked(run, {"state": "busy"})
    run.wait(30).advance()
    assert (run.state.status, run.steps(), run.state.steps["w"].code) == (status, {"w": step}, "wait_timeout")
    assert validate_trace(envelopes(run)) == ()
    run = run_of(on_timeout=on_timeout, poll={"attempts": 2})
    asked(run, {"state": "busy"})
    run.wait(60).advance()
    asked(run, {"state": "busy"})
    assert (run.state.status, run.steps(), run.state.steps["w"].code) == (status, {"w": step}, "polls_used_up")
    assert validate_trace(envelopes(run)) == ()


def test_an_answer_that_comes_after_the_time_changes_nothing() -> None:
    run = run_of(timeout_seconds=30, on_timeout="skip")
    effect = effect_of(run.run_step("w"))
    run.wait(30).advance()
    assert run.state.status == "completed"
    run.outcome(effect.effect_id, output={"state": "done"})
    assert run.steps() == {"w": "skipped"}
    assert validate_trace(envelopes(run)) == ()


def test_people_are_asked_about_a_poll_where_the_policy_says_so_and_a_denial_fails_it() -> None:
    run = run_of(poll={"tool": "box__write"})
    run.run_step("w")
    run.answer(run.approval_id(), by=BOB)
    asked(run, {"state": "done"})
    assert run.state.status == "completed"
    run = run_of(poll={"tool": "box__drop"})
    run.run_step("w")
    assert (run.state.status, run.state.steps["w"].code) == ("failed", "forbidden")


def test_a_call_in_doubt_is_settled_by_a_person_and_counts_as_one_answer() -> None:
    run = run_of()
    effect = effect_of(run.run_step("w"))
    run.outcome(effect.effect_id, "unknown")
    assert run.context().blocked_by[0].what == "effect_in_doubt"
    run.resolve(effect.effect_id, "did_not_run")
    assert run.steps() == {"w": "polling"}
    run.wait(60).advance()
    effect = effect_of(run.run_step("w"))
    run.outcome(effect.effect_id, "unknown")
    run.resolve(effect.effect_id, "ran", {"state": "done"})
    assert run.state.status == "completed"
    assert validate_trace(envelopes(run)) == ()


def test_an_ended_or_paused_run_asks_no_more() -> None:
    run = run_of()
    asked(run, {"state": "busy"})
    run.hold(True)
    run.wait(3600).advance()
    assert rules.wake_at(run.state) is None
    run.hold(False)
    assert rules.runnable_steps(run.state) == ["w"], "what became due meanwhile is due now"
    run.cancel()
    assert rules.runnable_steps(run.state) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"poll": {"tool": "t", "until": "true", "every_seconds": 0}},
        {"poll": {"tool": "t", "until": "true"}},
        {"poll": {"tool": "t", "until": "true", "every_seconds": 1}, "seconds": 5},
        {"seconds": 5, "timeout_seconds": 5},
    ],
)
def test_a_wait_is_for_one_thing_and_a_poll_has_a_pause(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"every_seconds|one of|timeout_seconds"):
        template({"id": "w", "type": "wait", **wrong})
