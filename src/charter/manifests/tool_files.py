"""``NAME.tools.yaml``: one file for each upstream, with how to reach it and a manifest for each governed tool.

Pure: text to :class:`UpstreamManifest` and back. A secret never stands in such a file: environment variables and
headers are *references* to Charter's environment or its encrypted store. The definition that was pinned stands in the
file beside its hash, so that a difference can be shown later and a file edited by hand is found out.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from charter.manifests.definitions import definition_of, governed_name, is_sensitive_name, pinned_definition
from charter.manifests.redaction import parse_pointer
from charter.manifests.yaml_text import Document, dump, load
from charter.model.base import JsonObject, Model
from charter.model.canonical import digest
from charter.model.outbound import SERVER
from charter.model.tool import ToolManifest

CODE: Final = "bad_tool_file"
SUFFIX: Final = ".tools.yaml"
ServerName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*(_[A-Za-z0-9.-]+)*$", max_length=64)]

Era = Literal["auto", "legacy"]
"""``legacy`` goes straight to the handshake of 2025 and before, for servers that break on being asked for a newer one."""


class Reference(Model):
    """A value given by one of: ``env`` (a variable of Charter's own environment), ``secret`` (a name in the encrypted
    store), ``value`` (in clear, for what is no secret). ``prefix`` goes before it, as ``"Bearer "`` does."""

    env: str | None = None
    secret: str | None = None
    value: str | None = None
    prefix: str = ""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(item is not None for item in (self.env, self.secret, self.value)) != 1:
            raise ValueError("give exactly one of env, secret and value")
        return self


class StdioConnection(Model):
    """An upstream that Charter starts. The child sees only ``env`` and a minimal PATH, HOME and user name."""

    command: str = Field(min_length=1)
    args: tuple[str, ...] = ()
    env: dict[str, Reference] = Field(default_factory=dict)
    cwd: str | None = None
    era: Era = "auto"

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        _no_clear_secrets(self.env)
        for arg in self.args:
            name, equals, _ = arg.lstrip("-").partition("=")
            if arg.startswith("-") and equals and is_sensitive_name(name):
                raise ValueError(f"argument {name!r} looks like a secret in clear: pass it by env with a reference")
        return self


class HttpConnection(Model):
    """An upstream behind a URL (streamable HTTP). ``headers`` carry Charter's own credential there, never a client's."""

    url: str
    headers: dict[str, Reference] = Field(default_factory=dict)
    era: Era = "auto"

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url must begin with http:// or https:// and name a host")
        if parts.username or parts.password:
            raise ValueError("url carries a user or password in clear: use headers with a reference")
        if any(is_sensitive_name(name) for name, _ in parse_qsl(parts.query)):
            raise ValueError("url carries a secret in its query: use headers with a reference")
        _no_clear_secrets(self.headers)
        return self


def _no_clear_secrets(references: dict[str, Reference]) -> None:
    for name, reference in references.items():
        if reference.value is not None and is_sensitive_name(name):
            raise ValueError(f"{name} looks like a secret and stands here in clear: use env or secret")


class UpstreamManifest(Model):
    """One upstream MCP server: how to reach it and what of it is governed. ``concurrency``: calls at one time."""

    server: ServerName
    connection: StdioConnection | HttpConnection
    tools: tuple[ToolManifest, ...] = ()
    concurrency: int = Field(default=32, ge=1, le=1000)
    max_result_bytes: int = Field(default=16 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)

    @field_validator("server")
    @classmethod
    def _not_our_own(cls, name: str) -> str:
        if name == SERVER:
            raise ValueError(f"{SERVER!r} is the name of Charter's own tools: call the upstream something else")
        return name

    def tool(self, name: str) -> ToolManifest | None:
        """The manifest of this governed name (``server__tool``), or None."""
        return next((tool for tool in self.tools if tool.name == name), None)


def parse(text: str, file: str) -> UpstreamManifest:
    """Read the text of a ``.tools.yaml`` file; ``file`` names it in errors.

    Raises ``Misconfigured`` (``bad_tool_file``) naming file, line, pointer and mend.
    """
    document = load(text, file, code=CODE)
    top = document.value
    if not isinstance(top, dict):
        raise document.error(
            "", "the file must be a map", "Start with `server:`; see `charter upstream add`.", code=CODE
        )
    server = top.get("server")
    if not isinstance(server, str):
        raise document.error("/server", "server is missing", "Add `server: NAME` at the top.", code=CODE)
    listed = top.get("tools") or []
    if not isinstance(listed, list):
        raise document.error("/tools", "tools must be a list", "Write each tool as `- tool: NAME`.", code=CODE)
    tools = tuple(_tool(document, server, item, f"/tools/{index}") for index, item in enumerate(listed))
    upstream: UpstreamManifest = _build(
        document, "", UpstreamManifest, {**top, "tools": tools, "connection": _connection(document, top)}
    )
    _check_together(document, upstream)
    return upstream


def _connection(document: Document, top: JsonObject) -> Any:
    given = top.get("connection")
    if not isinstance(given, dict) or ("command" in given) == ("url" in given):
        mend = "Write `connection:` with `command:` and `args:`, or with `url:`."
        raise document.error("/connection", "give either a command or a url", mend, code=CODE)
    kind: Any = StdioConnection if "command" in given else HttpConnection
    return _build(document, "/connection", kind, given)


def _tool(document: Document, server: str, item: Any, pointer: str) -> ToolManifest:
    if not isinstance(item, dict) or not isinstance(item.get("tool"), str):
        raise document.error(
            pointer, "a tool needs its name", "Write `- tool: NAME` as the upstream names it.", code=CODE
        )
    definition = item.get("definition")
    if not isinstance(definition, dict) or not isinstance(definition.get("inputSchema"), dict):
        mend = "Run `charter tools pin` to write the definition that the upstream offers."
        raise document.error(pointer, "the pinned definition with its inputSchema is missing", mend, code=CODE)
    offered = {**{key: value for key, value in definition.items() if key != "hash"}, "name": item["tool"]}
    found, pinned = digest(definition_of(offered)), definition.get("hash")
    if found != pinned:
        mend = "Do not edit `definition:` by hand; run `charter tools pin` to pin what the upstream offers now."
        raise document.error(f"{pointer}/definition/hash", f"the definition's hash is {found}", mend, code=CODE)
    fields = {key: value for key, value in item.items() if key not in ("tool", "definition")}
    reserved = {
        "name": governed_name(server, item["tool"]),
        "server": server,
        "upstream_name": item["tool"],
        "description": definition.get("description") or "",
        "input_schema": definition["inputSchema"],
        "output_schema": definition.get("outputSchema"),
        "annotations": definition.get("annotations") or {},
        "definition_hash": found,
    }
    if clash := sorted(fields.keys() & reserved.keys()):
        mend = "Remove it; it comes from `tool:` and `definition:`."
        raise document.error(f"{pointer}/{clash[0]}", f"{clash[0]} is not written here", mend, code=CODE)
    manifest: ToolManifest = _build(document, pointer, ToolManifest, {**fields, **reserved})
    _check_pointers(document, manifest, pointer)
    return manifest


def _check_pointers(document: Document, manifest: ToolManifest, pointer: str) -> None:
    for name in ("sensitive_arguments", "sensitive_results", "show"):
        for index, item in enumerate(getattr(manifest, name)):
            try:
                parse_pointer(item if isinstance(item, str) else item.pointer)
            except ValueError as error:
                mend = "Write JSON pointers: /name, /card/number, /items/*/token."
                raise document.error(f"{pointer}/{name}/{index}", str(error), mend, code=CODE) from None


def _check_together(document: Document, upstream: UpstreamManifest) -> None:
    names: dict[str, ToolManifest] = {}
    for index, tool in enumerate(upstream.tools):
        if tool.name in names:
            raise document.error(
                f"/tools/{index}/tool", f"{tool.name} is listed twice", "Keep one of the two.", code=CODE
            )
        names[tool.name] = tool
    for index, tool in enumerate(upstream.tools):
        if tool.dry_run is None:
            continue
        preview = names.get(governed_name(upstream.server, tool.dry_run.tool))
        if preview is None or preview.side_effects != "none":
            mend = "Name a tool of this file whose side_effects are none: a preview runs before anybody has approved."
            raise document.error(f"/tools/{index}/dry_run", f"{tool.dry_run.tool} cannot preview", mend, code=CODE)


def _build(document: Document, pointer: str, kind: Any, fields: JsonObject) -> Any:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        inner = "".join(f"/{part}" for part in first["loc"])
        problem = re.sub(r"^Value error, ", "", first["msg"])
        raise document.error(
            pointer + inner, problem, "Correct this field; docs/tools.md lists them.", code=CODE
        ) from None


_HEAD = """\
# How Charter reaches the upstream MCP server {server!r}, and what it knows of each governed tool.
# Secrets never stand here: `env:` names a variable of Charter's environment, `secret:` a name in its encrypted store.
# Risk, side_effects and idempotent are proposals from the upstream's own annotations: correct them.
#   risk: low (never asks) | medium | high      side_effects: none | reversible | irreversible
#   idempotent: true only if the same call twice does no more than once (it may then be retried)
#   sensitive_arguments, sensitive_results: JSON pointers that are never recorded or shown (/password, /items/*/token)
#   show: what an approver sees of each argument: whole | masked | counted | summarised
#   dry_run: {{tool: NAME}} of a tool here without side effects, whose answer is shown to the approver
#   timeout_seconds, tags, roles (who may use it; empty means any)
# `definition` is the pin. It is written by `charter tools pin`; a tool that differs from it is quarantined.
"""
_JUDGED = ("title", "risk", "side_effects", "idempotent", "timeout_seconds")
_LISTS = ("sensitive_arguments", "sensitive_results", "show", "dry_run", "tags", "roles")


def render(upstream: UpstreamManifest) -> str:
    """The commented text of the file. ``parse(render(upstream), …)`` gives the same manifest."""
    connection = upstream.connection.model_dump(mode="json", exclude_defaults=True)
    parts = [_HEAD.format(server=upstream.server), dump({"server": upstream.server, "connection": connection})]
    limits = upstream.model_dump(mode="json", exclude_defaults=True, include={"concurrency", "max_result_bytes"})
    if limits:
        parts.append(dump(limits))
    parts.append("tools:" + ("" if upstream.tools else " []") + "\n")
    parts += [_render_tool(tool) for tool in upstream.tools]
    return "".join(parts)


def _render_tool(tool: ToolManifest) -> str:
    values = tool.model_dump(mode="json")
    item: JsonObject = {"tool": tool.upstream_name}
    item |= {key: values[key] for key in _JUDGED if values[key] is not None}
    item |= {key: values[key] for key in _LISTS if values[key]}
    if item.get("show"):
        item["show"] = [{key: value for key, value in line.items() if value is not None} for line in item["show"]]
    definition = pinned_definition(tool)
    definition.pop("name", None)
    item["definition"] = {"hash": tool.definition_hash, **definition}
    lines = dump(item).splitlines()
    return "\n  - " + "\n".join(line and (f"    {line}" if index else line) for index, line in enumerate(lines)) + "\n"
