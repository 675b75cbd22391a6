"""The offline file: all that is needed to verify a log, or one workflow of it, with only the public key.

JSON Lines, written and read as a stream. The first line is the header, the last the end; each line is one object:

``{"charter_export":1,"kind":"log"|"workflow","origin":…,"tenant":…,"vkeys":[…],"workflow_id":…}``
    ``workflow_id`` only in kind ``workflow``. The vkeys are a hint; a verifier trusts its own.
``{"checkpoint":"<signed note>"}``
    All checkpoints come before the events.
``{"leaf":<the exact bytes of the event>}``
    Canonical JSON is one line of JSON itself, so it stands as it is and is cut out, never parsed, to be hashed. A leaf
    that is damaged so that it is not one line of text stands as ``{"leaf_base64":"…"}``.
``{"path":["<base64>",…],"seq":…,"size":…}``
    Only in kind ``workflow``, after each leaf: its inclusion proof in the checkpoint of ``size``.
``{"leaves":<how many>}``
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from charter.audit.checkpoint import origin_of
from charter.errors import InvalidInput
from charter.model.canonical import canonical

EXPORT_VERSION = 1
_LEAF = b'{"leaf":'
MAX_PATH = 64  # no tree is deeper


@dataclass(frozen=True, slots=True)
class Header:
    """What the file is about. ``workflow_id`` None means the whole log."""

    tenant: str
    workflow_id: str | None = None
    vkeys: tuple[str, ...] = ()

    def line(self) -> bytes:
        """The first line."""
        fields: dict[str, Any] = {
            "charter_export": EXPORT_VERSION,
            "kind": "log" if self.workflow_id is None else "workflow",
            "origin": origin_of(self.tenant),
            "tenant": self.tenant,
            "vkeys": list(self.vkeys),
        }
        if self.workflow_id is not None:
            fields["workflow_id"] = self.workflow_id
        return canonical(fields) + b"\n"


@dataclass(frozen=True, slots=True)
class Proven:
    """A leaf with its inclusion proof in the checkpoint of ``size``."""

    leaf: bytes
    seq: int
    size: int
    path: Sequence[bytes]


def note_line(note: bytes) -> bytes:
    """One checkpoint's line; a note that is no text keeps what can be shown of it, and will not verify."""
    return canonical({"checkpoint": note.decode("utf-8", "replace")}) + b"\n"


def leaf_line(leaf: bytes) -> bytes:
    """One event's line, for a caller that streams a log page by page."""
    if leaf.startswith(b"{") and leaf.endswith(b"}") and b"\n" not in leaf and b"\r" not in leaf:
        return b'{"leaf":%b}\n' % leaf
    return canonical({"leaf_base64": b64encode(leaf).decode()}) + b"\n"


def proof_line(event: Proven) -> bytes:
    """The line behind an event's in a workflow's file: where the event stands in the log."""
    path = [b64encode(each).decode() for each in event.path]
    return canonical({"path": path, "seq": event.seq, "size": event.size}) + b"\n"


def end_line(leaves: int) -> bytes:
    """The last line."""
    return canonical({"leaves": leaves}) + b"\n"


@dataclass(frozen=True, slots=True)
class Line:
    """One line, read: the exact bytes of an event, or else another object."""

    leaf: bytes | None = None
    value: Mapping[str, Any] | None = None


def read_line(line: bytes) -> Line:
    """Read any line. Raises ``InvalidInput`` (``export_malformed``)."""
    line = line.rstrip(b"\r\n")
    if line.startswith(_LEAF) and line.endswith(b"}"):
        return Line(leaf=line[len(_LEAF) : -1])
    try:
        value = orjson.loads(line)
        if isinstance(value, dict):
            encoded = value.get("leaf_base64")
            return Line(value=value) if encoded is None else Line(leaf=b64decode(encoded, validate=True))
    except (ValueError, TypeError):
        pass
    raise InvalidInput("A line of the export is not what it must be.", code="export_malformed")


def read_header(line: bytes) -> Header:
    """The first line. Raises ``InvalidInput`` (``export_malformed``)."""
    try:
        value = read_line(line).value or {}
    except InvalidInput:
        value = {}
    if "charter_export" not in value:
        raise InvalidInput("This is no export of Charter (made by `charter audit export`).", code="export_malformed")
    tenant, workflow_id, vkeys = value.get("tenant"), value.get("workflow_id"), value.get("vkeys", [])
    kind = "log" if workflow_id is None else "workflow"
    if value.get("charter_export") != EXPORT_VERSION or value.get("kind") != kind:
        raise InvalidInput("This is no Charter export of a version known here.", code="export_malformed")
    if not isinstance(tenant, str) or not isinstance(vkeys, list) or not isinstance(workflow_id, str | None):
        raise InvalidInput("The export's header is malformed.", code="export_malformed")
    return Header(tenant, workflow_id, tuple(map(str, vkeys)))


def read_proof(value: Mapping[str, Any], leaf: bytes) -> Proven:
    """A proof line for the leaf before it. Raises ``InvalidInput`` (``export_malformed``)."""
    seq, size, path = value.get("seq"), value.get("size"), value.get("path")
    try:
        if type(seq) is int and type(size) is int and isinstance(path, list) and len(path) <= MAX_PATH:
            return Proven(leaf, seq, size, [b64decode(each, validate=True) for each in path])
    except (ValueError, TypeError):
        pass
    raise InvalidInput("An inclusion proof is malformed.", code="export_malformed")
