"""Other people's documents: what they become, and that nothing in them is guessed, dropped or passed in silence."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import InvalidInput, Misconfigured
from charter.manifests.dialects import form_of
from charter.manifests.dialects.bindings import NONE, Bindings, bindings_of, read_bindings
from charter.manifests.templates import TemplateFile, load_template, read_template
from charter.model.principal import Principal
from charter.model.template import ActionStep, AgentStep, ApprovalStep, ConditionStep, Template
from charter.workflows.expressions import problem
from tests.manifests.foreign import CONTRACT, CONTRACT_BINDINGS, INDEXED, SIGNAL, changed
from tests.workflows.build import Run

INPUTS = Path(__file__).resolve().parents[3] / "shared" / "inputs"


def read(document: Any, bindings: Bindings = NONE) -> TemplateFile:
    return read_template(json.dumps(document, indent=1), "doc.json", check_expression=problem, bindings=bindings)


def step(template: Template, name: str) -> Any:
    return next(item for item in template.steps if item.id == name)


def refused(document: Any, bindings: Bindings = NONE) -> list[dict[str, Any]]:
    with pytest.raises(InvalidInput) as caught:
        read(document, bindings)
    problems: list[dict[str, Any]] = caught.value.detail["problems"]
    assert all(item["mend"] and item["line"] >= 1 for item in problems), problems
    return problems


def warnings(file: TemplateFile, strict: bool = False) -> dict[str, str]:
    found = file.findings(check_expression=problem, strict=strict)
    return {item.where: item.level for item in found}


def test_each_form_is_seen_from_its_own_words() -> None:
    assert [form_of(item) for item in (INDEXED, SIGNAL, CONTRACT)] == ["indexed", "signal", "contract"]
    assert form_of({"name": "a", "version": "1", "steps": [{"id": "a", "type": "agent"}]}) is None
    assert form_of([]) is None


# -- the index-based form


def test_the_index_based_form() -> None:
    template = read(INDEXED).template
    assert (template.name, template.version, template.title) == ("expense-claim", "1", "Expense Claim")
    (start,) = template.on_signal
    assert start.type == "on_claim"
    assert (
        start.where == '(has(signal.data.kind) && signal.data.kind in ["travel", "meals"]) && (signal.data.total > 0)'
    )
    board, lead, pay = (step(template, name) for name in ("board", "lead", "pay"))
    assert isinstance(board, ApprovalStep)
    assert (board.expires_after_seconds, board.requirements[0].role) == (5400, "board")
    assert lead.question == "Pay {{trigger.total}}?"
    assert isinstance(pay, ActionStep)
    assert (pay.arguments, pay.on_failure) == ({"claim": "{{trigger.id}}"}, "fail_workflow")
    assert pay.retry is not None
    assert (pay.retry.attempts, pay.retry.backoff_seconds) == (3, 2)


@pytest.mark.parametrize(
    ("total", "path"),
    [
        (10, ["pay"]),
        (100, ["huge", "lead", "pay"]),
        (9000, ["huge", "board", "lead", "pay"]),
    ],
)
def test_jumps_count_from_zero_and_a_condition_that_is_jumped_over_decides_nothing(total: int, path: list[str]) -> None:
    document = changed(INDEXED, "steps/4/config/on_failure", ...)
    bound = read_bindings("actions: {pay_claim: {tool: box__read}}", "b.yaml")
    run = Run(read(document, bound).template).start({"total": total, "id": 7})
    for _ in range(path.count("board") + path.count("lead")):
        asked = run.state.approvals[run.approval_id()].request
        role = str(asked.requirements[0].role)
        run.answer(asked.approval_id, by=Principal(id=f"the-{role}", kind="human", roles=(role,)))
    done = [name for name, status in run.steps().items() if status in ("completed", "open")]
    assert done == ["small", *path]


@pytest.mark.parametrize(
    ("said", "so"), [({"on_failure": "skip"}, "completed"), ({"retry_config": {"max_attempts": 2}}, "running")]
)
def test_an_approval_whose_failure_is_met_fails_when_nobody_answers_and_pays_nothing(
    said: dict[str, Any], so: str
) -> None:
    document = changed(INDEXED, "steps/3/config", {**INDEXED["steps"][3]["config"], "timeout_hours": 1, **said})
    bound = read_bindings("actions: {pay_claim: {tool: box__read}}", "b.yaml")
    run = Run(read(document, bound).template).start({"total": 100, "id": 7})
    run.wait(3600).advance()
    assert (run.state.status, [item.status for item in run.state.approvals.values()]) == (so, ["expired"])
    assert run.steps()["lead"] == ("skipped" if so == "completed" else "retrying")
    assert "TOOL_INVOKE" not in run.types()
    with pytest.raises(InvalidInput) as refused:
        read(changed(document, "steps/3/config/on_timeout", "reject"), bound)
    assert "when nobody answers" in str(refused.value.detail)


def test_every_program_of_three_conditions_takes_the_steps_that_jumping_would() -> None:
    targets = ["continue", "skip_to:2", "skip_to:3", "skip_to:4"]
    for first, second, a, b in product(targets, ["continue", "skip_to:3", "skip_to:4"], [True, False], [True, False]):
        steps = [
            {"type": "condition", "name": "c0", "config": {"expression": "trigger.a", "if_true": first}},
            {"type": "condition", "name": "c1", "config": {"expression": "trigger.b", "if_false": second}},
            *({"type": "wait", "name": f"s{n}", "config": {"seconds": 1}} for n in (2, 3, 4)),
        ]
        run = Run(read({"name": "p", "trigger_type": "manual", "steps": steps}).template).start({"a": a, "b": b})
        for _ in range(3):
            run.wait(2).advance()
        expected, at = [], 0
        while at < 5:
            expected.append(["c0", "c1", "s2", "s3", "s4"][at])
            jump = first if at == 0 and a else second if at == 1 and not b else "continue"
            at = at + 1 if jump == "continue" else int(jump[-1])
        assert [name for name, status in run.steps().items() if status == "completed"] == expected


@pytest.mark.parametrize("amount", ["10", None, True, [10], ...])
def test_an_amount_that_is_a_text_or_not_there_is_an_error_and_no_permission(amount: Any) -> None:
    given = {} if amount is ... else {"total": amount}
    run = Run(read(INDEXED, read_bindings("actions: {pay_claim: box__read}", "b.yaml")).template).start(given)
    assert run.state.status == "failed"
    assert run.state.steps["small"].code == "expression_error"
    assert "pay" not in run.steps()


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("steps/0/config/if_true", "skip_to:5", "/steps/0/config/if_true", "out of range"),
        ("steps/0/config/if_true", "skip_to:-1", "/steps/0/config/if_true", "out of range"),
        ("steps/1/config/if_false", "skip_to:0", "/steps/1/config/if_false", "backwards"),
        ("steps/1/config/if_false", "skip_to:1", "/steps/1/config/if_false", "to itself"),
        ("steps/0/config/if_true", "skip_to:\u0664", "/steps/0/config/if_true", "no branch that is known"),
        ("steps/1/config/if_true", "explode", "/steps/1/config/if_true", "no branch that is known"),
        ("steps/1/config/if_true", "skip_to:3", "/steps/2", "can never run"),
        ("steps/0/type", "teleport", "/steps/0/type", "not known"),
        ("steps/0/type", ..., "/steps/0", "no 'type'"),
        ("steps/0/config", ..., "/steps/0", "no 'config'"),
        ("steps/0/config/expression", "trigger.total <", "/steps/0", "does not compile"),
        ("steps/0/config/expression", 5, "/steps/0/config/expression", "a text is needed"),
        ("steps/2/config/approvers", ..., "/steps/2/config", "nobody is asked"),
        ("steps/2/config/approvers/type", "oracle", "/steps/2/config/approvers/type", "not known"),
        ("steps/2/config/approvers/value", ..., "/steps/2/config/approvers/value", "no name"),
        ("steps/2/config/timeout_hours", -1, "/steps/2/config/timeout_hours", "length of time"),
        ("steps/2/config/on_timeout", "approve", "/steps/2/config/on_timeout", "not known"),
        ("steps/4/config/action", ..., "/steps/4/config", "no 'action'"),
        ("steps/4/config/on_failure", "shrug", "/steps/4/config/on_failure", "not known"),
        ("steps/4/config/retry_config", ..., "/steps/4/config/on_failure", "needs a retry_config"),
        ("steps/4/config/parms", {}, "/steps/4/config/parms", "not known"),
        ("trigger_config/conditions/0/op", "resembles", "/trigger_config/conditions/0/op", "operator"),
        ("trigger_config/conditions/0/value", ..., "/trigger_config/conditions/0/value", "needs a"),
        ("trigger_config/conditions/1/value", "1000", "/trigger_config/conditions/1/value", "in quotes"),
        ("trigger_config/conditions/1/value", " -1,000.5e3", "/trigger_config/conditions/1/value", "in quotes"),
        ("trigger_config/conditions/1/value", None, "/trigger_config/conditions/1/value", "needs a number"),
        ("trigger_config/conditions/1/value", True, "/trigger_config/conditions/1/value", "needs a number"),
        ("trigger_config/conditions/0/field", "a..b[", "/trigger_config/conditions/0/field", "no path"),
        ("stepz", [], "/stepz", "not known"),
        ("version", "newest", "/version", "no version"),
        ("name", "", "", "no 'name'"),
    ],
)
def test_what_the_index_based_form_cannot_say(path: str, value: Any, where: str, says: str) -> None:
    found = refused(changed(INDEXED, path, value))
    assert any(item["pointer"].startswith(where) and says in item["problem"] for item in found), found


def test_an_error_names_the_line_of_the_other_form() -> None:
    text = json.dumps(changed(INDEXED, "steps/0/config/if_true", "skip_to:9"), indent=1)
    with pytest.raises(InvalidInput) as caught:
        read_template(text, "doc.json", check_expression=problem)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "skip_to:9" in row)
    assert caught.value.message.startswith(f"doc.json:{line} (/steps/0/config/if_true): ")


@pytest.mark.parametrize(
    ("condition", "data", "wanted"),
    [
        ({"field": "a.b", "op": "eq", "value": "x"}, {"a": {"b": "x"}}, True),
        ({"field": "a.b", "op": "eq", "value": "x"}, {}, False),
        ({"field": "a.b", "op": "eq", "value": "x"}, {"a": {"b": 5}}, False),
        ({"field": "a-b.c", "operator": "==", "value": 1}, {"a-b": {"c": 1}}, True),
        ({"field": "a[1].b", "op": "eq", "value": 1}, {"a": [{}, {"b": 1}]}, True),
        ({"field": "a[1].b", "op": "eq", "value": 1}, {"a": []}, False),
        ({"field": "a", "op": "ne", "value": 1}, {"a": 2}, True),
        ({"field": "a", "op": ">=", "value": 1.5}, {"a": 2}, True),
        ({"field": "a", "op": "in", "value": [1, "b"]}, {"a": "b"}, True),
        ({"field": "a", "op": "not_in", "value": [1]}, {"a": 1}, False),
        ({"field": "a", "op": "contains", "value": "b"}, {"a": "abc"}, True),
        ({"field": "a", "op": "contains", "value": "b"}, {"a": ["b"]}, True),
        ({"field": "a", "op": "starts_with", "value": 'q"'}, {"a": 'q"x'}, True),
        ({"field": "a", "op": "ends_with", "value": "c"}, {"a": "ab"}, False),
        ({"field": "a", "op": "regex", "value": "^[0-9]+$"}, {"a": "12"}, True),
        ({"field": "a.b", "op": "exists"}, {"a": {"b": None}}, True),
        ({"field": "a.b", "op": "exists", "value": False}, {"a": {}}, True),
        ({"field": "in", "op": "eq", "value": None}, {"in": None}, True),
        ({"field": "a", "op": "lt", "value": 5}, {"a": "3"}, None),
        ({"field": "a", "op": "lt", "value": "2026-12-01"}, {"a": "2026-11-30"}, True),
        ({"field": "a", "op": "lt", "value": 5}, {}, None),
        ({"field": "a", "op": "ne", "value": 5}, {}, None),
    ],
)
def test_the_operators_of_triggers(condition: dict[str, Any], data: Any, wanted: bool | None) -> None:
    """None: no answer but an error, which starts nothing and is on record."""
    from charter.workflows import expressions

    where = read(changed(INDEXED, "trigger_config/conditions", [condition])).template.on_signal[0].where
    scope = {"signal": {"data": data}}
    if wanted is None:
        with pytest.raises(expressions.ExpressionError):
            expressions.condition(str(where), scope)
    else:
        assert expressions.condition(str(where), scope) is wanted


def test_any_of_the_conditions_may_be_enough() -> None:
    where = read(changed(INDEXED, "trigger_config/logic", "any")).template.on_signal[0].where
    assert ") || (" in str(where)


@pytest.mark.parametrize("strict", [False, True])
def test_unbound_names_are_warnings_and_errors_where_it_is_strict(strict: bool) -> None:
    found = warnings(read(INDEXED), strict)
    level = "error" if strict else "warning"
    assert found["/steps/4/config/action"] == found["/trigger_type"] == level


def test_an_unknown_action_is_refused_at_load() -> None:
    with pytest.raises(InvalidInput, match="'pay_claim' is unknown here"):
        load_template(json.dumps(INDEXED), "doc.json", check_expression=problem)


def test_bindings_name_tools_arguments_signals_roles_and_version() -> None:
    text = """
    name: claims
    version: "3"
    signals: {on_claim: claim.made}
    roles: {board: directors}
    actions: {pay_claim: {tool: bank__pay, rename: {claim: reference}}}
    """
    file = read(INDEXED, read_bindings(text, "b.yaml"))
    template = file.template
    assert (template.ref, template.on_signal[0].type) == ("claims@3", "claim.made")
    assert (step(template, "board").requirements[0].role, step(template, "pay").tool) == ("directors", "bank__pay")
    assert step(template, "pay").arguments == {"reference": "{{trigger.id}}"}
    assert warnings(file, strict=True) == {}


def test_steps_may_be_named_by_their_number() -> None:
    document = changed(INDEXED, "steps/4/config/params", {"by": "{{steps.3.output.decided_by}} {{ steps[2].status }}"})
    assert step(read(document).template, "pay").arguments == {
        "by": "{{steps.lead.output.decided_by}} {{ steps.board.status }}"
    }


# -- the signal form


def test_the_signal_form() -> None:
    template = read(
        SIGNAL, read_bindings("{actions: {ticket.reply: desk__reply}, agents: {drafter: 'role:x'}}", "b")
    ).template
    assert (template.ref, template.on_signal[0].type) == ("ticket-answer@2.1", "ticket.opened")
    draft, send = template.steps
    assert isinstance(draft, AgentStep)
    assert (draft.id, draft.agent) == ("draft_answer", "role:x")
    assert draft.output_schema == {"type": "object", "required": ["text"]}
    assert isinstance(send, ActionStep)
    assert send.tool == "desk__reply"
    assert send.arguments == {
        "ticket": "{{ trigger.ticket.id }}",
        "text": 'Hello {{ "{{" }} name }}: {{ steps.draft_answer.output.text }} ({{ trigger.ticket.tags[0] }})',
    }


def test_braces_of_another_form_stay_text() -> None:
    run = Run(
        read(
            SIGNAL, read_bindings("{actions: {ticket.reply: box__read}, agents: {drafter: 'agent:writer'}}", "b")
        ).template
    )
    run.start({"ticket": {"id": 7, "tags": ["${signal.x}"]}})
    run.complete({"text": "{{ workflow.id }}"})
    draft = run.run_step("send")
    assert draft.effect is not None
    assert draft.effect.arguments == {"ticket": 7, "text": "Hello {{ name }}: {{ workflow.id }} (${signal.x})"}


@pytest.mark.parametrize(
    ("document", "path", "text", "step"),
    [
        (SIGNAL, "workflow/steps/1/payload/ticket", "${signal.ticket.id", "/workflow/steps/1"),
        (INDEXED, "steps/2/config/message", "Pay {{trigger.total}?", "/steps/2"),
    ],
)
def test_a_value_that_nothing_closes_stays_text_and_is_told(document: Any, path: str, text: str, step: str) -> None:
    def told(file: TemplateFile) -> list[str]:
        return [item.where for item in file.findings(check_expression=problem) if "not closed" in item.text]

    assert told(read(document)) == []
    (where,) = told(read(changed(document, path, text)))
    assert where.startswith(step)


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("workflow/trigger/signal", ..., "/workflow/trigger", "no 'signal'"),
        ("workflow/steps/0/type", "oracle", "/workflow/steps/0/type", "not known"),
        ("workflow/steps/0/agent_ref", ..., "/workflow/steps/0", "no 'agent_ref'"),
        ("workflow/steps/1/directive", ..., "/workflow/steps/1", "no 'directive'"),
        ("workflow/steps/1/payload", ["a"], "/workflow/steps/1/payload", "no map"),
        ("workflow/steps/1/payload/ticket", "${nobody.knows}", "/workflow/steps/1/payload", "names nothing"),
        ("workflow/steps/1/payload/ticket", "${steps.later.output}", "/workflow/steps/1", "no step 'later'"),
        ("workflow/steps/1/payload/ticket", "${signal.a + 1}", "/workflow/steps/1", ""),
        ("workflow/steps/1/id", "draft-answer", "", "two steps"),
        ("workflow/step", [], "/workflow/step", "not known"),
    ],
)
def test_what_the_signal_form_cannot_say(path: str, value: Any, where: str, says: str) -> None:
    found = refused(changed(SIGNAL, path, value))
    assert any(item["pointer"].startswith(where) and says in item["problem"] for item in found), found


# -- the phase contract

BOUND = read_bindings(CONTRACT_BINDINGS, "b.yaml")


def test_the_phase_contract() -> None:
    file = read(CONTRACT, BOUND)
    draft, apply, note, tell = file.template.steps
    assert [item.id for item in file.template.steps] == ["draft", "apply", "tell.before.0", "tell"]
    assert isinstance(draft, AgentStep)
    assert (draft.allowed_tools, draft.forbidden_tools) == (
        ("counter__read", "counter__write_idempotent"),
        ("counter__charge",),
    )
    (rule,) = draft.argument_rules
    assert (rule.argument, rule.kind, rule.allowed) == ("what", "path", ("notes/**",))
    assert draft.gate is not None
    assert {check.id: check.kind for check in draft.gate.checks} == {
        "has_reason": "expression",
        "note_is_filed": "evidence",
        "note_is_short": "expression",
    }
    assert (draft.gate.approval, draft.gate.timeout_seconds, draft.gate.on_timeout) == (None, 600, "human_review")
    assert draft.gate.checks[2].params == {"limit": 20}
    assert isinstance(apply, AgentStep)
    assert [(item.to, item.on) for item in apply.go_back] == [("draft", "rejected")]
    assert isinstance(note, ActionStep)
    assert (note.tool, note.needs) == ("counter__read", ("apply",))
    assert tell.needs == ("apply", "tell.before.0")
    assert warnings(file, strict=True) == {"/monitoring": "warning"}


def test_a_check_that_is_only_a_name_is_a_question_and_is_listed() -> None:
    file = read(changed(CONTRACT, "phases/1/gates/0/blockers", [{"check": "is_sound"}, "is_kind"]), BOUND)
    gate = step(file.template, "apply").gate
    assert [(check.id, check.kind) for check in gate.checks] == [("is_sound", "question"), ("is_kind", "question")]
    found = file.findings(check_expression=problem)
    assert [item.where for item in found if "only a name" in item.text] == [
        "/phases/1/gates/0/blockers/0",
        "/phases/1/gates/0/blockers/1",
    ]


def test_questions_of_a_gate_without_approvers_go_to_whom_configuration_says() -> None:
    file = read(CONTRACT)
    assert warnings(file, strict=True)["/phases/0"] == "error"
    assert step(file.template, "draft").gate.approval.requirements[0].role is None
    bound = read_bindings("gate_approvers: [{role: lead, approvers: 2}]", "b.yaml")
    (asked,) = step(read(CONTRACT, bound).template, "draft").gate.approval.requirements
    assert (asked.role, asked.approvers) == ("lead", 2)


@pytest.mark.parametrize(
    ("approvers", "asked"),
    [
        (["human"], [(None, 1)]),
        (["orchestrator", "human"], [(None, 1)]),
        (["cto", "lead"], [("cto", 1), ("lead", 1)]),
    ],
)
def test_who_opens_a_gate(approvers: list[str], asked: list[Any]) -> None:
    gate = step(read(changed(CONTRACT, "phases/1/gates/0/approvers", approvers), BOUND).template, "apply").gate
    assert [(item.role, item.approvers) for item in gate.approval.requirements] == asked


@pytest.mark.parametrize(
    ("path", "value", "where", "says"),
    [
        ("phases/1/gates/0/approvers", [], "/phases/1/gates/0", "would never open"),
        ("phases/1/gates/0/approvers", ..., "/phases/1/gates/0", "would never open"),
        ("phases/0/gates/0/auto_advance", False, "/phases/0/gates/0", "would never open"),
        ("phases/0/gates/0/type", "ritual", "/phases/0/gates/0/type", "not known"),
        ("phases/0/gates/0/blockerz", [], "/phases/0/gates/0/blockerz", "not known"),
        (
            "phases/0/required_artifacts/0/schema",
            "schemas/none.json",
            "/phases/0/required_artifacts/0/schema",
            "not under",
        ),
        ("phases/0/required_artifacts/0/schema", {"type": "no"}, "/phases/0", "cannot be used"),
        ("phases/0/gates/0/blockers/0/severity", "fatal", "/phases/0/gates/0/blockers/0/severity", "not known"),
        ("phases/0/allowed_tool", [], "/phases/0/allowed_tool", "not known"),
        ("phases/0/tool_constraints/write/allowed_patterns", ["/etc/**"], "/phases/0", "no pattern of relative paths"),
        ("phases/0/tool_constraints/write/allow", ["a"], "/phases/0/tool_constraints/write/allow", "not known"),
        ("transitions/0/to", "NOWHERE", "/transitions/0/to", "no phase"),
        ("transitions/0/gate", "agreed", "/transitions/0/gate", "has no gate"),
        ("transitions/1/to", "DRAFT", "/phases/2", "can never begin"),
        ("transitions/2/on", "tuesday", "/transitions/2/on", "not known"),
        ("transitions/2/on", "passed", "/transitions/2", "needs a condition"),
        ("transitions/2/condition", "is_bad", "/transitions/2/condition", "only a name"),
        ("recovery/gate_timeout/action", "approve", "/recovery/gate_timeout/action", "not known"),
        ("phases/2/id", "DRAFT", "/phases/2/id", "two phases"),
        ("phases", [], "", "no phases"),
        ("surprise", 1, "/surprise", "not known"),
    ],
)
def test_what_a_contract_cannot_say(path: str, value: Any, where: str, says: str) -> None:
    found = refused(changed(CONTRACT, path, value), BOUND)
    assert any(item["pointer"].startswith(where) and says in item["problem"] for item in found), found


@pytest.mark.parametrize(
    "meaning",
    [
        "{schema: {}, artifact: code}",
        "{expression: artifacts.code.ok}",
        "{expression: artifacts.change_note.reason ==}",
        "{expression: evidence.ok}",
    ],
)
def test_a_check_that_is_bound_to_what_nothing_can_satisfy_is_an_error(meaning: str) -> None:
    bound = read_bindings(f"checks: {{has_reason: {meaning}}}", "b.yaml").over(BOUND)
    assert refused(CONTRACT, bound)


def test_a_transition_may_depend_on_a_condition() -> None:
    document = changed(CONTRACT, "transitions", [
        {"from": "DRAFT", "to": "APPLY", "condition": "artifacts.change_note.name != 'none'"},
        {"from": "DRAFT", "to": "TELL", "condition": "artifacts.change_note.name == 'none'"},
        {"from": "APPLY", "to": "TELL"},
    ])  # fmt: skip
    bound = read_bindings("checks: {has_reason: {expression: 'true'}, note_is_filed: {expression: 'true'}}", "b").over(
        BOUND
    )
    template = read(document, bound).template
    run = Run(template, starter=Run().starter).start()
    run.complete({"change_note": {"reason": "x", "name": "none"}})
    assert run.steps() == {"draft": "completed", "apply": "skipped", "tell": "open"}


def test_two_ways_on_that_do_not_say_when_are_an_error() -> None:
    document = changed(CONTRACT, "transitions/2", {"from": "DRAFT", "to": "TELL"})
    assert "not all say when" in refused(document, BOUND)[0]["problem"]


# -- bindings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("actionz: {}", "'actionz' is not known"),
        ("actions: {pay: {rename: {}}}", "Field required"),
        ("checks: {a: {message: x}}", "one of `expression`"),
        ("a: [", "bindings.yaml:"),
        ("- a", "valid dictionary"),
    ],
)
def test_bindings_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(Misconfigured, match=r"bindings\.yaml:[12]") as caught:
        read_bindings(text, "bindings.yaml")
    assert says in caught.value.message
    assert caught.value.next_step


def test_a_documents_own_bindings_come_before_those_of_the_folder() -> None:
    found = bindings_of(
        ("actions: {a: x__a, b: x__b}\ngate_approvers: [{role: lead}]", "bindings.yaml"),
        ('version: "2"\nactions: {a: y__a}', "doc.bindings.yaml"),
    )
    assert {name: item.tool for name, item in found.actions.items()} == {"a": "y__a", "b": "x__b"}
    assert found.gate_approvers is not None
    assert (found.version, found.gate_approvers[0].role) == ("2", "lead")
    with pytest.raises(Misconfigured, match="are of one document"):
        bindings_of(("name: a", "bindings.yaml"), None)


# -- anything at all

WORDS = """
name type steps phases workflow trigger_type trigger_config conditions field op value config expression if_true approvers
action params gates blockers check severity required_artifacts schema validation rule id transitions from to gate trigger
signal agent_ref slug payload directive allowed_tools tool_constraints timeout_hours retry_config
"""
KEYS = st.sampled_from(sorted(WORDS.split()))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=8), KEYS)


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)


ANYTHING = st.recursive(LEAVES, around, max_leaves=12)


def parts(value: Any, at: str = "") -> list[str]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, item in inner for path in (f"{at}{key}", *parts(item, f"{at}{key}/"))]


def loads_or_says_why(document: Any) -> None:
    said: InvalidInput | None = None
    try:
        read(document).findings(check_expression=problem)
    except InvalidInput as error:
        said = error
    if said is not None:
        assert (said.error_code, bool(said.next_step)) == ("template_invalid", True)
        assert said.message.startswith("doc.json:")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_document_with_anything_in_any_place_loads_or_says_why(data: st.DataObject) -> None:
    document = data.draw(st.sampled_from([INDEXED, SIGNAL, CONTRACT]))
    path = data.draw(st.sampled_from([path for path in parts(document) if "." not in path]))
    loads_or_says_why(changed(document, path, data.draw(ANYTHING)))


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_garbage_says_why(value: Any) -> None:
    loads_or_says_why(value)


# -- documents that others wrote


@pytest.mark.skipif(not INPUTS.is_dir(), reason="the documents are not here")
@pytest.mark.parametrize("path", sorted(INPUTS.glob("*")), ids=lambda path: path.name)
def test_documents_that_others_wrote_load_unmodified(path: Path) -> None:
    file = read_template(path.read_text("utf-8"), path.name, check_expression=problem)
    assert isinstance(file.template, Template)
    assert all(item.level == "warning" for item in file.findings(check_expression=problem))


def test_yaml_and_json_are_one() -> None:
    text = yaml.safe_dump(INDEXED)
    assert read_template(text, "doc.yaml", check_expression=problem).template == read(INDEXED).template


def test_a_condition_keeps_its_branches_where_it_always_runs() -> None:
    small = step(read(INDEXED).template, "small")
    assert isinstance(small, ConditionStep)
    assert small.if_false == ("huge", "board", "lead")
    assert step(read(INDEXED).template, "board").condition is not None
