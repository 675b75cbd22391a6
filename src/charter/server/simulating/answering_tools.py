"""The runner of a simulation: it answers from fixtures or from the shape that the tool promises, and contacts nothing."""

from __future__ import annotations

from typing import Any

from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.fixture import Answers, Fixture, nth
from charter.model.tool import ToolManifest
from charter.tools.simulated import made_up, told

MARK = "io.charter/simulated"


class AnsweringTools:
    """Runs nothing. ``used`` are the fixtures that answered something."""

    def __init__(self, fixtures: Answers) -> None:
        self._fixtures = fixtures
        self._next: dict[str, int] = {}
        self.used: set[str] = set()

    async def run(self, effect: Effect, **_: Any) -> EffectOutcome:
        """The fixture of ``STEP`` or ``TEMPLATE/STEP`` (for the workflow's own calls), else of the tool, else a sample of its
        output."""
        step = (effect.step_id, f"{effect.template.partition('@')[0]}/{effect.step_id}") if effect.for_step else ()
        names = (*step, effect.tool.name)
        name = next((name for name in names if name in self._fixtures), None)
        outcome = _sampled(effect.tool) if name is None else told(self._taken(name))
        return outcome.model_copy(update={"meta": {MARK: True}})

    async def preview(self, manifest: ToolManifest, arguments: JsonObject) -> str | None:
        """None: a preview would be a call."""
        return None

    def _taken(self, name: str) -> Fixture:
        self.used.add(name)
        self._next[name] = self._next.get(name, 0) + 1
        return nth(self._fixtures[name], self._next[name])


def _sampled(tool: ToolManifest) -> EffectOutcome:
    """A schema that no simple value satisfies is a failure that asks for a fixture."""
    value = made_up(tool)
    if value is None and tool.output_schema is not None:
        return EffectOutcome(
            status="failed",
            is_error=True,
            error_code="no_sample",
            error_message=f"No value of {tool.name}'s output schema could be made up: give a fixture for it.",
            retryable=False,
        )
    text = f"Simulated: {tool.name} was not called."
    return EffectOutcome(status="succeeded", structured=value, content=({"type": "text", "text": text},))
