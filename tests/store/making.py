"""Values for the store's tests."""

from __future__ import annotations

import itertools
from typing import Any

from charter.audit.envelope import parse_leaf
from charter.audit.merkle import Tree, leaf_hash
from charter.store.port import ApprovalRow, Batch, EffectRow, NewEvent, Store, StoredEvent, WaitRow, WorkflowRow

TIME = "2026-11-21T08:00:00.000Z"
_numbers = itertools.count(1)


def an_event(type: str = "TOOL_INVOKE", /, **data: Any) -> NewEvent:
    """An event with an id of its own."""
    number = next(_numbers)
    return NewEvent(
        id=f"evt_{number:06d}",
        type=type,
        time=TIME,
        actor={"kind": "agent", "id": "agent-7"},
        data=data,
        causation_id=f"cmd_{number:06d}",
        correlation_id="wf_1",
        trace_id="0af7651916cd43dd8448eb211c80319c" if number % 2 else None,
    )


def a_batch(
    stream: str = "wf_1", expected: int | None = None, *, tenant: str = "acme", events: int = 1, **more: Any
) -> Batch:
    """A batch of so many events."""
    return Batch(tenant, stream, expected, tuple(an_event(n=n) for n in range(events)), **more)


def a_workflow(workflow_id: str, **more: Any) -> WorkflowRow:
    fields: dict[str, Any] = {
        "template": "governed-session@1",
        "status": "running",
        "owner": "ann",
        "purpose": "support",
        "case_id": None,
        "blocked_on": None,
        "started_at": TIME,
        "updated_at": TIME,
        "wake_at": None,
    }
    return WorkflowRow(workflow_id=workflow_id, **{**fields, **more})


def an_approval(approval_id: str, **more: Any) -> ApprovalRow:
    fields: dict[str, Any] = {
        "workflow_id": "wf_1",
        "status": "pending",
        "tool": "casebook__reply",
        "risk": "high",
        "requested_by": "agent-7",
        "owner": "ann",
        "requested_at": TIME,
        "expires_at": "2026-11-22T08:00:00.000Z",
        "request": '{"reason":"because"}',
    }
    return ApprovalRow(approval_id=approval_id, **{**fields, **more})


def an_effect(effect_id: str, status: str = "running", **more: Any) -> EffectRow:
    fields: dict[str, Any] = {
        "workflow_id": "wf_1",
        "tool": "casebook__reply",
        "instance": "srv_1",
        "updated_at": TIME,
    }
    return EffectRow(effect_id=effect_id, status=status, **{**fields, **more})


async def whole_log(store: Store, tenant: str) -> list[StoredEvent]:
    """All leaves of a tenant, after checking that the ledger holds together: places, columns, hashes, root."""
    events = await store.log(tenant, 0, 1_000_000)
    assert [event.seq for event in events] == list(range(len(events)))
    versions: dict[str, int] = {}
    for event in events:
        envelope = parse_leaf(event.leaf)
        assert (envelope.tenant, envelope.stream, envelope.seq, envelope.version) == (
            tenant,
            event.stream,
            event.seq,
            event.version,
        )
        assert (envelope.id, envelope.type, envelope.time) == (event.id, event.type, event.time)
        versions[event.stream] = versions.get(event.stream, 0) + 1
        assert event.version == versions[event.stream]
    for stream, version in versions.items():
        assert await store.version(tenant, stream) == version
        assert await store.load(tenant, stream) == [event for event in events if event.stream == stream]
    hashes = [leaf_hash(event.leaf) for event in events]
    head = await store.head(tenant)
    assert (head.size, head.root) == (len(events), Tree(hashes).root())
    assert await store.leaf_hashes(tenant, 0, len(events)) == hashes
    return events


def a_wait(workflow_id: str, step_id: str = "w", type: str = "invoice.paid", status: str = "open") -> WaitRow:
    return WaitRow(workflow_id=workflow_id, step_id=step_id, type=type, status=status)
