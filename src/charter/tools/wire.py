"""Kept HTTP/1.1 connections to one origin: httptools over asyncio streams, one request on a connection at a time.

It exists for the hot path: a request costs a fifth of what it costs through the general client. It does what a tool call
needs and no more: POST, no redirects, no compression, no proxies, no cookies.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import anyio
import httptools
import httpx2

IDLE_SECONDS: Final = 3.0
"""How long an unused connection is kept: less than the 5 seconds after which common servers close theirs, because a
request that meets a closing connection may or may not have run."""
CONNECT_SECONDS: Final = 10.0
MAX_HEAD_BYTES: Final = 64 * 1024
"""An answer's line and headers together."""
_CHUNK: Final = 64 * 1024
Headers = list[tuple[bytes, bytes]]


class Broken(Exception):
    """The connection ended or spoke no HTTP, after the request had begun to leave."""


class Unreachable(Exception):
    """No connection could be made; nothing was sent."""


@dataclass(slots=True)
class Head:
    """The line and the headers of an answer; the names are in lower case."""

    status: int
    headers: dict[bytes, bytes]


@dataclass(slots=True)
class _Answer:
    """What the parser has told of one answer so far."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    headed: bool = False
    parts: list[bytes] = field(default_factory=list)
    ended: bool = False
    stays: bool = False
    """Whether the connection may carry another."""

    def ends_with_the_connection(self) -> bool:
        """Whether nothing in its head says where it ends (RFC 9112 section 6.3)."""
        return self.headed and self.headers.keys().isdisjoint((b"content-length", b"transfer-encoding"))


class Wire:
    """One connection. After :meth:`post`, call :meth:`head`, then :meth:`part` until it gives None."""

    __slots__ = ("_answer", "_parser", "_reader", "_writer", "idle_since")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._parser = httptools.HttpResponseParser(self)
        self._answer = _Answer()
        self.idle_since = 0.0

    async def post(self, target: bytes, headers: Headers, body: bytes) -> None:
        """Send the whole request in one write, so that no delayed acknowledgement stalls it. Raises ``Broken``."""
        head = b"\r\n".join([b"POST %b HTTP/1.1" % target, *(b"%b: %b" % header for header in headers)])
        if not head.count(b"\r") == head.count(b"\n") == len(headers):
            raise Broken("a header that is more than one")
        try:
            self._writer.write(head + b"\r\n\r\n" + body)
            await self._writer.drain()
        except OSError as error:
            raise Broken(type(error).__name__) from None

    async def head(self) -> Head:
        """The answer's status and headers. Raises ``Broken``."""
        size = 0
        while not self._answer.headed:
            size += await self._read()
            if size > MAX_HEAD_BYTES and not self._answer.headed:
                raise Broken("the head of the answer is too long")
        return Head(self._answer.status, self._answer.headers)

    async def part(self) -> bytes | None:
        """The next part of the body as it arrives, None at its end. Raises ``Broken``."""
        answer = self._answer
        while not answer.parts and not answer.ended:
            await self._read()
        if not answer.parts:
            return None
        part = b"".join(answer.parts)
        answer.parts.clear()
        return part

    def ready_again(self) -> bool:
        """Whether another request may follow: the answer is here to its end, and nothing came behind it."""
        if not self._answer.ended or not self._answer.stays or self._dead():
            return False
        self._answer = _Answer()
        return True

    def fresh(self) -> bool:
        """Whether an idle connection is still good to use."""
        return not self._dead() and time.monotonic() - self.idle_since < IDLE_SECONDS

    def close(self) -> None:
        """Close without waiting. For a request under way this is how MCP over HTTP cancels it."""
        self._writer.close()

    def _dead(self) -> bool:
        return self._writer.is_closing() or self._reader.at_eof()

    async def _read(self) -> int:
        """Have the parser read what arrives; answers its size in bytes."""
        try:
            data = await self._reader.read(_CHUNK)
            if data:
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._answer.ended:
                raise Broken(type(error).__name__) from None
            self._answer.stays = False  # what came behind the answer does not spoil it
            return 0
        if not data and not self._answer.ended:
            if not self._answer.ends_with_the_connection():
                raise Broken(f"the connection ended {'within' if self._answer.headed else 'before'} an answer")
            self._answer.ended = True
        return len(data)

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._answer.ended:
            raise ValueError("an answer to no request")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._answer.headed:
            self._answer.headers[name.lower()] = value.rstrip(b" \t")

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        self._answer.headed = self._answer.status >= HTTPStatus.OK
        self._answer.stays = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._answer.parts.append(body)

    def on_message_complete(self) -> None:
        if self._answer.headed:
            self._answer.ended = True
        else:
            self._answer = _Answer()  # that was an interim answer (RFC 9110 section 15.2)


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
