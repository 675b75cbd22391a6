"""Signs the ledger's head every so many events or seconds, keeps it in the store and publishes it outside."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import anyio

from charter.audit.checkpoint import (
    Checkpoint,
    Signer,
    VerifierKey,
    following,
    origin_of,
    sign_checkpoint,
    verify_checkpoint,
)
from charter.audit.merkle import consistency_plan, verify_consistency
from charter.errors import CharterError, IntegrityError
from charter.store.port import Store, TreeHead

logger = logging.getLogger(__name__)

Publish = Callable[[str, bytes], None]
"""Takes the tenant and the signed note; writes it where this database's administrator cannot rewrite it."""


class Kept(Protocol):
    """Remembers the newest signed note of each tenant where whoever can write the database cannot write."""

    def newest(self, tenant: str) -> bytes | None: ...

    def keep(self, tenant: str, note: bytes) -> None: ...


class Checkpointer:
    """Checkpoints every tenant's log, and signs nothing that does not extend what it signed before.

    Without that memory whoever can write the database, but holds no key, could rewrite the log and have it signed anew.
    """

    def __init__(
        self,
        store: Store,
        signer_of: Callable[[str], Signer],
        *,
        every_events: int = 1000,
        every_seconds: float = 60.0,
        publish: Publish | None = None,
        kept: Kept | None = None,
        trusted_of: Callable[[str], Sequence[VerifierKey]] | None = None,
    ) -> None:
        self._store = store
        self._signer_of = signer_of
        self._every_events = every_events
        self._every_seconds = every_seconds
        self._publish = publish
        self._kept = kept
        self._trusted_of = trusted_of or (lambda tenant: [signer_of(tenant).key])
        self._sizes: dict[str, int] = {}

    async def checkpoint(self, tenant: str, also: Signer | None = None) -> bytes | None:
        """Sign the head now; None when nothing was added since the last one. ``also`` signs it too, in a rotation.

        Raises ``IntegrityError`` (``log_rewritten``) when the log does not extend the last checkpoint that was signed.
        """
        head = await self._store.head(tenant)
        before = await self._check_extends(tenant, head)
        if head.size == 0 or head.size == await self._last(tenant):
            return None
        previous = await self._last(tenant) if before is None else before.previous
        if before is not None and before.size < head.size:
            previous = before.size
        signers = [self._signer_of(tenant), *([also] if also is not None else [])]
        note = sign_checkpoint(Checkpoint(origin_of(tenant), head.size, head.root, following(previous)), *signers)
        await self._store.put_checkpoint(tenant, head.size, note)
        self._sizes[tenant] = head.size
        if self._kept is not None:
            self._kept.keep(tenant, note)
        if self._publish is not None:
            self._publish(tenant, note)
        return note

    async def _check_extends(self, tenant: str, head: TreeHead) -> Checkpoint | None:
        """The last checkpoint that was signed, where that is remembered outside the store."""
        note = self._kept.newest(tenant) if self._kept is not None else None
        if note is None:
            return None
        last = verify_checkpoint(note, self._trusted_of(tenant), origin_of(tenant)).checkpoint
        if last.size <= head.size:
            plan = consistency_plan(last.size, head.size)
            proof = plan.build(await self._store.tree_nodes(tenant, plan.wanted))
            if verify_consistency(last.size, last.root, head.size, head.root, proof):
                return last
        raise IntegrityError(
            f"The log of tenant {tenant} ({head.size} events) does not extend the last checkpoint that was signed "
            f"({last.size} events): it was rewritten or cut.",
            code="log_rewritten",
            next_step="Keep the files as they are and run `charter audit verify`. If you restored a backup on purpose, "
            "see docs/operations.md.",
        )

    async def _last(self, tenant: str) -> int:
        if tenant not in self._sizes:
            known = await self._store.checkpoints(tenant)
            self._sizes[tenant] = known[-1][0] if known else 0
        return self._sizes[tenant]

    async def checkpoint_all(self) -> None:
        """Every tenant's log now; a failure is logged and tried again next time."""
        for tenant in await self._store.tenants():
            try:
                await self.checkpoint(tenant)
            except (CharterError, OSError) as error:
                logger.error("checkpoint of %s failed: %s", tenant, error)

    async def run(self) -> None:
        """Until cancelled. Whoever cancels it asks for the last one when nothing more is written: ``sign_last``."""
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(min(1.0, self._every_seconds))
            try:
                if loop.time() - last >= self._every_seconds or await self._many_new():
                    await self.checkpoint_all()
                    last = loop.time()
            except CharterError as error:  # a store that does not answer now will answer again
                logger.warning("checkpoints wait for the store: %s", error.error_code)

    async def sign_last(self) -> None:
        """The checkpoints with which a process ends, also when it ends because it was cancelled."""
        # A shield of asyncio's would not do: a cancelled scope of anyio cancels every later wait as well.
        with anyio.CancelScope(shield=True):
            await self.checkpoint_all()

    async def _many_new(self) -> bool:
        for tenant in await self._store.tenants():
            if (await self._store.head(tenant)).size - await self._last(tenant) >= self._every_events:
                return True
        return False
