"""Reading the tenant's log for commands: pages of events, one event by its id, who may look."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from charter.errors import Denied, NotFound
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter
    from charter.store.port import StoredEvent

PAGE = 1000


def demand_audit(charter: Charter, caller: Principal) -> None:
    """The policy says who may read the tenant's record. Raises ``Denied``."""
    if not charter.queries.may(caller, "audit.read"):
        raise Denied(
            f"The policy does not let {caller.id} read the record.",
            code="not_permitted",
            next_step="Use a credential with the role auditor, operator or admin.",
        )


def event_of(stored: StoredEvent) -> dict[str, Any]:
    """The event as recorded. Damaged bytes are shown as what the row says of them."""
    try:
        event = orjson.loads(stored.leaf)
        if isinstance(event, dict) and isinstance(event.get("data"), dict):
            return event
    except orjson.JSONDecodeError:
        pass
    return {
        "id": stored.id,
        "seq": stored.seq,
        "stream": stored.stream,
        "version": stored.version,
        "type": stored.type,
        "time": stored.time,
        "actor": {},
        "data": {"damaged": "The event's bytes cannot be read; run `charter audit verify`."},
    }


async def pages(
    charter: Charter, tenant: str, from_seq: int = 0, *, types: Sequence[str] = ()
) -> AsyncIterator[list[dict[str, Any]]]:
    """The tenant's events in order, page by page, up to now."""
    while stored := await charter.store.log(tenant, from_seq, PAGE, types):
        yield [event_of(item) for item in stored]
        from_seq = stored[-1].seq + 1


async def find_stored(charter: Charter, tenant: str, wanted: str) -> StoredEvent:
    """One event by sequence number or id. Raises ``NotFound``.

    Ids hold their time and events are nearly in the order of time, so a search by halves comes near, and the pages
    around it have it; should clocks have jumped, the whole log is read.
    """
    size = (await charter.store.head(tenant)).size
    if wanted.isdecimal():
        found = await charter.store.log(tenant, int(wanted), 1) if int(wanted) < size else []
        if found and found[0].seq == int(wanted):
            return found[0]
        raise NotFound(f"There is no event {wanted}; the log has {size}.", next_step="See `charter audit log`.")
    near = await _near(charter, tenant, wanted, size)
    starts = sorted(range(0, size, PAGE), key=lambda start: abs(start + PAGE // 2 - near))
    for start in starts:
        for item in await charter.store.log(tenant, start, PAGE):
            if item.id == wanted:
                return item
    raise NotFound(f"There is no event {wanted}.", next_step="See `charter audit log`.")


async def find_event(charter: Charter, tenant: str, wanted: str) -> dict[str, Any]:
    """The same, as recorded."""
    return event_of(await find_stored(charter, tenant, wanted))


async def _near(charter: Charter, tenant: str, wanted: str, size: int) -> int:
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        found = await charter.store.log(tenant, middle, 1)
        if not found:
            return middle
        if found[0].id < wanted:
            low = middle + 1
        else:
            high = middle
    return low
