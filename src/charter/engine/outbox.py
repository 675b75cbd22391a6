"""Delivering what leaves: each subscriber has a place in each tenant's log, moved on after delivery, so at least once.

The event's row is the outbox, written in the transaction that made it; nothing is written twice and a call costs nothing
more. One process of those that share a store delivers (a duty that ends with the process); another takes over. Each
subscriber is driven by a task of its own, one signal after the other, so a slow one stalls no other and each run's order
is kept. A signal that a subscriber will not take is put on record and left behind.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio

from charter.errors import CharterError
from charter.gate import Gate
from charter.gate.outgoing import Outgoing, Outlet
from charter.model import commands as cmd
from charter.model.principal import service

logger = logging.getLogger(__name__)

DUTY = "outbox"
STANDBY_SECONDS = 2.0
"""How long after the delivering process's end another takes over."""
STUCK_SECONDS = 5.0
KEEP_EVERY = 1_000
"""So many events without anything to deliver move the kept place on."""


class UndeliveredError(Exception):
    """A subscriber did not take a signal. ``retry_after``: seconds until it may, as it said; ``final``: never again."""

    def __init__(self, reason: str, *, retry_after: float = 0, final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.retry_after, self.final = reason, retry_after, final


class Subscriber(Protocol):
    """Who is told. ``name`` is that of its kept place, so it must not change."""

    @property
    def name(self) -> str: ...

    @property
    def attempts(self) -> int | None:
        """How often a signal is tried before it is given up; None: until it is taken."""
        ...

    def pause(self, attempt: int) -> float:
        """Seconds between this attempt, counted from 1, and the next."""
        ...

    async def deliver(self, tenant: str, item: Outgoing) -> bool:
        """Hand the signal over. False: it is not for this subscriber. Raises ``UndeliveredError``, ``CharterError``."""
        ...


class Outbox:
    """Drives the subscribers of each tenant; ``everywhere`` are those of all tenants."""

    def __init__(
        self,
        gate: Gate,
        outlet: Outlet,
        *,
        everywhere: Sequence[Subscriber] = (),
        by_tenant: Mapping[str, Sequence[Subscriber]] | None = None,
    ) -> None:
        self._gate, self._outlet, self._store = gate, outlet, gate.parts.store
        self._everywhere, self._by_tenant = tuple(everywhere), dict(by_tenant or {})
        self._prepared = False

    async def prepare(self) -> None:
        """Give everybody a place who has none; before the doors open, so that nothing is missed from the first call on."""
        for tenant in {*await self._store.tenants(), *self._by_tenant}:
            for each in self._of(tenant):
                await self._place(each, tenant, new=False)
        self._prepared = True

    async def run(self) -> None:
        """Deliver until cancelled, as soon as it is this process's turn."""
        if not self._prepared:
            await self.prepare()
        while True:
            if await self._store.take_duty(DUTY):
                break
            await anyio.sleep(STANDBY_SECONDS)
        known: set[str] = set()
        token = -1
        async with anyio.create_task_group() as tasks:
            while True:
                try:
                    for tenant in {*await self._store.tenants(), *self._by_tenant} - known:
                        places = [await self._place(each, tenant, new=True) for each in self._of(tenant)]
                        for each, place in zip(self._of(tenant), places, strict=True):
                            tasks.start_soon(self._drive, each, tenant, place)
                        known.add(tenant)
                except CharterError as error:  # a store that does not answer now will answer again
                    logger.warning("the outbox waits for the store: %s", error.error_code)
                token = await self._outlet.more(token)

    def _of(self, tenant: str) -> tuple[Subscriber, ...]:
        return (*self._everywhere, *self._by_tenant.get(tenant, ()))

    async def _place(self, subscriber: Subscriber, tenant: str, *, new: bool) -> int:
        """The kept place. Who comes for the first time is told of what happens from now on: a tenant's all, if it is new."""
        kept = await self._store.place(tenant, subscriber.name)
        if kept is None:
            kept = 0 if new else await self._outlet.head(tenant)
            await self._store.move_place(tenant, subscriber.name, kept)
        return kept

    async def _drive(self, subscriber: Subscriber, tenant: str, place: int) -> None:
        kept, token = place, -1
        while True:
            try:
                found, following = await self._outlet.after(tenant, place)
                for item in found:
                    if item.only in (None, subscriber.name) and await self._deliver(subscriber, tenant, item):
                        kept = item.seq + 1
                        await self._store.move_place(tenant, subscriber.name, kept)
                    place = item.seq + 1
                place = following
                if place - kept >= KEEP_EVERY:
                    kept = place
                    await self._store.move_place(tenant, subscriber.name, kept)
                if not found:
                    token = await self._outlet.more(token)
            except CharterError as error:  # the store does not answer now; nothing was moved on, so nothing is lost
                logger.warning("%s waits: %s", subscriber.name, error.error_code)
                await anyio.sleep(1)
            except Exception as error:
                # The kind and the places, never the text: it may quote what is delivered.
                where = "".join(traceback.format_tb(error.__traceback__))
                logger.error("%s cannot go on: %s\n%s", subscriber.name, type(error).__name__, where)
                await anyio.sleep(STUCK_SECONDS)

    async def _deliver(self, subscriber: Subscriber, tenant: str, item: Outgoing) -> bool:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await subscriber.deliver(tenant, item)
            except UndeliveredError as failure:
                last = failure.final or (subscriber.attempts is not None and attempt >= subscriber.attempts)
                level = logging.WARNING if last or attempt == 1 else logging.INFO
                logger.log(level, "%s did not take %s: %s", subscriber.name, item.signal.id, failure.reason)
                if last:
                    await self._give_up(subscriber, tenant, item, attempt, failure.reason)
                    return True
                await anyio.sleep(max(subscriber.pause(attempt), failure.retry_after))

    async def _give_up(self, subscriber: Subscriber, tenant: str, item: Outgoing, attempts: int, reason: str) -> None:
        command = cmd.RecordUndelivered(
            subscriber=subscriber.name,
            signal_id=item.signal.id,
            signal_type=item.signal.type,
            seq=item.seq,
            attempts=attempts,
            reason=reason[:500],
        )
        await self._gate.handle(service("outbox", tenant), command)


class Inside:
    """The tenant's own runs and templates: what one run says wakes and starts others, through the gate.

    A dry run wakes and starts nothing. What the policy denies is on record and passes.
    """

    name = "inside"
    attempts = None

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def pause(self, attempt: int) -> float:
        return float(min(60, 2 ** min(attempt, 6)))

    async def deliver(self, tenant: str, item: Outgoing) -> bool:
        parts = self._gate.parts
        wanted = parts.templates.for_signal(item.signal.type) or await parts.store.waiting_for(
            tenant, item.signal.type, "", 1
        )
        if item.dry_run or not wanted:
            return False
        try:
            await self._gate.handle(service("signals", tenant), cmd.SendSignal(signal=item.signal))
        except CharterError as error:
            if error.status >= 500:
                raise UndeliveredError(error.error_code) from None
            logger.warning("signal %s went nowhere inside: %s", item.signal.id, error.error_code)
        return True
