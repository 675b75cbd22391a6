"""Explaining, hiding, replaying: what is told beside a decision."""

from __future__ import annotations

import re
from typing import Any

import pytest

from charter.errors import InvalidInput
from charter.model.policy import Approved, Facts, ToolFacts
from charter.model.principal import Principal
from charter.policies import (
    PolicySources,
    compare,
    could_ever,
    evaluate,
    explain,
    load_policy_set,
    shadow,
    shipped_files,
    shipped_sources,
)
from charter.policies.schema import quote
from tests.policies.build import DELETE, OPEN, READ, WALL, WRITE, call, manifest, policies, with_schema

SHIPPED = load_policy_set(shipped_sources())
HUMAN = Principal(id="alice", kind="human")
OPERATOR = Principal(id="oscar", kind="human", roles=("operator",))


# ---- explain


def test_a_denial_names_what_was_missing() -> None:
    told = explain(SHIPPED, call(WRITE, tool_allowed=False))
    assert told.decision == evaluate(SHIPPED, call(WRITE, tool_allowed=False))
    notes = {note.policy_id: note for note in told.notes}
    assert (notes["tool-in-phase"].status, notes["tool-in-phase"].decides) == ("applies", True)
    assert notes["tools-in-workflow"].condition == "does not hold: context.tool_allowed"
    assert notes["tenant-wall"].condition == "holds: (principal.tenant) == (resource.tenant)"
    assert "people-decide" not in notes, "policies about something else are left out"
    assert "Decided by:\n  forbid tool-in-phase [authorise.cedar]: The open step" in told.text()


def test_a_default_deny_names_the_permits_that_nearly_applied() -> None:
    told = explain(SHIPPED, call(action="tool.pin", principal=HUMAN))
    [note] = [note for note in told.notes if note.effect == "permit"]
    assert note.policy_id == "operators-resolve-and-pin"
    assert note.condition == 'does not hold: (principal.roles).containsAny(["operator", "admin"])'


def test_an_approval_that_is_asked_for_is_explained() -> None:
    told = explain(SHIPPED, call(DELETE))
    notes = {note.policy_id: note for note in told.notes}
    assert notes["approve-high-risk"].decides
    assert notes["tools-in-workflow"].status == "applies"
    met = explain(SHIPPED, call(DELETE, approvals=(Approved(approver="bob", channel="cli"),)))
    [note] = [note for note in met.notes if note.policy_id == "approve-high-risk"]
    assert note.condition == 'holds: (context.approved).contains("any@strong:1")'


def test_errors_and_log_only_policies_are_told() -> None:
    told = explain(
        policies(
            OPEN
            + '@id("bad") permit (principal, action, resource) when { context.calls_used + 9223372036854775807 > 0 };'
            + '@id("later") @mode("log_only") forbid (principal, action, resource);'
        ),
        call(calls_used=1),
    )
    notes = {note.policy_id: note for note in told.notes}
    assert notes["bad"].status == "error"
    assert (notes["later"].status, notes["later"].log_only, notes["later"].decides) == ("applies", True, False)
    assert "Could not be evaluated:\n  permit bad" in told.text()


def test_scopes_of_principal_and_resource_count() -> None:
    scoped = policies(
        '@id("agents") permit (principal is Charter::Agent, action, resource);'
        '@id("people") permit (principal is Charter::Human, action, resource);'
        '@id("alice") permit (principal == Charter::Human::"alice", action, resource);'
        '@id("this-tool") permit (principal, action, resource == Charter::Tool::"casebook__read");'
        '@id("other-tool") permit (principal, action, resource in Charter::Tool::"casebook__write");'
    )
    assert {note.policy_id for note in explain(scoped, call()).notes} == {"agents", "this-tool"}


def test_what_cannot_be_asked_is_explained_by_the_decision_alone() -> None:
    told = explain(SHIPPED, call(tool=None))
    assert (told.decision.code, told.notes) == ("policy_error", ())


# ---- could_ever


def _ever(tool: ToolFacts = READ, /, **changes: Any) -> bool:
    return could_ever(SHIPPED, call(tool, **changes))


def test_tools_that_the_context_may_permit_are_shown() -> None:
    assert _ever()
    assert _ever(DELETE)
    assert could_ever(
        SHIPPED, call(workflow_id=None, workflow_live=False, tool_allowed=False, agent_invocation_id=None)
    )


@pytest.mark.parametrize(
    ("tool", "changes"),
    [
        (READ.model_copy(update={"quarantined": True}), {}),
        (READ.model_copy(update={"roles": ("payroll",)}), {}),
        (READ, {"tenant": "other"}),
        (READ, {"action": "tool.pin"}),
        (READ, {"tool": None}),
    ],
)
def test_tools_that_it_could_never_use_are_hidden(tool: ToolFacts, changes: dict[str, Any]) -> None:
    assert not _ever(tool, **changes)


def test_hidden_from_one_is_not_hidden_from_another() -> None:
    payroll = READ.model_copy(update={"roles": ("payroll",)})
    assert _ever(payroll, principal=Principal(id="agent-1", kind="agent", roles=("payroll",)))
    assert _ever(READ, action="tool.pin", principal=OPERATOR)
    assert not could_ever(policies(""), call())


