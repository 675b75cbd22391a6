"""The one composition root: settings in, a running Charter out. Nothing else wires rooms together."""

from __future__ import annotations

import io
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from charter.engine.checkpoints import Checkpointer
from charter.engine.embedded import EmbeddedEngine
from charter.engine.port import Engine
from charter.engine.schedules import Scheduler
from charter.errors import CharterError
from charter.gate import Gate, Limits, Parts, Queries
from charter.gate.outgoing import Outlet
from charter.gate.parts import ToolRunner, Tools
from charter.gate.publishing import published
from charter.manifests.built_in import BUILT_IN
from charter.model.ids import PREFIXES, uuid7_text
from charter.model.tool import Quarantine, ToolManifest
from charter.server.kept_notes import KeptNotes
from charter.server.key_rotation import PresentKey
from charter.server.keys import Keys, load_keys
from charter.server.late_policies import LatePolicies
from charter.server.pending import PendingApprovals
from charter.server.secret_store import secret_file
from charter.server.settings import process_environment
from charter.server.settings_model import Settings
from charter.server.telemetry import Telemetry
from charter.server.templates import SHARE, PublishedTemplates, missing
from charter.store.opening import open_store
from charter.store.port import Store
from charter.store.sealing import Sealer
from charter.tools.folder import fingerprint, load_folder
from charter.tools.unconnected import UnconnectedRunner, UnconnectedTools

if TYPE_CHECKING:
    from charter.engine.outbox import Outbox
    from charter.server.evaluator import PolicySets
    from charter.tools.registry import Registry

logger = logging.getLogger(__name__)

STARTING_SECONDS = 2.0
"""How long a server waits for its upstreams before it answers."""
CHECKING_SECONDS = 15.0
"""How long a command does that asks how they are."""


class GovernedTools:
    """The registry, and Charter's own tools, as the gate sees them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(self, name: str) -> ToolManifest | None:
        """The manifest of this tool."""
        entry = self._registry.find(name)
        return entry.manifest if entry is not None else BUILT_IN.get(name)

    def quarantine(self, name: str) -> Quarantine | None:
        """Why it may not be called, if so."""
        entry = self._registry.find(name)
        return entry.quarantine if entry is not None else None

    def all(self) -> tuple[ToolManifest, ...]:
        """Every governed tool, by name."""
        return (*(entry.manifest for entry in self._registry.entries()), *BUILT_IN.values())


@dataclass(slots=True)
class Charter:
    """A Charter that runs: what doors and commands need of it. ``registry`` is None in a process that calls no tools."""

    settings: Settings
    keys: Keys
    store: Store
    registry: Registry | None
    late_policies: LatePolicies
    gate: Gate
    queries: Queries
    engine: Engine
    checkpointer: Checkpointer
    telemetry: Telemetry
    outlet: Outlet

    @property
    def policies(self) -> PolicySets:
        """The policy sets in force."""
        return self.late_policies.sets

    async def drain(self) -> None:
        """Before the doors close: take nothing new, and wait for running calls as long as is configured."""
        seconds = self.settings.server.drain_seconds
        if left := await self.gate.drain(seconds):
            logger.warning("Charter stops although %d commands are still under way after %d s.", left, seconds)


def open_registry(settings: Settings, keys: Keys) -> Registry:
    """The governed tools of the manifests folder; connecting begins when its ``running`` is entered."""
    from charter.tools.connecting import Sources
    from charter.tools.registry import Registry

    folder = settings.tools.manifests
    sources = Sources(environment=process_environment(), secrets=secret_file(settings, keys))
    if folder is None or not folder.is_dir():
        return Registry(tuple, sources)
    return Registry(lambda: load_folder(folder), sources, fingerprint=lambda: fingerprint(folder))


def now_ms() -> int:
    """The clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_instance() -> str:
    """This process's name among those that share the store."""
    return f"{PREFIXES['instance']}_{uuid7_text(now_ms(), secrets.token_bytes(16))}"


def kept_notes(settings: Settings) -> KeptNotes:
    """The newest signed checkpoints, beside the keys."""
    return KeptNotes(settings.keys_folder / "checkpoints")


def publisher(path: Path | None) -> Callable[[str, bytes], None] | None:
    """Appends signed checkpoints to a file, which belongs somewhere that this machine's administrator does not control."""
    if path is None:
        return None

    def publish(_tenant: str, note: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        apart = b"\n\n" if _torn(path) else b""
        with path.open("ab") as file:
            file.write(apart + note + b"\n")
            file.flush()
            os.fsync(file.fileno())

    return publish


def _torn(path: Path) -> bool:
    """Does the file end in the middle of a note, by a crash or a full disk? Of a pipe, or where none may read, nobody knows."""
    try:
        with path.open("rb") if path.is_file() else io.BytesIO() as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 2))
            return file.read() not in (b"", b"\n\n")
    except OSError:
        return False


def _policies_follow_tools(registry: Registry, policies: PolicySets, tools: Tools) -> None:
    def follow() -> None:
        try:
            policies.reload(tools.all())
        except CharterError as error:
            logger.error("the policies were not reloaded, the old ones stay in force: %s", error.message)

    registry.subscribe(follow)


