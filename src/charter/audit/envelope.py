"""The leaf: one audit event as canonical JSON (RFC 8785), the exact bytes that are stored and hashed.

Members, in canonical order: ``actor``, ``causation_id``, ``correlation_id``, ``data``, ``id``, ``seq``,
``stream``, ``tenant``, ``time``, ``trace_id`` (absent when there is none), ``type``, ``v`` (1), ``version``.
All but ``seq`` and ``version`` are known before the writer's turn, so the costly part is done outside it::

    draft = draft_leaf(tenant, stream, event)         # in the caller's thread
    leaf = draft.leaf(seq, version)                   # in the writer's thread: two numbers are filled in
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from charter.errors import IntegrityError, InvalidInput
from charter.model.canonical import MAX_DEPTH, canonical

ENVELOPE_VERSION = 1
_SHAPE = {
    "actor": dict,
    "causation_id": str,
    "correlation_id": str,
    "data": dict,
    "id": str,
    "seq": int,
    "stream": str,
    "tenant": str,
    "time": str,
    "trace_id": str,
    "type": str,
    "v": int,
    "version": int,
}
_TRACED = tuple(_SHAPE)  # in canonical order, as a canonical leaf is read
_MEMBERS = tuple(name for name in _SHAPE if name != "trace_id")
_TYPES = frozenset(tuple(_SHAPE[name] for name in names) for names in (_MEMBERS, _TRACED))


class EventFields(Protocol):
    """What an event must offer to become a leaf; ``charter.store.port.NewEvent`` does."""

    @property
    def id(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def time(self) -> str: ...
    @property
    def actor(self) -> Mapping[str, str]: ...
    @property
    def data(self) -> Mapping[str, Any]: ...
    @property
    def causation_id(self) -> str: ...
    @property
    def correlation_id(self) -> str: ...
    @property
    def trace_id(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class LeafDraft:
    """A leaf that lacks only its place: ``head`` ends before ``seq``, ``middle`` ends before ``version``."""

    head: bytes
    middle: bytes

    def leaf(self, seq: int, version: int) -> bytes:
        """The leaf at ``seq`` in the tenant's log and ``version`` in its stream."""
        return b"%b%d%b%d}" % (self.head, seq, self.middle, version)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A leaf, read. ``v`` is the envelope's own version."""

    tenant: str
    seq: int
    stream: str
    version: int
    id: str
    type: str
    time: str
    actor: dict[str, Any]
    causation_id: str
    correlation_id: str
    trace_id: str | None
    data: dict[str, Any]
    v: int = ENVELOPE_VERSION

    def as_json(self) -> dict[str, Any]:
        """The members as they stand in the leaf."""
        out = {name: getattr(self, name) for name in _MEMBERS}
        if self.trace_id is not None:
            out["trace_id"] = self.trace_id
        return out


def draft_leaf(tenant: str, stream: str, event: EventFields, data_bytes: bytes | None = None) -> LeafDraft:
    """All of a leaf but its place. ``data_bytes``, if given, is spliced in: it must be ``canonical(event.data)``.

    Raises ``InvalidInput`` when a part has no canonical form.
    """
    data = canonical(event.data) if data_bytes is None else data_bytes
    try:
        head = b'{"actor":%b,"causation_id":%b,"correlation_id":%b,"data":%b,"id":%b,"seq":' % (
            canonical(event.actor),
            orjson.dumps(event.causation_id),
            orjson.dumps(event.correlation_id),
            data,
            orjson.dumps(event.id),
        )
        trace = b"" if event.trace_id is None else b',"trace_id":' + orjson.dumps(event.trace_id)
        middle = b',"stream":%b,"tenant":%b,"time":%b%b,"type":%b,"v":1,"version":' % (
            orjson.dumps(stream),
            orjson.dumps(tenant),
            orjson.dumps(event.time),
            trace,
            orjson.dumps(event.type),
        )
    except orjson.JSONEncodeError:
        raise InvalidInput(
            "A text of the event is not valid Unicode.",
            code="json_not_canonical",
            next_step="Send valid Unicode text.",
        ) from None
    return LeafDraft(head, middle)


def leaf_bytes(
    tenant: str, stream: str, seq: int, version: int, event: EventFields, *, data_bytes: bytes | None = None
) -> bytes:
    """The leaf in one go; see :func:`draft_leaf` for the parts and the errors."""
    return draft_leaf(tenant, stream, event, data_bytes).leaf(seq, version)


def read_json(leaf: bytes) -> Any:
    """The JSON value of canonical bytes.

    A number is a double in RFC 8785, so an integer that a double printed beyond 2^53 is read as one.
    Raises ``InvalidInput`` (``json_not_canonical``) when the bytes are not canonical.
    """
    try:
        value = orjson.loads(leaf)
        if _canonical_or_none(value) == leaf:
            return value
        value = json.loads(leaf, parse_int=_number)
        if _canonical_or_none(value) == leaf:
            return value
    except (ValueError, RecursionError):
        pass
    raise InvalidInput("The bytes are not canonical JSON (RFC 8785).", code="json_not_canonical")


def _canonical_or_none(value: Any) -> bytes | None:
    try:
        # One level more than an event's data may have: the envelope around it.
        return canonical(value, max_depth=MAX_DEPTH + 1)
    except InvalidInput:
        return None


def _number(text: str) -> int | float:
    if len(text) > 22:  # longer ones are printed with an exponent
        raise ValueError
    value = int(text)
    return value if abs(value) < 2**53 else float(value)


def parse_leaf(leaf: bytes) -> Envelope:
    """Read a leaf back. Raises ``IntegrityError`` (``bad_leaf``) when it is not a canonical envelope."""
    try:
        value = read_json(leaf)
    except InvalidInput:
        raise _bad_leaf("its bytes are not canonical JSON") from None
    return envelope_of(value)


def has_members(value: Any) -> bool:
    """Does this JSON value have an envelope's members, each of its type?"""
    if type(value) is not dict or tuple(map(type, value.values())) not in _TYPES:
        return False
    return tuple(value) in (_MEMBERS, _TRACED) and value["v"] == ENVELOPE_VERSION


def envelope_of(value: Any) -> Envelope:
    """The envelope of a leaf's JSON value. Raises ``IntegrityError`` (``bad_leaf``) for another shape."""
    if not has_members(value):
        raise _bad_leaf("it has other members, types or version")
    return Envelope(**{"trace_id": None, **value})


def _bad_leaf(why: str) -> IntegrityError:
    return IntegrityError(f"This is no audit event: {why}.", code="bad_leaf")
