"""Writes a group of batches inside one open transaction: gives each its place in the ledger, or the reason why not.

What the book remembers between groups (Merkle frontiers, stream versions, list rows) spares reads. It holds as
long as no other connection has committed, which ``PRAGMA data_version`` tells inside each transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, Protocol

from charter.audit.envelope import LeafDraft
from charter.audit.merkle import Frontier, leaf_hash
from charter.errors import CharterError
from charter.store.port import (
    AlreadyClaimed,
    Appended,
    ApprovalRow,
    Batch,
    EffectRow,
    VersionConflict,
    WaitRow,
    WorkflowRow,
)

SEQ_BITS = 40
"""``events.pos`` is the tenant's number shifted by this, plus the sequence number."""
BAND = 8
"""Tree nodes are stored at every so many levels."""
_BAND_END = (1 << BAND) - 1
_REMEMBERED = 50_000

WORKFLOW = tuple(WorkflowRow.__dataclass_fields__)
APPROVAL = tuple(ApprovalRow.__dataclass_fields__)
EFFECT = tuple(EffectRow.__dataclass_fields__)
LISTED_EFFECTS = frozenset(("running", "in_doubt", "dead_lettered"))

_workflow_values = attrgetter(*WORKFLOW)
_approval_values = attrgetter(*APPROVAL)
_effect_values = attrgetter(*EFFECT)
_workflow_but_time = attrgetter(*(name for name in WORKFLOW if name != "updated_at"))


def _upsert(table: str, key: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" * (len(columns) + 1))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return (
        f"INSERT INTO {table} (tenant, {', '.join(columns)}) VALUES ({marks}) "  # noqa: S608 - names of our own
        f"ON CONFLICT (tenant, {key}) DO UPDATE SET {changes}"
    )


