"""One workflow's record as a tree of lines, for a person to read. Structure only: doors add colour and times.

A call stands under the agent (or step) that made it, with its decisions, approvals and results under it, so the order
of lines is not always the order of events; each line names its event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charter.audit.envelope import Envelope

MAX_TEXT = 240


@dataclass(frozen=True, slots=True)
class TreeLine:
    """``depth`` 0 is the workflow. ``text`` is printable, on one line, and at most 240 characters long."""

    depth: int
    text: str
    event_id: str
    seq: int
    time: str


@dataclass(slots=True)
class _Node:
    event: Envelope
    text: str
    children: list[_Node] = field(default_factory=list)


def tree_lines(events: Iterable[Envelope]) -> list[TreeLine]:
    """The lines, from the events of one workflow in their order. It never fails: what it cannot place is at the root."""
    roots: list[_Node] = []
    named: dict[str, _Node] = {}
    for event in events:
        node = _Node(event, printable(f"{event.type} {_text(event)}".rstrip()))
        parent = next((named[key] for key in _parents(event) if key in named), roots[0] if roots else None)
        if parent is None or (event.type.startswith("WORKFLOW_") and event.type != "WORKFLOW_STEP"):
            roots.append(node)
        else:
            parent.children.append(node)
        own = _own_name(event)
        if own is not None:
            named.setdefault(own, node)
    return _lines(roots)


def _lines(roots: list[_Node]) -> list[TreeLine]:
    """Depth first. Without recursion, since a forged record can be nested as deep as it is long."""
    lines = []
    waiting = [(0, node) for node in reversed(roots)]
    while waiting:
        depth, node = waiting.pop()
        lines.append(TreeLine(depth, node.text, node.event.id, node.event.seq, node.event.time))
        waiting += [(depth + 1, child) for child in reversed(node.children)]
    return lines


def printable(text: str) -> str:
    """One line without control, formatting (bidirectional) or other characters that a terminal would act on."""
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 1] + "…"


def _request(data: Mapping[str, Any]) -> Mapping[str, Any]:
    found = data.get("request")
    return found if isinstance(found, dict) else {}


def _own_name(event: Envelope) -> str | None:
    """The name under which later events find this one as their parent."""
    data = event.data
    if event.type == "APPROVAL_REQUESTED":
        return f"approval:{_request(data).get('approval_id')}"
    kind = _NAMES.get(event.type)
    # A call that was permitted outright has no PROPOSAL_MADE: its decision stands for it.
    return None if kind is None or data.get(kind[1]) is None else f"{kind[0]}:{data[kind[1]]}"


_NAMES = {
    "WORKFLOW_STEP": ("step", "step_id"),
    "AGENT_INVOKE": ("invocation", "agent_invocation_id"),
    "PROPOSAL_MADE": ("proposal", "proposal_id"),
    "POLICY_DECISION": ("proposal", "proposal_id"),
    "TOOL_INVOKE": ("effect", "effect_id"),
    "GRANT_GIVEN": ("grant", "grant_id"),
}


def _parents(event: Envelope) -> list[str]:
    """Names of possible parents, the nearest first."""
    data: Mapping[str, Any] = event.data
    if event.type == "APPROVAL_REQUESTED":
        data = _request(data)
    facts = data.get("facts")
    where = {**facts, **data} if isinstance(facts, dict) else data
    keys = [
        ("effect", "effect_id"),
        ("approval", "approval_id"),
        ("proposal", "proposal_id"),
        ("invocation", "agent_invocation_id"),
        ("grant", "grant_id"),
        ("step", "step_id"),
    ]
    if event.type == "TOOL_INVOKE":
        keys.remove(("grant", "grant_id"))  # the call stands where it was made
    return [f"{kind}:{where[key]}" for kind, key in keys if where.get(key) is not None]


def _text(event: Envelope) -> str:
    describe = _TEXTS.get(event.type)
    return describe(event.data) if describe else ""


def _join(*parts: Any) -> str:
    return " ".join(str(part) for part in parts if part not in (None, "", (), []))


def _listed(names: Any) -> str:
    """Names in a row; a damaged record may hold anything here, and is still shown."""
    return ", ".join(map(str, names)) if isinstance(names, list) else str(names or "")


def _quoted(text: Any) -> str:
    return f'"{text}"' if text else ""


def _policy(data: Mapping[str, Any]) -> str:
    facts = data.get("facts")
    about = facts.get("resource_id") if isinstance(facts, dict) else None
    policies = _listed(data.get("policy_ids"))
    return _join(data.get("action"), about, "→", data.get("verdict"), f"by {policies}" if policies else "") + (
        f": {data['reason']}" if data.get("reason") else ""
    )


def _asked(data: Mapping[str, Any]) -> str:
    request = _request(data)
    return _join(
        request.get("approval_id"), request.get("tool"), "risk", request.get("risk"), "by", request.get("requested_by")
    )


def _decided(data: Mapping[str, Any]) -> str:
    who = _join(data.get("decided_by"), f"({data['channel']})" if data.get("channel") else "")
    return _join(data.get("decision"), "by", who, "→", data.get("status"), _quoted(data.get("comment")))


def _asked_of(found: Any) -> str:
    parts = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    each = [_join(item.get("approvers", 1), "×", item.get("role"), _listed(item.get("people"))) for item in parts]
    return " and ".join(each)


def _invoked(data: Mapping[str, Any]) -> str:
    approvals = _listed(data.get("approval_ids"))
    return _join(
        data.get("tool"),
        data.get("effect_id"),
        f"attempt {data.get('attempt')}",
        f"approved by {approvals}" if approvals else "",
        f"under {data['grant_id']}" if data.get("grant_id") else "",
        "dry run" if data.get("dry_run") else "",
    )


def _result(data: Mapping[str, Any]) -> str:
    took = f"in {data['duration_us'] / 1000:.1f} ms" if isinstance(data.get("duration_us"), int) else ""
    wrong = "the tool answered with an error" if data.get("is_error") else ""
    return _join(data.get("status"), wrong, data.get("error_code"), data.get("error_message"), took)


def _named(*keys: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda data: _join(*(data.get(key) for key in keys))


_TEXTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "WORKFLOW_STARTED": lambda data: _join(
        data.get("template"), "by", data.get("started_by"), _quoted(data.get("purpose"))
    ),
    "WORKFLOW_STEP": _named("step_id", "step_type", "status", "reason"),
    "AGENT_INVOKE": _named("agent", "status", "agent_invocation_id"),
    "PROPOSAL_MADE": lambda data: _join(data.get("tool"), data.get("proposal_id"), _quoted(data.get("reason"))),
    "POLICY_DECISION": _policy,
    "APPROVAL_REQUESTED": _asked,
    "APPROVAL_DECISION": _decided,
    "APPROVAL_TURN": lambda data: _join("asks", _asked_of(data.get("asked"))),
    "APPROVAL_REMINDED": lambda data: _join("reminder", data.get("number"), "to", _asked_of(data.get("still_needed"))),
    "APPROVAL_ESCALATED": lambda data: _join("to", _asked_of(data.get("asked")), "until", data.get("expires_at")),
    "APPROVAL_DELEGATED": lambda data: _join(
        "by", data.get("delegated_by"), "to", data.get("delegated_to"), _quoted(data.get("comment"))
    ),
    "APPROVAL_CLOSED": _named("status", "reason"),
    "GRANT_GIVEN": lambda data: _join(data.get("grant_id"), "by", data.get("given_by"), _quoted(data.get("comment"))),
    "GRANT_REVOKED": lambda data: _join("by", data.get("revoked_by"), _quoted(data.get("comment"))),
    "TOOL_INVOKE": _invoked,
    "TOOL_RESULT": _result,
    "EFFECT_IN_DOUBT": _named("reason"),
    "EFFECT_DEAD_LETTERED": _named("code", "reason"),
    "CALLBACK_RECEIVED": _named("step_id", "message_id"),
    "EFFECT_RESOLVED": lambda data: _join(
        data.get("resolution"), "by", data.get("resolved_by"), _quoted(data.get("comment"))
    ),
    "COMMAND_REFUSED": _named("command", "code", "message"),
    "WORKFLOW_COMPLETED": _named("reason"),
    "WORKFLOW_FAILED": _named("code", "reason"),
    "WORKFLOW_CANCELLED": _named("reason"),
    "WORKFLOW_REJECTED": _named("code", "reason"),
    "TOOL_PINNED": _named("tool", "new_hash"),
    "TEMPLATE_PUBLISHED": _named("template", "published_by", "template_hash"),
    "LISTS_REBUILT": lambda data: _join("by", data.get("rebuilt_by"), _quoted(data.get("reason"))),
    "KEY_ROTATED": lambda data: _join(data.get("new_key"), "by", data.get("rotated_by"), _quoted(data.get("reason"))),
    "SEALED_ERASED": lambda data: _join(data.get("ref"), "by", data.get("erased_by"), _quoted(data.get("reason"))),
}
