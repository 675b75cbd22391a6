"""What the validator finds: everything that would fail at run time and can be known before."""

from __future__ import annotations

from typing import Any

import pytest

from charter.manifests.finding import Finding
from charter.manifests.installed_checks import Installation
from charter.manifests.template_checks import validate
from charter.model.template import Template
from charter.workflows.expressions import problem


def agent(step_id: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "agent", **more}


def action(step_id: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "action", "tool": "box__read", **more}


def checked(
    *steps: dict[str, Any], tools: Any = None, roles: Any = None, strict: bool = False, here: Any = None, **top: Any
) -> Any:
    template = Template.model_validate({"name": "t", "version": "1", "steps": list(steps), **top})
    here = here or Installation(tools=tools, roles=roles)
    return validate(template, installation=here, strict=strict, check_expression=problem)


def one(found: list[Finding], level: str, where: str, says: str) -> None:
    assert [(item.level, item.where) for item in found] == [(level, where)], found
    assert says in found[0].text
    assert found[0].mend


def test_a_sound_template_has_no_findings() -> None:
    assert checked(agent("a"), action("b", needs=[]), agent("c", needs=["a", "b"]), output="{{ steps.c.output }}") == []


def test_two_steps_of_one_name() -> None:
    one(checked(agent("a"), agent("a")), "error", "/steps/1/id", "'a'")


def test_needs_that_are_not_there() -> None:
    one(checked(agent("a"), agent("b", needs=["c"])), "error", "/steps/1/needs", "no step 'c'")


def test_a_cycle_is_shown_and_what_hangs_on_it_can_never_open() -> None:
    found = checked(agent("a", needs=["b"]), agent("b", needs=["a"]), agent("c"))
    assert [item.where for item in found] == ["/steps/0/needs", "/steps/1/needs", "/steps/2"]
    assert "a -> b -> a" in found[0].text
    assert "never open" in found[2].text


def test_a_step_that_needs_itself() -> None:
    one(checked(agent("a", needs=["a"])), "error", "/steps/0/needs", "a -> a")


def test_more_steps_than_a_template_may_have() -> None:
    found = checked(*[agent(f"s{number}") for number in range(101)])
    one(found, "error", "/steps", "100")


@pytest.mark.parametrize(
    ("steps", "where"),
    [
        ([agent("a", **{"if": "1 +"})], "/steps/0/if"),
        ([agent("a", instructions="{{ nope }}")], "/steps/0/instructions"),
        ([action("a", arguments={"deep": [{"x": "{{ 1 + }}"}]})], "/steps/0/arguments"),
        ([{"id": "a", "type": "approval", "question": "{{ ( }}"}], "/steps/0/question"),
        ([{"id": "a", "type": "approval", "question": "?", "show": ["{{ ) }}"]}], "/steps/0/show"),
    ],
)
def test_cel_that_does_not_compile(steps: list[dict[str, Any]], where: str) -> None:
    one(checked(*steps), "error", where, "does not compile")


def test_an_output_that_does_not_compile() -> None:
    one(checked(agent("a"), output={"x": "{{ y }}"}), "error", "/output", "does not compile")


@pytest.mark.parametrize("source", ["steps.x.output", 'steps["x"].output', "steps['x'].status == 'completed'"])
def test_a_reference_to_no_step(source: str) -> None:
    one(checked(agent("a"), output=f"{{{{ {source} }}}}"), "error", "/output", "no step 'x'")


@pytest.mark.parametrize("source", ['"steps.x.output"', "trigger.steps.x", "has(steps.x)", "steps.all(k, true)"])
def test_what_only_looks_like_a_reference(source: str) -> None:
    assert checked(agent("a", **{"if": f"{source} == {source}"})) == []


def test_a_reference_to_a_step_that_may_not_be_over() -> None:
    found = checked(agent("a"), agent("b", needs=[], instructions="{{ steps.a.output }}"))
    one(found, "error", "/steps/1/instructions", "may not be over")
    assert checked(agent("a"), agent("b"), agent("c", instructions="{{ steps.a.output }}")) == []


def test_a_field_of_a_step_that_may_be_skipped() -> None:
    maybe = action("a", on_failure="skip")
    one(checked(maybe, output="{{ steps.a.output.x }}"), "warning", "/output", "skipped")
    assert checked(maybe, output='{{ steps.a.status == "completed" ? steps.a.output.x : "" }}') == []
    assert checked(maybe, agent("b", **{"if": "trigger.n > 0"}), output="{{ steps.b.output }}") == []


SCHEMA = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}, "m": {"type": "integer"}}}


