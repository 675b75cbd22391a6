"""The published JSON Schemas (2020-12), generated from the models: what others may rely on.

``docs/schemas/`` and the package's ``schemas/`` hold them as files; a test keeps the files equal to this. The number in an
``$id`` (``:1``) is raised by a change that would refuse what was valid before.
"""

from __future__ import annotations

import json
from typing import Any, Final

from charter.model import events as ev
from charter.model.approval import ApprovalDecision, ApprovalRequest
from charter.model.base import JsonObject, Model
from charter.model.reply import WorkflowContext, WorkflowStepResult
from charter.model.template import Template
from charter.model.tool import ToolManifest

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VERSION: Final = 1
ENVELOPE: Final = "event-envelope"
_MODELS: Final[dict[str, tuple[type[Model], str]]] = {
    "workflow-context": (WorkflowContext, "Workflow context"),
    "workflow-step-result": (WorkflowStepResult, "Workflow step result"),
    "approval-request": (ApprovalRequest, "Approval request"),
    "approval-decision": (ApprovalDecision, "Approval decision"),
    "template": (Template, "Workflow template"),
    "tool-manifest": (ToolManifest, "Tool manifest"),
}


def published_schemas() -> dict[str, JsonObject]:
    """Every published schema by its name: ``template``, ``event-tool-invoke``, ``event-envelope`` and the rest."""
    out = {name: _schema(name, title, model) for name, (model, title) in _MODELS.items()}
    template = out["template"]
    template["properties"] = {
        "$schema": {"type": "string", "description": "For editors; Charter does not read it."},
        **template["properties"],
    }
    for event_type, payload in ev.PAYLOADS.items():
        name = event_name(event_type)
        out[name] = _schema(name, f"Data of a {event_type} event", payload)
    out[ENVELOPE] = _envelope({event_type: out[event_name(event_type)] for event_type in ev.PAYLOADS})
    return out


def schema_text(schema: JsonObject) -> str:
    """The text of a schema's file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def event_name(event_type: str) -> str:
    """``event-tool-invoke`` of ``TOOL_INVOKE``."""
    return "event-" + event_type.lower().replace("_", "-")


def schema_id(name: str) -> str:
    """The ``$id`` of the schema of this name."""
    return f"urn:charter:schema:{name}:{VERSION}"


def _schema(name: str, title: str, model: type[Model]) -> JsonObject:
    body = model.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": DIALECT, "$id": schema_id(name), **body, "title": title}


def _text(description: str) -> JsonObject:
    return {"type": "string", "description": description}


def _envelope(payloads: dict[str, JsonObject]) -> JsonObject:
    """One event as it stands in the ledger. The schemas of the data are embedded, each under its own ``$id``."""
    properties: dict[str, Any] = {
        "v": {"const": 1, "description": "The version of this envelope."},
        "tenant": _text("Whose ledger it is in."),
        "seq": {"type": "integer", "minimum": 0, "description": "Its place in the tenant's ledger, without gaps."},
        "stream": _text("What it belongs to: a workflow_id, or tenant:NAME for what is outside every workflow."),
        "version": {"type": "integer", "minimum": 1, "description": "Its place in the stream, from 1, without gaps."},
        "id": _text("evt_ and a UUIDv7."),
        "type": {"enum": list(payloads), "description": "What happened; it says what data is."},
        "time": {"type": "string", "format": "date-time", "description": "UTC, RFC 3339, with milliseconds."},
        "actor": {
            "type": "object",
            "description": "Who caused it.",
            "required": ["kind", "id"],
            "properties": {
                "kind": {"enum": ["human", "agent", "service"]},
                "id": _text("The principal."),
                "acts_for": _text("The person whom an agent serves."),
            },
            "additionalProperties": False,
        },
        "causation_id": _text("The command that caused it: events of one command share it."),
        "correlation_id": _text("What it is part of: the workflow."),
        "trace_id": _text("The W3C trace in which it happened; absent when there was none."),
        "data": {"type": "object", "description": "What the type says; members at their default are left out."},
    }
    links = [
        {
            "if": {"properties": {"type": {"const": event_type}}},
            "then": {"properties": {"data": {"$ref": schema["$id"]}}},
        }
        for event_type, schema in payloads.items()
    ]
    return {
        "$schema": DIALECT,
        "$id": schema_id(ENVELOPE),
        "title": "Audit event",
        "description": "One leaf of the append-only ledger, hashed as RFC 8785 canonical JSON.",
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name != "trace_id"],
        "additionalProperties": False,
        "allOf": links,
        "$defs": {event_name(event_type): schema for event_type, schema in payloads.items()},
    }
