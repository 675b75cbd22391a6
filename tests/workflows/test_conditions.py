"""Condition steps: one branch is taken, the other is skipped with the reason, and joins still come together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.workflows.build import Run, effect_of, template

BIG = {
    "id": "big",
    "type": "condition",
    "expression": "trigger.cents > 100",
    "if_true": ["ask"],
    "if_false": ["note"],
}
ASK = {"id": "ask", "type": "approval", "question": "Pay?"}
NOTE = {"id": "note", "type": "agent", "needs": ["big"]}
PAY = {"id": "pay", "type": "action", "tool": "box__read", "needs": ["ask", "note"]}


def run_of(cents: Any, *steps: dict[str, Any]) -> Run:
    return Run(template(*(steps or (BIG, ASK, NOTE, PAY)))).start({"cents": cents})


@pytest.mark.parametrize(("cents", "taken", "other"), [(500, "ask", "note"), (5, "note", "ask")])
def test_the_branch_taken_opens_and_the_other_is_skipped_with_the_reason(cents: int, taken: str, other: str) -> None:
    run = run_of(cents)
    assert run.steps() == {"big": "completed", taken: "open", other: "skipped"}
    value = cents > 100
    expected = {"value": value, "branch": "if_true" if value else "if_false", "left_out": [other]}
    assert run.state.steps["big"].output == expected
    assert "'big' (trigger.cents > 100)" in str(run.state.steps[other].reason)


def test_a_join_waits_for_the_branch_that_was_taken_and_not_for_the_other() -> None:
    run = run_of(500)
    assert "pay" not in run.steps()
    run.answer(run.approval_id())
    run.outcome(effect_of(run.run_step("pay")).effect_id)
    assert run.state.status == "completed"


@pytest.mark.parametrize("cents", ["500", None, [1]])
def test_a_condition_without_a_truth_value_fails_and_takes_no_branch(cents: Any) -> None:
    run = run_of(cents)
    assert (run.state.status, run.steps()) == ("failed", {"big": "failed"})
    assert run.state.steps["big"].code == "expression_error"


def test_a_value_that_is_no_truth_value_is_an_error() -> None:
    run = run_of(500, {**BIG, "expression": "trigger.cents"}, ASK, NOTE, PAY)
    assert run.state.status == "failed"
    assert "not true or false" in str(run.state.reason)


def test_a_condition_in_a_branch_that_was_not_taken_takes_no_branch() -> None:
    inner = {"id": "inner", "type": "condition", "expression": "true", "if_true": ["a"], "if_false": ["b"]}
    outer = {"id": "outer", "type": "condition", "expression": "false", "if_true": ["inner"]}
    run = run_of(5, outer, inner, {"id": "a", "type": "agent"}, {"id": "b", "type": "agent"})
    assert run.steps() == {"outer": "completed", "inner": "skipped", "a": "skipped", "b": "skipped"}
    assert run.state.status == "completed"
    assert "'inner', which took none" in str(run.state.steps["a"].reason)


def test_a_skipped_branch_holds_its_place_until_what_it_needs_is_over() -> None:
    """So that a join reads no step that is not over yet."""
    slow = {"id": "slow", "type": "agent", "needs": []}
    choose = {**BIG, "needs": [], "if_true": [], "if_false": ["note"]}
    note = {**NOTE, "needs": ["big", "slow"]}
    end = {"id": "end", "type": "approval", "question": "{{ steps.slow.output.n }}?", "needs": ["note"]}
    run = run_of(500, slow, choose, note, end)
    assert run.steps() == {"slow": "open", "big": "completed"}
    run.complete({"n": 1})
    assert run.steps() == {"slow": "completed", "big": "completed", "note": "skipped", "end": "open"}


def test_many_conditions_one_after_another_are_no_deep_recursion() -> None:
    steps = [{"id": f"s{n}", "type": "condition", "expression": "true"} for n in range(100)]
    assert run_of(1, *steps).state.status == "completed"
