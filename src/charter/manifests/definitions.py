"""A tool's definition as an upstream offers it: its hash, its difference from the pinned one, and a manifest proposed for it.

An upstream's annotations are its own word about itself. They are used to *propose* a risk that a person then
keeps or changes; what they do not say counts as the worst (MCP: ``destructiveHint`` is true by default).
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from charter.manifests.plain_text import plain
from charter.model.base import JsonObject
from charter.model.canonical import digest
from charter.model.tool import Risk, ShownArgument, SideEffects, ToolManifest

HASHED: Final = ("name", "description", "inputSchema", "outputSchema", "annotations")
_SENSITIVE_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "token", "secret", "apikey", "credential", "credentials"}
    | {"authorization", "cookie", "otp", "pin", "cvv", "cvc", "ssn", "iban"}
)
_SENSITIVE_PAIRS = (("api", "key"), ("private", "key"), ("access", "key"), ("card", "number"), ("security", "code"))
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]")
_MAX_DIFF = 20_000


def definition_of(tool: Mapping[str, Any]) -> JsonObject:
    """The parts of an MCP tool (as JSON, camelCase) that its pin covers; absent, null and empty parts are left out."""
    return {key: tool[key] for key in HASHED if tool.get(key) not in (None, "", {})}


def definition_hash(tool: Mapping[str, Any]) -> str:
    """``sha256:…`` over the canonical JSON of :func:`definition_of`. Raises ``InvalidInput`` if it has no canonical form."""
    return digest(definition_of(tool))


def pinned_definition(manifest: ToolManifest) -> JsonObject:
    """The definition that a manifest carries, in the form that upstreams offer it."""
    return definition_of(
        {
            "name": manifest.upstream_name,
            "description": manifest.description or None,
            "inputSchema": manifest.input_schema,
            "outputSchema": manifest.output_schema,
            "annotations": manifest.annotations,
        }
    )


def definition_diff(old: Mapping[str, Any], new: Mapping[str, Any] | None) -> str:
    """A unified diff that a person can read of two definitions; ``new`` None means that the tool is gone.

    Hidden characters are taken out of the text and named, since a changed description is where instructions are smuggled in.
    """
    if new is None:
        return "The upstream no longer offers this tool."
    lines = difflib.unified_diff(_lines(old), _lines(new), "pinned", "offered", lineterm="", n=2)
    text = "\n".join(line[:1] + plain(line[1:], limit=2000) if line[:1] in "+-" else line for line in lines)
    if len(text) > _MAX_DIFF:
        text = text[:_MAX_DIFF] + f"\n… {len(text) - _MAX_DIFF:,} more characters"
    return text or "The definitions are the same."


def _lines(tool: Mapping[str, Any]) -> list[str]:
    definition = definition_of(tool)
    description = str(definition.pop("description", ""))
    lines = [f"description: {line}" for line in description.splitlines()]
    return lines + json.dumps(definition, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def governed_name(server: str, upstream_name: str) -> str:
    """``server__tool``; characters that a tool name may not have become ``_``."""
    return f"{server}__{_NOT_IN_A_NAME.sub('_', upstream_name)}"


def propose_manifest(server: str, tool: Mapping[str, Any]) -> ToolManifest:
    """A manifest for a tool that an upstream offers (``tools/list`` entry as JSON), for a person to correct.

    Risk: ``readOnlyHint`` true is low; ``destructiveHint`` false is medium and reversible; everything else, and everything
    unsaid, is high and irreversible. Names that usually hold secrets become sensitive.
    """
    annotations = dict(tool.get("annotations") or {})
    risk, side_effects, idempotent = _judge(annotations)
    schema = dict(tool["inputSchema"])
    return ToolManifest(
        name=governed_name(server, tool["name"]),
        server=server,
        upstream_name=tool["name"],
        title=tool.get("title") or annotations.get("title"),
        description=tool.get("description") or "",
        input_schema=schema,
        output_schema=tool.get("outputSchema"),
        annotations=annotations,
        definition_hash=definition_hash(tool),
        risk=risk,
        side_effects=side_effects,
        idempotent=idempotent,
        sensitive_arguments=tuple(_sensitive_pointers(schema)),
        sensitive_results=tuple(_sensitive_pointers(tool.get("outputSchema") or {})),
        show=tuple(_shown(schema)) if side_effects != "none" else (),
    )


def _judge(annotations: Mapping[str, Any]) -> tuple[Risk, SideEffects, bool]:
    if annotations.get("readOnlyHint") is True:
        return "low", "none", True
    idempotent = annotations.get("idempotentHint") is True
    if annotations.get("destructiveHint") is False:
        return "medium", "reversible", idempotent
    return "high", "irreversible", idempotent


def is_sensitive_name(name: str) -> bool:
    """Whether a field or header of this name usually holds a secret: ``api_key``, ``X-Auth-Token``, ``clientSecret``."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)]
    return any(word in _SENSITIVE_WORDS for word in words) or any(
        pair in _SENSITIVE_PAIRS for pair in itertools.pairwise(words)
    )


def _sensitive_pointers(schema: Any, prefix: str = "", depth: int = 0) -> list[str]:
    if not isinstance(schema, dict) or depth > 8:
        return []
    found: list[str] = []
    properties = schema.get("properties")
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        pointer = f"{prefix}/{str(name).replace('~', '~0').replace('/', '~1')}"
        if is_sensitive_name(str(name)) or (isinstance(inner, dict) and _says_secret(inner)):
            found.append(pointer)
        else:
            found += _sensitive_pointers(inner, pointer, depth + 1)
    if isinstance(schema.get("items"), dict):
        found += _sensitive_pointers(schema["items"], f"{prefix}/*", depth + 1)
    return found


def _says_secret(schema: Mapping[str, Any]) -> bool:
    return schema.get("format") == "password" or schema.get("writeOnly") is True


def _shown(schema: Mapping[str, Any]) -> list[ShownArgument]:
    """Required arguments first; long text is summarised, lists are counted, secrets masked."""
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return []
    required = schema.get("required") or []
    names = sorted(properties, key=lambda name: name not in required)
    return [_show_one(str(name), properties[name]) for name in names[:12]]


def _show_one(name: str, schema: Any) -> ShownArgument:
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    if is_sensitive_name(name) or (isinstance(schema, dict) and _says_secret(schema)):
        return ShownArgument(pointer=pointer, how="masked")
    if isinstance(schema, dict) and schema.get("type") in ("array", "object"):
        return ShownArgument(pointer=pointer, how="summarised")
    # Long text is shown whole on purpose: what is written is what is approved; the cut in the middle keeps it readable.
    return ShownArgument(pointer=pointer, how="whole")
