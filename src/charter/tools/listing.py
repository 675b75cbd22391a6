"""What an upstream lists, tool by tool: one definition that cannot be used takes no other one with it.

The SDK checks a page of ``tools/list`` as a whole. Here each page is looked through before it reaches the SDK, the tools
that it would refuse are taken out, and each is told with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import anyio
import mcp_types as types
import orjson
from mcp.client.session import ClientSession
from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.inbound import find_invalid_x_mcp_header
from mcp.shared.message import SessionMessage
from mcp_types import methods
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from charter.manifests.arguments import MAX_BYTES, MAX_DEPTH, deeper_than
from charter.manifests.plain_text import one_line
from charter.tools.failures import UNREADABLE, own_error

MAX_PAGES: Final = 100
MAX_TOOLS: Final = 5_000
_HANDSHAKE: Final = "2025-11-25"
_AROUND: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
_AT_ONCE: Final = 20
_DEEPER: Final = 4
"""A definition nests its schemas in members of its own."""

Refuse = Callable[[str, str], None]
"""Told of each refused tool: its name as far as it has one, and why, with the mend."""


class Screen:
    """Looks through the answers to ``tools/list`` on one connection."""

    def __init__(self, refuse: Refuse) -> None:
        self._refuse = refuse
        self._asked: dict[types.RequestId, str] = {}

    def sent(self, item: SessionMessage) -> None:
        """Before the message leaves."""
        message = item.message
        if isinstance(message, types.JSONRPCRequest) and message.method == "tools/list":
            meta = (message.params or {}).get("_meta") or {}
            self._asked[message.id] = str(meta.get(types.PROTOCOL_VERSION_META_KEY, _HANDSHAKE))

    async def received(self, message: SessionMessage | Exception) -> SessionMessage | Exception:
        """The message to pass on."""
        if isinstance(message, Exception) or not isinstance(message.message, types.JSONRPCResponse):
            return message
        answer = message.message
        if (version := self._asked.pop(coerce_request_id(answer.id), None)) is not None:
            answer.result = await sifted(answer.result, self._refuse, version)
        return message

    def awaits(self, id_: types.RequestId) -> bool:
        """Whether a listing was asked for under this id and is not answered yet."""
        return coerce_request_id(id_) in self._asked


def readable(line: bytes, screen: Screen) -> types.JSONRPCMessage:
    """A JSON-RPC message from its line. Raises ``ValueError`` for one that cannot be read.

    An answer nested deeper than the SDK's parser goes is an error for its caller, but a listing is still looked through.
    """
    try:
        return types.jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        message = types.jsonrpc_message_adapter.validate_python(orjson.loads(line), by_name=False)
    if isinstance(message, types.JSONRPCResponse) and not screen.awaits(message.id):
        error = types.ErrorData(**own_error(UNREADABLE, "The upstream's result is nested too deeply to be passed on."))
        return types.JSONRPCError(jsonrpc="2.0", id=message.id, error=error)
    return message


async def sifted(result: Any, refuse: Refuse, version: str = _HANDSHAKE) -> Any:
    """The result of ``tools/list`` without the tools that cannot be used. Lets others go on between two tools."""
    tools = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(tools, list):
        return result
    kept = []
    for number, tool in enumerate(tools[:MAX_TOOLS], 1):
        why = _unusable(tool, version)
        if why is None:
            kept.append(tool)
        else:
            name = tool.get("name") if isinstance(tool, dict) else None
            refuse(one_line(name, limit=100) if isinstance(name, str) else f"(tool {number})", why)
        if number % _AT_ONCE == 0:
            await anyio.lowlevel.checkpoint()
    if len(tools) > MAX_TOOLS:
        refuse(f"(all after {MAX_TOOLS:,})", f"there are {len(tools):,} tools in one page. Offer fewer tools.")
    return {**result, "tools": kept}


def _unusable(tool: Any, version: str) -> str | None:
    """Why this tool cannot be used, and the mend; None for one that can."""
    if not isinstance(tool, dict):
        return "it is no definition of a tool. Ask the server's maker."
    if deeper_than(tool, MAX_DEPTH + _DEEPER):
        return f"its definition is nested deeper than {MAX_DEPTH} levels. Ask the server's maker for a flatter schema."
    try:
        if len(orjson.dumps(tool)) > MAX_BYTES:
            return f"its definition is larger than {MAX_BYTES:,} bytes. Ask the server's maker for a shorter one."
        modern = version in MODERN_PROTOCOL_VERSIONS
        methods.validate_server_result("tools/list", version, {"tools": [tool], **(_AROUND if modern else {})})
        header = find_invalid_x_mcp_header(types.Tool.model_validate(tool, by_name=False).input_schema)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("tools", 0))
        return f"its definition is not valid MCP: {where}: {first['msg']}. Ask the server's maker to correct it."
    except (ValueError, TypeError):
        return "its definition is not JSON. Ask the server's maker to correct it."
    if modern and header:
        return f"its x-mcp-header is invalid: {header}. Ask the server's maker to correct it."
    return None


async def listed(session: ClientSession) -> list[types.Tool]:
    """All pages of ``tools/list``, at most ``MAX_TOOLS`` and a page more. Through the session, which learns from it which
    arguments travel as headers. Raises what the session raises."""
    found: list[types.Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await session.list_tools(params=types.PaginatedRequestParams(cursor=cursor) if cursor else None)
        found += page.tools
        cursor = page.next_cursor
        if not cursor or len(found) > MAX_TOOLS:
            break
    return found
