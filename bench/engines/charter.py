"""Charter's gate and embedded engine, with the shipped policies and the record on disk; the tool itself does nothing.

``python -m bench.engines.charter FOLDER``
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.engines.telling import STEPS, obey
from charter.engine.embedded import EmbeddedEngine
from charter.gate import Gate, Parts
from charter.manifests.templates import Catalogue
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.principal import Principal
from charter.model.template import Template
from charter.model.tool import Quarantine, ToolManifest
from charter.server.app import new_instance, now_ms
from charter.server.evaluator import PolicySets
from charter.server.telemetry import Telemetry
from charter.store.port import Store
from charter.store.sealing import Sealer
from charter.store.sqlite import SqliteStore

PERSON = Principal(id="ann", kind="human", roles=("operator",))
TOOL = ToolManifest(
    name="bench__step",
    server="bench",
    upstream_name="step",
    input_schema={"type": "object", "properties": {"number": {"type": "integer"}}},
    definition_hash="sha256:0",
    risk="low",
    side_effects="none",
    idempotent=True,
)
TEMPLATE = Template.model_validate(
    {
        "name": "three-actions",
        "version": "1",
        "steps": [
            {"id": f"step{n}", "type": "action", "tool": TOOL.name, "arguments": {"number": n}} for n in range(STEPS)
        ],
    }
)
ENDS = frozenset(("WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_REJECTED"))


class OneTool:
    """The governed tools: one."""

    def find(self, name: str) -> ToolManifest | None:
        return TOOL if name == TOOL.name else None

    def quarantine(self, name: str) -> Quarantine | None:
        return None

    def all(self) -> tuple[ToolManifest, ...]:
        return (TOOL,)


class Immediate:
    """Runs a tool that does nothing."""

    async def run(self, effect: Effect, **more: Any) -> EffectOutcome:
        return EffectOutcome(status="succeeded", structured={"number": effect.arguments["number"]})

    async def preview(self, manifest: ToolManifest, arguments: JsonObject) -> str | None:
        return None


class Ends:
    """Waits for the ends of runs."""

    def __init__(self, gate: Gate) -> None:
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._early: dict[str, str] = {}
        gate.watchers.append(self._told)

    def _told(self, _tenant: str, stream: str, types: Sequence[str]) -> None:
        for type_ in ENDS.intersection(types):
            if stream in self._waiting:
                self._waiting.pop(stream).set_result(type_)
            else:
                self._early[stream] = type_

    async def of(self, workflow_id: str) -> str:
        if workflow_id in self._early:
            return self._early.pop(workflow_id)
        ended = self._waiting[workflow_id] = asyncio.get_running_loop().create_future()
        return str(await ended)


def gate_on(store: Store, *templates: Template, clock: Callable[[], int] = now_ms) -> Gate:
    """A whole gate with the shipped policies, in front of the one tool."""
    tools, catalogue = OneTool(), Catalogue()
    for each in templates:
        catalogue.add(each)
    return Gate(
        Parts(
            store=store,
            sealer=Sealer({"k1": bytes(range(32))}, "k1"),
            evaluator=PolicySets(None, None, tools.all()),
            tools=tools,
            runner=Immediate(),
            templates=catalogue,
            clock=clock,
            entropy=lambda: secrets.token_bytes(32),
            instance=new_instance(),
            tracing=Telemetry(),
        )
    )


async def main(folder: Path) -> None:
    store = SqliteStore(folder / "charter.sqlite")
    await store.open()
    gate = gate_on(store, TEMPLATE)
    await store.enlist(gate.parts.instance)
    ends, engine = Ends(gate), asyncio.create_task(EmbeddedEngine(gate, steps_at_once=64).run())

    async def workflow(_number: int) -> None:
        started = await gate.handle(PERSON, cmd.StartWorkflow(template=TEMPLATE.name, purpose="Measure a workflow"))
        if await ends.of(started.workflow_id) != "WORKFLOW_COMPLETED":
            raise AssertionError(f"{started.workflow_id} did not complete")

    await obey(workflow)
    engine.cancel()
    await gate.close()
    await store.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(Path(sys.argv[1])))
