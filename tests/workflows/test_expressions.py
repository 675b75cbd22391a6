"""CEL and ``{{ }}``: an error is an error, a value is JSON, and text that comes in is never expanded."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from charter.model.placeholders import expressions_in
from charter.workflows.expressions import ExpressionError, compiled, condition, evaluate, render

SCOPE: dict[str, Any] = {
    "trigger": {"n": 5, "text": "5", "none": None, "deep": {"list": [1, 2, 3]}, "evil": "{{ trigger.n }}"},
    "steps": {"a": {"output": {"x": 1}, "status": "completed"}, "b-2": {"output": None, "status": "skipped"}},
    "workflow": {"id": "wf_1", "started_at": "2026-11-21T07:49:15.042Z"},
}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("trigger.n > 4", True),
        ("trigger.n > 4.5", True),
        ("size(trigger.deep.list) == 4", False),
        ("steps.a.output.x == 1", True),
        ('steps["b-2"].status == "skipped"', True),
        ("steps['b-2'].status == 'skipped'", True),
        ('steps.all(key, steps[key].status == "completed")', False),
        ('steps.exists(key, key == "b-2")', True),
        ("has(steps.c)", False),
        ('timestamp(workflow.started_at) < timestamp("2027-01-01T00:00:00Z")', True),
    ],
)
def test_a_condition_is_true_or_false(source: str, value: bool) -> None:
    assert condition(source, SCOPE) is value


@pytest.mark.parametrize(
    "source", ["trigger.text > 4", "trigger.none > 4", "trigger.missing", "trigger.n", '"true"', "trigger.none"]
)
def test_anything_else_is_an_error_that_names_the_expression(source: str) -> None:
    with pytest.raises(ExpressionError, match=re.escape(source)) as caught:
        condition(source, SCOPE)
    assert caught.value.error_code == "expression_error"


@pytest.mark.parametrize("source", ["1 +", "foo(1)", "secrets.key", "import os", "__import__('os')", "x" * 501])
def test_what_is_not_cel_over_the_three_names_does_not_compile(source: str) -> None:
    with pytest.raises(ExpressionError):
        compiled(source)


def test_a_bomb_is_stopped() -> None:
    big = {"trigger": {"l": list(range(1000))}, "steps": {}, "workflow": {}}
    source = "trigger.l.all(a, trigger.l.all(b, trigger.l.all(c, trigger.l.all(d, a + b + c + d >= 0))))"
    with pytest.raises(ExpressionError):
        evaluate(source, big)


def test_data_that_is_too_deep_is_an_error() -> None:
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    with pytest.raises(ExpressionError, match="deeper"):
        evaluate("trigger.x", {"trigger": {"x": deep}})


@pytest.mark.parametrize(
    "source", ['b"bytes"', 'duration("3s")', "timestamp(workflow.started_at)", "{1: 2}", "type(1)"]
)
def test_a_value_that_is_not_json_is_an_error(source: str) -> None:
    with pytest.raises(ExpressionError, match="not JSON"):
        evaluate(source, SCOPE)


@pytest.mark.parametrize(
    ("value", "rendered"),
    [
        ("{{ trigger.n }}", 5),
        (" {{ trigger.deep.list }} ", [1, 2, 3]),
        ("n={{ trigger.n }} {{ trigger.none }}|", "n=5 |"),
        ("{{ trigger.n > 1 }}!", "true!"),
        ("{{ trigger.deep }}.", '{"list": [1, 2, 3]}.'),
        ('{{ {"a": {"b": trigger.n}} }}', {"a": {"b": 5}}),
        ({"k": ["{{ trigger.n }}", 1, None]}, {"k": [5, 1, None]}),
        ("{{ trigger.evil }}", "{{ trigger.n }}"),
        ("say {{ trigger.evil }}", "say {{ trigger.n }}"),
        ("no value { here }", "no value { here }"),
    ],
)
def test_values_are_filled_in_once_and_a_whole_value_keeps_its_type(value: Any, rendered: Any) -> None:
    assert render(value, SCOPE) == rendered


def test_validation_sees_the_same_expressions_as_rendering() -> None:
    assert expressions_in({"a": ["{{ x }} {{ y }}"], "b": '{{ {"a": {"b": 1}} }}', "c": 1}) == [
        "x",
        "y",
        '{"a": {"b": 1}}',
    ]


def test_maps_come_out_in_one_order_in_every_process() -> None:
    source = (
        "from charter.workflows.expressions import render\n"
        "print(render('{{ trigger }} {{ trigger.a }}', {'trigger': {key: 1 for key in 'hgfedcba'}}))\n"
        "print(list(render('{{ trigger }}', {'trigger': {key: 1 for key in 'hgfedcba'}})))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
