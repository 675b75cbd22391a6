"""FastMCP's proxy, default (a fresh upstream client a request) or with one connected client reused for all.

Runs in the competitors' own environment: ``python -m bench.contestants.fastmcp_proxy UPSTREAM default|reused``.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn
from fastmcp import Client
from fastmcp.server import create_proxy

from bench.contestants.serving import listening


async def main(upstream: str, mode: str) -> None:
    if mode == "default":
        await serve(create_proxy(upstream, name="proxy"))
        return
    async with Client(upstream) as client:
        await serve(create_proxy(client, name="proxy"))


async def serve(proxy: object) -> None:
    app = proxy.http_app(path="/mcp", stateless_http=True)  # type: ignore[attr-defined]
    bound = listening()
    print(f"READY http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(
        app, http="h11", ws="none", lifespan="on", access_log=False, log_level="error", timeout_keep_alive=600
    )
    await uvicorn.Server(config).serve(sockets=[bound])


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(main(*sys.argv[1:]))
