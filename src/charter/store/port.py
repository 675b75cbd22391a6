"""What a store must do. One contract suite (``tests/store/contract.py``) runs on every implementation.

One log holds everything: the event row is the audit leaf. ``append`` is the only way to change anything. What is
acknowledged is durable: when ``append`` returns, the batch survives ``kill -9`` and loss of power; when it raises, nothing of
the batch is there. Several processes may share one store.

Errors: ``VersionConflict`` (the stream moved: load and decide again), ``AlreadyClaimed`` (a unique key is taken),
``charter.errors.Unavailable`` (the store cannot answer now; nothing of the batch is there unless ``unknown`` is in its detail).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from charter.errors import Conflict


class VersionConflict(Conflict):
    """The stream is not at the expected version."""

    code: ClassVar[str] = "version_conflict"


class AlreadyClaimed(Conflict):
    """A unique key was claimed before; ``value`` is what the first claim stored."""

    code: ClassVar[str] = "already_claimed"

    def __init__(self, scope: str, key: str, value: str) -> None:
        super().__init__(f"{scope} {key!r} was used before.", detail={"scope": scope, "value": value})
        self.scope, self.key, self.value = scope, key, value


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event before it has its place: ``append`` adds ``seq`` (the tenant's leaf index, from 0, without gaps) and
    ``version`` (the stream's event count after it, from 1)."""

    id: str
    type: str
    time: str
    actor: dict[str, str]
    data: dict[str, Any]
    causation_id: str
    correlation_id: str
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event in its place. ``leaf`` are the exact canonical bytes that were hashed."""

    tenant: str
    stream: str
    seq: int
    version: int
    id: str
    type: str
    time: str
    leaf: bytes


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """The list view of a workflow; replaced by each batch that carries it.

    ``wake_at``: when the engine must look, or None. Times are compared as text: ``charter.model.times.rfc3339`` makes them.
    """

    workflow_id: str
    template: str
    status: str
    owner: str
    purpose: str
    case_id: str | None
    blocked_on: str | None
    started_at: str
    updated_at: str
    wake_at: str | None


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """The list view of an approval. ``request`` is the ApprovalRequest as JSON text."""

    approval_id: str
    workflow_id: str
    status: str
    tool: str | None
    risk: str
    requested_by: str
    owner: str | None
    requested_at: str
    expires_at: str
    request: str


@dataclass(frozen=True, slots=True)
class EffectRow:
    """The list view of an effect that has not ended, or ended in doubt. ``instance`` is the server process that runs it.

    Only ``running``, ``in_doubt`` and ``dead_lettered`` are kept: a batch that carries another status takes the row away.
    """

    effect_id: str
    workflow_id: str
    status: str
    tool: str
    instance: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class WaitRow:
    """A step that waits for signals of a type. Only ``open`` ones are kept: ``over`` takes the row away."""

    workflow_id: str
    step_id: str
    type: str
    status: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that may be taken once per tenant and scope, with what to remember for whoever asks again."""

    scope: str
    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """Encrypted bytes beside the log (see ``store.sealing``)."""

    ref: str
    key_id: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """All of it or nothing. ``expected_version`` None appends whatever the stream's version is (tenant streams)."""

    tenant: str
    stream: str
    expected_version: int | None
    events: tuple[NewEvent, ...]
    workflow: WorkflowRow | None = None
    approvals: tuple[ApprovalRow, ...] = ()
    effects: tuple[EffectRow, ...] = ()
    waits: tuple[WaitRow, ...] = ()
    claims: tuple[Claim, ...] = ()
    sealed: tuple[Sealed, ...] = ()


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the batch came to stand: the sequence number of its first event and the stream's new version."""

    first_seq: int
    version: int


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The tenant's log now: how many leaves, and the RFC 6962 root over them."""

    tenant: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Due:
    """A workflow whose ``wake_at`` has come."""

    tenant: str
    workflow_id: str
    wake_at: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Page:
    """``limit`` rows after the opaque ``after`` (None: from the newest)."""

    limit: int = 50
    after: str | None = None