def test_fields_that_the_input_does_not_have_or_need_not_have() -> None:
    closed = {**SCHEMA, "additionalProperties": False}
    one(checked(agent("a", **{"if": "trigger.x > 1"}), input=closed), "error", "/steps/0/if", "no field 'x'")
    one(checked(agent("a", **{"if": "trigger.x > 1"}), input=SCHEMA), "warning", "/steps/0/if", "no field 'x'")
    one(checked(agent("a", **{"if": "trigger.m > 1"}), input=SCHEMA), "warning", "/steps/0/if", "need not have 'm'")
    assert checked(agent("a", **{"if": "trigger.n > 1"}), input=closed) == []
    assert checked(agent("a", **{"if": "has(trigger.m) && trigger.m > 1"}), input=closed) == []
    guarded = agent("a", instructions="{{ trigger.m }}", **{"if": "has(trigger.m)"})
    assert checked(guarded, input=closed) == []


def test_fields_that_a_steps_output_does_not_have() -> None:
    step = agent("a", output_schema={**SCHEMA, "additionalProperties": False})
    one(checked(step, output="{{ steps.a.output.x }}"), "error", "/output", "no field 'x'")
    one(checked(step, output="{{ steps.a.output.m }}"), "warning", "/output", "need not have 'm'")
    assert checked(step, output="{{ steps.a.output.n }}") == []


def test_the_steps_that_a_condition_names() -> None:
    def branching(needs: Any = None, **more: Any) -> Any:
        condition = {"id": "big", "type": "condition", "expression": "true", "needs": [], **more}
        return checked(agent("a"), condition, agent("b", needs=needs), agent("c"))

    assert branching(if_true=["b"], if_false=["c"]) == []
    one(branching(if_true=["x"]), "error", "/steps/1/if_true/0", "no step 'x'")
    one(branching(if_true=["b"], if_false=["b"]), "error", "/steps/1/if_false/0", "both branches")
    one(branching(if_true=["a"]), "error", "/steps/1/if_true/0", "does not come after 'big'")
    one(branching(needs=["a"], if_false=["c"]), "error", "/steps/1/if_false/0", "does not come after 'big'")
    one(branching(if_true=["big"]), "error", "/steps/1/if_true/0", "does not come after")
    one(branching(), "warning", "/steps/1", "no step depends")
    one(branching(expression="1 +", if_true=["b"]), "error", "/steps/1/expression", "does not compile")


def test_the_end_of_a_wait() -> None:
    def waiting(until: str) -> Any:
        return checked(
            {"id": "w", "type": "wait", "until": until}, input={"properties": {"at": {}}, "required": ["at"]}
        )

    assert waiting("2027-01-31T09:00:00Z") == waiting("{{ trigger.at }}") == []
    one(waiting("2027-01-31T09:00:00"), "error", "/steps/0/until", "no RFC 3339 time")
    one(waiting("{{ 1 + }}"), "error", "/steps/0/until", "does not compile")
    for ends in ({}, {"until": "2027-01-31T09:00:00Z", "seconds": 5}):
        with pytest.raises(ValueError, match="one of `until`, `seconds`"):
            checked({"id": "w", "type": "wait", **ends})


def test_what_a_wait_for_a_signal_says() -> None:
    def waiting(where: str, **more: Any) -> Any:
        return checked({"id": "w", "type": "wait", "signal": {"type": "t", "where": where}, **more})

    assert waiting("signal.data.n == 1", timeout_seconds=5) == []
    one(waiting("1 +"), "error", "/steps/0/signal/where", "does not compile")
    one(waiting("steps.x.output == 1"), "error", "/steps/0/signal/where", "no step 'x'")
    one(checked(agent("a", **{"if": "signal.data.n == 1"})), "error", "/steps/0/if", "there is no signal here")
    with pytest.raises(ValueError, match="it has neither"):
        checked({"id": "w", "type": "wait", "seconds": 5, "timeout_seconds": 5})


def test_what_starts_a_run() -> None:
    def started(where: str) -> Any:
        return checked(agent("a"), on_signal=[{"type": "t", "where": where}])

    assert started("signal.data.n == 1") == []
    one(started("trigger.n == 1"), "error", "/on_signal/0/where", "before the run starts")
    one(started("1 +"), "error", "/on_signal/0/where", "does not compile")


def test_a_field_of_a_step_that_a_branch_may_leave_out() -> None:
    condition = {"id": "big", "type": "condition", "expression": "true", "if_true": ["b"]}
    found = checked(condition, agent("b"), agent("c", instructions="{{ steps.b.output.x }}"))
    one(found, "warning", "/steps/2/instructions", "may be skipped")


def test_schemas_that_are_none() -> None:
    found = checked(agent("a", output_schema={"type": 3}), input={"type": "string"})
    assert [item.where for item in found] == ["/input/type", "/steps/0/output_schema"]
    one(checked(agent("a"), input={"$ref": "https://example.com/x"}), "error", "/input", "nothing is fetched")


