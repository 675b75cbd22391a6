"""A webhook's receiver: a real HTTP server that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Receiver:
    """An HTTP server that answers as it is told and remembers what came."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.got, self.url = list(answers), list[tuple[dict[str, str], bytes]](), ""
        self.more = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # its sender was killed
            await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        self.got.append((headers, body))
        self.more.set()
        answer = self.answers.pop(0) if self.answers else "200 OK\r\n"
        writer.write(f"HTTP/1.1 {answer}content-length: 0\r\nconnection: close\r\n\r\n".encode())
        await writer.drain()

    async def until(self, count: int) -> None:
        with anyio.fail_after(30):
            while len(self.got) < count:
                self.more.clear()
                await self.more.wait()


@asynccontextmanager
async def receiver(*answers: str) -> AsyncIterator[Receiver]:
    found = Receiver(*answers)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    async with server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield found
