"""Which part of a run's input goes into sensitive arguments, and where that part may not be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.manifests.redaction import redact_at
from charter.manifests.withheld import Here, handed_over, problems, reads, step_problem, withheld
from charter.model.template import Template
from charter.model.tool import ToolManifest


def tool(name: str, *sensitive: str) -> ToolManifest:
    return ToolManifest(
        name=name,
        server="box",
        upstream_name=name.removeprefix("box__"),
        description="",
        input_schema={"type": "object"},
        definition_hash="sha256:0",
        risk="low",
        side_effects="none",
        sensitive_arguments=sensitive,
    )


TOOLS = {
    item.name: item
    for item in (
        tool("box__login", "/password"),
        tool("box__hire", "/people/*/ssn"),
        tool("box__all", ""),
        tool("box__read"),
    )
}


def template(*steps: dict[str, Any], name: str = "t", **top: Any) -> Template:
    return Template.model_validate({"name": name, "version": "1", "steps": list(steps), **top})


def action(tool: str, step_id: str = "use", **arguments: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "action", "tool": f"box__{tool}", "arguments": arguments}


CHILD = template(action("login", password="{{ trigger.secret }}"), name="child")
LOOP = template({"id": "again", "type": "workflow", "template": "loop", "input": {"x": "{{ trigger.x }}"}}, name="loop")
HERE = Here(TOOLS.get, {"child": CHILD, "loop": LOOP}.get)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        (action("login", password="{{ trigger.password }}"), ["/password"]),
        (action("login", password="a {{ trigger.a.b }} and {{ trigger['c d'] }}"), ["/a/b", "/c d"]),
        (action("login", password="{{ trigger.a + string(trigger.n) }}"), ["/a", "/n"]),
        (action("login", password="{{ trigger[trigger.which] }}"), [""]),
        (action("login", password='{{ "trigger.text" + trigger["b"] }}'), ["/b"]),
        (action("login", password="{{ trigger.list.map(x, x.y)[0] }}"), ["/list"]),
        (action("login", password="{{ trigger.list[0].y }}"), ["/list/0/y"]),
        (action("login", password={"deep": ["{{ trigger.p }}"]}), ["/p"]),
        (action("login", user="{{ trigger.user }}", password="fixed"), []),
        (action("login", password="{{ steps.a.output.trigger.b }}"), []),
        (action("hire", people="{{ trigger.staff }}"), ["/staff/*/ssn"]),
        (action("hire", people=[{"name": "{{ trigger.name }}", "ssn": "{{ trigger.ssn }}"}]), ["/ssn"]),
        (action("hire", people="{{ trigger.staff.filter(p, p.here) }}"), ["/staff"]),
        (action("all", x="{{ trigger.x }}", y="{{ trigger.y.z }}"), ["/x", "/y/z"]),
        (action("read", x="{{ trigger.x }}"), []),
        (action("nothing", x="{{ trigger.x }}"), []),
        ({"id": "w", "type": "workflow", "template": "child", "input": {"secret": "{{ trigger.s }}"}}, ["/s"]),
        ({"id": "w", "type": "workflow", "template": "child", "input": {"other": "{{ trigger.s }}"}}, []),
        ({"id": "w", "type": "workflow", "template": "loop", "input": {"x": "{{ trigger.s }}"}}, []),
        (
            {
                "id": "w",
                "type": "wait",
                "poll": {
                    "tool": "box__login",
                    "arguments": {"password": "{{ trigger.p }}"},
                    "until": "true",
                    "every_seconds": 5,
                },
            },
            ["/p"],
        ),
        (
            {
                **action("read"),
                "compensate": {"tool": "box__login", "arguments": {"password": "{{ trigger.p }}"}},
            },
            ["/p"],
        ),
        (
            {
                "id": "e",
                "type": "external",
                "url": "https://a.example/{{ trigger.id }}",
                "body": {"pin": "{{ trigger.pin }}"},
                "sensitive": True,
            },
            ["/pin"],
        ),
        (
            {
                "id": "g",
                "type": "agent",
                "gate": {
                    "checks": [
                        {
                            "id": "c",
                            "expression": "evidence.ok",
                            "evidence": {"tool": "box__login", "arguments": {"password": "{{ trigger.p }}"}},
                        }
                    ]
                },
            },
            ["/p"],
        ),
    ],
)
def test_what_is_withheld(step: dict[str, Any], wanted: list[str]) -> None:
    assert list(withheld(template(step), HERE)) == wanted


LOGIN = action("login", password="{{ trigger.p.q }}")


@pytest.mark.parametrize(
    ("step", "where"),
    [
        (action("read", "b", note="{{ trigger.p.q }}"), "/steps/1/arguments"),
        (action("read", "b", note="{{ trigger }}"), "/steps/1/arguments"),
        (action("read", "b", note="{{ trigger.p }}"), "/steps/1/arguments"),
        (action("login", "b", password="x", note="{{ trigger.p.q.r }}"), "/steps/1/arguments"),
        ({"id": "b", "type": "approval", "question": "{{ trigger.p.q }}?"}, "/steps/1/question"),
        ({"id": "b", "type": "approval", "question": "{{ string(trigger.p) }}?"}, "/steps/1/question"),
        ({"id": "b", "type": "condition", "expression": "trigger.p.q == 'x'"}, "/steps/1/expression"),
        ({"id": "b", "type": "condition", "expression": "trigger.p == {}"}, "/steps/1/expression"),
        ({"id": "b", "type": "agent", "if": "trigger.p.q != ''"}, "/steps/1/if"),
        ({"id": "b", "type": "agent", "instructions": "Say {{ trigger.p.q }}"}, "/steps/1/instructions"),
        ({"id": "b", "type": "signal", "signal": {"type": "x", "data": "{{ trigger.p.q }}"}}, "/steps/1/signal"),
        ({"id": "b", "type": "external", "url": "https://a.example/{{ trigger.p.q }}"}, "/steps/1"),
        (
            {
                "id": "b",
                "type": "notification",
                "email": {"to": ["a@b.c"], "subject": "s", "text": "{{ trigger.p.q }}"},
            },
            "/steps/1",
        ),
        (
            {"id": "b", "type": "workflow", "template": "child", "input": {"x": "{{ trigger.p.q }}"}},
            "/steps/1/input",
        ),
    ],
)
def test_what_is_withheld_may_come_on_record_by_no_other_way(step: dict[str, Any], where: str) -> None:
    made = template(LOGIN, step)
    pointers = withheld(made, HERE)
    assert "/p/q" in pointers
    assert [item.where for item in problems(made, pointers, HERE)] == [where]


@pytest.mark.parametrize(
    "step",
    [
        {
            "id": "b",
            "type": "approval",
            "question": "Sure?",
            "show": {"input": "{{ trigger }}", "p": "{{ trigger.p }}"},
        },
        {"id": "b", "type": "agent", "instructions": "Look at {{ trigger.other }} of {{ trigger }}."},
        {"id": "b", "type": "condition", "expression": "trigger.p.other == 'x' && 'trigger.p.q' != ''"},
        action("login", "b", password="{{ trigger.p.q.r }}"),
        {"id": "b", "type": "workflow", "template": "child", "input": {"secret": "{{ trigger.p.q }}"}},
    ],
)
def test_elsewhere_it_is_shown_as_withheld(step: dict[str, Any]) -> None:
    made = template(LOGIN, step)
    assert list(problems(made, withheld(made, HERE), HERE)) == []


def test_the_output_and_a_signal_that_starts_it_would_be_on_record() -> None:
    made = template(LOGIN, output={"again": "{{ trigger.p.q }}"}, on_signal=[{"type": "x"}])
    assert [item.where for item in problems(made, withheld(made, HERE), HERE)] == ["/on_signal/0", "/output"]
    assert all(item.mend for item in problems(made, withheld(made, HERE), HERE))


def test_what_another_tool_withholds_is_not_sent_beside() -> None:
    """One tool keeps the social security number and would be sent the PIN, which another one keeps, in the clear."""
    made = template(
        action("login", "a", password="{{ trigger.staff[0].pin }}"), action("hire", people="{{ trigger.staff }}")
    )
    pointers = withheld(made, HERE)
    assert list(pointers) == ["/staff/*/ssn", "/staff/0/pin"]
    assert [item.where for item in problems(made, pointers, HERE)] == ["/steps/1/arguments"]


def test_what_an_agent_hands_over_into_a_sensitive_argument_is_told() -> None:
    ask = {"id": "ask", "type": "agent"}
    for output in ("steps.ask.output.pin", "string(steps['ask'].output)"):
        told = list(handed_over(template(ask, action("login", password=f"{{{{ {output} }}}}")), HERE))
        assert [(item.where, "'ask'" in item.text) for item in told] == [("/steps/1/arguments", True)]
    for fine in (
        action("login", note="{{ steps.ask.output.pin }}"),
        action("login", password="{{ steps.ask.status }}"),
    ):
        assert list(handed_over(template(ask, fine), HERE)) == []


def test_a_tool_that_is_not_sensitive_any_more_is_noticed() -> None:
    [step] = template(LOGIN).steps
    tamed = Here({"box__login": tool("box__login")}.get, HERE.template)
    assert (reads(step, ("/p/q",), tamed), step_problem(step, ("/p/q",), HERE)) == (True, None)
    assert "would put it on record" in str(step_problem(step, ("/p/q",), tamed))


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3)


@given(sent=PATHS, kept=PATHS, value=st.text(min_size=1, max_size=3))
def test_whatever_lands_on_a_sensitive_place_is_gone_from_the_input(
    sent: list[str], kept: list[str], value: str
) -> None:
    """A value at the end of ``sent``, passed whole as the arguments: what the manifest withholds there is withheld here."""
    inner: Any = {"leaf": value}
    for name in reversed(kept):
        inner = {name: inner, "other": value}
    trigger: Any = inner
    for name in reversed(sent):
        trigger = {name: trigger}
    pointer = "/".join(["", "x", *kept])
    here = Here({"box__x": tool("box__x", pointer)}.get, HERE.template)
    made = template(action("x", x=f"{{{{ trigger.{'.'.join(sent)} }}}}"))
    shown, hit = redact_at(withheld(made, here), trigger)
    expected, _ = redact_at([pointer], {"x": inner})
    at: Any = shown
    for name in sent:
        at = at[name]
    assert (hit, {"x": at}) == (True, expected)
