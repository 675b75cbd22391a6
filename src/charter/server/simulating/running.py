"""Runs a template without a server: the real gate, policies and engine on a store of its own that is thrown away.

Only the clock, the tools and the people are not real. Nothing leaves the process, and no file of the installation is
written: its configuration, templates, policies and tool manifests are read.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import anyio
import orjson

from charter.engine.embedded import EmbeddedEngine
from charter.gate import Gate, Limits, Parts
from charter.manifests.built_in import BUILT_IN
from charter.manifests.templates import Catalogue, load_template, parse_ref, template_hash
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.fixture import Fixtures
from charter.model.ids import PREFIXES, uuid7_text
from charter.model.principal import Principal
from charter.model.template import Template
from charter.model.times import unix_ms_of
from charter.model.tool import Quarantine, ToolManifest
from charter.server.app import now_ms
from charter.server.evaluator import PolicySets
from charter.server.settings import load_settings
from charter.server.settings_model import Settings
from charter.server.simulating.answering import Answering, Round
from charter.server.simulating.answering_tools import AnsweringTools
from charter.server.simulating.outcome import Simulation
from charter.server.simulating.script import Script, read
from charter.server.telemetry import Telemetry
from charter.server.template_folder import bindings_beside
from charter.server.templates import read_templates
from charter.store.port import Filter, Page
from charter.store.sealing import Sealer, new_key
from charter.store.sqlite import SqliteStore
from charter.tools.folder import load_folder
from charter.tools.unconnected import UnconnectedTools
from charter.workflows.expressions import problem
from charter.workflows.state import State
from charter.workflows.views import context

ROUNDS = 2_000
"""A simulation that is not over after so many answers and moves of the clock goes in a circle, and is stopped."""


@dataclass(slots=True)
class Clock:
    """Milliseconds since 1970; each reading is one later, so that times tell the order."""

    ms: int

    def __call__(self) -> int:
        self.ms += 1
        return self.ms

    def on_to(self, ms: int) -> None:
        self.ms = max(self.ms, ms)


class TheseTools:
    """Tools that were handed in, and Charter's own."""

    def __init__(self, manifests: Sequence[ToolManifest]) -> None:
        self._tools = {**BUILT_IN, **{tool.name: tool for tool in manifests}}

    def find(self, name: str) -> ToolManifest | None:
        return self._tools.get(name)

    def quarantine(self, name: str) -> Quarantine | None:
        return None

    def all(self) -> tuple[ToolManifest, ...]:
        return tuple(self._tools[name] for name in sorted(self._tools))


