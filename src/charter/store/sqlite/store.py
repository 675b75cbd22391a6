"""``SqliteStore``: the port, on one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from charter.audit.envelope import draft_leaf
from charter.audit.merkle import EMPTY_ROOT, Frontier
from charter.errors import Unavailable
from charter.store.instances import Instances
from charter.store.port import (
    Appended,
    ApprovalRow,
    Batch,
    Difference,
    Due,
    EffectRow,
    Filter,
    Page,
    Relisting,
    Sealed,
    StoredEvent,
    TreeHead,
    WorkflowRow,
)
from charter.store.sqlite import streams, tree
from charter.store.sqlite.connection import BUSY_SECONDS, Synchronous, checkpoint, connect, translate
from charter.store.sqlite.listing import APPROVALS, EFFECTS, WORKFLOWS, Listing
from charter.store.sqlite.migrating import migrate
from charter.store.sqlite.reader import Readers, Row
from charter.store.sqlite.rebuilding import rebuild
from charter.store.sqlite.relisting import differences
from charter.store.sqlite.writer import Writer

T = TypeVar("T")
_HERE = 256  # up to so many rows are read in the event loop itself

_PUT_SNAPSHOT = (
    "INSERT INTO snapshots (tenant, stream, shape, version, data) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, stream) DO UPDATE SET shape = excluded.shape, version = excluded.version, "
    "data = excluded.data WHERE excluded.shape != shape OR excluded.version > version"
)
_PUT_PLACE = "INSERT INTO places VALUES (?, ?, ?) ON CONFLICT (tenant, name) DO UPDATE SET seq = excluded.seq"
_PUT_CHECKPOINT = "INSERT INTO checkpoints (tenant, size, note) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_WORKFLOW = f"SELECT {', '.join(WORKFLOWS.columns)} FROM workflows WHERE tenant = ? AND workflow_id = ?"  # noqa: S608
_APPROVAL = f"SELECT {', '.join(APPROVALS.columns)} FROM approvals WHERE tenant = ? AND approval_id = ?"  # noqa: S608
_EFFECT = f"SELECT {', '.join(EFFECTS.columns)} FROM effects WHERE tenant = ? AND effect_id = ?"  # noqa: S608
_WAITING = (
    "SELECT DISTINCT workflow_id FROM waits WHERE tenant = ? AND type = ? AND workflow_id > ? "
    "ORDER BY workflow_id LIMIT ?"
)
_RUNNING = f"SELECT tenant, {', '.join(EFFECTS.columns)} FROM effects WHERE status = 'running'"  # noqa: S608


class SqliteStore:
    """The store in the file ``path``, which is made when it is not there.

    ``synchronous``: ``FULL`` survives loss of power; ``NORMAL`` is faster and may lose the last commits then (never
    on ``kill -9``). ``busy_seconds``: how long to wait for another process's commit. Beside the file lie ``-wal``
    and ``-shm`` (SQLite's) and ``-instances`` (locks of living servers).
    Use it from one event loop; any number of processes on this machine may have the same file open.
    """

    def __init__(
        self, path: str | Path, *, synchronous: Synchronous = "FULL", busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self.path = Path(path)
        self._busy_seconds = busy_seconds
        self._synchronous: Synchronous = synchronous
        self._instances = Instances(self.path.with_name(self.path.name + "-instances"))
        self._writer_now: Writer | None = None
        self._readers_now: Readers | None = None

    @property
    def _writer(self) -> Writer:
        if self._writer_now is None:
            raise _closed()
        return self._writer_now

    @property
    def _readers(self) -> Readers:
        if self._readers_now is None:
            raise _closed()
        return self._readers_now

    async def open(self) -> None:
        if self._writer_now is None:
            self._writer_now, self._readers_now = await asyncio.to_thread(self._open)

    def _open(self) -> tuple[Writer, Readers]:
        try:
            connection = connect(self.path, self._busy_seconds, write=True, synchronous=self._synchronous)
            try:
                migrate(connection)
                readers = Readers(self.path)
            except BaseException:
                connection.close()
                raise
        except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's own words about a damaged schema may be damaged
            raise translate(error) from None
        return Writer(connection), readers

    async def close(self) -> None:
        writer, readers = self._writer_now, self._readers_now
        self._writer_now = self._readers_now = None
        if writer is None or readers is None:
            return

        def shut() -> None:
            readers.close()
            writer.stop()
            self._instances.close()

        await asyncio.to_thread(shut)

    # --- the log

    def append(self, batch: Batch) -> Awaitable[Appended]:
        # Bad JSON is refused here, before anything is queued; the writer's thread only fills in two numbers.
        tenant, stream = batch.tenant, batch.stream
        drafts = [draft_leaf(tenant, stream, event) for event in batch.events]
        return self._writer.append(batch, drafts)

    async def load(
        self, tenant: str, stream: str, after_version: int = 0, limit: int | None = None
    ) -> list[StoredEvent]:
        walk = streams.plan(self._readers.few, tenant, stream, after_version, limit)
        if walk is None:
            return []
        if walk.length <= _HERE:
            rows = self._readers.few(streams.WALK, walk.values)
        else:
            rows = await self._readers.many(streams.WALK, walk.values)
        return walk.events(rows)

    async def version(self, tenant: str, stream: str) -> int:
        row = self._readers.one("SELECT version FROM streams WHERE tenant = ? AND stream = ?", (tenant, stream))
        return int(row[0]) if row else 0

    async def log(self, tenant: str, from_seq: int, limit: int, types: Sequence[str] = ()) -> list[StoredEvent]:
        row = self._readers.one("SELECT no FROM tenants WHERE tenant = ?", (tenant,))
        if row is None:
            return []
        sql, values = streams.log_query(row[0], from_seq, limit, types)
        near = limit <= _HERE and not types
        rows = self._readers.few(sql, values) if near else await self._readers.many(sql, values)
        return [StoredEvent(tenant, name, *event) for name, *event in rows]

    async def tenants(self) -> list[str]:
        return [name for (name,) in await self._readers.many("SELECT tenant FROM tenants ORDER BY tenant")]

    async def head(self, tenant: str) -> TreeHead:
        row = self._readers.one("SELECT size, frontier FROM tenants WHERE tenant = ?", (tenant,))
        if row is None:
            return TreeHead(tenant, 0, EMPTY_ROOT)
        return TreeHead(tenant, row[0], Frontier.from_bytes(row[1]).root())

    async def leaf_hashes(self, tenant: str, start: int, end: int) -> list[bytes]:
        return await self._readers.scan(lambda connection: tree.leaf_hashes(connection, tenant, start, end))

    async def tree_nodes(self, tenant: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        return await self._readers.scan(lambda connection: tree.tree_nodes(connection, tenant, wanted))

    async def put_checkpoint(self, tenant: str, size: int, note: bytes) -> None:
        await self._write(_PUT_CHECKPOINT, (tenant, size, note))

    async def checkpoints(self, tenant: str) -> list[tuple[int, bytes]]:
        return [
            (size, note)
            for size, note in await self._readers.many(
                "SELECT size, note FROM checkpoints WHERE tenant = ? ORDER BY size", (tenant,)
            )
        ]

    # --- beside the log

    async def claimed(self, tenant: str, scope: str, key: str) -> str | None:
        row = self._readers.one(
            "SELECT value FROM claims WHERE tenant = ? AND scope = ? AND key = ?", (tenant, scope, key)
        )
        return row[0] if row else None

    async def unseal(self, tenant: str, ref: str) -> Sealed | None:
        row = self._readers.one("SELECT ref, key_id, blob FROM sealed WHERE tenant = ? AND ref = ?", (tenant, ref))
        return Sealed(*row) if row else None

    async def erase(self, tenant: str, ref: str) -> bool:
        changed = await self._write("DELETE FROM sealed WHERE tenant = ? AND ref = ?", (tenant, ref))
        if changed:
            # The write-ahead log may still hold the old page: move it into the main file, where it is overwritten.
            await self._writer.run(checkpoint, alone=True)
        return changed > 0

    async def put_snapshot(self, tenant: str, stream: str, version: int, shape: int, data: bytes) -> None:
        await self._write(_PUT_SNAPSHOT, (tenant, stream, shape, version, data))

    async def snapshot(self, tenant: str, stream: str, shape: int) -> tuple[int, bytes] | None:
        row = self._readers.one(
            "SELECT version, data FROM snapshots WHERE tenant = ? AND stream = ? AND shape = ?", (tenant, stream, shape)
        )
        return (row[0], row[1]) if row else None

    async def differences(self, tenant: str, made: Relisting, most: int) -> list[Difference]:
        return await self._readers.scan(lambda connection: differences(connection, tenant, made, most))

    async def rebuild(self, tenant: str, made: Relisting) -> None:
        def work() -> None:
            # A connection of its own: the writer then sees that somebody else has written, and forgets what it remembers.
            with closing(connect(self.path, self._busy_seconds, write=True, synchronous="FULL")) as connection:
                rebuild(connection, tenant, made)

        try:
            await asyncio.to_thread(work)
        except (sqlite3.Error, ValueError, OverflowError) as error:
            raise translate(error) from None

    async def _write(self, sql: str, values: Sequence[Any]) -> int:
        return await self._writer.run(lambda connection: connection.execute(sql, values).rowcount)

    # --- lists

    async def workflow(self, tenant: str, workflow_id: str) -> WorkflowRow | None:
        row = self._readers.one(_WORKFLOW, (tenant, workflow_id))
        return WorkflowRow(*row) if row else None

    async def workflows(self, tenant: str, where: Filter, page: Page) -> tuple[list[WorkflowRow], str | None]:
        rows, cursor = await self._list(WORKFLOWS, tenant, where, page)
        return [WorkflowRow(*row) for row in rows], cursor

    async def approval(self, tenant: str, approval_id: str) -> ApprovalRow | None:
        row = self._readers.one(_APPROVAL, (tenant, approval_id))
        return ApprovalRow(*row) if row else None

    async def approvals(self, tenant: str, where: Filter, page: Page) -> tuple[list[ApprovalRow], str | None]:
        rows, cursor = await self._list(APPROVALS, tenant, where, page)
        return [ApprovalRow(*row) for row in rows], cursor

    async def effect(self, tenant: str, effect_id: str) -> EffectRow | None:
        row = self._readers.one(_EFFECT, (tenant, effect_id))
        return EffectRow(*row) if row else None

    async def effects(self, tenant: str, where: Filter, page: Page) -> tuple[list[EffectRow], str | None]:
        rows, cursor = await self._list(EFFECTS, tenant, where, page)
        return [EffectRow(*row) for row in rows], cursor

    async def _list(self, listing: Listing, tenant: str, where: Filter, page: Page) -> tuple[list[Row], str | None]:
        sql, values = listing.query(tenant, where, page)
        rows = await self._readers.many(sql, values)
        if len(rows) <= page.limit:
            return rows, None
        return rows[: page.limit], listing.cursor(rows[page.limit - 1])

    # --- who lives, and what is due

    async def waiting_for(self, tenant: str, type: str, after: str, limit: int) -> list[str]:
        rows = await self._readers.many(_WAITING, (tenant, type, after, limit))
        return [workflow_id for (workflow_id,) in rows]

    async def place(self, tenant: str, name: str) -> int | None:
        row = self._readers.one("SELECT seq FROM places WHERE tenant = ? AND name = ?", (tenant, name))
        return int(row[0]) if row else None

    async def move_place(self, tenant: str, name: str, seq: int) -> None:
        await self._write(_PUT_PLACE, (tenant, name, seq))

    async def take_duty(self, duty: str) -> bool:
        if self._writer_now is None:
            raise _closed()
        return await asyncio.to_thread(self._instances.take, f"duty-{duty}")

    async def enlist(self, instance: str) -> None:
        if self._writer_now is None:
            raise _closed()
        await asyncio.to_thread(self._instances.enlist, instance)

    async def running_effects_of_dead_instances(self) -> list[tuple[str, EffectRow]]:
        def read(connection: sqlite3.Connection) -> list[tuple[str, EffectRow]]:
            running = [(row[0], EffectRow(*row[1:])) for row in connection.execute(_RUNNING)]
            alive = {name: self._instances.alive(name) for name in {effect.instance for _, effect in running}}
            return [(tenant, effect) for tenant, effect in running if not alive[effect.instance]]

        return await self._readers.scan(read)

    async def due(self, now: str, limit: int) -> list[Due]:
        sql = (
            "SELECT tenant, workflow_id, wake_at FROM workflows WHERE wake_at <= ? ORDER BY wake_at LIMIT ?"  # by index
        )
        rows = self._readers.few(sql, (now, limit)) if limit <= _HERE else await self._readers.many(sql, (now, limit))
        return [Due(*row) for row in rows]

    async def next_wake(self, after: str = "") -> str | None:
        row = self._readers.one("SELECT min(wake_at) FROM workflows WHERE wake_at > ?", (after,))
        return row[0] if row else None

    async def change_token(self) -> int:
        # Our own commits come from another connection too, so this one number counts everybody's.
        row = self._readers.one("PRAGMA data_version")
        return int(row[0]) if row else 0

    async def others_token(self) -> int:
        return self._writer.others_token()

    def trouble(self) -> str | None:
        return self._writer.trouble


def _closed() -> Unavailable:
    return Unavailable("The store is not open.", code="store_closed", next_step="Open it first.")
