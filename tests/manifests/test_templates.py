"""Templates from text: what loads, what is refused with line and mend, hashes, references and the catalogue."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import Conflict, InvalidInput, NotFound
from charter.manifests import graph
from charter.manifests.installed_checks import Installation
from charter.manifests.templates import (
    STEP_MODELS,
    Catalogue,
    load_template,
    parse_ref,
    read_template,
    template_hash,
)
from charter.model.template import Template
from charter.workflows.expressions import problem

GOOD = """\
# a comment
name: review
version: "1.2"
input: {type: object, required: [amount], properties: {amount: {type: integer}}}
steps:
  - id: look
    type: action
    tool: box__read
    arguments: {amount: "{{ trigger.amount }}"}
  - id: ok
    type: approval
    if: trigger.amount > 100
    question: Pay {{ trigger.amount }}?
output: "{{ steps.look.output }}"
"""


def load(text: str, filename: str = "t.yaml") -> Template:
    return load_template(textwrap.dedent(text), filename, check_expression=problem)


def refused(text: str, filename: str = "t.yaml") -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        load(text, filename)
    assert caught.value.error_code == "template_invalid"
    return caught.value


def test_a_template_is_read_from_yaml_and_the_same_from_json() -> None:
    template = load(GOOD)
    assert template.ref == "review@1.2"
    assert [step.id for step in template.steps] == ["look", "ok"]
    assert template.needs_of(1) == ("look",)
    value = template.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for text in (json.dumps(value), json.dumps({"$schema": "template.json", **value}, indent="\t")):
        for filename in ("t.json", "t.yaml"):
            assert load_template(text, filename) == template


@pytest.mark.parametrize(
    ("old", "new", "line", "pointer", "mend"),
    [
        ("tool: box__read", "tol: box__read", 8, "/steps/0/tol", "`tool`"),
        ("question: Pay", "questions: Pay", 13, "/steps/1/questions", "`question`"),
        ("type: action", "type: acton", 7, "/steps/0/type", "agent, action, approval, condition, wait"),
        ('version: "1.2"', "version: 1.2", 3, "/version", "quotes"),
        ('version: "1.2"', "version: latest", 3, "/version", "docs/templates.md"),
        ("name: review", "nam: review", 2, "/nam", "`name`"),
        ("    type: approval\n", "", 10, "/steps/1", "Add `type:`"),
        ("id: ok", "id: look", 10, "/steps/1/id", "its own id"),
        ("if: trigger.amount > 100", "if: trigger.amount >", 12, "/steps/1/if", "CEL"),
        ("if: trigger.amount > 100", "needs: [lok]", 12, "/steps/1/needs", "look, ok"),
        ("{type: object, required", "{type: objekt, required", 4, "/input", "JSON Schema"),
        ("steps.look.output", "steps.loook.output", 14, "/output", "look, ok"),
    ],
)
def test_an_error_names_file_line_place_and_mend(old: str, new: str, line: int, pointer: str, mend: str) -> None:
    assert old in GOOD
    error = refused(GOOD.replace(old, new, 1), "flows/review.yaml")
    listed = {item["pointer"]: item for item in error.detail["problems"]}
    assert pointer in listed, listed
    assert listed[pointer]["line"] == line
    assert mend in listed[pointer]["mend"]
    assert error.message.startswith("flows/review.yaml:")


def test_all_problems_are_told_at_once() -> None:
    error = refused(GOOD.replace("tool: box__read", "tol: x").replace("name: review", "nam: review"))
    assert {"/name", "/nam", "/steps/0/tol", "/steps/0/tool"} <= {item["pointer"] for item in error.detail["problems"]}
    assert "more)" in error.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", "given twice"),
        ('{"name": "a", "name": "b"}', "given twice"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("steps: " + "[" * 100 + "]" * 100, "nested"),
        ("- 1\n- 2\n", "a template is a map"),
        ("", "a template is a map"),
        ("a: [1,\n", ""),
        ("x: !!python/object/apply:os.system ['true']\n", ""),
        ("a: " + "x" * 300_000, "longer than 256 KiB"),
    ],
    ids=["twice", "twice-json", "alias", "deep", "list", "empty", "broken", "python", "long"],
)
def test_hostile_and_broken_text_is_refused(text: str, says: str) -> None:
    assert says in refused(text).message


def test_a_billion_laughs_is_refused_at_its_first_alias() -> None:
    lines = ["a: &a [x, x]"] + [f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "aliases" in refused("\n".join(lines)).message


@pytest.mark.parametrize("text", ["{", '{"a": NaN}', '{"a": }', '{"a": ' * 5000, "[" * 100_000], ids=range(5))
def test_broken_json_is_refused(text: str) -> None:
    refused(text, "t.json")


@given(st.text(max_size=200))
def test_any_text_loads_or_is_refused(text: str) -> None:
    for filename in ("t.yaml", "t.json"):
        with pytest.raises(InvalidInput):
            load_template(text, filename)


# -- hashes and names


def test_the_hash_is_of_what_it_says_and_not_of_how_it_is_written() -> None:
    first = load(GOOD)
    value = first.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert template_hash(load_template(json.dumps(value, sort_keys=True), "t.json")) == template_hash(first)
    explicit = GOOD.replace("    tool: box__read", "    tool: box__read\n    on_failure: fail_workflow")
    assert template_hash(load(explicit)) == template_hash(first)
    assert template_hash(load(GOOD.replace("100", "101"))) != template_hash(first)


def test_the_hash_of_a_template_stays_over_releases() -> None:
    """Runs are pinned by it: a change here breaks every run that waits."""
    assert template_hash(load(GOOD)) == "sha256:15ccf343e3779077c3522cde280fef4c5b5c5f66cb27b8075b1a84f77713e4a7"


@pytest.mark.parametrize(
    ("ref", "parts"), [("a", ("a", None)), ("a-b.c@1", ("a-b.c", "1")), ("a@1.10.2", ("a", "1.10.2"))]
)
def test_references(ref: str, parts: tuple[str, str | None]) -> None:
    assert parse_ref(ref) == parts


@pytest.mark.parametrize("ref", ["", "@1", "a@", "a@b", "a@1@2", "a b", "../a", "a@1.2.3.4", "a\n"])
def test_what_is_no_reference_is_refused(ref: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_ref(ref)
    assert caught.value.error_code == "template_ref"


# -- the catalogue


def made(version: str, **more: Any) -> Template:
    steps = [{"id": "work", "type": "agent"}]
    return Template.model_validate({"name": "t", "version": version, "steps": steps, **more})


def catalogue_of(*templates: Template) -> Catalogue:
    catalogue = Catalogue()
    for template in templates:
        catalogue.add(template)
    return catalogue


def test_the_newest_version_is_found_by_number() -> None:
    catalogue = catalogue_of(made("1.9"), made("1.10"), made("1.2"))
    assert catalogue.latest("t")[0].version == "1.10"
    assert catalogue.latest("t@1.2")[0].version == "1.2"
    assert [item.version for item, _ in catalogue.all()] == ["1.10", "1.9", "1.2"]


def test_a_published_version_never_changes() -> None:
    catalogue = Catalogue()
    first = catalogue.add(made("1"))
    assert catalogue.add(made("1")) == first
    with pytest.raises(Conflict) as caught:
        catalogue.add(made("1", title="another"))
    assert caught.value.error_code == "template_immutable"
    assert "2" in caught.value.next_step
    assert catalogue.latest("t")[1] == first
    assert catalogue.pinned(first) == made("1")


@pytest.mark.parametrize("spelling", ["1.0", "1.0.0", "01"])
def test_a_version_spelled_otherwise_is_the_same_version(spelling: str) -> None:
    catalogue = catalogue_of(made("1"))
    with pytest.raises(Conflict):
        catalogue.add(made(spelling))


def test_an_unknown_template_is_not_found_and_the_known_ones_are_named() -> None:
    catalogue = catalogue_of(made("1"))
    for ref in ("other", "t@2"):
        with pytest.raises(NotFound) as caught:
            catalogue.latest(ref)
        assert caught.value.error_code == "unknown_template"
        assert "t" in caught.value.next_step
    with pytest.raises(NotFound):
        Catalogue().latest("t")
    with pytest.raises(NotFound):
        catalogue.pinned("sha256:0")


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("pin: {type: string, writeOnly: true}", "/properties/pin"),
        ("pin: {type: string, format: password}", "/properties/pin"),
        ("cards: {type: array, items: {type: object, properties: {pin: {writeOnly: true}}}}", None),
        ("a/b: {anyOf: [{type: 'null'}, {type: string, writeOnly: true}]}", "/properties/a~1b/anyOf/1"),
    ],
)
def test_an_input_that_says_of_itself_that_it_is_a_secret_is_refused(more: str, where: str | None) -> None:
    """An input is on record in the clear: what cannot be kept is not promised."""
    error = refused(GOOD.replace("amount: {type: integer}", f"amount: {{type: integer}}, {more}"))
    assert "on record in the clear" in error.message
    assert f"/input{where or '/properties/cards/items/properties/pin'}" in str(error.detail) + error.message


def test_an_input_may_be_called_like_a_secret_without_being_one() -> None:
    load(GOOD.replace("amount: {type: integer}", "amount: {type: integer}, writeOnly: {type: boolean}"))


def test_findings_of_a_file_know_their_lines() -> None:
    found = read_template(GOOD, "t.yaml").findings(installation=Installation(tools=["box__write"]))
    assert [(item.level, item.where, item.line) for item in found] == [("warning", "/steps/0/tool", 8)]


def test_the_documented_templates_are_sound() -> None:
    docs = Path(__file__).parents[2] / "docs"
    files = [docs / "templates.md", *sorted((docs / "steps").glob("*.md"))]
    page = "\n".join(file.read_text("utf-8") for file in files)
    for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        file = read_template(text, "docs/templates.md", check_expression=problem)
        assert file.findings(check_expression=problem) == []
    for model in (Template, *STEP_MODELS.values()):
        for name, item in model.model_fields.items():
            assert f"`{item.alias or name}`" in page, name


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("type: condition, expression: 'true', retry: {attempts: 2}", "no other value a second time"),
        ("type: wait, seconds: 5, retry: {attempts: 2}", "`poll.attempts`"),
        ("type: approval, question: Go?, retry: {attempts: 2}", "`on_timeout: fail`"),
        ("type: approval, question: Go?, on_failure: retry", "Write how often as `retry`"),
        ("type: signal, signal: {type: a}, retry: {attempts: 2}", "leave `retry` out"),
        ("type: approval, question: Go?, on_failure: skip", "`on_timeout: fail`"),
        ("type: action, tool: box__read, on_failure: retry", "Write how often as `retry`"),
        ("type: wait, seconds: 5, on_failure: retry", "`timeout_seconds`"),
        ("type: agent, gate: {approval: {on_failure: human_review}}", "gate's approval has none"),
        (
            "type: agent, gate: {approval: {on_timeout: escalate, escalations: [{role: a}], retry: {attempts: 2}}}",
            "gate's approval has none",
        ),
    ],
)
def test_a_failure_is_not_said_to_be_met_where_that_makes_no_sense(step: str, told: str) -> None:
    error = refused(f'name: t\nversion: "1"\nsteps:\n  - {{id: go, {step}}}\n')
    assert told in f"{error.message} {error.next_step} {error.detail}"


UNDO = """\
name: t
version: "1"
steps:
  - {id: look, type: action, tool: box__read}
  - {id: pay, type: action, tool: box__pay, compensate: {step: refund}}
  - {id: refund, type: action, tool: box__refund, arguments: {of: "{{ steps.pay.output }} {{ steps.look.output }}"}}
  - {id: last, type: agent}
