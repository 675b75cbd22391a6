"""The entry for an MCP client's own configuration file, exactly as that client reads it (forms of November
2026).

* Claude Code: ``.mcp.json``, ``type`` ``stdio`` or ``http``, ``${VAR}`` expands in headers
(code.claude.com/docs/en/mcp).
* VS Code: ``.vscode/mcp.json``, ``servers`` and, for secrets, ``inputs``
  (code.visualstudio.com/docs/copilot/reference/mcp-configuration).
* Cursor: ``.cursor/mcp.json``, ``url`` without a type, ``${env:VAR}`` (cursor.com/docs/mcp).
* Codex: ``~/.codex/config.toml``, ``bearer_token_env_var``; a token in the file is refused
(developers.openai.com/codex/mcp).
* Gemini CLI: ``.gemini/settings.json``, streamable HTTP is ``httpUrl``, ``$VAR`` expands
  (github.com/google-gemini/gemini-cli, docs/tools/mcp-server.md).

A token never stands in these files, which people share and commit: they name the variable that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import orjson
import tomlkit

from charter.errors import InvalidInput

Client = Literal["claude", "vscode", "cursor", "codex", "gemini"]
Mode = Literal["stdio", "http"]

SERVER_NAME = "charter"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class ClientEntry:
    """``body`` goes into the file that ``where`` names; ``notes`` are for the person who puts it there."""

    where: str
    body: str
    notes: tuple[str, ...]


def mcp_entry(
    client: Client,
    *,
    mode: Mode,
    command: Sequence[str] = (),
    url: str | None = None,
    token_env: str = "CHARTER_TOKEN",  # noqa: S107 - the variable's name
) -> ClientEntry:
    """The entry for ``client``.

    ``stdio`` needs ``command``: program and arguments, absolute paths, since clients start it in folders of
    theirs. ``http`` needs ``url`` (the MCP endpoint). Raises ``InvalidInput``.
    """
    if client not in get_args(Client):
        known = ", ".join(get_args(Client))
        raise InvalidInput(f"Unknown client {client!r}.", code="unknown_client", next_step=f"Name one of: {known}.")
    if mode == "stdio" and not command:
        raise InvalidInput("A stdio entry needs the command that starts the server.", code="command_missing")
    if mode == "http" and not url:
        raise InvalidInput("An HTTP entry needs the server's URL.", code="url_missing")
    if not _VARIABLE.fullmatch(token_env):
        raise InvalidInput(f"{token_env!r} is not a variable's name.", code="bad_variable")
    table = _STDIO[client](list(command)) if mode == "stdio" else _HTTP[client](str(url), token_env)
    return ClientEntry(where=_WHERE[client], body=_rendered(client, table), notes=_notes(client, mode, token_env))


def mcp_config(
    client: Client,
    *,
    mode: Mode,
    command: Sequence[str] = (),
    url: str | None = None,
    token_env: str = "CHARTER_TOKEN",  # noqa: S107 - the variable's name
) -> str:
    """The same as text for a terminal: where it goes, the entry, what to do then."""
    entry = mcp_entry(client, mode=mode, command=command, url=url, token_env=token_env)
    return "\n".join([f"Put this into {entry.where}:", "", entry.body.rstrip(), "", *entry.notes]) + "\n"


def _program(command: list[str]) -> dict[str, Any]:
    return {"command": command[0], "args": command[1:]}


_STDIO: Mapping[Client, Callable[[list[str]], dict[str, Any]]] = {
    "claude": lambda command: {"mcpServers": {SERVER_NAME: {"type": "stdio", **_program(command)}}},
    "vscode": lambda command: {"servers": {SERVER_NAME: {"type": "stdio", **_program(command)}}},
    "cursor": lambda command: {"mcpServers": {SERVER_NAME: {"type": "stdio", **_program(command)}}},
    "codex": lambda command: {"mcp_servers": {SERVER_NAME: _program(command)}},
    "gemini": lambda command: {"mcpServers": {SERVER_NAME: _program(command)}},
}


def _bearer(reference: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {reference}"}


def _vscode_http(url: str, variable: str) -> dict[str, Any]:
    wanted = {
        "type": "promptString",
        "id": "charter-token",
        "description": f"Charter token (what `charter token issue` printed, your ${variable})",
        "password": True,
    }
    server = {"type": "http", "url": url, "headers": _bearer("${input:charter-token}")}
    return {"inputs": [wanted], "servers": {SERVER_NAME: server}}


_HTTP: Mapping[Client, Callable[[str, str], dict[str, Any]]] = {
    "claude": lambda url, variable: {
        "mcpServers": {SERVER_NAME: {"type": "http", "url": url, "headers": _bearer(f"${{{variable}}}")}}
    },
    "vscode": _vscode_http,
    "cursor": lambda url, variable: {
        "mcpServers": {SERVER_NAME: {"url": url, "headers": _bearer(f"${{env:{variable}}}")}}
    },
    "codex": lambda url, variable: {"mcp_servers": {SERVER_NAME: {"url": url, "bearer_token_env_var": variable}}},
    "gemini": lambda url, variable: {
        "mcpServers": {SERVER_NAME: {"httpUrl": url, "headers": _bearer(f"${{{variable}}}")}}
    },
}

_WHERE: Mapping[Client, str] = {
    "claude": ".mcp.json in the project (Claude Desktop, stdio only: claude_desktop_config.json)",
    "vscode": ".vscode/mcp.json in the workspace",
    "cursor": ".cursor/mcp.json in the project, or ~/.cursor/mcp.json",
    "codex": "~/.codex/config.toml, or .codex/config.toml in a trusted project",
    "gemini": ".gemini/settings.json in the project, or ~/.gemini/settings.json",
}


def _rendered(client: Client, table: dict[str, Any]) -> str:
    if client == "codex":
        return tomlkit.dumps(table)
    return orjson.dumps(table, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def _notes(client: Client, mode: Mode, variable: str) -> tuple[str, ...]:
    merge = "If the file already has entries, add this one beside them."
    if mode == "stdio":
        return (merge, "The caller is what [stdio] in charter.toml says.")
    issue = f"export {variable}=$(charter token issue --agent NAME --acts-for YOU)"
    if client == "vscode":
        return (merge, f"VS Code asks for the token once and keeps it; to make one: {issue}")
    return (merge, f"Set the variable before the client starts: {issue}")
