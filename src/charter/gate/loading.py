"""States from the log: a cache in memory, a snapshot beside the log, and the fold that both are caches of."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from charter.errors import CharterError
from charter.model import events as ev
from charter.store.port import Sealed, Store, StoredEvent
from charter.store.sealing import Sealer
from charter.workflows.state import SHAPE, State, fold

_STATES: TypeAdapter[State] = TypeAdapter(State)


def event_of(stored: StoredEvent) -> ev.Event:
    """A stored event as the fold reads it."""
    envelope: dict[str, Any] = orjson.loads(stored.leaf)
    data = ev.parse_payload(stored.type, envelope["data"])
    return ev.Event(type=stored.type, time=stored.time, data=data)


def _snapshot_name(workflow_id: str, version: int) -> str:
    return f"snapshot:{workflow_id}:{version}:{SHAPE}"


class States:
    """Loads and remembers states; a remembered one may be stale, and an append on it then meets a version conflict."""

    def __init__(self, store: Store, sealer: Sealer, *, capacity: int, snapshot_every: int) -> None:
        self._store = store
        self._sealer = sealer
        self._capacity = capacity
        self._every = snapshot_every
        self._known: OrderedDict[tuple[str, str], State] = OrderedDict()
        self._snapshots: set[asyncio.Task[None]] = set()

    def remember(self, state: State) -> None:
        """Keep the newest state of a run."""
        key = (state.tenant, state.workflow_id)
        known = self._known.get(key)
        if known is not None and known.version > state.version:
            return
        self._known[key] = state
        self._known.move_to_end(key)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)

    def forget(self, tenant: str, workflow_id: str) -> None:
        """Load it anew next time."""
        self._known.pop((tenant, workflow_id), None)

    async def cached(self, tenant: str, workflow_id: str) -> State | None:
        """The remembered state, perhaps stale, else the loaded one; None when there is no such run."""
        known = self._known.get((tenant, workflow_id))
        return known if known is not None else await self.fresh(tenant, workflow_id)

    async def fresh(self, tenant: str, workflow_id: str) -> State | None:
        """The state with everything acknowledged before the call."""
        state = self._known.get((tenant, workflow_id)) or await self._snapshot(tenant, workflow_id)
        if state is None:
            state = State(workflow_id=workflow_id, tenant=tenant)
        stored = await self._store.load(tenant, workflow_id, after_version=state.version)
        state = fold(state, (event_of(item) for item in stored))
        if state.version == 0:
            return None
        self.remember(state)
        return state

    async def _snapshot(self, tenant: str, workflow_id: str) -> State | None:
        found = await self._store.snapshot(tenant, workflow_id, SHAPE)
        if found is None:
            return None
        key_id, _, blob = found[1].partition(b"\0")
        sealed = Sealed(_snapshot_name(workflow_id, found[0]), key_id.decode("ascii", "replace"), blob)
        try:
            return _STATES.validate_json(self._sealer.open(tenant, sealed))
        except (ValidationError, CharterError):
            return None  # a cache that cannot be read, or that others wrote, is no cache; the log has it all

    def snapshot_if_due(self, before: State, after: State) -> None:
        """Write a snapshot in the background when the run has grown by so many events."""
        if before.version // self._every == after.version // self._every:
            return
        task = asyncio.create_task(self._write(after))
        self._snapshots.add(task)
        task.add_done_callback(self._snapshots.discard)

    async def _write(self, state: State) -> None:
        # Sealed, so that whoever can write the database cannot put a decision into a state that the log does not hold.
        name = _snapshot_name(state.workflow_id, state.version)
        sealed = self._sealer.seal(state.tenant, name, _STATES.dump_json(state))
        data = sealed.key_id.encode("ascii") + b"\0" + sealed.blob
        await self._store.put_snapshot(state.tenant, state.workflow_id, state.version, SHAPE, data)

    async def settle(self) -> None:
        """Wait for snapshots that are being written."""
        while self._snapshots:
            await asyncio.gather(*tuple(self._snapshots), return_exceptions=True)
