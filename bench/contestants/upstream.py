"""The upstream of all contestants: one trivial tool on the SDK's low-level server, JSON answers, and counters of requests.

``python -m bench.contestants.upstream`` prints ``READY URL``. ``GET /counts`` tells how many requests of each MCP method came.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import mcp_types as types
import orjson
from mcp.server.lowlevel import Server
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.contestants.serving import serve

TOOL = types.Tool(
    name="echo",
    description="Gives back the text.",
    input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
)


class Counting:
    """Counts POSTs by their MCP method."""

    def __init__(self, app: ASGIApp, counts: Counter[str]) -> None:
        self._app, self._counts = app, counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            method = next((value for name, value in scope["headers"] if name == b"mcp-method"), b"other")
            self._counts[method.decode()] += 1
        await self._app(scope, receive, send)


async def list_tools(_ctx: Any, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    # A day to live, so that no proxy has to list again between two calls.
    return types.ListToolsResult(tools=[TOOL], ttl_ms=86_400_000)


async def call_tool(_ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    text = str((params.arguments or {}).get("text", ""))
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def build() -> ASGIApp:
    counts: Counter[str] = Counter()

    async def tell(_request: Request) -> Response:
        return Response(orjson.dumps(counts), media_type="application/json")

    server: Server[Any] = Server("upstream", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
    app = server.streamable_http_app(
        json_response=True, stateless_http=True, custom_starlette_routes=[Route("/counts", tell)]
    )
    return Counting(app, counts)


if __name__ == "__main__":
    serve(build(), uvloop=importlib.util.find_spec("uvloop") is not None)
