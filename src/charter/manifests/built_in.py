"""Charter's own tools, which workflows' ``external`` and ``notification`` steps call: governed like any other.

What a call is (risk, side effects, idempotency) depends on the request, so each call is decided under a manifest that was
fitted to its arguments. They are for workflows alone: no agent can call them, whatever its step allows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from charter.manifests.definitions import definition_hash
from charter.model.base import JsonObject
from charter.model.outbound import EMAIL_TOOL, HTTP_TOOL, SAFE, SERVER, WEBHOOK_TOOL
from charter.model.tool import ShownArgument, ToolManifest

_TEXT: Final = {"type": "string"}
_LATE: Final[JsonObject] = {
    "type": "object",
    "description": "What is put in at the last moment, by JSON pointer: texts, and the names of secrets.",
}
_HTTP_INPUT: Final[JsonObject] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["method", "url", "risk", "idempotent", "timeout_seconds"],
    "properties": {
        "method": {"type": "string", "enum": ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"]},
        "url": {"type": "string", "maxLength": 8000},
        "headers": {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": 8000},
            "maxProperties": 64,
        },
        "body": {},
        "risk": {"type": "string", "enum": ["low", "medium", "high"]},
        "idempotent": {"type": "boolean"},
        "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 600},
        "follow_redirects": {"type": "boolean"},
        "max_bytes": {"type": "integer", "minimum": 1},
        "sensitive": {"type": "boolean"},
        "late": _LATE,
    },
}


_MESSAGE: Final[JsonObject] = {
    "risk": {"type": "string", "enum": ["low", "medium", "high"]},
    "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 600},
}
_WEBHOOK_INPUT: Final[JsonObject] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["url", "secret", "type", "timestamp", "data", *_MESSAGE],
    "properties": {
        "url": {"type": "string", "maxLength": 8000},
        "secret": _TEXT,
        "type": _TEXT,
        "timestamp": _TEXT,
        "data": {"type": "object"},
        "late": _LATE,
        **_MESSAGE,
    },
}
_EMAIL_INPUT: Final[JsonObject] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["to", "subject", "text", *_MESSAGE],
    "properties": {
        "to": {"type": "array", "items": {"type": "string", "maxLength": 320}, "minItems": 1, "maxItems": 50},
        "subject": {"type": "string", "maxLength": 2000},
        "text": {"type": "string", "maxLength": 200_000},
        **_MESSAGE,
    },
}


def _manifest(name: str, title: str, description: str, schema: JsonObject, *shown: tuple[str, Any]) -> ToolManifest:
    upstream_name = name.removeprefix(f"{SERVER}__")
    definition = {"name": upstream_name, "description": description, "inputSchema": schema}
    return ToolManifest(
        name=name,
        server=SERVER,
        upstream_name=upstream_name,
        title=title,
        description=description,
        input_schema=schema,
        definition_hash=definition_hash(definition),
        risk="medium",
        side_effects="reversible",
        show=tuple(ShownArgument(pointer=f"/{pointer}", how=how) for pointer, how in shown),
        tags=("outbound",),
        roles=("charter",),
    )


BUILT_IN: Final[dict[str, ToolManifest]] = {
    HTTP_TOOL: _manifest(
        HTTP_TOOL,
        "HTTP request",
        "An HTTP request to a host that the configuration allows. For workflows' external steps alone.",
        _HTTP_INPUT,
        ("method", "whole"),
        ("url", "whole"),
        ("headers", "whole"),
        ("body", "whole"),
    ),
    WEBHOOK_TOOL: _manifest(
        WEBHOOK_TOOL,
        "Webhook",
        "A message, signed as in Standard Webhooks, to a host that the configuration allows. For workflows' steps alone.",
        _WEBHOOK_INPUT,
        ("url", "whole"),
        ("type", "whole"),
        ("data", "whole"),
    ),
    EMAIL_TOOL: _manifest(
        EMAIL_TOOL,
        "E-mail",
        "A mail in plain text, to recipients that the configuration allows. For workflows' steps alone.",
        _EMAIL_INPUT,
        ("to", "whole"),
        ("subject", "whole"),
        ("text", "whole"),
    ),
}


def fitted(manifest: ToolManifest, arguments: JsonObject) -> ToolManifest:
    """The manifest of this one call. ``arguments`` are valid by its schema."""
    fit = _FITS.get(manifest.name)
    return manifest if fit is None else manifest.model_copy(update=fit(arguments))


def _http(arguments: JsonObject) -> dict[str, Any]:
    risk = arguments["risk"]
    changes: dict[str, Any] = {
        "risk": risk,
        "side_effects": "irreversible" if risk == "high" else "reversible",
        "idempotent": arguments["idempotent"],
        "timeout_seconds": arguments["timeout_seconds"],
    }
    if arguments["method"] in SAFE:
        changes["side_effects"] = "none"
    if arguments.get("sensitive"):
        changes["sensitive_arguments"] = ("/headers", "/body", "/late")
        changes["sensitive_results"] = ("/headers", "/body")
    return changes


def _message(arguments: JsonObject) -> dict[str, Any]:
    risk = arguments["risk"]
    side_effects = "irreversible" if risk == "high" else "reversible"
    return {"risk": risk, "side_effects": side_effects, "timeout_seconds": arguments["timeout_seconds"]}


def _webhook(arguments: JsonObject) -> dict[str, Any]:
    """Its receiver knows by the message's id what it has had already."""
    return {**_message(arguments), "idempotent": True}


_FITS: Final[dict[str, Callable[[JsonObject], dict[str, Any]]]] = {
    HTTP_TOOL: _http,
    WEBHOOK_TOOL: _webhook,
    EMAIL_TOOL: _message,
}
