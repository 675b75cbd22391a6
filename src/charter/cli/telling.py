"""Events as lines, for people. Computed from the record alone; strangers' words are made harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from charter.manifests.plain_text import one_line

Event = dict[str, Any]
_MARKS = {"permit": "✓", "deny": "✗", "require_approval": "?"}


def who_did(event: Event) -> str:
    """``agent ide for ann``."""
    actor = event.get("actor") or {}
    acting = f" for {actor['acts_for']}" if actor.get("acts_for") else ""
    return f"{actor.get('kind', '?')} {actor.get('id', '?')}{acting}"


def tell(event: Event) -> str:
    """One line: what happened."""
    data = event["data"]
    told = _TOLD.get(event["type"])
    try:
        line = told(data) if told else ""
    except (KeyError, TypeError, AttributeError):
        line = ""
    return one_line(line or orjson.dumps(data).decode(), limit=300)


def _decision(data: Event) -> str:
    facts = data.get("facts") or {}
    about = facts.get("resource_id", "")
    named = ", ".join(data.get("policy_ids", ()))
    mark = _MARKS.get(data["verdict"], "")
    return f"{mark} {data['verdict']} {data['action']} {about} [{named or data['code']}]: {data['reason']}"


def _arguments(data: Event) -> str:
    return orjson.dumps(data.get("arguments", {})).decode()


def _needed(requirements: Iterable[Mapping[str, Any]], between: str = ", ") -> str:
    found = []
    for item in requirements:
        people = f" of {', '.join(item['people'])}" if item.get("people") else ""
        found.append(f"{item.get('approvers', 1)} × {item.get('role') or 'any person'}{people}")
    return between.join(found)


def _asked(data: Event) -> str:
    request = data["request"]
    needed = _needed(request.get("requirements", ()), "; ")
    subject = request.get("tool") or f"step {request['step_id']}"
    dry = " (dry run)" if request.get("dry_run") else ""
    return f"{request['approval_id']} asks {needed} about {subject} until {request['expires_at']}{dry}"


def _decided(data: Event) -> str:
    comment = f": {data['comment']}" if data.get("comment") else ""
    return f"{data['decided_by']} by {data['channel']}: {data['decision']}{comment} → {data['status']}"


def _invoked(data: Event) -> str:
    used = [*data.get("approval_ids", ()), *([data["grant_id"]] if data.get("grant_id") else [])]
    under = f" under {', '.join(used)}" if used else ""
    again = f", attempt {data['attempt']}" if data.get("attempt", 1) > 1 else ""
    return f"{data['tool']} {_arguments(data)}{under}{again}{' (dry run)' if data.get('dry_run') else ''}"


def _result(data: Event) -> str:
    error = f" {data.get('error_code') or ''} {data.get('error_message') or ''}".rstrip()
    answered = "answered with an error" if data.get("is_error") else data["status"]
    return f"{answered} after {data.get('duration_us', 0) / 1000:.1f} ms, {data.get('result_bytes', 0)} bytes{error}"


def _step(data: Event) -> str:
    reason = f": {data['reason']}" if data.get("reason") else ""
    return f"step {data['step_id']} ({data['step_type']}) {data['status']}{reason}"


_TOLD: dict[str, Callable[[Event], str]] = {
    "WORKFLOW_STARTED": lambda d: f"{d['template']} for {d['owner']}, started by {d['started_by']}: {d['purpose']}",
    "WORKFLOW_STEP": _step,
    "AGENT_INVOKE": lambda d: f"{d['status']} to {d['agent']}: {', '.join(d.get('allowed_tools', ())) or 'no tools'}",
    "PROPOSAL_MADE": lambda d: f"{d['tool']} {_arguments(d)}" + (f" because: {d['reason']}" if d.get("reason") else ""),
    "POLICY_DECISION": _decision,
    "APPROVAL_REQUESTED": _asked,
    "APPROVAL_DECISION": _decided,
    "APPROVAL_TURN": lambda d: f"the next are asked: {_needed(d['asked'])}",
    "APPROVAL_REMINDED": lambda d: f"reminder {d['number']}: {_needed(d['still_needed'])}",
    "APPROVAL_ESCALATED": lambda d: f"escalated to {_needed(d['asked'])} until {d['expires_at']}",
    "APPROVAL_DELEGATED": lambda d: f"{d['delegated_by']} lets {d['delegated_to']} decide by {d['channel']}",
    "APPROVAL_CLOSED": lambda d: f"{d['status']}: {d['reason']}",
    "GRANT_GIVEN": lambda d: f"{d['given_by']} gives {d['bounds']['uses']} × {d['bounds']['tool']} by {d['channel']}",
    "GRANT_REVOKED": lambda d: f"{d['revoked_by']} takes {d['grant_id']} back",
    "TOOL_INVOKE": _invoked,
    "TOOL_RESULT": _result,
    "EFFECT_IN_DOUBT": lambda d: d["reason"],
    "EFFECT_DEAD_LETTERED": lambda d: f"given up after {d['sent']}: {d['reason']}",
    "CALLBACK_RECEIVED": lambda d: f"step {d['step_id']} was called back ({d['message_id']})",
    "EFFECT_RESOLVED": lambda d: f"{d['resolved_by']}: {d['resolution']} {d.get('comment', '')}".rstrip(),
    "COMMAND_REFUSED": lambda d: f"{d['command']}: {d['message']}",
    "WORKFLOW_COMPLETED": lambda _: "completed",
    "WORKFLOW_FAILED": lambda d: f"failed: {d.get('reason') or ''}",
    "WORKFLOW_CANCELLED": lambda d: f"cancelled: {d.get('reason') or ''}",
    "WORKFLOW_REJECTED": lambda d: f"rejected: {d.get('reason') or ''}",
    "TEMPLATE_PUBLISHED": lambda d: f"{d['template']} by {d['published_by']}: {d['template_hash']}",
    "TOOL_PINNED": lambda d: f"{d['tool']} by {d['pinned_by']}: {d['new_hash']}",
    "LISTS_REBUILT": lambda d: f"the lists were made anew by {d['rebuilt_by']}: {d['reason']}",
    "KEY_ROTATED": lambda d: f"checkpoints are signed by {d['new_key']}, by {d['rotated_by']}: {d['reason']}",
    "SEALED_ERASED": lambda d: f"{d['ref']} by {d['erased_by']}: {d['reason']}",
}