_PUT_WORKFLOW = _upsert("workflows", "workflow_id", WORKFLOW)
_TOUCH_WORKFLOW = "UPDATE workflows SET updated_at = ? WHERE tenant = ? AND workflow_id = ?"
_PUT_APPROVAL = _upsert("approvals", "approval_id", APPROVAL)
_PUT_EFFECT = _upsert("effects", "effect_id", EFFECT)
_DROP_EFFECT = "DELETE FROM effects WHERE tenant = ? AND effect_id = ?"
_PUT_WAIT = "INSERT OR IGNORE INTO waits (tenant, type, workflow_id, step_id) VALUES (?, ?, ?, ?)"
_DROP_WAIT = "DELETE FROM waits WHERE tenant = ? AND type = ? AND workflow_id = ? AND step_id = ?"
_ADD_EVENT = (
    "INSERT INTO events (pos, stream, version, prev, id, type, time, leaf, leaf_hash) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ADD_STREAM = "INSERT INTO streams (version, last, no, tenant, stream) VALUES (?, ?, ?, ?, ?)"
_MOVE_STREAM = "UPDATE streams SET version = ?, last = ? WHERE no = ?"
_ADD_NODE = "INSERT INTO nodes (tenant, level, idx, hash) VALUES (?, ?, ?, ?)"
_ADD_CLAIM = "INSERT INTO claims (tenant, scope, key, value) VALUES (?, ?, ?, ?)"
_ADD_SEALED = "INSERT INTO sealed (tenant, ref, key_id, blob) VALUES (?, ?, ?, ?)"
_PUT_TENANT = (
    "INSERT INTO tenants (no, tenant, size, frontier) VALUES (?, ?, ?, ?) "
    "ON CONFLICT (no) DO UPDATE SET size = excluded.size, frontier = excluded.frontier"
)
_FIND_STREAM = "SELECT no, version, last FROM streams WHERE tenant = ? AND stream = ?"


class Unit(Protocol):
    """A batch, made ready in the caller's event loop: its leaves lack only their numbers."""

    @property
    def batch(self) -> Batch: ...
    @property
    def drafts(self) -> Sequence[LeafDraft]: ...


@dataclass(slots=True)
class _Tenant:
    no: int
    frontier: Frontier


@dataclass(slots=True)
class _Stream:
    """``no`` 0 is none yet; ``last`` is the pos of its last event."""

    no: int = 0
    version: int = 0
    last: int | None = None


@dataclass(slots=True)
class _Rows:
    """What one group adds, table by table; of several list rows with one key the last counts."""

    tenants: dict[str, _Tenant] = field(default_factory=dict)
    new_streams: dict[int, tuple[_Stream, str, str]] = field(default_factory=dict)
    streams: dict[int, _Stream] = field(default_factory=dict)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    nodes: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    claims: dict[tuple[str, str, str], str] = field(default_factory=dict)
    sealed: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    workflows: dict[tuple[str, str], WorkflowRow] = field(default_factory=dict)
    approvals: dict[tuple[str, str], ApprovalRow] = field(default_factory=dict)
    effects: dict[tuple[str, str], EffectRow] = field(default_factory=dict)
    waits: dict[tuple[str, str, str, str], WaitRow] = field(default_factory=dict)


class Book:
    """The writer's memory of the ledger and its hand."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._data_version = -1
        self._tenants: dict[str, _Tenant] = {}
        self._streams: dict[tuple[str, str], _Stream] = {}
        self._workflows: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._next_tenant = self._next_stream = 0

    def forget(self) -> None:
        """Drop what is remembered: after a rollback, or when somebody else has written."""
        self._tenants.clear()
        self._streams.clear()
        self._workflows.clear()
        self._next_tenant = self._next_stream = 0

    def write(self, units: Sequence[Unit]) -> list[Appended | CharterError]:
        """Write what can be written; the answer for each unit, in order. A refused one has left nothing.

        Raises whatever SQLite raises; then roll back and ``forget``.
        """
        self._look_around()
        rows = _Rows()
        streams = self._streams
        answers: list[Appended | CharterError] = []
        for unit in units:
            batch = unit.batch
            stream = streams.get((batch.tenant, batch.stream)) or self._find_stream(batch)
            expected = batch.expected_version
            if expected is not None and expected != stream.version:
                answers.append(_conflict(batch, stream.version))
            elif batch.claims and (taken := self._taken(batch, rows)):
                answers.append(taken)
            else:
                answers.append(self._place(unit, stream, rows))
        self._flush(rows)
        return answers

    def put_lists(self, batches: Iterable[Batch]) -> None:
        """Write the list rows of batches alone, of several with one key the last; claims and secrets go another way."""
        rows = _Rows()
        for batch in batches:
            _collect(replace(batch, claims=(), sealed=()), rows)
        self._flush(rows)

    def _look_around(self) -> None:
        (data_version,) = self._connection.execute("PRAGMA data_version").fetchone()
        too_many = len(self._streams) > _REMEMBERED or len(self._workflows) > _REMEMBERED
        if data_version != self._data_version or too_many:
            self.forget()
            self._data_version = data_version

    def _taken(self, batch: Batch, rows: _Rows) -> AlreadyClaimed | None:
        mine: dict[tuple[str, str], str] = {}
        for claim in batch.claims:
            taken = mine.get((claim.scope, claim.key))
            if taken is None:
                taken = self._claimed(batch.tenant, claim.scope, claim.key, rows)
            if taken is not None:
                return AlreadyClaimed(claim.scope, claim.key, taken)
            mine[claim.scope, claim.key] = claim.value
        return None

    def _claimed(self, tenant: str, scope: str, key: str, rows: _Rows) -> str | None:
        taken = rows.claims.get((tenant, scope, key))
        if taken is None:
            found = self._connection.execute(
                "SELECT value FROM claims WHERE tenant = ? AND scope = ? AND key = ?", (tenant, scope, key)
            ).fetchone()
            taken = found and found[0]
        return taken

    def _find_tenant(self, tenant: str) -> _Tenant:
        execute = self._connection.execute
        row = execute("SELECT no, frontier FROM tenants WHERE tenant = ?", (tenant,)).fetchone()
        if row is None:
            if not self._next_tenant:
                (self._next_tenant,) = execute("SELECT coalesce(max(no), 0) + 1 FROM tenants").fetchone()
            found = _Tenant(self._next_tenant, Frontier())
            self._next_tenant += 1
        else:
            found = _Tenant(row[0], Frontier.from_bytes(row[1]))
        self._tenants[tenant] = found
        return found

    def _find_stream(self, batch: Batch) -> _Stream:
        row = self._connection.execute(_FIND_STREAM, (batch.tenant, batch.stream)).fetchone()
        found = self._streams[batch.tenant, batch.stream] = _Stream(*(row or ()))
        return found

    def _number(self, batch: Batch, stream: _Stream, rows: _Rows) -> None:
        if not self._next_stream:
            find = "SELECT coalesce(max(no), 0) + 1 FROM streams"
            (self._next_stream,) = self._connection.execute(find).fetchone()
        stream.no = self._next_stream
        self._next_stream += 1
        rows.new_streams[stream.no] = (stream, batch.tenant, batch.stream)

    def _place(self, unit: Unit, stream: _Stream, rows: _Rows) -> Appended:
        """Number the batch's leaves and add them to the tree; nothing can refuse them any more."""
        batch = unit.batch
        tenant = self._tenants.get(batch.tenant) or self._find_tenant(batch.tenant)
        frontier = tenant.frontier
        first = seq = frontier.size
        if batch.events:
            if not stream.no:
                self._number(batch, stream, rows)
            add = rows.events.append
            number, version, last, base = stream.no, stream.version, stream.last, tenant.no << SEQ_BITS
            for draft, event in zip(unit.drafts, batch.events, strict=True):
                version += 1
                leaf = draft.leaf(seq, version)
                hash_ = leaf_hash(leaf)
                pos = base + seq
                # sqlite3 looks for an adapter of bytes, twice as long as the insert takes, and takes a bytearray as it is.
                event_id, type_, time = event.id, event.type, event.time
                add((pos, number, version, last, event_id, type_, time, bytearray(leaf), bytearray(hash_)))
                if seq & _BAND_END == _BAND_END:
                    self._close_band(tenant, hash_, rows)
                else:
                    frontier.append(hash_)
                last = pos
                seq += 1
            stream.version, stream.last = version, last
            rows.tenants[batch.tenant] = tenant
            rows.streams[number] = stream
        if batch.workflow or batch.claims or batch.effects or batch.approvals or batch.sealed or batch.waits:
            _collect(batch, rows)
        return Appended(first, stream.version)

    @staticmethod
    def _close_band(tenant: _Tenant, hash_: bytes, rows: _Rows) -> None:
        for level, index, node in tenant.frontier.append_with_nodes(hash_):
            if level % BAND == 0:
                rows.nodes.append((tenant.no, level, index, node))

    def _flush(self, rows: _Rows) -> None:
        many = self._connection.executemany
        if rows.events:
            self._flush_ledger(rows)
        if rows.claims:
            many(_ADD_CLAIM, [(*key, value) for key, value in rows.claims.items()])
        if rows.sealed:
            many(_ADD_SEALED, rows.sealed)
        if rows.workflows:
            self._flush_workflows(rows.workflows)
        if rows.approvals:
            many(_PUT_APPROVAL, [(tenant, *_approval_values(row)) for (tenant, _), row in rows.approvals.items()])
        if rows.effects:
            self._flush_effects(rows.effects)
        if rows.waits:
            many(_PUT_WAIT, [key for key, row in rows.waits.items() if row.status == "open"])
            many(_DROP_WAIT, [key for key, row in rows.waits.items() if row.status != "open"])

    def _flush_ledger(self, rows: _Rows) -> None:
        many = self._connection.executemany
        many(_ADD_EVENT, rows.events)
        new = rows.new_streams
        if new:
            many(_ADD_STREAM, [(s.version, s.last, s.no, tenant, name) for s, tenant, name in new.values()])
        if len(new) < len(rows.streams):
            many(_MOVE_STREAM, [(s.version, s.last, no) for no, s in rows.streams.items() if no not in new])
        if rows.nodes:
            many(_ADD_NODE, rows.nodes)
        tenants = [(t.no, name, t.frontier.size, t.frontier.to_bytes()) for name, t in rows.tenants.items()]
        many(_PUT_TENANT, tenants)

    def _flush_workflows(self, workflows: dict[tuple[str, str], WorkflowRow]) -> None:
        """A row that differs from what stands there by its time alone leaves all indexes alone."""
        put: list[tuple[Any, ...]] = []
        touch: list[tuple[str, str, str]] = []
        for key, row in workflows.items():
            rest = _workflow_but_time(row)
            if self._workflows.get(key) == rest:
                touch.append((row.updated_at, *key))
            else:
                self._workflows[key] = rest
                put.append((key[0], *_workflow_values(row)))
        if put:
            self._connection.executemany(_PUT_WORKFLOW, put)
        if touch:
            self._connection.executemany(_TOUCH_WORKFLOW, touch)

    def _flush_effects(self, effects: dict[tuple[str, str], EffectRow]) -> None:
        put = [(key[0], *_effect_values(row)) for key, row in effects.items() if row.status in LISTED_EFFECTS]
        drop = [key for key, row in effects.items() if row.status not in LISTED_EFFECTS]
        if put:
            self._connection.executemany(_PUT_EFFECT, put)
        if drop:
            self._connection.executemany(_DROP_EFFECT, drop)


def _conflict(batch: Batch, version: int) -> VersionConflict:
    return VersionConflict(
        f"{batch.stream} is at version {version}, not {batch.expected_version}.",
        detail={"version": version, "expected": batch.expected_version},
    )


def _collect(batch: Batch, rows: _Rows) -> None:
    tenant = batch.tenant
    if batch.workflow is not None:
        rows.workflows[tenant, batch.workflow.workflow_id] = batch.workflow
    for approval in batch.approvals:
        rows.approvals[tenant, approval.approval_id] = approval
    for effect in batch.effects:
        rows.effects[tenant, effect.effect_id] = effect
    for wait in batch.waits:
        rows.waits[tenant, wait.type, wait.workflow_id, wait.step_id] = wait
    for claim in batch.claims:
        rows.claims[tenant, claim.scope, claim.key] = claim.value
    for sealed in batch.sealed:
        rows.sealed.append((tenant, sealed.ref, sealed.key_id, sealed.blob))