def test_a_policy_on_arguments_or_purpose_hides_nothing() -> None:
    choosy = (
        '@id("x") permit (principal, action == Charter::Action::"tool.invoke:casebook__read", resource) '
        'when { context.input.path == "a" && context has purpose && context.purpose == "b" };'
    )
    read = manifest("casebook__read", path={"type": "string", "_required": True})
    assert could_ever(policies(choosy, "", read), call())
    assert not could_ever(policies(choosy, "", read), call(WRITE))


# ---- replay and shadow


def test_replay_tells_only_what_would_change() -> None:
    strict = load_policy_set(
        PolicySources(
            {**SHIPPED.sources.authorise, "authorise-2.cedar": '@id("no-writes") forbid (principal, action in '
             'Charter::Action::"tool.invoke", resource) when { resource.risk == "medium" };'},
            {},
        )
    )  # fmt: skip
    recorded: list[Facts | dict[str, Any]] = [
        call(READ),
        call(WRITE).model_dump(mode="json"),
        call(DELETE),
        call(READ, tool_allowed=False),
    ]
    changes = compare(SHIPPED, strict, recorded)
    assert [(c.index, c.direction, c.before.verdict, c.after.verdict) for c in changes] == [
        (1, "stricter", "require_approval", "deny"),
        (2, "looser", "require_approval", "permit"),
    ]
    assert changes[0].text().startswith("stricter: tool.invoke on casebook__write by agent-1: require_approval")
    assert compare(SHIPPED, SHIPPED, recorded) == []


def test_replay_sees_that_more_people_would_be_asked() -> None:
    texts = {name: text.replace('@approvers("1")', '@approvers("2")').replace('"any:1")', '"any:2")')
             .replace("any@strong:1", "any@strong:2") for name, text in SHIPPED.sources.obligations.items()}  # fmt: skip
    more = load_policy_set(PolicySources(SHIPPED.sources.authorise, texts))
    [change] = compare(SHIPPED, more, [call(WRITE)])
    assert change.direction == "different"


def test_replay_refuses_what_is_no_request() -> None:
    with pytest.raises(InvalidInput, match="Recorded request 1") as caught:
        compare(SHIPPED, SHIPPED, [call(), {"action": "tool.invoke"}])
    assert caught.value.error_code == "replay_unreadable"


def test_shadow_is_json_to_be_recorded() -> None:
    decision = evaluate(SHIPPED, call(WRITE))
    told = shadow(policies(OPEN + WALL), call(WRITE), decision)
    assert told["verdict"] == "permit"
    assert told["direction"] == "looser"
    assert told["policy_ids"] == ["open"]
    assert shadow(SHIPPED, call(WRITE), decision)["direction"] is None


# ---- the starter set


def test_the_examples_in_the_starter_set_load_and_decide() -> None:
    text = shipped_files()["obligations.cedar"]
    examples = text[text.index("examples, to uncomment") :]
    # Cedar only: a commented line that is prose has no place between the first @id and the closing semicolon.
    found = re.findall(r"(?:^// ?.*\n)*?(^// @id\((?:.*\n)*?.*;)$", examples, re.MULTILINE)
    uncommented = "\n".join(line.removeprefix("//") for example in found for line in example.splitlines())
    pay = with_schema(
        "bank__pay",
        {"type": "object", "properties": {"amount_minor": {"type": "integer"}}, "required": ["amount_minor"]},
    )
    loaded = policies(OPEN, uncommented, pay)
    assert set(loaded.policies) == {"open", "payments-need-two", "large-payments-need-two", "mail-quota"}
    tool = WRITE.model_copy(update={"name": "bank__pay"})
    assert evaluate(loaded, call(tool, input={"amount_minor": 99_999})).verdict == "permit"
    large = evaluate(loaded, call(tool, input={"amount_minor": 100_000}))
    assert large.policy_ids == ("large-payments-need-two",)
    mail = READ.model_copy(update={"tags": ("mail",)})
    assert evaluate(loaded, call(mail, calls_used=19)).verdict == "permit"
    assert evaluate(loaded, call(mail, calls_used=20)).policy_ids == ("mail-quota",)


def test_every_shipped_policy_has_a_reason_and_every_forbid_a_code_and_a_next_step() -> None:
    for policy in SHIPPED.policies.values():
        assert policy.reason, policy.id
        if policy.effect == "forbid":
            assert policy.code, policy.id
            assert policy.next_step, policy.id


def test_the_schema_tells_each_tool_and_verb() -> None:
    text = policies(OPEN, "", manifest("a__b", path={"type": "string"})).schema_text
    assert 'action "tool.invoke:a__b" in ["tool.invoke"]' in text
    assert 'input: { "path"?: String }' in text
    assert 'action "audit.read"' in text


def test_names_of_tools_are_quoted_in_the_schema() -> None:
    odd = 'x"; entity Evil; //\n\\'
    assert quote(odd) == '"x\\"; entity Evil; //\\u{a}\\\\"'
    loaded = policies(OPEN, "", with_schema(odd, {"type": "object"}))
    assert "entity Evil;" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", loaded.schema_text)
    assert evaluate(loaded, call(READ.model_copy(update={"name": odd}))).verdict == "permit"
