"""What the validator finds in phases: artifacts nobody can make, gates that never open, rules and ways back that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from tests.manifests.test_template_checks import agent, checked, one

PLAN = [{"name": "plan", "schema": {"type": "object"}}]
YES = {"requirements": [{"role": "lead"}]}


def phase(*checks: dict[str, Any], approval: Any = None, **more: Any) -> dict[str, Any]:
    gate = {"checks": list(checks), **({"approval": approval} if approval is not None else {})}
    return agent("work", artifacts=PLAN, gate=gate, **more)


def check(**what: Any) -> dict[str, Any]:
    return {"id": "c", **what}


def test_a_sound_phase_has_no_findings() -> None:
    evidence = {"tool": "box__read", "arguments": {"path": "{{ artifacts.plan.path }}"}}
    found = checked(
        phase(
            check(expression="artifacts.plan.ok && params.n > 1", params={"n": 2}),
            {"id": "d", "expression": "evidence.failed == 0", "evidence": evidence},
            {"id": "e", "schema": {"type": "object"}, "artifact": "plan"},
            {"id": "f", "question": "Is {{ artifacts.plan.title }} sound?"},
            approval={**YES, "question": "Go on with {{ artifacts.plan }}?"},
            allowed_tools=["box__*"],
            argument_rules=[{"tool": "box__write", "argument": "path", "kind": "path", "allowed": ["tests/**"]}],
            go_back=[{"to": "work", "on": "rejected"}],
        ),
        agent("next", instructions="{{ steps.work.output.plan }}"),
        tools={"box__read", "box__write"},
        roles={"lead"},
    )
    assert found == []


@pytest.mark.parametrize(
    ("step", "where", "says"),
    [
        (phase(check(question="Sound?")), "/gate/checks/0/question", "nobody is there to answer it"),
        (phase(approval={"requirements": []}), "/gate/approval/requirements", "nobody is asked"),
        (phase(check(schema={}, artifact="code")), "/gate/checks/0/artifact", "an artifact 'code'"),
        (phase(check(expression="artifacts.code.ok")), "/gate/checks/0/expression", "an artifact 'code'"),
        (phase(check(expression="artifacts['code'].ok")), "/gate/checks/0/expression", "an artifact 'code'"),
        (phase(check(schema={"type": "no"})), "/gate/checks/0/schema", "cannot be used"),
        (phase(check(expression="evidence.ok")), "/gate/checks/0/expression", "no evidence here"),
        (phase(check(expression="params.n > 1")), "/gate/checks/0/expression", "no parameter 'n'"),
        (phase(check(expression="artifacts.plan +")), "/gate/checks/0/expression", "does not compile"),
        (phase(check(expression="steps.later.output.x")), "/gate/checks/0/expression", "no step 'later'"),
        (
            phase(check(expression="true"), check(expression="true")),
            "/gate/checks/1/id",
            "two checks",
        ),
        (agent("work", artifacts=[*PLAN, *PLAN]), "/artifacts/1/name", "two artifacts"),
        (agent("work", artifacts=[{"name": "a", "schema": {"$ref": "http://x/y"}}]), "/artifacts/0/schema", "cannot"),
        (agent("work", artifacts=PLAN, output_schema={}), "/output_schema", "artifacts and an output_schema"),
        (agent("work", instructions="{{ artifacts.plan }}"), "/instructions", "only a gate"),
        (agent("work", forbidden_tools=["a*b"]), "/forbidden_tools/0", "before its end"),
        (phase(approval={**YES, "if": "true"}), "/gate/approval/if", "a gate's approval has none"),
        (phase(go_back=[{"to": "nowhere"}]), "/go_back/0/to", "no agent step"),
        (agent("work", go_back=[{"to": "work"}]), "/go_back/0/on", "no check that could block"),
        (agent("work", go_back=[{"to": "work", "on": "rejected"}]), "/go_back/0/on", "nobody is asked"),
    ],
)
def test_errors(step: dict[str, Any], where: str, says: str) -> None:
    found = [item for item in checked(step) if item.level == "error"]
    one(found, "error", f"/steps/0{where}", says)


@pytest.mark.parametrize(
    ("kind", "text"), [("path", "/etc/*"), ("path", "a/../b"), ("path", "a\\b"), ("command", " "), ("pattern", "(?=a)")]
)
def test_rules_that_cannot_be(kind: str, text: str) -> None:
    rule = {"tool": "box__*", "argument": "path", "kind": kind, "forbidden": [text]}
    found = checked(agent("work", allowed_tools=["box__read"], argument_rules=[rule]))
    assert [(item.level, item.where) for item in found] == [("error", "/steps/0/argument_rules/0/forbidden/0")]


def test_a_rule_about_a_tool_that_the_step_does_not_allow_is_a_warning() -> None:
    rule = {"tool": "box__write", "argument": "path", "kind": "path", "allowed": ["a"]}
    found = checked(agent("work", allowed_tools=["box__read"], argument_rules=[rule]))
    one(found, "warning", "/steps/0/argument_rules/0/tool", "does not allow")


@pytest.mark.parametrize("strict", [False, True])
def test_evidence_and_approvers_that_only_an_installation_knows(strict: bool) -> None:
    evidence = {"tool": "box__tests"}
    step = phase(check(expression="evidence.ok", evidence=evidence), approval=YES)
    found = checked(step, tools={"box__read"}, roles={"other"}, strict=strict)
    level = "error" if strict else "warning"
    places = ["/steps/0/gate/approval/requirements/0/role", "/steps/0/gate/checks/0/evidence/tool"]
    assert [(item.level, item.where) for item in found] == [(level, place) for place in places]


def test_no_step_may_be_under_way_beside_a_way_back() -> None:
    back = [{"to": "a", "on": "passed", "when": "true"}]
    found = checked(agent("a"), agent("b", needs=["a"]), agent("c", needs=["a"], go_back=back))
    one(found, "error", "/steps/2/go_back/0", "'b' may be under way")


def test_a_way_forward_is_no_way_back() -> None:
    back = [{"to": "b", "on": "passed", "when": "true"}]
    found = checked(agent("a", go_back=back), agent("b"))
    assert "does not come before" in found[0].text
