"""The embedded engine: drives runs over time in the server's own process.

It looks only at what is due or soon will be (an indexed query), sets an alarm for each of the latter, sleeps until there is
more to see, and wakes when a run moved, in this process or in another one on the same store. Everything it does is a command
through the gate; the log alone says what is left to do, so a restart needs nothing but the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import traceback
from collections.abc import Callable, Sequence
from functools import partial

from charter.engine.alarms import Alarms
from charter.engine.turns import Turns
from charter.errors import CharterError
from charter.gate import Gate
from charter.gate.parts import NO_CONTEXT
from charter.model import commands as cmd
from charter.model.events import ENDINGS
from charter.model.principal import service
from charter.model.times import rfc3339, unix_ms_of
from charter.store.port import Due
from charter.workflows.draft import Draft

logger = logging.getLogger(__name__)

WATCH_SECONDS = 0.25
"""How long another process's commit may stay unseen; one cheap query each time, whatever the number of runs."""

STUCK_SECONDS = 5.0
"""A run that is due and does not move is looked at again after this long."""

AHEAD_MS = 250
"""What falls due within so many milliseconds has an alarm of its own already when its time comes."""

BATCH = 100
MOST_AT_ONCE = 1_000
"""So many runs are looked at or wait for a slot; the others wait on disk."""

