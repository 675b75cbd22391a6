"""A wait for a signal ends with the first one that matches, or by its own clock when none came in time."""

from __future__ import annotations

from typing import Any

import pytest

from charter.model.times import later
from charter.workflows import decide as rules
from charter.workflows.signals import signal_key, waiting
from tests.workflows.build import DAY, Run, template

PAID = {"id": "paid", "type": "wait", "signal": {"type": "invoice.paid", "where": "signal.data.no == trigger.no"}}
PATIENT = {**PAID, "timeout_seconds": 3600}
MATCHING = {"no": 7}


def run_of(step: dict[str, Any], *more: dict[str, Any]) -> Run:
    return Run(template(step, *more, output="{{ steps.paid.output }}")).start({"no": 7})


def test_a_signal_that_matches_ends_the_wait_and_is_its_output() -> None:
    run = run_of(PAID)
    assert waiting(run.state) == {"paid": "invoice.paid"}
    run.signal("invoice.paid", MATCHING)
    assert run.state.status == "completed"
    assert run.state.output["signal"]["data"] == MATCHING
    assert run.types()[-3:] == ["SIGNAL_DELIVERED", "WORKFLOW_STEP", "WORKFLOW_COMPLETED"]
    assert waiting(run.state) == {}


@pytest.mark.parametrize(("type_", "data"), [("invoice.sent", MATCHING), ("invoice.paid", {"no": 8})])
def test_another_signal_changes_nothing(type_: str, data: Any) -> None:
    run = run_of(PAID)
    assert run.signal(type_, data).events == []
    assert run.steps() == {"paid": "open"}


def test_a_signal_that_the_where_cannot_be_asked_of_does_not_match_and_that_is_on_record() -> None:
    run = run_of(PAID)
    draft = run.signal("invoice.paid", {"number": 7})
    assert [event.type for event in draft.events] == ["COMMAND_REFUSED"]
    assert "signal.data.no" in draft.events[0].data.message
    assert run.steps() == {"paid": "open"}


def test_a_run_says_which_signal_it_waits_for_and_has_no_timer_of_its_own() -> None:
    run = run_of(PAID)
    (blocker,) = run.context().blocked_by
    assert (blocker.what, blocker.who, blocker.step_id) == ("signal", "invoice.paid", "paid")
    assert rules.wake_at(run.state) is None


@pytest.mark.parametrize(
    ("on_timeout", "status", "step"),
    [("reject", "rejected", "expired"), ("fail", "failed", "failed"), ("skip", "completed", "skipped")],
)
def test_no_signal_in_time_is_what_the_template_says(on_timeout: str, status: str, step: str) -> None:
    run = run_of({**PATIENT, "on_timeout": on_timeout})
    assert rules.wake_at(run.state) == later(run.now, 3600)
    assert run.wait(3599).advance().events == []
    run.wait(1).advance()
    assert (run.state.status, run.steps()) == (status, {"paid": step})
    assert run.state.steps["paid"].code == "wait_timeout"


def test_a_rejection_is_what_follows_when_the_template_says_nothing() -> None:
    run = run_of(PATIENT)
    run.wait(DAY).advance()
    assert run.state.status == "rejected"


def test_a_signal_that_comes_after_the_time_finds_the_wait_over_even_if_nobody_had_looked() -> None:
    run = run_of({**PATIENT, "on_timeout": "skip"})
    draft = run.wait(3600).signal("invoice.paid", MATCHING)
    assert "SIGNAL_DELIVERED" not in [event.type for event in draft.events]
    assert run.steps() == {"paid": "skipped"}


def test_a_signal_in_time_leaves_no_timeout_behind() -> None:
    run = run_of(PATIENT, {"id": "work", "type": "agent", "expires_after_seconds": 9 * DAY})
    run.wait(10).signal("invoice.paid", MATCHING)
    assert run.wait(DAY).advance().events == []
    assert run.steps() == {"paid": "completed", "work": "open"}


def test_one_signal_wakes_every_step_that_waits_for_it_and_the_run_takes_it_once() -> None:
    run = run_of(PAID, {**PAID, "id": "also", "needs": []}, {"id": "then", "type": "wait", "signal": PAID["signal"]})
    run.signal("invoice.paid", MATCHING)
    assert run.steps() == {"paid": "completed", "also": "completed", "then": "open"}
    assert [(scope, key) for scope, key, _ in run.claims] == [("signal_run", f"all|{run.state.workflow_id}|4:test|s1")]


def test_two_signals_of_different_names_never_have_one_key() -> None:
    from charter.model.signal import Signal

    names = [("a", "b|c"), ("a|b", "c"), ("1:a", "b")]
    assert len({signal_key(Signal(source=source, id=id_, type="t")) for source, id_ in names}) == 3


def test_a_run_that_has_ended_takes_no_signal() -> None:
    run = run_of(PAID)
    run.cancel()
    assert waiting(run.state) == {}
    assert run.signal("invoice.paid", MATCHING).events == []
