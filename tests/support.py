"""A whole Charter for tests of doors, engine and stories: real store, gate, policies and tools; only the clock is ours.

``async with running_charter(tmp_path) as charter`` starts the bundled casebook as a real upstream process. Tests that need
many Charters start the upstreams once (``upstreams``) and hand them to each.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from mcp import Client
from mcp.client.session import ClientRequestContext
from mcp_types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult, ErrorData

from charter.gate import Gate, Limits, Parts, Queries
from charter.manifests.templates import template_hash
from charter.manifests.tool_files import StdioConnection, UpstreamManifest
from charter.model.principal import Principal
from charter.model.template import Template
from charter.model.tool import Quarantine, ToolManifest
from charter.policies import PolicySources
from charter.policies.shipped import shipped_sources
from charter.server.evaluator import PolicySets
from charter.server.mcp import CharterServer, DoorSettings, build_mcp_server
from charter.server.telemetry import Telemetry
from charter.store.sealing import Sealer, new_key
from charter.store.sqlite import SqliteStore
from charter.tools.adding import discover, propose
from charter.tools.connecting import Sources
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from charter.tools.upstream import Pace

ROOT = Path(__file__).parents[1]
QUICK = Pace(first_pause=0.02, longest_pause=0.2)

AGENT = Principal(id="agent-1", kind="agent", roles=("agent",), acts_for="pat")
PAT = Principal(id="pat", kind="human")
CAROL = Principal(id="carol", kind="human", roles=("approver",))
LONELY = Principal(id="agent-2", kind="agent", roles=("agent",))
STRANGER = Principal(id="agent-1", kind="agent", tenant="other", roles=("agent",), acts_for="pat")

SESSION = Template.model_validate(
    {
        "name": "governed-session",
        "version": "1",
        "description": "One open step for general work.",
        "steps": [
            {"id": "work", "type": "agent", "instructions": "Do what was asked.", "allowed_tools": ["*"], "calls": 500}
        ],
    }
)


class Clock:
    """Milliseconds since 1970; ``ahead`` moves it."""

    def __init__(self) -> None:
        self.ahead = 0

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 + self.ahead


class Published:
    """Templates as the gate asks for them."""

    def __init__(self, *templates: Template) -> None:
        self._by_hash = {template_hash(item): item for item in templates}

    def latest(self, name: str) -> tuple[Template, str]:
        from charter.errors import NotFound

        for key, item in self._by_hash.items():
            if name in (item.name, item.ref):
                return item, key
        raise NotFound(f"There is no template {name!r}.", code="unknown_template")

    def for_signal(self, type: str) -> tuple[Template, ...]:
        return tuple(item for item in self._by_hash.values() if any(each.type == type for each in item.on_signal))

    def scheduled(self) -> tuple[Template, ...]:
        return tuple(item for item in self._by_hash.values() if item.on_schedule)

    def pinned(self, template_hash: str) -> Template:
        return self._by_hash[template_hash]


class Governed:
    """The registry as the gate sees it."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def find(self, name: str) -> ToolManifest | None:
        entry = self.registry.find(name)
        return entry.manifest if entry else None

    def quarantine(self, name: str) -> Quarantine | None:
        entry = self.registry.find(name)
        return entry.quarantine if entry else None

    def unavailable(self, name: str) -> str | None:
        entry = self.registry.find(name)
        return entry.unavailable if entry else None

    def all(self) -> tuple[ToolManifest, ...]:
        return tuple(entry.manifest for entry in self.registry.entries())


@dataclass
class Upstreams:
    """Real upstream processes, connected. ``notes`` is the casebook's folder."""

    registry: Registry
    notes: Path


def casebook(folder: Path) -> StdioConnection:
    """How Charter starts the bundled casebook over this folder."""
    args = ("-m", "charter.bundled.casebook", "--folder", str(folder))
    return StdioConnection(command=sys.executable, args=args, cwd=str(ROOT))


def casebook_risks(tool: ToolManifest) -> ToolManifest:
    """Writing is medium and shows its diff; deleting and sending stay high; reading stays low."""
    if tool.upstream_name != "write_note":
        return tool
    change = {"risk": "medium", "side_effects": "reversible"}
    return tool.model_copy(update=change)


async def manifest_of(
    server: str, connection: StdioConnection, change: Callable[[ToolManifest], ToolManifest] = lambda tool: tool
) -> UpstreamManifest:
    """What ``charter upstream add`` would write, corrected as an operator would."""
    proposed, _ = propose(server, connection, (await discover(server, connection, Sources({}))).tools)
    return proposed.model_copy(update={"tools": tuple(change(tool) for tool in proposed.tools)})


@asynccontextmanager
async def upstreams(folder: Path, *more: UpstreamManifest) -> AsyncIterator[Upstreams]:
    """The casebook over ``folder / "notes"`` and more upstreams, connected for as long as the block lasts."""
    notes = folder / "notes"
    manifests = (await manifest_of("casebook", casebook(notes), casebook_risks), *more)
    registry = Registry(lambda: manifests, Sources({}), pace=QUICK)
    async with registry.running():
        assert await registry.wait_ready(30) == ()
        yield Upstreams(registry, notes)


