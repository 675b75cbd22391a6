"""Small logs to test with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from charter.audit.checkpoint import Checkpoint, Signer, origin_of, sign_checkpoint
from charter.audit.envelope import leaf_bytes
from charter.audit.merkle import Tree, leaf_hashes
from charter.audit.verify import SizedNote

TENANT = "acme"


@dataclass(frozen=True, slots=True)
class Event:
    """As the store's NewEvent."""

    id: str
    type: str
    time: str
    actor: dict[str, str]
    data: dict[str, Any]
    causation_id: str
    correlation_id: str
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """As the store's StoredEvent."""

    tenant: str
    stream: str
    seq: int
    version: int
    id: str
    type: str
    time: str
    leaf: bytes

    def but(self, **changes: Any) -> Row:
        return replace(self, **changes)


def event(number: int, type_: str = "TOOL_INVOKE", **data: Any) -> Event:
    """Event ``number`` of a log, with content of its own."""
    return Event(
        id=f"evt_{number:04d}",
        type=type_,
        time=f"2026-11-21T08:00:{number % 60:02d}.000Z",
        actor={"kind": "agent", "id": "claude"},
        data={"n": number, **data},
        causation_id=f"cmd_{number}",
        correlation_id="wf_1",
        trace_id="0af7651916cd43dd8448eb211c80319c" if number % 2 else None,
    )


def row(seq: int, stream: str, version: int, made: Event, tenant: str = TENANT) -> Row:
    """The event in its place."""
    leaf = leaf_bytes(tenant, stream, seq, version, made)
    return Row(tenant, stream, seq, version, made.id, made.type, made.time, leaf)


def log_of(streams: list[str]) -> list[Row]:
    """One event for each name, in that stream."""
    versions: dict[str, int] = {}
    rows = []
    for seq, stream in enumerate(streams):
        versions[stream] = versions.get(stream, 0) + 1
        rows.append(row(seq, stream, versions[stream], event(seq)))
    return rows


SIGNER = Signer.from_seed(origin_of(TENANT), bytes(range(32)))


def note(hashes: list[bytes], size: int, signer: Signer = SIGNER) -> SizedNote:
    """A signed checkpoint over the first ``size`` of these leaf hashes."""
    return SizedNote(sign_checkpoint(Checkpoint(signer.key.name, size, Tree(hashes).root(size)), signer), size)


def hashes_of(rows: list[Row]) -> list[bytes]:
    return leaf_hashes(row.leaf for row in rows)
