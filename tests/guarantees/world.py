"""A whole Charter without its doors: the real gate, store, policies, engine and checkpoints, on a clock that a test moves.

A :class:`Desk` is one server process's worth of it; two desks on one file are two processes. Who runs the tools is handed in:
a real upstream (:mod:`tests.guarantees.upstream`) or a scripted runner.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from charter.audit.checkpoint import Signer, origin_of
from charter.audit.envelope import Envelope, parse_leaf
from charter.audit.trace import validate_trace
from charter.audit.verify import SizedNote, verify_log
from charter.engine.checkpoints import Checkpointer
from charter.engine.embedded import EmbeddedEngine
from charter.engine.port import Driver, Engine
from charter.errors import NotFound
from charter.gate import Gate, Limits, Parts, Queries
from charter.gate.parts import CallContext, ToolRunner, Tools, Tracing
from charter.gate.relisting import relisting
from charter.manifests.templates import template_hash
from charter.model import commands as cmd
from charter.model.approval import GrantBounds
from charter.model.base import JsonObject
from charter.model.ids import uuid7_text
from charter.model.principal import Channel, Principal
from charter.model.template import Template
from charter.model.times import rfc3339
from charter.server.evaluator import PolicySets
from charter.server.telemetry import Telemetry
from charter.store.port import Filter, Page, Store, StoredEvent
from charter.store.sealing import Sealer
from charter.store.sqlite import SqliteStore

AGENT = Principal(id="agent:writer", kind="agent", roles=("agent",), acts_for="ann")
OTHER_AGENT = Principal(id="agent:other", kind="agent", roles=("agent",))
ANN = Principal(id="ann", kind="human")
BOB = Principal(id="bob", kind="human", roles=("approver",))
CAT = Principal(id="cat", kind="human", roles=("approver",))
OPS = Principal(id="ops", kind="human", roles=("operator", "admin", "auditor"))

DAY = 86_400
SEALING = {"k1": bytes(range(32))}
_SEED = bytes(reversed(range(32)))


def signer_of(tenant: str) -> Signer:
    """The same key for every desk, as processes that share a folder have."""
    return Signer.from_seed(origin_of(tenant), _SEED)


@dataclass
class Clock:
    """Milliseconds since 1970, moved by hand; each reading is one later, so that times tell the order."""

    ms: int = 1_800_000_000_000

    def __call__(self) -> int:
        self.ms += 1
        return self.ms

    @property
    def now(self) -> str:
        return rfc3339(self.ms)

    def wait(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


def template(name: str, *steps: JsonObject, output: Any = None, version: str = "1") -> Template:
    return Template.model_validate({"name": name, "version": version, "steps": list(steps), "output": output})


SESSION = template("session", {"id": "work", "type": "agent", "allowed_tools": ["*"]})


@dataclass
class Published:
    """Templates by name and ``name@version``."""

    templates: dict[str, Template] = field(default_factory=dict)

    @classmethod
    def of(cls, *templates: Template) -> Published:
        published = cls()
        for item in (SESSION, *templates):
            published.templates[item.name] = published.templates[item.ref] = item
        return published

    def for_signal(self, type: str) -> tuple[Template, ...]:
        found = {item.ref: item for item in self.templates.values()}.values()
        return tuple(item for item in found if any(start.type == type for start in item.on_signal))

    def scheduled(self) -> tuple[Template, ...]:
        found = {item.name: item for item in self.templates.values()}.values()
        return tuple(item for item in found if item.on_schedule)

    def latest(self, name: str) -> tuple[Template, str]:
        found = self.templates.get(name)
        if found is None:
            raise NotFound(f"There is no template {name!r}.", code="unknown_template")
        return found, template_hash(found)


@dataclass
class Desk:
    """One server process's worth of Charter, and short words for what callers do."""

    store: Store
    gate: Gate
    queries: Queries
    engine: Engine
    checkpointer: Checkpointer
    clock: Clock

    # -- agents

    async def start(self, template: str = "session", by: Principal = AGENT, **more: Any) -> Any:
        """The context of a new run."""
        command = cmd.StartWorkflow(template=template, purpose=more.pop("purpose", "a test"), **more)
        return await self.gate.handle(by, command)

    async def session(self, by: Principal = AGENT, **more: Any) -> Work:
        """A new session and the agent's open invocation in it."""
        started = await self.start(by=by, **more)
        return Work(self, started.workflow_id, started.invocations[0].agent_invocation_id, by)

    # -- people

    async def decide(
        self, approval_id: str, decision: Any = "approve", by: Principal = BOB, channel: Channel = "cli", **more: Any
    ) -> Any:
        command = cmd.DecideApproval(approval_id=approval_id, decision=decision, channel=channel, **more)
        return await self.gate.handle(by, command)

    async def resolve(self, workflow_id: str, effect_id: str, resolution: Any, by: Principal = OPS, **more: Any) -> Any:
        command = cmd.ResolveEffect(workflow_id=workflow_id, effect_id=effect_id, resolution=resolution, **more)
        return await self.gate.handle(by, command)

    async def grant(
        self,
        workflow_id: str,
        tool: str,
        arguments: JsonObject | None = None,
        *,
        uses: int = 3,
        seconds: int = 3600,
        case_id: str | None = None,
        by: Principal = BOB,
        channel: Channel = "cli",
    ) -> str:
        bounds = GrantBounds(
            tool=tool,
            arguments=arguments or {},
            uses=uses,
            expires_at=rfc3339(self.clock.ms + seconds * 1000),
            case_id=case_id,
        )
        command = cmd.GiveGrant(workflow_id=workflow_id, bounds=bounds, channel=channel)
        grant_id: str = await self.gate.handle(by, command)
        return grant_id

    # -- looking

    async def events(self, workflow_id: str, tenant: str = "default") -> list[Envelope]:
        return [parse_leaf(item.leaf) for item in await self.store.load(tenant, workflow_id)]

    async def types(self, workflow_id: str) -> list[str]:
        return [event.type for event in await self.events(workflow_id)]

    async def last(self, workflow_id: str, type: str) -> JsonObject:
        """The payload of the newest event of this type."""
        return next(dict(event.data) for event in reversed(await self.events(workflow_id)) if event.type == type)

    async def effects(self, status: str | None = None, tenant: str = "default") -> list[Any]:
        return (await self.store.effects(tenant, Filter(status=status), Page(limit=200)))[0]

    async def whole_log(self, tenant: str = "default") -> list[StoredEvent]:
        return await self.store.log(tenant, 0, 1_000_000)

    async def check_record(self) -> None:
        """The ledger of every tenant verifies under a fresh checkpoint, and each run's trace obeys its rules."""
        await self.checkpointer.checkpoint_all()
        for tenant in await self.store.tenants():
            await check_ledger(self.store, tenant)