@dataclass
class Harness:
    """A running Charter and what tests want of it."""

    gate: Gate
    queries: Queries
    store: SqliteStore
    upstreams: Upstreams
    clock: Clock
    state_keys: tuple[bytes, ...] = field(default_factory=lambda: (secrets.token_bytes(32),))
    settings: DoorSettings | None = None

    @property
    def notes(self) -> Path:
        return self.upstreams.notes

    def door_for(self, principal: Principal, **settings: Any) -> CharterServer:
        """The MCP server as this caller's credential reaches it; all of them share keys, as workers do."""
        chosen = self.settings or DoorSettings(version="test", request_state_keys=self.state_keys, **settings)
        return build_mcp_server(self.gate, self.queries, principal_of=lambda _: principal, settings=chosen)

    def client_as(self, principal: Principal, mode: str = "auto", person: Person | None = None, **more: Any) -> Client:
        """A real MCP client with this caller's credential; ``person`` answers its forms."""
        server = more.pop("server", None) or self.door_for(principal)
        callback = person.answer if person is not None else None
        return Client(server, mode=mode, elicitation_callback=callback, **more)

    async def events(self, workflow_id: str, tenant: str = "default") -> list[dict[str, Any]]:
        """A run's record, as stored."""
        return [orjson.loads(item.leaf) for item in await self.store.load(tenant, workflow_id)]

    async def types(self, workflow_id: str) -> list[str]:
        """The types of a run's events."""
        return [event["type"] for event in await self.events(workflow_id)]


@dataclass
class Person:
    """Sits at a client and answers forms. ``answers`` are given in turn, the last one again and again; ``seen`` is what
    was shown."""

    answers: list[dict[str, Any] | str]
    seen: list[ElicitRequestFormParams] = field(default_factory=list)

    async def answer(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        assert isinstance(params, ElicitRequestFormParams)
        self.seen.append(params)
        reply = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(reply, str):
            return ElicitResult.model_validate({"action": reply})
        return ElicitResult(action="accept", content=reply)

    @property
    def text(self) -> str:
        """What was shown last."""
        return self.seen[-1].message


def says(decision: str, comment: str | None = None) -> Person:
    """A person who answers an approval so."""
    return Person([{"decision": decision} if comment is None else {"decision": decision, "comment": comment}])


def confirms(prompt: str, count: int = 1) -> Person:
    """A person who confirms a decision that they made in a prompt."""
    return Person([{f"decision_{index}": prompt for index in range(1, count + 1)}])


@asynccontextmanager
async def running_charter(
    folder: Path,
    *,
    shared: Upstreams | None = None,
    templates: Sequence[Template] = (SESSION,),
    policies: PolicySources | None = None,
    limits: Limits | None = None,
) -> AsyncIterator[Harness]:
    """A Charter on a new SQLite file in ``folder``, with the shipped policies unless others are given."""
    if shared is None:
        async with (
            upstreams(folder) as own,
            running_charter(folder, shared=own, templates=templates, policies=policies, limits=limits) as harness,
        ):
            yield harness
        return
    store = SqliteStore(folder / "charter.db")
    await store.open()
    clock = Clock()
    tools = Governed(shared.registry)
    parts = Parts(
        store=store,
        sealer=Sealer({"k1": new_key()}, "k1"),
        evaluator=_policies(folder, policies, tools.all()),
        tools=tools,
        runner=Runner(shared.registry),
        templates=Published(*templates),
        clock=clock,
        entropy=lambda: secrets.token_bytes(32),
        instance="srv_test",
        tracing=Telemetry(),
        unavailable=tools.unavailable,
        limits=limits or Limits(),
    )
    gate = Gate(parts)
    try:
        await store.enlist(parts.instance)
        yield Harness(gate, Queries(gate), store, shared, clock)
    finally:
        await gate.close()
        await store.close()


_shipped: dict[tuple[int, ...], tuple[Sequence[ToolManifest], PolicySets]] = {}
"""The shipped policies by the tools that they were made for; to make them takes longer than most tests."""


def _policies(folder: Path, sources: PolicySources | None, tools: Sequence[ToolManifest]) -> PolicySets:
    if sources is None:
        key = tuple(map(id, tools))
        if key not in _shipped:
            _shipped[key] = (tools, PolicySets(None, None, tools))
        return copy(_shipped[key][1])
    where = folder / "policies"
    where.mkdir()
    for name, text in (*sources.authorise.items(), *sources.obligations.items()):
        (where / Path(name).name).write_text(text)
    return PolicySets(where, None, tools)


def shipped_and(obligations: str = "", authorise: str = "") -> PolicySources:
    """The shipped policies and a few more."""
    shipped = shipped_sources()
    return PolicySources(
        authorise={**shipped.authorise, **({"authorise-more.cedar": authorise} if authorise else {})},
        obligations={**shipped.obligations, **({"obligations-more.cedar": obligations} if obligations else {})},
    )
