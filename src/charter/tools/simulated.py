"""What a tool that is not called answers, in dry runs and simulations: a fixture, or a value of the shape that it promises."""

from __future__ import annotations

from typing import Any, Final

from charter.errors import CharterError
from charter.manifests.arguments import compile_schema
from charter.manifests.samples import sample
from charter.model.base import Json, JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.fixture import DRY_RUN, FIXTURE, Answers, Fixture, nth
from charter.model.outbound import EMAIL_TOOL, HTTP_TOOL, WEBHOOK_TOOL
from charter.model.tool import ToolManifest

_OWN: Final[dict[str, JsonObject]] = {
    HTTP_TOOL: {"status": 200, "headers": {}, "body": {}},
    WEBHOOK_TOOL: {"status": 200},
    EMAIL_TOOL: {"recipients": 1},
}


def made_up(tool: ToolManifest) -> Json:
    """Structured content by the tool's output schema; None where it has none, or where none could be made that it accepts."""
    if tool.name in _OWN or tool.output_schema is None:
        return _OWN.get(tool.name)
    value = sample(tool.output_schema)
    try:
        return value if compile_schema(tool.output_schema).accepts(value) else None
    except CharterError:  # a schema that is none
        return None


def told(fixture: Fixture) -> EffectOutcome:
    """The outcome that a fixture tells of."""
    if fixture.error is None:
        text = fixture.text if fixture.text is not None else "Simulated."
        return EffectOutcome(status="succeeded", structured=fixture.output, content=({"type": "text", "text": text},))
    status: Any = {"answered": "succeeded", "no": "failed", "unknown": "unknown"}[fixture.ran]
    return EffectOutcome(
        status=status,
        is_error=True,
        content=({"type": "text", "text": fixture.error},) if status == "succeeded" else (),
        error_code=fixture.code,
        error_message=fixture.error,
    )


def dry_run(effect: Effect, fixtures: Answers) -> EffectOutcome:
    """By the fixture of ``TEMPLATE/STEP`` (for the workflow's own calls) or of the tool, else with what is made up."""
    step = f"{effect.template.partition('@')[0]}/{effect.step_id}"
    names = [step, effect.tool.name] if effect.for_step else [effect.tool.name]
    name = next((name for name in names if name in fixtures), None)
    if name is not None:
        return told(nth(fixtures[name], effect.number)).model_copy(update={"meta": {DRY_RUN: True, FIXTURE: name}})
    text = f"Dry run: {effect.tool.name} was not called. Policy, approvals and record are as in a real call."
    return EffectOutcome(
        status="succeeded",
        content=({"type": "text", "text": text},),
        structured=made_up(effect.tool),
        meta={DRY_RUN: True},
    )
