"""The templates that come along: they are sound, fit the bundled casebook, and run to their end in the decider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.bundled.casebook import build
from charter.manifests.arguments import check_arguments, check_value, compile_schema
from charter.manifests.definitions import propose_manifest
from charter.manifests.installed_checks import Installation
from charter.manifests.templates import bundled_templates, read_template
from charter.model.template import AgentStep, Template
from charter.model.tool import ToolManifest
from charter.workflows.decide import runnable_steps
from charter.workflows.expressions import problem
from tests.workflows.build import BOB, Run, effect_of, permit, under


def bundled(name: str) -> Template:
    return read_template(bundled_templates()[name], f"{name}.yaml", check_expression=problem).template


@pytest.fixture(scope="module")
def casebook(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ToolManifest]:
    folder: Path = tmp_path_factory.mktemp("casebook")
    tools = anyio.run(build(folder).list_tools)
    listed = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
    return {item.name: item for item in (propose_manifest("casebook", tool) for tool in listed)}


def test_each_has_its_own_name() -> None:
    assert set(bundled_templates()) == {"governed-session", "safe-ai-assisted"}
    for name, text in bundled_templates().items():
        assert read_template(text, name).template.name == name


@pytest.mark.parametrize("name", ["governed-session", "safe-ai-assisted"])
def test_nothing_is_found_against_it_where_the_casebook_is(name: str, casebook: dict[str, ToolManifest]) -> None:
    file = read_template(bundled_templates()[name], f"{name}.yaml")
    here = Installation(tools=list(casebook), roles=[])
    assert file.findings(installation=here, strict=True, check_expression=problem) == []


def test_a_governed_session_is_one_open_step_until_the_agent_is_done() -> None:
    run = Run(bundled("governed-session")).start()
    opened = run.context().invocations[0]
    assert (opened.step_id, opened.allowed_tools, opened.calls_left) == ("work", ("*",), 10_000)
    assert run.invoke("read").effect is not None
    run.complete({"summary": "done"})
    assert (run.state.status, run.state.output) == ("completed", {"summary": "done"})


def test_the_agent_of_the_safe_template_holds_no_tool_that_changes_anything(casebook: dict[str, ToolManifest]) -> None:
    for step in bundled("safe-ai-assisted").steps:
        if isinstance(step, AgentStep):
            assert all(casebook[name].side_effects == "none" for name in step.allowed_tools)


OUTPUTS: dict[str, Any] = {
    "intake": {"query": "refund", "note": "case-12/summary"},
    "draft": {"text": "# Refund\n", "summary": "A summary of the refund."},
    "check_obligations": {"approval_required": True, "obligations": ["four eyes"], "why": "money"},
    "retrieve_knowledge": {"matches": [{"name": "case-12/a", "line": 1, "excerpt": "refund"}], "searched": 1},
    "read_rules": {"name": "policy", "text": "Money needs four eyes."},
    "execute": {"name": "case-12/summary", "created": True, "characters": 9},
    "notify": {"number": 1, "repeated": False},
}


def played(casebook: dict[str, ToolManifest], given: dict[str, Any], outputs: dict[str, Any]) -> Run:
    """The run until it waits for people or ends; agents and tools answer with ``outputs``."""
    template = bundled("safe-ai-assisted")
    run = under(Run(template, tools=casebook, server="casebook").start(given), lambda facts: permit())
    check_value(compile_schema(template.input_schema), given, what="The input")
    while run.state.live:
        if ready := runnable_steps(run.state):
            draft = run.run_step(ready[0])
            effect = effect_of(draft)
            check_arguments(effect.tool, effect.arguments)
            run.outcome(effect.effect_id, output=outputs[ready[0]], is_error=outputs[ready[0]] is None)
        elif opened := run.context().invocations:
            schema = compile_schema(opened[0].output_schema)
            check_value(schema, outputs[opened[0].step_id], what="The output")
            run.complete(outputs[opened[0].step_id])
        else:
            run.answer(run.approval_id(), by=BOB)
    return run


def test_the_safe_template_reads_drafts_checks_asks_writes_and_tells(casebook: dict[str, ToolManifest]) -> None:
    run = played(casebook, {"request": "Write up the refund", "notify": "ann@example.org"}, OUTPUTS)
    assert run.state.output == {"note": "case-12/summary", "approved_by": "bob", "notified": True}
    calls = [(event.data.tool, event.data.arguments) for event in run.log if event.type == "TOOL_INVOKE"]
    assert [tool for tool, _ in calls] == [
        "casebook__search_notes",
        "casebook__read_note",
        "casebook__write_note",
        "casebook__send_notice",
    ]
    assert calls[1][1] == {"name": "policy"}
    assert calls[2][1] == {"name": "case-12/summary", "text": "# Refund\n"}
    shown = next(event for event in run.log if event.type == "APPROVAL_REQUESTED").data.request.shown
    assert "# Refund" in {item.label: item.value for item in shown}["text"]


def test_without_rules_or_need_nobody_is_asked_and_without_an_address_nobody_is_told(
    casebook: dict[str, ToolManifest],
) -> None:
    relaxed = {"approval_required": False, "obligations": [], "why": "no rule applies"}
    outputs = {**OUTPUTS, "read_rules": None, "check_obligations": relaxed}
    run = played(casebook, {"request": "Write up the refund", "rules_note": "house rules"}, outputs)
    assert run.state.output == {"note": "case-12/summary", "approved_by": "", "notified": False}
    assert run.steps()["read_rules"] == "skipped"
    assert "APPROVAL_REQUESTED" not in run.types()


def test_what_the_draft_agent_sees_holds_what_was_found(casebook: dict[str, ToolManifest]) -> None:
    run = under(Run(bundled("safe-ai-assisted"), tools=casebook, server="casebook"), lambda facts: permit())
    run.start({"request": "Write {{ secrets.key }}"})
    assert "Write {{ secrets.key }}" in run.context().invocations[0].instructions
    run.complete(OUTPUTS["intake"])
    for step in ("retrieve_knowledge", "read_rules"):
        run.outcome(effect_of(run.run_step(step)).effect_id, output=OUTPUTS[step])
    assert '"excerpt": "refund"' in run.context().invocations[0].instructions