class WithDraft:
    """The installation's templates, and over them the one that is simulated, published or not; no other run starts."""

    def __init__(self, catalogue: Catalogue, draft: Template) -> None:
        self._catalogue, self._draft = catalogue, draft

    def latest(self, name: str) -> tuple[Template, str]:
        if name in (self._draft.name, self._draft.ref):
            return self._draft, template_hash(self._draft)
        return self._catalogue.latest(name)

    def for_signal(self, type: str) -> tuple[Template, ...]:
        return ()

    def scheduled(self) -> tuple[Template, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Given:
    """All that a simulation is made of."""

    template: Template
    input: JsonObject
    script: Script
    fixtures: Fixtures
    settings: Settings
    catalogue: Catalogue
    tools: TheseTools | UnconnectedTools
    policies: Path | None
    at_ms: int


def simulate(
    template: str | Path | Template,
    input: Mapping[str, Any] | None = None,
    *,
    decisions: Mapping[str, Any] | None = None,
    fixtures: Mapping[str, Any] | None = None,
    config: Path | None = None,
    tools: Sequence[ToolManifest] | None = None,
    policies: Path | None = None,
    at: str | None = None,
) -> Simulation:
    """Run a template against scripted decisions, without a server, and tell its path.

    ``template``: a file (``.yaml``, ``.yml``, ``.json``), ``NAME`` or ``NAME@VERSION``, or a template. ``decisions`` and
    ``fixtures`` are plain data as on the page "Testing templates". ``config`` is a ``charter.toml``, found as on the command
    line; ``tools`` and ``policies`` (a folder) stand in the place of the installation's. ``at`` (RFC 3339) is when the run
    starts; default: now.

    A run that waits for something that the script does not answer is no error (``waiting``). Raises ``InvalidInput`` for a
    wrong template, input, script or fixture, ``NotFound`` for a template or tool that there is not, ``Denied`` when the policy
    refuses the start, ``Misconfigured``. Not to be called where an event loop runs: use :func:`simulated` there.
    """
    return anyio.run(
        lambda: simulated(
            template,
            input,
            decisions=decisions,
            fixtures=fixtures,
            config=config,
            tools=tools,
            policies=policies,
            at=at,
        )
    )


async def simulated(
    template: str | Path | Template,
    input: Mapping[str, Any] | None = None,
    *,
    decisions: Mapping[str, Any] | None = None,
    fixtures: Mapping[str, Any] | None = None,
    config: Path | None = None,
    tools: Sequence[ToolManifest] | None = None,
    policies: Path | None = None,
    at: str | None = None,
) -> Simulation:
    """The same as :func:`simulate`, where an event loop runs."""
    script = read(Script, dict(decisions or {}), "decisions")
    answers = read(Fixtures, {"answers": dict(fixtures or {})}, "fixtures")
    settings = load_settings(config)
    catalogue = read_templates(settings.workflows.templates)
    folder = settings.tools.manifests
    given = Given(
        template=template if isinstance(template, Template) else _found(str(template), catalogue),
        input=dict(input or {}),
        script=script,
        fixtures=answers,
        settings=settings,
        catalogue=catalogue,
        tools=UnconnectedTools(load_folder(folder) if folder is not None and folder.is_dir() else ())
        if tools is None
        else TheseTools(tools),
        policies=policies or settings.policies.folder,
        at_ms=unix_ms_of(at) if at is not None else now_ms(),
    )
    with tempfile.TemporaryDirectory(prefix="charter-simulation-") as place:
        return await _Run(given, Path(place) / "simulation.sqlite").whole()


def _found(name: str, catalogue: Catalogue) -> Template:
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json"):
        text = path.read_text(encoding="utf-8")
        return load_template(text, path.name, check_expression=problem, bindings=bindings_beside(path))
    parse_ref(name)
    return catalogue.latest(name)[0]


class _Run:
    """One simulation on its own store."""

    def __init__(self, given: Given, path: Path) -> None:
        self._given = given
        self._clock = Clock(given.at_ms)
        self._store = SqliteStore(path)
        self._tools = AnsweringTools(given.fixtures.answers)
        start = given.script.start
        self._by = Principal(
            id=start.by, kind=start.kind, tenant=given.settings.tenant, roles=start.roles, acts_for=start.acts_for
        )

    async def whole(self) -> Simulation:
        """From the start to an end or to a wait that nothing answers."""
        await self._store.open()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._store.close)
            gate = self._gate()
            stack.push_async_callback(gate.close)
            await self._store.enlist(gate.parts.instance)
            template = self._given.template
            command = cmd.StartWorkflow(template=template.ref, input=self._given.input, purpose="Simulation")
            started = await gate.handle(self._by, command)
            answering = Answering(gate, self._given.script, self._by)
            waits_for = await self._drive(gate, answering, started.workflow_id)
            return await self._told(gate, answering, started.workflow_id, waits_for)

    def _gate(self) -> Gate:
        given, settings = self._given, self._given.settings
        instance = f"{PREFIXES['instance']}_{uuid7_text(self._clock.ms, secrets.token_bytes(16))}"
        return Gate(
            Parts(
                store=self._store,
                sealer=Sealer({"simulation": new_key()}, "simulation"),
                evaluator=PolicySets(given.policies, None, given.tools.all()),
                tools=given.tools,
                runner=self._tools,
                templates=WithDraft(given.catalogue, given.template),
                clock=self._clock,
                entropy=lambda: secrets.token_bytes(32),
                instance=instance,
                tracing=Telemetry(),
                limits=Limits(result_bytes=settings.server.result_limit_bytes),
            )
        )

    async def _drive(self, gate: Gate, answering: Answering, workflow_id: str) -> tuple[str, ...]:
        """Until nothing moves any more; what it waits for then."""
        engine = EmbeddedEngine(gate)
        for _ in range(ROUNDS):
            await engine.settle()
            done = await self._answered(gate, answering)
            if done.moved:
                continue
            if done.waits_for:
                return tuple(dict.fromkeys(done.waits_for))
            wake = await self._store.next_wake()
            times = [*done.later, *([unix_ms_of(wake)] if wake is not None else [])]
            ahead = [ms for ms in times if ms > self._clock.ms]
            if not ahead:
                return await self._stuck(gate, workflow_id)
            self._clock.on_to(min(ahead))
        return (f"It is not over after {ROUNDS} answers and moves of the clock: it goes in a circle.",)

    async def _answered(self, gate: Gate, answering: Answering) -> Round:
        whole = Round()
        for state in await self._live(gate):
            done = await answering.look(state)
            whole.moved = whole.moved or done.moved
            whole.later += done.later
            whole.waits_for += done.waits_for
        return whole

    async def _live(self, gate: Gate) -> list[State]:
        tenant = self._given.settings.tenant
        rows, _ = await self._store.workflows(tenant, Filter(), Page(limit=1000))
        states = [await gate.states.fresh(tenant, row.workflow_id) for row in rows]
        return [state for state in states if state is not None and state.live]

    async def _stuck(self, gate: Gate, workflow_id: str) -> tuple[str, ...]:
        state = await gate.states.fresh(self._given.settings.tenant, workflow_id)
        if state is None or not state.live:
            return ()
        template = self._given.template
        found = context(state, template, self._by, gate.moment()[0]).blocked_by
        return tuple(f"{state.template}: {item.detail}" for item in found)

    async def _told(self, gate: Gate, answering: Answering, workflow_id: str, waits_for: tuple[str, ...]) -> Simulation:
        tenant = self._given.settings.tenant
        state = await gate.states.fresh(tenant, workflow_id)
        assert state is not None
        seen = context(state, self._given.template, self._by, gate.moment()[0])
        stored = await self._store.log(tenant, 0, 1_000_000)
        unused = [f"fixtures.{name}" for name in self._given.fixtures.answers if name not in self._tools.used]
        return Simulation(
            workflow_id=workflow_id,
            template=state.template,
            status="waiting" if state.live else cast(Any, state.status),
            output=state.output,
            reason=state.reason,
            waits_for=waits_for if state.live else (),
            events=tuple(orjson.loads(item.leaf) for item in stored),
            refused=tuple(dict.fromkeys(answering.refused.values())),
            unused=(*answering.unused(), *unused),
            _steps=dict(seen.steps),
        )
