"""The yardstick: a proxy made of the same SDK and nothing else: a low-level server, one kept upstream client.

It governs nothing and records nothing. Its transport has the options that Charter's has (an answer that may still become a
stream, so that progress could pass), and the client is held by a task of its own that connects again when it is lost.

``python -m bench.contestants.bare UPSTREAM [uvloop]`` prints ``READY URL``. Without the second word it runs on what the SDK
depends on, asyncio's own loop; with it on the loop that Charter takes.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import mcp_types as types
from mcp import Client
from mcp.server.lowlevel import Server

from bench.contestants.serving import serve


class Kept:
    """The upstream client, while there is one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.client: Client | None = None
        self.tools: list[types.Tool] = []
        self.ready = anyio.Event()

    async def run(self) -> None:
        while True:
            try:
                async with Client(self._url) as client:
                    self.tools = (await client.session.list_tools()).tools
                    self.client = client
                    self.ready.set()
                    await anyio.sleep_forever()
            except Exception:
                self.client = None
                await anyio.sleep(0.25)

    async def call(self, _ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        assert self.client is not None
        result = await self.client.session.call_tool(params.name, params.arguments)
        assert isinstance(result, types.CallToolResult)
        return result

    async def list(self, _ctx: Any, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=self.tools)


def build(upstream: str) -> Any:
    kept = Kept(upstream)

    @asynccontextmanager
    async def lifespan(_server: Server[Any]) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.run)
            await kept.ready.wait()
            yield None
            tasks.cancel_scope.cancel()

    server: Server[Any] = Server(
        "bare",
        version="1",
        lifespan=lifespan,
        get_tool_input_schema=lambda name: next((t.input_schema for t in kept.tools if t.name == name), None),
        on_list_tools=kept.list,
        on_call_tool=kept.call,
    )
    return server.streamable_http_app(stateless_http=True)


if __name__ == "__main__":
    serve(build(sys.argv[1]), uvloop="uvloop" in sys.argv[2:])