@dataclass(frozen=True, slots=True)
class Relisting:
    """How lists are made of the log. ``make(stream, events)`` gives, for the events of one stream in order, batches without
    events: their rows and claims, and what they refer to as sealed, without its bytes. Of ``scopes`` it makes all claims
    there are; of other scopes, those that there must be.

    ``same`` tells whether two texts of a column (``approvals.request``) say the same: an older version wrote fewer fields.
    """

    make: Callable[[str, Iterable[StoredEvent]], Iterator[Batch]]
    scopes: frozenset[str]
    same: Mapping[str, Callable[[str, str], bool]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row beside the log that is not what the log makes of it. ``text`` says how, without quoting much."""

    place: str
    key: str
    text: str


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list; None does not filter.

    ``template`` is ``name@version``, or ``name`` for all its versions. ``blocked_on`` is ``kind`` (``approval``, ``timer``) or
    ``kind:who``. ``started_after`` and ``started_before`` are times as ``charter.model.times.rfc3339`` makes them: from the
    one, and up to the other without it.
    """

    status: str | None = None
    template: str | None = None
    owner: str | None = None
    workflow_id: str | None = None
    blocked_on: str | None = None
    started_after: str | None = None
    started_before: str | None = None
    extra: dict[str, str] = field(default_factory=dict)


class Store(Protocol):
    """The port. Reads see everything acknowledged before they began."""

    async def open(self) -> None:
        """Migrate and open. Raises ``Misconfigured`` for a file of a newer Charter."""
        ...

    async def close(self) -> None: ...

    def trouble(self) -> str | None:
        """The code of the error that kept the last write from the disk; None when it was written."""
        ...

    def append(self, batch: Batch) -> Awaitable[Appended]:
        """Append atomically and durably, when it is awaited; see the module's text for the errors.

        ``InvalidInput`` when a part has no canonical form. A caller cancelled meanwhile does not know whether it was written.
        """
        ...

    async def load(
        self, tenant: str, stream: str, after_version: int = 0, limit: int | None = None
    ) -> list[StoredEvent]:
        """A stream's events in order, those with ``version > after_version``."""
        ...

    async def version(self, tenant: str, stream: str) -> int:
        """The stream's version, 0 when there is none."""
        ...

    async def log(self, tenant: str, from_seq: int, limit: int, types: Sequence[str] = ()) -> list[StoredEvent]:
        """The tenant's leaves in order, from ``from_seq``."""
        ...

    async def tenants(self) -> list[str]: ...

    async def head(self, tenant: str) -> TreeHead: ...

    async def leaf_hashes(self, tenant: str, start: int, end: int) -> list[bytes]:
        """RFC 6962 leaf hashes of ``start <= seq < end``."""
        ...

    async def tree_nodes(self, tenant: str, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Hashes of complete subtrees ``(level, index)``; level 0 are leaves. In O(log n) reads each."""
        ...

    async def put_checkpoint(self, tenant: str, size: int, note: bytes) -> None:
        """Keep a signed checkpoint; the same size twice keeps the first."""
        ...

    async def checkpoints(self, tenant: str) -> list[tuple[int, bytes]]:
        """Size and signed note, in order of size."""
        ...

    async def claimed(self, tenant: str, scope: str, key: str) -> str | None:
        """What the claim of this key remembered, or None."""
        ...

    async def unseal(self, tenant: str, ref: str) -> Sealed | None: ...

    async def erase(self, tenant: str, ref: str) -> bool:
        """Delete sealed bytes (a person's right); the log and its proofs stay whole."""
        ...

    async def workflow(self, tenant: str, workflow_id: str) -> WorkflowRow | None: ...

    async def workflows(self, tenant: str, where: Filter, page: Page) -> tuple[list[WorkflowRow], str | None]:
        """Newest first, with the cursor of the next page or None."""
        ...

    async def approval(self, tenant: str, approval_id: str) -> ApprovalRow | None: ...

    async def approvals(self, tenant: str, where: Filter, page: Page) -> tuple[list[ApprovalRow], str | None]: ...

    async def effect(self, tenant: str, effect_id: str) -> EffectRow | None: ...

    async def effects(self, tenant: str, where: Filter, page: Page) -> tuple[list[EffectRow], str | None]: ...

    async def running_effects_of_dead_instances(self) -> list[tuple[str, EffectRow]]:
        """``(tenant, row)`` of effects ``running`` under a server process that is no longer alive."""
        ...

    async def waiting_for(self, tenant: str, type: str, after: str, limit: int) -> list[str]:
        """The workflows with a step that waits for signals of this type, in order, after the workflow ``after``."""
        ...

    async def place(self, tenant: str, name: str) -> int | None:
        """Up to where a reader of the tenant's log has come, None before it was ever kept."""
        ...

    async def move_place(self, tenant: str, name: str, seq: int) -> None:
        """Keep it durably; never the record, and not part of any batch."""
        ...

    async def take_duty(self, duty: str) -> bool:
        """True when this process has the duty now; it keeps it until it ends, however it ends, and nobody else has it."""
        ...

    async def due(self, now: str, limit: int) -> list[Due]:
        """The workflows whose ``wake_at`` is not later than ``now``, the earliest first."""
        ...

    async def next_wake(self, after: str = "") -> str | None:
        """The earliest ``wake_at`` later than ``after``, or None."""
        ...

    async def change_token(self) -> int:
        """A number that differs when anybody, in any process, has appended since it was last read. Cheap."""
        ...

    async def others_token(self) -> int:
        """A number that differs when another opened store has appended since it was last read; one's own appends do not
        count. It may be told late, by as long as an append takes. Cheap.
        """
        ...

    async def differences(self, tenant: str, made: Relisting, most: int) -> list[Difference]:
        """Where the lists, claims and pointers beside the log are not what the log makes of them; the first ``most``.

        One consistent view of a store that goes on being written, in memory that does not grow with the log.
        """
        ...

    async def rebuild(self, tenant: str, made: Relisting) -> None:
        """Make all of that anew from the log, in one commit; nobody else can write meanwhile."""
        ...

    async def put_snapshot(self, tenant: str, stream: str, version: int, shape: int, data: bytes) -> None:
        """A cache of a fold; never the record."""
        ...

    async def snapshot(self, tenant: str, stream: str, shape: int) -> tuple[int, bytes] | None: ...

    async def enlist(self, instance: str) -> None:
        """Declare this server process alive until it ends, however it ends (an OS lock, no heartbeat)."""
        ...
