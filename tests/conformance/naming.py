"""A thin adapter for the conformance suite, in front of a real Charter.

The suite calls its fixture tools by bare name and knows nothing of workflows. This process starts one workflow and then
changes two things on the way: a call of ``test_x`` becomes a call of ``every__test_x`` with the workflow's two ids, and
``every__`` is taken off names in the answers. Everything else (headers, status codes, streams, sessions, errors) passes
as it is, so what the suite judges is Charter's.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import httpx2
import orjson
import uvicorn
from mcp import Client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

PREFIX: Final = "every__"
HOP: Final = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding", "accept-encoding", "date"})


class Adapter:
    """Passes requests on to ``url``. ``ids`` are added to calls of the fixture tools."""

    def __init__(self, url: str, ids: Mapping[str, str], fixtures: frozenset[str]) -> None:
        self._url, self._ids, self._fixtures = url, ids, fixtures
        self._http = httpx2.AsyncClient(timeout=None, trust_env=False, headers={"accept-encoding": "identity"})

    async def close(self) -> None:
        await self._http.aclose()

    async def answer(self, request: Request) -> Response:
        """Pass one request on, and its answer back."""
        headers = [(key, value) for key, value in request.headers.items() if key not in HOP]
        name = request.headers.get("mcp-name")
        if name in self._fixtures:
            headers = [(key, PREFIX + value if key == "mcp-name" else value) for key, value in headers]
        body = self._governed(await request.body())
        sent = self._http.build_request(request.method, self._url, headers=headers, content=body)
        got = await self._http.send(sent, stream=True)
        kept = {key: value for key, value in got.headers.items() if key not in HOP}
        if got.headers.get("content-type", "").startswith("text/event-stream"):
            return StreamingResponse(_lines(got), status_code=got.status_code, headers=kept)
        whole = await got.aread()
        await got.aclose()
        return Response(_bare(whole), status_code=got.status_code, headers=kept)

    def _governed(self, body: bytes) -> bytes:
        try:
            message: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            return body
        params = message.get("params") if isinstance(message, dict) else None
        if not isinstance(params, dict) or message.get("method") != "tools/call":
            return body
        if params.get("name") in self._fixtures:
            params["name"] = PREFIX + params["name"]
            params["arguments"] = {**(params.get("arguments") or {}), **self._ids}
            return orjson.dumps(message)
        return body


async def _lines(answer: httpx2.Response) -> AsyncIterator[bytes]:
    rest = b""
    try:
        async for part in answer.aiter_raw():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield _bare(line) + b"\n"
        if rest:
            yield _bare(rest)
    finally:
        with anyio.CancelScope(shield=True):
            await answer.aclose()


def _bare(text: bytes) -> bytes:
    return text.replace(b'"' + PREFIX.encode(), b'"')


async def prepare(url: str) -> tuple[dict[str, str], frozenset[str]]:
    """A workflow's ids, and the bare names of the governed fixture tools."""
    async with Client(url) as client:
        listed = await client.list_tools()
        started = await client.call_tool("start_workflow", {"purpose": "Run the conformance suite"})
    ids = {name: started.structured_content[name] for name in ("workflow_id", "agent_invocation_id")}
    names = (tool.name for tool in listed.tools)
    return ids, frozenset(name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX))


def main() -> None:
    """Say on standard error where it listens, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    url = parser.parse_args().url
    ids, fixtures = anyio.run(prepare, url)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        adapter = Adapter(url, ids, fixtures)
        routes.append(Route("/mcp", adapter.answer, methods=["GET", "POST", "DELETE"]))
        yield
        await adapter.close()

    app = Starlette(lifespan=lifespan)
    routes = app.router.routes
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"Adapter at http://localhost:{listening.getsockname()[1]}/mcp", file=sys.stderr, flush=True)
    config = uvicorn.Config(app, http="h11", log_level="error", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
    os._exit(0)


if __name__ == "__main__":
    main()