async def check_ledger(store: Store, tenant: str) -> None:
    """Verify as an auditor would: with the public key, the stored notes, and the validator of traces."""
    rows = await store.log(tenant, 0, 1_000_000)
    head = await store.head(tenant)
    notes = [SizedNote(note, size) for size, note in await store.checkpoints(tenant)]
    hashes = await store.leaf_hashes(tenant, 0, len(rows))
    report = verify_log(rows, tenant, (signer_of(tenant).key,), notes=notes, hashes=hashes, head=(head.size, head.root))
    assert report.ok, report.findings
    assert report.covered == len(rows)
    for stream, events in by_stream(rows).items():
        if stream.startswith("wf_"):
            assert validate_trace(events) == (), stream


def by_stream(rows: Iterable[StoredEvent]) -> dict[str, list[Envelope]]:
    streams: dict[str, list[Envelope]] = {}
    for row in rows:
        streams.setdefault(row.stream, []).append(parse_leaf(row.leaf))
    return streams


@dataclass
class Work:
    """One agent at work in one run."""

    desk: Desk
    workflow_id: str
    invocation_id: str
    by: Principal = AGENT

    def at(self, desk: Desk) -> Work:
        """The same work through another process."""
        return replace(self, desk=desk)

    @property
    def ids(self) -> dict[str, str]:
        return {"workflow_id": self.workflow_id, "agent_invocation_id": self.invocation_id}

    async def propose(self, tool: str, reason: str = "because", /, **arguments: Any) -> Any:
        command = cmd.ProposeAction(**self.ids, tool=tool, arguments=arguments, reason=reason)
        return await self.desk.gate.handle(self.by, command)

    async def ask(self, proposal_id: str) -> Any:
        return await self.desk.gate.handle(self.by, cmd.RequestApproval(**self.ids, proposal_id=proposal_id))

    async def invoke(self, tool: str, /, **arguments: Any) -> Any:
        command = cmd.InvokeTool(**self.ids, tool=tool, arguments=arguments)
        return await self.desk.gate.handle(self.by, command)

    async def run(self, proposal_id: str, ctx: CallContext | None = None) -> Any:
        command = cmd.InvokeTool(**self.ids, proposal_id=proposal_id)
        return await self.desk.gate.handle(self.by, command, ctx or CallContext())

    async def complete(self, output: Any = None) -> Any:
        return await self.desk.gate.handle(self.by, cmd.CompleteStep(**self.ids, output=output))

    async def cancel(self, by: Principal = ANN) -> Any:
        return await self.desk.gate.handle(by, cmd.CancelWorkflow(workflow_id=self.workflow_id))

    async def asked(self, tool: str, /, **arguments: Any) -> tuple[str, str]:
        """Proposed and put to people: the proposal and the approval."""
        proposal = await self.propose(tool, **arguments)
        request = await self.ask(proposal.proposal_id)
        return proposal.proposal_id, request.approval_id

    async def approved(self, tool: str, /, **arguments: Any) -> str:
        """A proposal that Bob has approved."""
        proposal_id, approval_id = await self.asked(tool, **arguments)
        await self.desk.decide(approval_id)
        return proposal_id

    async def context(self) -> Any:
        return await self.desk.queries.workflow(self.by, self.workflow_id)


