"""What stands beside the log, made of the log alone: the same functions that wrote it, fed with recorded events.

A command's events lie together and share its causation id, so the states before and after it are known again, and with them
the rows and the claims that its commit carried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any

import orjson
from pydantic import ValidationError

from charter.errors import CharterError, IntegrityError
from charter.gate.grants import SCOPE as GRANT_USES
from charter.gate.grants import use_key
from charter.gate.loading import event_of
from charter.gate.recording import listed
from charter.model import events as ev
from charter.model.approval import ApprovalRequest
from charter.store.port import Batch, Claim, Relisting, Sealed, StoredEvent
from charter.workflows.children import CLAIM as CHILD
from charter.workflows.signals import run_key, tenant_key
from charter.workflows.state import State, fold

WHOLE_SCOPES = frozenset(("start", "approval", GRANT_USES, "signal", "template_ref", "template_published", "child"))
"""Of these the log tells every claim there is. ``template`` holds texts, which their hash proves; a signal that a run could not
read (``signal_run``) and the runs that signals start (``signal_start``, also kept as ``start``) claim more than it tells."""

_REFS = ("sealed_ref", "result_ref")


def relisting(tenant: str) -> Relisting:
    """How the lists and claims of a tenant are made of its log."""

    def make(stream: str, events: Iterable[StoredEvent]) -> Iterator[Batch]:
        return _of_run(tenant, stream, events) if stream.startswith("wf_") else _of_tenant(tenant, stream, events)

    return Relisting(make, WHOLE_SCOPES, {"approvals.request": _same_request})


def _same_request(one: str, other: str) -> bool:
    """As they are read: members in any order, and what a version did not know yet stands for its default."""
    try:
        return ApprovalRequest.model_validate_json(one) == ApprovalRequest.model_validate_json(other)
    except ValidationError:
        return False


def _of_run(tenant: str, stream: str, stored: Iterable[StoredEvent]) -> Iterator[Batch]:
    state = State(workflow_id=stream, tenant=tenant)
    for events in _commits(stored):
        before, state = state, _folded(state, events, stream)
        rows = listed(before, state, events, "")
        claims = tuple(claim for event in events for claim in _claims(stream, event))
        sealed = tuple(Sealed(ref, "", b"") for event in events for ref in _sealed_refs(event))
        yield Batch(tenant, stream, None, (), claims=claims, sealed=sealed, **rows)


def _of_tenant(tenant: str, stream: str, stored: Iterable[StoredEvent]) -> Iterator[Batch]:
    for events in _commits(item for item in stored if item.type in _CLAIMS):
        claims = tuple(claim for event in events for claim in _claims(stream, event))
        yield Batch(tenant, stream, None, (), claims=claims)


def _commits(stored: Iterable[StoredEvent]) -> Iterator[list[ev.Event]]:
    """The events of each commit."""
    place = 0

    def commit(item: StoredEvent) -> tuple[str, int]:
        nonlocal place
        place += 1
        return str(orjson.loads(item.leaf)["causation_id"]), item.seq - place

    for _, items in groupby(stored, commit):
        try:
            yield [event_of(item) for item in items]
        except (KeyError, ValidationError):
            raise IntegrityError(
                "An event has a type or a shape that Charter does not know.", code="log_shape"
            ) from None


def _folded(state: State, events: list[ev.Event], stream: str) -> State:
    try:
        return fold(state, events)
    except CharterError:
        raise
    except Exception as error:  # whatever a forged event makes of the fold
        raise IntegrityError(f"The events of {stream} do not fit together: {type(error).__name__}.") from None


def _sealed_refs(event: ev.Event) -> Iterator[str]:
    """What the event refers to beside the log; its bytes the log does not tell."""
    for name in _REFS:
        if (ref := getattr(event.data, name, None)) is not None:
            yield ref


def _claims(stream: str, event: ev.Event) -> Iterator[Claim]:
    found = _CLAIMS.get(event.type)
    if found is not None:
        yield from found(stream, event.data, event.time)


def _of_start(stream: str, data: ev.WorkflowStarted, _time: str) -> Iterator[Claim]:
    yield Claim("template_ref", data.template, data.template_hash)
    if data.idempotency_key is not None:
        yield Claim("start", f"{data.started_by}|{data.idempotency_key}", stream)
    if data.parent_workflow_id is not None:
        yield Claim(CHILD, stream, stream)


def _of_publishing(_stream: str, data: ev.TemplatePublished, _time: str) -> Iterator[Claim]:
    yield Claim("template_ref", data.template, data.template_hash)
    yield Claim("template_published", data.template, data.template_hash)


def _of_child(_stream: str, data: ev.ChildEnded, _time: str) -> Iterator[Claim]:
    if data.status == "never_started":
        yield Claim(CHILD, data.child_workflow_id, data.status)


def _of_call(_stream: str, data: ev.ToolInvoke, _time: str) -> Iterator[Claim]:
    if data.attempt != 1:
        return
    for approval_id in data.approval_ids:
        yield Claim("approval", approval_id, data.effect_id)
    if data.grant_id is not None and data.grant_use is not None:
        yield Claim(GRANT_USES, use_key(data.grant_id, data.grant_use), data.effect_id)


def _of_revoking(_stream: str, data: ev.GrantRevoked, _time: str) -> Iterator[Claim]:
    if data.grant_use is not None:
        yield Claim(GRANT_USES, use_key(data.grant_id, data.grant_use), data.grant_id)


def _of_delivery(stream: str, data: ev.SignalDelivered, time: str) -> Iterator[Claim]:
    yield Claim("signal_run", run_key(stream, data.signal, data.alone), time)


def _of_signal(_stream: str, data: ev.SignalReceived, _time: str) -> Iterator[Claim]:
    yield Claim("signal", tenant_key(data.workflow_id, data.signal), data.sent_by)


_CLAIMS: dict[str, Callable[[str, Any, str], Iterator[Claim]]] = {
    "WORKFLOW_STARTED": _of_start,
    "TEMPLATE_PUBLISHED": _of_publishing,
    "CHILD_ENDED": _of_child,
    "TOOL_INVOKE": _of_call,
    "GRANT_REVOKED": _of_revoking,
    "SIGNAL_DELIVERED": _of_delivery,
    "SIGNAL_RECEIVED": _of_signal,
}