BEGUN_A_TURN = 16
"""So many are begun in one turn of the event loop, that a burst of them and what callers want go on side by side."""

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
        self._turns = Turns(BEGUN_A_TURN)
        self._alarms = Alarms(gate.parts.clock, self._ring)
        self._tasks: set[asyncio.Task[None]] = set()
        self._driving: dict[Due, asyncio.Task[None]] = {}
        """Those of the tasks that have begun no call yet: a run whose call goes on may be due again meanwhile."""
        self._resting: dict[Due, float] = {}
        self._relay_wanted: Callable[[], bool] = lambda: False
        self._seen: dict[str, int] = {}
        gate.watchers.append(self._told)

    def _told(self, tenant: str, stream: str, types: Sequence[str]) -> None:
        if not types:  # somebody wants it looked at now, also when it did not move just before
            self._resting = {
                due: until for due, until in self._resting.items() if (due.tenant, due.workflow_id) != (tenant, stream)
            }
        begun = "TOOL_INVOKE" in types and self._driving.pop(Due(tenant, stream), None) is not None
        if not types or begun or not _MOVES.isdisjoint(types):
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
        self._gate.driving.carrier = self
        try:
            while True:
                self._wake.clear()
                try:
                    token = await self._sleep(token, await self._drive_due(AHEAD_MS))
                except CharterError as error:  # a store that does not answer now will answer again
                    logger.warning("the engine waits for the store: %s", error.error_code)
                    await asyncio.sleep(1)
        finally:
            self._gate.driving.carrier = None
            self._alarms.clear()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Drive everything that is due now and wait for it; for tests and for one-off commands."""
        while True:
            await self._drive_due()
            if not self._tasks:
                return
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def relay_when(self, wanted: Callable[[], bool]) -> None:
        """Tell this process's watchers of other processes' commits while ``wanted`` says so."""
        self._relay_wanted = wanted

    async def _drive_due(self, ahead_ms: int = 0) -> int | None:
        """Take on what is due, and set alarms for what will be so soon.

        Answers when there will be more to see, by the gate's clock, or None when somebody will tell.
        """
        await self._gate.effects.record_left()
        if self._gate.under_way.stopping or len(self._driving) > MOST_AT_ONCE - BATCH:
            return None
        now = self._gate.parts.clock()
        clock = asyncio.get_running_loop().time()
        self._resting = {due: until for due, until in self._resting.items() if until > clock}
        most = BATCH + len(self._driving) + len(self._resting)
        reached, horizon = rfc3339(now), rfc3339(now + ahead_ms)
        found = await self._store.due(horizon, most)
        known = self._driving.keys() | self._resting.keys()
        self._alarms.set(due for due in found if due.wake_at > reached and due not in known)
        for due in found:
            if due.wake_at <= reached and due not in known:
                self._begin(due, rests=True)
        if len(found) == most:
            return max(now, unix_ms_of(found[-1].wake_at))
        # Those that are due already are driven or rest: each tells of its end, so nobody asks for them again.
        next_wake = await self._store.next_wake(horizon)
        return None if next_wake is None else unix_ms_of(next_wake) - ahead_ms

    def _ring(self, due: Due) -> None:
        if due not in self._driving:
            self._begin(due, rests=False)  # somebody may have been here before: then it need not be due any more

    def _begin(self, due: Due, *, rests: bool) -> None:
        task = asyncio.create_task(self._drive(due, rests))
        self._driving[due] = task
        self._tasks.add(task)
        task.add_done_callback(partial(self._done, due))

    def _done(self, due: Due, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._driving.get(due) is task:
            del self._driving[due]
        self._wake.set()

    # -- what a start has begun already

    async def room(self) -> bool:
        return not self._slots.locked() and await self._slots.acquire()

    def no_need(self) -> None:
        self._slots.release()

    def carry(self, begun: Sequence[Draft]) -> None:
        # Not in the context of who has started the run: what the engine does is shown in the run's own trace.
        task = asyncio.create_task(self._carry(begun), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, begun: Sequence[Draft]) -> None:
        try:
            await self._gate.driving.run(begun, NO_CONTEXT)
        except Exception as error:
            self._told_of(begun[0].state.workflow_id, error)
        finally:
            self._slots.release()
            self._wake.set()

    # -- what is due

    async def _drive(self, due: Due, rests: bool) -> None:
        try:
            await self._turns.enter()
            before = await self._store.version(due.tenant, due.workflow_id)
            await self._advance(due)
            moved = await self._store.version(due.tenant, due.workflow_id) != before
        except Exception as error:
            self._told_of(due.workflow_id, error)
            moved = False
        if rests and not moved:
            self._resting[due] = asyncio.get_running_loop().time() + STUCK_SECONDS

    def _told_of(self, workflow_id: str, error: Exception) -> None:
        if not isinstance(error, CharterError):
            # The kind and the places, never the text: it may quote an argument.
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("workflow %s could not be driven: %s\n%s", workflow_id, type(error).__name__, where)
        elif not self._gate.under_way.stopping:
            logger.warning("workflow %s could not be driven: %s", workflow_id, error.error_code)

    async def _advance(self, due: Due) -> None:
        principal, workflow_id = service("engine", due.tenant), due.workflow_id
        look = cmd.AdvanceWorkflow(workflow_id=workflow_id)
        if self._slots.locked() and not await self._gate.handle(principal, look):
            return  # the times of a run do not wait for the calls of others
        async with self._slots:
            steps = await self._gate.handle(principal, cmd.AdvanceWorkflow(workflow_id=workflow_id, run_steps=True))
            runs = [self._gate.handle(principal, cmd.RunStep(workflow_id=workflow_id, step_id=step)) for step in steps]
            for outcome in await asyncio.gather(*runs, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome

    async def _sleep(self, token: int, until_ms: int | None) -> int:
        """Until then, a commit here or by another process; answers the newest token of the others."""
        while not self._wake.is_set():
            with contextlib.suppress(TimeoutError):
                # wait_for loses a cancellation that comes with the wake-up
                async with asyncio.timeout(self._nap(until_ms)):
                    await self._wake.wait()
            await self._gate.give_up_waiting()
            newest = await self._store.others_token()
            if newest != token:
                await self._relay()
                return newest
            if self._resting or self._nap(until_ms) <= 0:
                return newest
        return token

    def _nap(self, until_ms: int | None) -> float:
        """Seconds, in short ones: the clock may be set, and others commit."""
        if until_ms is None:
            return WATCH_SECONDS
        return min(WATCH_SECONDS, max(0.0, (until_ms - self._gate.parts.clock()) / 1000))

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
