"""A template drawn, and what differs between two versions of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from charter.manifests.graph import changes, edges, mermaid, text
from charter.model.template import Template

PAY: dict[str, Any] = {
    "name": "pay",
    "version": "1",
    "steps": [
        {
            "id": "size",
            "type": "condition",
            "expression": "trigger.amount <= 1000",
            "if_true": ["small"],
            "if_false": ["ask"],
        },
        {"id": "ask", "type": "approval", "question": "Pay?", "title": 'The "CFO" decides'},
        {"id": "small", "type": "wait", "seconds": 1, "needs": ["size"]},
        {"id": "pay", "type": "action", "tool": "bank__pay", "needs": ["ask", "small"], "if": "true"},
    ],
}


def template(**change: Any) -> Template:
    return Template.model_validate(PAY | change)


def with_step(step_id: str, **change: Any) -> Template:
    return template(steps=[step | (change if step["id"] == step_id else {}) for step in PAY["steps"]])


def test_branches_are_edges_with_the_case_on_them() -> None:
    assert [(e.source, e.target, e.label) for e in edges(template())] == [
        ("size", "ask", "false"),
        ("size", "small", "true"),
        ("ask", "pay", ""),
        ("small", "pay", ""),
    ]


def test_text_names_for_each_step_what_it_waits_for() -> None:
    assert text(template()).splitlines() == [
        "size   condition",
        "ask    approval  after size is false",
        "small  wait  after size is true",
        "pay    action  after ask, small  if true",
    ]


def test_mermaid_has_a_shape_for_each_type_and_quotes_titles() -> None:
    drawn = mermaid(template()).splitlines()
    assert drawn[0] == "flowchart TD"
    assert '  s0{"size (condition)"}' in drawn
    assert '  s1{{"ask (approval): The #34;CFO#34; decides"}}' in drawn
    assert '  s0 -->|"false"| s1' in drawn


@given(st.text())
def test_no_title_draws_on_its_own(title: str) -> None:
    drawn = mermaid(with_step("ask", title=title))
    assert len(drawn.splitlines()) == len(mermaid(template()).splitlines())
    (line,) = (line for line in drawn.split("\n") if line.startswith("  s1{{"))
    assert line.count('"') == 2


def test_the_same_twice_has_no_changes_however_defaults_are_written() -> None:
    assert changes(template(), with_step("ask", needs=["size"], risk="medium")) == ()


def test_changes_name_step_and_member() -> None:
    found = changes(template(), with_step("pay", arguments={"amount": "{{ trigger.amount }}"}, tool="bank__transfer"))
    assert [(c.kind, c.where, c.before, c.after) for c in found] == [
        ("changed", "steps.pay.tool", "bank__pay", "bank__transfer"),
        ("added", "steps.pay.arguments", None, {"amount": "{{ trigger.amount }}"}),
    ]


def test_added_removed_and_moved_steps_are_told() -> None:
    steps = PAY["steps"]
    note = {"id": "note", "type": "wait", "seconds": 2}
    found = changes(template(), template(version="2", steps=[steps[0], steps[2], steps[1], note, steps[3]]))
    kinds = {(c.kind, c.where) for c in found}
    assert {
        ("changed", "version"),
        ("moved", "steps"),
        ("added", "steps.note"),
        ("changed", "steps.ask.needs"),
    } <= kinds
    without = template(steps=[steps[0] | {"if_true": []}, steps[1], steps[3] | {"needs": ["ask"]}])
    assert ("removed", "steps.small") in {(c.kind, c.where) for c in changes(template(), without)}


def test_true_is_not_one() -> None:
    assert [
        c.where for c in changes(with_step("pay", arguments={"a": 1}), with_step("pay", arguments={"a": True}))
    ] == ["steps.pay.arguments.a"]