def test_an_approval_that_asks_nobody() -> None:
    step = {"id": "a", "type": "approval", "question": "?", "requirements": []}
    one(checked(step), "error", "/steps/0/requirements", "nobody")


def test_what_only_an_installation_knows_is_a_warning_unless_strict() -> None:
    steps = [
        action("a", tool="box__gone"),
        agent("b", allowed_tools=["box__*", "gone__*", "box__other"], agent="role:writer"),
        {"id": "c", "type": "approval", "question": "?", "requirements": [{"role": "boss"}, {"role": "finance"}]},
    ]
    where = [
        "/steps/0/tool",
        "/steps/1/agent",
        "/steps/1/allowed_tools/1",
        "/steps/1/allowed_tools/2",
        "/steps/2/requirements/0/role",
    ]
    for strict, level in ((False, "warning"), (True, "error")):
        found = checked(*steps, tools=["box__read"], roles=["finance"], strict=strict)
        assert [(item.level, item.where) for item in found] == [(level, item) for item in where]
    assert checked(*steps) == []


def asks(**more: Any) -> dict[str, Any]:
    return {"id": "a", "type": "approval", "question": "?", **more}


def test_approvers_whom_nobody_here_can_be_are_told_wherever_they_are_named() -> None:
    requirements = [{"people": ["Alice", "bob"]}, {"people": ["agent:clerk"]}, {"role": "boss"}]
    escalations = [{"people": ["zoe"], "role": "chief", "after_seconds": 60}]
    gate = {"approval": {"requirements": [{"people": ["yan"]}], "escalations": escalations}}
    phase = agent("b", gate=gate)
    here = Installation(people=["alice", "cat"], agents=["agent:clerk"], roles=["finance"])
    for strict, level in ((False, "warning"), (True, "error")):
        found = checked(asks(requirements=requirements, escalations=escalations), phase, here=here, strict=strict)
        assert {(item.level, item.where) for item in found} == {
            (level, f"/steps/{where}")
            for where in (
                "0/requirements/0/people/1",
                "0/requirements/2/role",
                "0/escalations/0/people/0",
                "0/escalations/0/role",
                "1/gate/approval/requirements/0/people/0",
                "1/gate/approval/escalations/0/people/0",
                "1/gate/approval/escalations/0/role",
            )
        }
        assert all(item.mend for item in found)
    assert checked(asks(requirements=requirements, escalations=escalations), phase) == [], "nobody said who there is"
    person = asks(requirements=[{"people": ["agent:clerk"], "people_only": True}])
    one(checked(person, here=here), "warning", "/steps/0/requirements/0/people/0", "'agent:clerk'")


@pytest.mark.parametrize(
    ("named", "fits"),
    [
        ([(["ann"], 1), (["ann"], 1)], False),
        ([(["ann", "bob"], 1), (["Ann"], 1)], True),
        ([(["ann", "bob"], 2), (["bob", "cat"], 1)], True),
        ([(["ann", "bob"], 2), (["bob"], 1)], False),
        ([(["ann"], 1), ([], 5)], True),
    ],
)
def test_a_question_that_the_people_it_names_can_never_answer_together(named: Any, fits: bool) -> None:
    step = asks(requirements=[{"people": people, "approvers": count} for people, count in named])
    found = checked(step)
    if fits:
        assert found == []
    else:
        one(found, "error", "/steps/0/requirements", "fewer people are named")
    assert checked(step, separation_of_duties="none") == []


def test_a_star_stands_at_the_end() -> None:
    one(checked(agent("a", allowed_tools=["*__read"])), "error", "/steps/0/allowed_tools/0", "before its end")
    assert checked(agent("a", allowed_tools=["*"]), tools=["box__read"]) == []


@pytest.mark.parametrize(
    ("step", "where"),
    [
        (agent("a", instructions="Pay {{ trigger.cents"), "/steps/0/instructions"),
        (action("a", arguments={"deep": [{"x": "{{ 1 }} and {{ trigger.id"}]}), "/steps/0/arguments"),
        ({"id": "a", "type": "external", "url": "https://x.example/{{ trigger.id }"}, "/steps/0/url"),
        (
            action("a", compensate={"tool": "box__undo", "arguments": {"id": "{{ trigger.id"}}),
            "/steps/0/compensate/arguments",
        ),
        (
            {
                "id": "a",
                "type": "notification",
                "webhook": {"url": "https://x.example", "secret": "S", "data": {"a": "{{b"}},
            },
            "/steps/0/webhook",
        ),
    ],
)
def test_braces_that_nothing_closes_stay_text_and_are_told(step: dict[str, Any], where: str) -> None:
    one(checked(step), "warning", where, "not closed")
    assert checked(agent("a", instructions='Braces are {{ "{{" }} here, and {{ trigger.x }}.', title="{{")) == []
