"""Wait steps: they end at their time by the time that is handed in, once, however late anybody looks."""

from __future__ import annotations

from typing import Any

import pytest

from charter.model.times import later
from charter.workflows import decide as rules
from tests.workflows.build import DAY, Run, template

FIXED = "2027-02-01T00:00:00.000Z"


def run_of(*steps: dict[str, Any], **given: Any) -> Run:
    return Run(template(*steps)).start(given)


def wait(step_id: str = "w", **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "wait", **more}


def test_a_wait_ends_after_its_seconds_and_not_before() -> None:
    run = run_of(wait(seconds=60))
    until = later(run.now, 60)
    assert (rules.wake_at(run.state), run.steps()) == (until, {"w": "open"})
    assert run.wait(59).advance().events == []
    run.wait(1).advance()
    assert run.state.status == "completed"
    assert run.state.steps["w"].output == {"until": until, "ended_at": run.now}


@pytest.mark.parametrize("written", [FIXED, "2027-02-01T01:00:00+01:00", "{{ trigger.at }}"])
def test_a_wait_ends_at_its_time(written: str) -> None:
    run = run_of(wait(until=written), at=FIXED)
    assert run.state.steps["w"].until == FIXED
    assert run.context().blocked_by[0].what == "timer"
    assert FIXED in run.context().blocked_by[0].detail


def test_a_late_timer_fires_once() -> None:
    run = run_of(wait(seconds=60), {"id": "work", "type": "agent"})
    run.wait(30 * DAY).advance()
    assert run.steps() == {"w": "completed", "work": "open"}
    assert run.advance().events == []


def test_timers_that_are_late_together_fire_in_the_order_of_their_times_each_once() -> None:
    steps = [wait(f"w{n}", seconds=seconds, needs=[]) for n, seconds in enumerate((30, 10, 20))]
    run = run_of(*steps)
    run.wait(60).advance()
    ended = [event.data.step_id for event in run.log if event.type == "WORKFLOW_STEP" and event.data.output]
    assert ended == ["w1", "w2", "w0"]
    assert run.state.status == "completed"


def test_a_time_that_is_past_ends_the_wait_at_once() -> None:
    run = run_of(wait(until="2001-01-01T00:00:00Z"), wait("then", seconds=0))
    assert rules.wake_at(run.state) is not None
    run.advance()
    assert run.state.status == "completed"


@pytest.mark.parametrize("value", [None, 5, "tomorrow", "2027-02-01T00:00:00", ["x"]])
def test_a_value_that_is_no_time_fails_the_step_and_says_what_it_was(value: Any) -> None:
    run = run_of(wait(until="{{ trigger.at }}"), at=value)
    assert (run.state.status, run.state.steps["w"].code) == ("failed", "expression_error")
    assert type(value).__name__ in str(run.state.reason)


def test_a_cancelled_run_waits_for_nothing() -> None:
    run = run_of(wait(seconds=60))
    run.cancel()
    assert rules.wake_at(run.state) is None
    assert run.wait(60).advance().events == []
