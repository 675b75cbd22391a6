"""Kept HTTP/1.1 connections to one origin: h11 over asyncio streams, one request on a connection at a time.

It exists for the hot path: a request costs a fifth of what it costs through the general client. It does what a tool call
needs and no more: POST, no redirects, no compression, no proxies, no cookies.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Final
from urllib.parse import urlsplit

import anyio
import h11
import httpx2

IDLE_SECONDS: Final = 3.0
"""How long an unused connection is kept: less than the 5 seconds after which common servers close theirs, because a
request that meets a closing connection may or may not have run."""
CONNECT_SECONDS: Final = 10.0
_CHUNK: Final = 64 * 1024
Headers = list[tuple[bytes, bytes]]


class Broken(Exception):
    """The connection ended or spoke no HTTP, after the request had begun to leave."""


class Unreachable(Exception):
    """No connection could be made; nothing was sent."""


class Wire:
    """One connection. After :meth:`post`, call :meth:`head`, then :meth:`part` until it gives None."""

    __slots__ = ("_http", "_reader", "_writer", "idle_since")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self.idle_since = 0.0

    async def post(self, target: bytes, headers: Headers, body: bytes) -> None:
        """Send the whole request in one write, so that no delayed acknowledgement stalls it. Raises ``Broken``."""
        try:
            head = self._http.send(h11.Request(method="POST", target=target, headers=headers))
            rest = self._http.send(h11.Data(data=body))
            end = self._http.send(h11.EndOfMessage())
            self._writer.write(b"".join((head or b"", rest or b"", end or b"")))
            await self._writer.drain()
        except (OSError, h11.ProtocolError) as error:
            raise Broken(type(error).__name__) from None

    async def head(self) -> h11.Response:
        """The response's status and headers. Raises ``Broken``."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise Broken("the connection ended before an answer")

    async def part(self) -> bytes | None:
        """The next part of the body as it arrives, None at its end. Raises ``Broken``."""
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise Broken("the connection ended within an answer")

    def ready_again(self) -> bool:
        """Whether another request may follow; reads what has already arrived of the present answer's end."""
        try:
            if self._http.their_state is h11.SEND_BODY:
                self._http.next_event()
            if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                return False
            self._http.start_next_cycle()
        except h11.ProtocolError:
            return False
        return not self._dead()

    def fresh(self) -> bool:
        """Whether an idle connection is still good to use."""
        return not self._dead() and time.monotonic() - self.idle_since < IDLE_SECONDS

    def close(self) -> None:
        """Close without waiting. For a request under way this is how MCP over HTTP cancels it."""
        self._writer.close()

    def _dead(self) -> bool:
        return self._writer.is_closing() or self._reader.at_eof()

    async def _event(self) -> object:
        try:
            while True:
                event = self._http.next_event()
                if event is not h11.NEED_DATA:
                    return event
                self._http.receive_data(await self._reader.read(_CHUNK))
        except (OSError, h11.ProtocolError) as error:
            raise Broken(type(error).__name__) from None


class Wires:
    """The idle connections to one URL. Who takes one gives it back or closes it; the caller bounds how many there are."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = _tls() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self.host = parts.netloc.encode("idna" if not parts.netloc.isascii() else "ascii")
        self.target = ((parts.path or "/") + (f"?{parts.query}" if parts.query else "")).encode("ascii", "strict")
        self._idle: list[Wire] = []
        self._closed = False

    async def take(self) -> Wire:
        """A kept connection that is still good, else a new one. Raises ``Unreachable``."""
        while self._idle:
            wire = self._idle.pop()
            if wire.fresh():
                return wire
            wire.close()
        try:
            with anyio.fail_after(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        except (OSError, TimeoutError) as error:
            raise Unreachable(type(error).__name__) from None
        return Wire(reader, writer)

    def give(self, wire: Wire) -> None:
        """Keep the connection for the next request, if it can take one."""
        if self._closed or not wire.ready_again():
            wire.close()
            return
        wire.idle_since = time.monotonic()
        self._idle.append(wire)

    def close(self) -> None:
        """Close what is idle; connections in use are closed when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()


def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)
