"""uvicorn's HTTP/1.1 connection on httptools, made as strict as h11, and with answers that leave in one piece.

h11 is written in Python and costs a tenth of a governed call. llhttp, which httptools wraps, is Node's parser: it is strict
about framing, but leaves to its host what this module adds.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024
"""A request's line and headers together."""


class Gathering(asyncio.Transport):
    """``transport``, but what is written in one turn of the event loop is sent as one, at its end or at ``flush``."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._held: list[bytes] = []
        self._soon = asyncio.get_running_loop().call_soon

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._held:
            self._soon(self.flush)
        self._held.append(bytes(data))

    def flush(self) -> None:
        """Send what is held; nothing when there is nothing."""
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._transport.write(data)

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._held.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class HttpConnection(HttpToolsProtocol):
    """What ``uvicorn.Config(http=...)`` takes.

    A head has an end (RFC 6585 section 5) and exactly one Host (RFC 9112 section 3.2); white space around a value is no part
    of it (RFC 9110 section 5.5); trailers are no headers (section 6.5.1); an offer to upgrade is passed over (section 7.8),
    where uvicorn would lose the body of the request that makes it, as Java's client does.
    """

    _head_bytes = 0
    _in_head = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = Gathering(transport)
        super().connection_made(self._gathering)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            while data:
                data = self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response("The request's head is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value.strip(b" \t"))

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        if self.parser.should_upgrade():
            return  # the request comes again without the offer
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("Host")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self.parser.should_upgrade():
            super().on_message_complete()
        self._in_head = True

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()

    def _feed(self, data: bytes) -> bytes:
        """What is still to be read: a request that offered an upgrade, as if it had not."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            method, version = self.parser.get_method(), self.parser.get_http_version().encode()
            if method == b"CONNECT":
                raise httptools.HttpParserError from None
            again = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, self._headers_without_offer())
            self.parser = httptools.HttpRequestParser(self)
            return again + data[offer.args[0] :]
        return b""

    def _headers_without_offer(self) -> bytes:
        lines = []
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() != b"upgrade"]
                lines.append(b"connection: %b\r\n" % b",".join(kept))
            elif name != b"upgrade":
                lines.append(b"%b: %b\r\n" % (name, value))
        return b"".join(lines)
