"""Reading what leaves: the signals after a place in the tenant's log, in its order, which is each run's own order too."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import orjson

from charter.gate.resending import RESENT, given_up
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.model.signal import Signal
from charter.store.port import StoredEvent
from charter.workflows.calls import denied
from charter.workflows.facts import ledger_facts
from charter.workflows.outgoing import TYPES, Origin, origin_of, outgoing

if TYPE_CHECKING:
    from charter.gate.gate import Gate

PAGE = 200
WATCH_SECONDS = 1.0
"""How long another process's commit may stay unseen by those who wait for signals."""
_REMEMBERED = 5_000
_READ = (*TYPES, RESENT)
_TYPES = frozenset(_READ)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A signal, the number of its event in the tenant's log, and whether its run is a dry run. ``only``: it is sent again, for
    this subscriber alone, and ``seq`` is where that is on record."""

    seq: int
    signal: Signal
    dry_run: bool
    only: str | None = None


class Outlet:
    """Reads outgoing signals for one gate, and tells when there may be more."""

    def __init__(self, gate: Gate) -> None:
        self._gate, self._store = gate, gate.parts.store
        self._origins: OrderedDict[tuple[str, str], Origin] = OrderedDict()
        self._waiting: set[asyncio.Event] = set()
        self._count = 0
        gate.watchers.append(self._told)

    def _told(self, _tenant: str, _stream: str, types: Sequence[str]) -> None:
        if not _TYPES.isdisjoint(types):
            self._count += 1
            for event in self._waiting:
                event.set()

    async def more(self, token: int, seconds: float = WATCH_SECONDS) -> int:
        """Wait until this process has put something on record that leaves since ``token``, or for so long that another's
        is seen; answers the next token. A tool call, which nobody is told of, wakes nobody.
        """
        if self._count == token:
            event = asyncio.Event()
            self._waiting.add(event)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):  # wait_for loses a cancellation that comes with the wake-up
                        await event.wait()
            finally:
                self._waiting.discard(event)
        return self._count

    async def head(self, tenant: str) -> int:
        """The place after the newest event."""
        return (await self._store.head(tenant)).size

    async def after(self, tenant: str, seq: int, limit: int = PAGE) -> tuple[list[Outgoing], int]:
        """The signals of the events from ``seq`` on, and the place to go on from. For Charter itself: nobody is asked."""
        head = await self.head(tenant)
        if seq >= head:
            return [], seq
        rows = await self._store.log(tenant, seq, limit, _READ)
        found = [item for row in rows if (item := await self._item(tenant, row)) is not None]
        return found, rows[-1].seq + 1 if len(rows) == limit else max(head, rows[-1].seq + 1 if rows else 0)

    async def _item(self, tenant: str, row: StoredEvent) -> Outgoing | None:
        if row.type == RESENT:
            data = orjson.loads(row.leaf)["data"]
            first = await self._store.log(tenant, data["seq"], 1, TYPES)
            item = await self._item(tenant, first[0]) if first and first[0].seq == data["seq"] else None
            return replace(item, seq=row.seq, only=data["subscriber"]) if item is not None else None
        origin = await self._origin(tenant, row.stream)
        if origin is None:
            return None
        return Outgoing(row.seq, outgoing(orjson.loads(row.leaf), origin), origin.dry_run)

    async def read(self, principal: Principal, seq: int | None = None, limit: int = PAGE) -> tuple[list[Outgoing], int]:
        """The same for a caller, within its tenant; ``seq`` None: only the place of the newest. Raises ``Denied``.

        Who may read the record (``audit.read``) may read what is told of it. What is sent again to one subscriber is not
        told again here.
        """
        self._demand(principal)
        if seq is None:
            return [], await self.head(principal.tenant)
        found, place = await self.after(principal.tenant, seq, limit)
        return [item for item in found if item.only is None], place

    async def newest(self, principal: Principal, count: int = 20) -> tuple[list[Outgoing], int]:
        """The last few signals, and the place after them. Raises ``Denied``."""
        _, head = await self.read(principal)
        found: list[Outgoing] = []
        begin, window = head, 2 * count
        while begin > 0 and len(found) < count:
            begin, window = max(0, begin - window), window * 4
            found = []
            place = begin
            while place < head:
                some, place = await self.after(principal.tenant, place)
                found += [item for item in some if item.only is None]
        return [item for item in found[-count:] if item.seq < head], head

    async def undelivered(self, principal: Principal) -> list[JsonObject]:
        """The deliveries that were given up and not sent again since, in order. Raises ``Denied``."""
        self._demand(principal)
        return await given_up(self._store, principal.tenant)

    def _demand(self, principal: Principal) -> None:
        decision = self._gate.parts.evaluator.evaluate(ledger_facts(principal, "audit.read"))
        if decision.verdict != "permit":
            raise denied(decision)

    async def _origin(self, tenant: str, stream: str) -> Origin | None:
        key = (tenant, stream)
        known = self._origins.get(key)
        if known is None:
            first = await self._store.load(tenant, stream, limit=1)
            if not first or first[0].type != "WORKFLOW_STARTED":
                return None
            known = self._origins[key] = origin_of(orjson.loads(first[0].leaf))
            if len(self._origins) > _REMEMBERED:
                self._origins.popitem(last=False)
        return known