def new_instance(clock: Clock) -> str:
    return f"srv_{uuid7_text(clock.ms, secrets.token_bytes(16))}"


async def beside_the_log(parts: Parts) -> None:
    """Whatever the test did, what stands beside the log is what the log makes of it."""
    for tenant in await parts.store.tenants():
        found = await parts.store.differences(tenant, relisting(tenant), 10)
        assert not found, found


@asynccontextmanager
async def desk_on(
    path: Path,
    tools: Tools,
    runner: ToolRunner,
    clock: Clock,
    *,
    templates: Sequence[Template] = (),
    policies: PolicySets | None = None,
    limits: Limits | None = None,
    tracing: Tracing | None = None,
    store: Store | None = None,
    driver: Driver = EmbeddedEngine,
) -> AsyncIterator[Desk]:
    """A desk on the database file ``path``, enlisted as a living process for as long as the block lasts."""
    store = store or SqliteStore(path)
    await store.open()
    parts = Parts(
        store=store,
        sealer=Sealer(SEALING, "k1"),
        evaluator=policies or PolicySets(None, None, tools.all()),
        tools=tools,
        runner=runner,
        templates=Published.of(*templates),
        clock=clock,
        entropy=lambda: secrets.token_bytes(32),
        instance=new_instance(clock),
        tracing=tracing or Telemetry(),
        limits=limits or Limits(),
    )
    gate = Gate(parts)
    try:
        await store.enlist(parts.instance)
        yield Desk(store, gate, Queries(gate), driver(gate), Checkpointer(store, signer_of), clock)
        await gate.close()
        await beside_the_log(parts)
    finally:
        await gate.close()
        await store.close()
