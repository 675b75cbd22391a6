"""How many approvals wait for people, for the gauge: counted only while telemetry is on, and only after commits."""

from __future__ import annotations

import asyncio
import logging

from charter.errors import CharterError
from charter.store.port import Filter, Page, Store

COUNT_SECONDS = 5.0
"""How old the number may be; metrics are exported once a minute by default."""
_PAGE = 1000

logger = logging.getLogger(__name__)


class PendingApprovals:
    """``count`` is over all tenants and processes of the store; reading it costs nothing and never blocks."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._token: int | None = None
        self.count = 0

    async def refresh(self) -> None:
        """Count anew if anything was committed since the last time. Raises what the store raises."""
        token = await self._store.change_token()
        if token != self._token:
            self.count = sum([await self._of(tenant) for tenant in await self._store.tenants()])
            self._token = token

    async def _of(self, tenant: str) -> int:
        found, after = 0, None
        while True:
            rows, after = await self._store.approvals(tenant, Filter(status="pending"), Page(limit=_PAGE, after=after))
            found += len(rows)
            if after is None:
                return found

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.refresh()
            except CharterError as error:  # a number to look at; the store's own callers tell of its trouble
                logger.warning("pending approvals were not counted: %s", error.error_code)
            await asyncio.sleep(COUNT_SECONDS)