"""


@pytest.mark.parametrize(
    ("undoer", "told"),
    [
        ("type: workflow, template: other", None),
        ("type: workflow, template: other, timeout_seconds: 5", "no `timeout_seconds`"),
        ("type: agent, instructions: Call them.", None),
        ("type: agent, gate: {checks: [{id: a, expression: 'true'}]}", "no `gate`"),
        ("type: agent, go_back: [{to: pay, when: 'true'}]", "no `go_back`"),
        *(
            (f"type: {kind}", f"a step of type {kind.partition(',')[0]} undoes nothing")
            for kind in (
                "approval, question: Go?",
                "condition, expression: 'true'",
                "wait, seconds: 5",
                "signal, signal: {type: a}",
            )
        ),
    ],
)
def test_what_does_something_may_undo_another_step(undoer: str, told: str | None) -> None:
    text = f"""name: t
version: "1"
steps:
  - {{id: pay, type: action, tool: box__pay, compensate: {{step: undo}}}}
  - {{id: undo, {undoer}}}
"""
    if told is None:
        assert load(text).undoers == {"undo"}
    else:
        error = refused(text)
        assert told in f"{error.message} {error.detail}"


def test_a_step_that_undoes_another_is_no_part_of_the_way() -> None:
    template = load(UNDO)
    assert template.undoers == {"refund"}
    assert [template.needs_of(index) for index in range(4)] == [(), ("look",), ("pay",), ("pay",)]
    assert "to be undone" in graph.text(template)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("step: refund", "step: refnd", "there is no step 'refnd'"),
        ("step: refund", "step: refund, tool: box__refund", "a `tool` or a `step`"),
        ("{step: refund}", "{}", "a `tool` or a `step`"),
        ("step: refund", "step: refund, arguments: {a: 1}", "says arguments, reason and retry itself"),
        ("{id: last, type: agent", "{id: last, type: agent, needs: [refund]", "no part of the run's way"),
        ("tool: box__refund", "tool: box__refund, needs: [pay]", "no `needs`"),
        ("tool: box__refund", "tool: box__refund, if: 'true'", "no `if`"),
        ("tool: box__refund", "tool: box__refund, compensate: {tool: box__pay}", "no `compensate`"),
        ("tool: box__refund", "tool: box__refund, timeout_seconds: 5", "no `timeout_seconds`"),
        (
            "{id: last, type: agent",
            "{id: last, type: agent, instructions: '{{ steps.refund.output }}'",
            "may not be over",
        ),
    ],
)
def test_what_is_wrong_with_one_that_undoes_is_told(old: str, new: str, told: str) -> None:
    assert old in UNDO
    error = refused(UNDO.replace(old, new, 1))
    assert told in f"{error.message} {error.detail}"
