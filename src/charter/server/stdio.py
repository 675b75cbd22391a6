"""The stdio door: one JSON-RPC message a line. The SDK's transport reads only lines that ``json_rpc`` lets pass."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, cast

import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError

from charter.server.json_rpc import refusal_of

Answer = Callable[[SessionMessage], Awaitable[None]]


class CheckedLines:
    """What ``stdio_server`` takes for standard input: it only iterates. What is no message is answered, and not passed on."""

    answer: Answer

    def __init__(self, wire: anyio.AsyncFile[bytes]) -> None:
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[str]:
        async for line in self._wire:
            if not line.strip():
                continue
            refusal = refusal_of(line)
            if refusal is None:
                yield line.decode()
            else:
                await self.answer(SessionMessage(JSONRPCError.model_validate(refusal.message())))


async def serve_stdio(server: Server[Any]) -> None:
    """Serve MCP on standard input and output until the client closes them."""
    with _private_stdin() as wire:
        lines = CheckedLines(anyio.wrap_file(wire))
        async with stdio_server(cast("anyio.AsyncFile[str]", lines)) as (read_stream, write_stream):
            lines.answer = write_stream.send  # before the task that reads has had a turn
            await server.run(read_stream, write_stream, server.create_initialization_options())


@contextmanager
def _private_stdin() -> Iterator[BufferedReader]:
    """Standard input; while the block lasts descriptor 0 is empty, so that nobody else takes a line from it.

    The SDK does so with a standard input of its own making.
    """
    descriptor = sys.stdin.fileno()
    wire, empty = os.dup(descriptor), os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, descriptor)
    os.close(empty)
    try:
        with os.fdopen(wire, "rb", closefd=False) as reader:
            yield reader
    finally:
        os.dup2(wire, descriptor)
        os.close(wire)