@asynccontextmanager
async def running(
    settings: Settings, *, connect: bool = True, drive: bool = True, clock: Callable[[], int] = now_ms
) -> AsyncIterator[Charter]:
    """A whole Charter for as long as the block lasts.

    ``connect`` keeps the upstreams connected; ``drive`` runs the engine and the checkpoints. The command line needs neither:
    it decides and reads, and leaves running to the server. Raises ``Misconfigured`` where the configuration does not hold;
    a process that calls no tools reads its policies, and hears of what is wrong with them, when it first needs them.
    """
    keys = load_keys(settings.keys_folder)
    telemetry = Telemetry.configure(settings)
    store = open_store(settings.database_url)
    async with AsyncExitStack() as stack:
        stack.callback(telemetry.shutdown)
        await store.open()
        stack.push_async_callback(store.close)
        charter = _wire(settings, keys, store, telemetry, clock, connect=connect)
        if drive:  # the very last: after all that the parts below write when they end
            stack.push_async_callback(charter.checkpointer.sign_last)
        stack.push_async_callback(charter.gate.close)
        await store.enlist(charter.gate.parts.instance)
        if charter.registry is not None:
            await stack.enter_async_context(charter.registry.running())
            # Clients give a server they start five to ten seconds: a slow upstream is waited for by the calls that want it.
            await charter.registry.wait_ready(STARTING_SECONDS if drive else CHECKING_SECONDS)
        if drive:
            await stack.enter_async_context(_driven(charter))
        yield charter


@dataclass(frozen=True, slots=True)
class _ToolSide:
    tools: Tools
    runner: ToolRunner
    registry: Registry | None = None


def _tool_side(settings: Settings, keys: Keys, *, connect: bool) -> _ToolSide:
    """Loads what it takes to connect, and how to run a tool, only where that is wanted: it is most of the start."""
    if not connect:
        folder = settings.tools.manifests
        return _ToolSide(UnconnectedTools(load_folder(folder) if folder is not None else ()), UnconnectedRunner())
    from charter.server.fixture_file import read_fixtures
    from charter.server.outgoing import outbound_tools
    from charter.tools.runner import Runner

    registry = open_registry(settings, keys)
    own = outbound_tools(settings, keys, secret_file(settings, keys))
    runner = Runner(registry, own, read_fixtures(settings.tools.fixtures))
    return _ToolSide(GovernedTools(registry), runner, registry)


def _unavailable(registry: Registry | None, tool: str) -> str | None:
    """Why the upstream of a tool does not answer; what a process that calls none does not know."""
    entry = registry.find(tool) if registry is not None else None
    return entry.unavailable if entry is not None else None


def _wire(
    settings: Settings, keys: Keys, store: Store, telemetry: Telemetry, clock: Callable[[], int], *, connect: bool
) -> Charter:
    side = _tool_side(settings, keys, connect=connect)
    policies = LatePolicies(settings.policies.folder, settings.policies.shadow, side.tools)
    if side.registry is not None:
        _policies_follow_tools(side.registry, policies.sets, side.tools)
    parts = Parts(
        store=store,
        sealer=Sealer(keys.sealing, keys.sealing_current),
        evaluator=policies if side.registry is None else policies.sets,
        tools=side.tools,
        runner=side.runner,
        templates=PublishedTemplates(settings.workflows.templates),
        clock=clock,
        entropy=lambda: secrets.token_bytes(32),
        instance=new_instance(),
        tracing=telemetry,
        unavailable=partial(_unavailable, side.registry),
        limits=Limits(
            result_bytes=settings.server.result_limit_bytes,
            grant_uses=settings.grants.max_uses,
            grant_seconds=settings.grants.max_hours * 3600,
            batch_at_once=settings.workflows.batch_at_once,
        ),
    )
    gate = Gate(parts)
    present = PresentKey(keys)
    checkpointer = Checkpointer(
        store,
        present.signer,
        every_events=settings.audit.checkpoint_events,
        every_seconds=settings.audit.checkpoint_seconds,
        publish=publisher(settings.audit.publish_file),
        kept=kept_notes(settings),
        trusted_of=present.trusted,
    )
    return Charter(
        settings=settings,
        keys=keys,
        store=store,
        registry=side.registry,
        late_policies=policies,
        gate=gate,
        queries=Queries(gate),
        engine=EmbeddedEngine(gate),
        checkpointer=checkpointer,
        telemetry=telemetry,
        outlet=Outlet(gate),
    )


def _outbox(charter: Charter) -> Outbox:
    from charter.server.leaving import build_outbox

    return build_outbox(charter.gate, charter.outlet, charter.settings, secret_file(charter.settings, charter.keys))


async def _tell_what_is_missing(charter: Charter) -> None:
    tenant = charter.settings.tenant
    lost = missing(charter.settings.workflows.templates, await published(charter.store, tenant))
    if lost is not None:
        logger.warning("%s. %s", lost, SHARE)


@asynccontextmanager
async def _driven(charter: Charter) -> AsyncIterator[None]:
    await charter.engine.recover()
    await _tell_what_is_missing(charter)
    outbox = _outbox(charter)
    await outbox.prepare()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(charter.engine.run)
        tasks.start_soon(charter.checkpointer.run)
        tasks.start_soon(outbox.run)
        tasks.start_soon(Scheduler(charter.gate, charter.settings.tenant).run)
        if charter.telemetry.enabled:
            pending = PendingApprovals(charter.store)
            charter.telemetry.watch_pending_approvals(lambda: pending.count)
            tasks.start_soon(pending.run)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
