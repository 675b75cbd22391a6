"""The embedded engine: drives runs over time in the server's own process.

It looks only at what is due (an indexed query), sleeps until the next due time, and wakes when a run moved, in this process
or in another one on the same store. Everything it does is a command through the gate; the log alone says what is left to
do, so a restart needs nothing but the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from charter.errors import CharterError
from charter.gate import Gate
from charter.model import commands as cmd
from charter.model.events import ENDINGS
from charter.model.principal import service
from charter.model.times import rfc3339, unix_ms_of
from charter.store.port import Due

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
"""How long another process's commit may stay unseen; one cheap query each time, whatever the number of runs."""

STUCK_SECONDS = 5.0
"""A run that is due and does not move is looked at again after this long."""

BATCH = 100
RELAY_EVENTS = 10_000

_MOVES = frozenset(
    {
        *("WORKFLOW_RESUMED", "WORKFLOW_STEP", "AGENT_INVOKE", "CHILD_STARTED", "CHILD_ENDED"),
        *("APPROVAL_REQUESTED", "APPROVAL_DECISION", "APPROVAL_CLOSED"),
        *ENDINGS,
    }
)
"""The events after which something else may be due; an agent's tool call is not among them."""


class EmbeddedEngine:
    """Wakes runs, runs their steps, and settles what a dead process left behind."""

    def __init__(self, gate: Gate, *, steps_at_once: int = 16) -> None:
        self._gate = gate
        self._store = gate.parts.store
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(steps_at_once)
        self._driving: dict[Due, asyncio.Task[None]] = {}
        self._resting: dict[Due, float] = {}
        self._relay_wanted: Callable[[], bool] = lambda: False
        self._seen: dict[str, int] = {}
        gate.watchers.append(self._told)

    def _told(self, tenant: str, stream: str, types: Sequence[str]) -> None:
        if not types:  # somebody wants it looked at now, also when it did not move just before
            self._resting = {
                due: until for due, until in self._resting.items() if (due.tenant, due.workflow_id) != (tenant, stream)
            }
        if not types or not _MOVES.isdisjoint(types):
            self._wake.set()

    async def recover(self) -> int:
        """Settle the effects of processes that are gone (guarantee 5); answers how many there were."""
        found = await self._store.running_effects_of_dead_instances()
        for tenant, row in found:
            command = cmd.RecoverEffect(
                workflow_id=row.workflow_id, effect_id=row.effect_id, dead_instance=row.instance
            )
            try:
                await self._gate.handle(service("engine", tenant), command)
            except CharterError as error:
                logger.warning("effect %s could not be recovered: %s", row.effect_id, error.error_code)
        return len(found)

    async def run(self) -> None:
        """Drive until cancelled."""
        token = await self._store.others_token()
        await self._relay()
        try:
            while True:
                self._wake.clear()
                try:
                    await self._drive_due()
                    token = await self._sleep(token)
                except CharterError as error:  # a store that does not answer now will answer again
                    logger.warning("the engine waits for the store: %s", error.error_code)
                    await asyncio.sleep(1)
        finally:
            for task in self._driving.values():
                task.cancel()
            await asyncio.gather(*self._driving.values(), return_exceptions=True)

    async def settle(self) -> None:
        """Drive everything that is due now and wait for it; for tests and for one-off commands."""
        while True:
            await self._drive_due()
            if not self._driving:
                return
            await asyncio.gather(*self._driving.values(), return_exceptions=True)

    def relay_when(self, wanted: Callable[[], bool]) -> None:
        """Tell this process's watchers of other processes' commits while ``wanted`` says so."""
        self._relay_wanted = wanted

    async def _drive_due(self) -> None:
        await self._gate.effects.record_left()
        if self._gate.under_way.stopping:
            return
        now = rfc3339(self._gate.parts.clock())
        clock = asyncio.get_running_loop().time()
        self._resting = {due: until for due, until in self._resting.items() if until > clock}
        for due in await self._store.due(now, BATCH + len(self._driving) + len(self._resting)):
            if due not in self._driving and due not in self._resting:
                task = asyncio.create_task(self._drive(due))
                self._driving[due] = task
                task.add_done_callback(partial(self._done, due))

    def _done(self, due: Due, _task: asyncio.Task[None]) -> None:
        self._driving.pop(due, None)
        self._wake.set()

    async def _drive(self, due: Due) -> None:
        principal = service("engine", due.tenant)
        async with self._slots:
            try:
                before = await self._store.version(due.tenant, due.workflow_id)
                steps = await self._gate.handle(principal, cmd.AdvanceWorkflow(workflow_id=due.workflow_id))
                runs = [
                    self._gate.handle(principal, cmd.RunStep(workflow_id=due.workflow_id, step_id=s)) for s in steps
                ]
                for outcome in await asyncio.gather(*runs, return_exceptions=True):
                    if isinstance(outcome, BaseException):
                        raise outcome
                moved = await self._store.version(due.tenant, due.workflow_id) != before
            except CharterError as error:
                if not self._gate.under_way.stopping:
                    logger.warning("workflow %s could not be driven: %s", due.workflow_id, error.error_code)
                moved = False
            except Exception as error:
                # The kind and the places, never the text: it may quote an argument.
                where = "".join(traceback.format_tb(error.__traceback__))
                logger.error("workflow %s could not be driven: %s\n%s", due.workflow_id, type(error).__name__, where)
                moved = False
        if not moved:
            self._resting[due] = asyncio.get_running_loop().time() + STUCK_SECONDS

    async def _sleep(self, token: int) -> int:
        """Until something is due or another process appended; answers the newest token of the others."""
        while not self._wake.is_set():
            nap = await self._nap()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(nap):  # wait_for loses a cancellation that comes with the wake-up
                    await self._wake.wait()
            await self._gate.give_up_waiting()
            newest = await self._store.others_token()
            if newest != token:
                await self._relay()
                return newest
            if self._resting or await self._nap() <= 0:
                return newest
        return token

    async def _relay(self) -> None:
        """Tell this process's watchers of what other processes appended, when anybody wants to know.

        They may hear of this process's own events once more: nobody tells whose they are.
        """
        for tenant in await self._store.tenants():
            size = (await self._store.head(tenant)).size
            seen = max(self._seen.get(tenant, size), size - RELAY_EVENTS)
            if size > seen and self._relay_wanted():
                streams: dict[str, list[str]] = {}
                for stored in await self._store.log(tenant, seen, RELAY_EVENTS):
                    streams.setdefault(stored.stream, []).append(stored.type)
                for stream, types in streams.items():
                    for watcher in self._gate.watchers:
                        watcher(tenant, stream, types)
            self._seen[tenant] = size

    async def _nap(self) -> float:
        next_wake = await self._store.next_wake()
        if next_wake is None or self._resting:
            return WATCH_SECONDS
        left = (unix_ms_of(next_wake) - self._gate.parts.clock()) / 1000
        return min(WATCH_SECONDS, max(0.0, left))
