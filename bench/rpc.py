"""A raw JSON-RPC client over HTTP keep-alive, speaking MCP 2026-07-28.

The SDK's client would take two thirds of a call; here a call costs the client some tens of microseconds, so that what is
measured is the server. One write a request and TCP_NODELAY: no Nagle and delayed-ACK stalls on this side.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

import orjson

VERSION = "2026-07-28"
_META = {
    "io.modelcontextprotocol/protocolVersion": VERSION,
    "io.modelcontextprotocol/clientInfo": {"name": "charter-bench", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
_HEAD = (
    "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: " + VERSION + "\r\n"
    "Mcp-Method: {method}\r\n{name}{more}Content-Length: "
)


class CallFailed(Exception):
    """The server did not answer as it must: the text says how."""


class Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._body_at = 0
        self._end = 0
        self._waiting: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._end and not self._read_head():
            return
        if len(self._buffer) >= self._end:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(CallFailed("the server closed the connection"))

    def post(self, request: bytes) -> asyncio.Future[bytes]:
        """Send a whole request; done with the body of the answer."""
        assert self._transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._waiting

    @property
    def closed(self) -> bool:
        """Whether the server has closed it meanwhile, as servers do with idle ones."""
        return self._transport is None or self._transport.is_closing()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _read_head(self) -> bool:
        at = self._buffer.find(b"\r\n\r\n")
        if at < 0:
            return False
        head = bytes(self._buffer[:at]).lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not found:
            self._fail(f"an answer without Content-Length: {head[:300]!r}")
            return False
        self._body_at = at + 4
        self._end = self._body_at + int(rest.split(b"\r\n", 1)[0])
        return True

    def _finish(self) -> None:
        body, status = bytes(self._buffer[self._body_at : self._end]), bytes(self._buffer[9:12])
        self._buffer.clear()
        self._end = 0
        if status != b"200":
            self._fail(f"HTTP {status.decode()}: {body[:500]!r}")
        elif self._waiting is not None:
            self._waiting.set_result(body)

    def _fail(self, text: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(CallFailed(text))


class Target:
    """Where requests go, and with which credential."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self.url, self.host, self.port = url, parts.hostname or "", parts.port or 80
        self._path, self._netloc = parts.path or "/", parts.netloc
        self._more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._ids = 0

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection

    def request(self, method: str, params: dict[str, Any]) -> bytes:
        """The bytes of one request, with an id of its own."""
        self._ids += 1
        name = f"Mcp-Name: {params['name']}\r\n" if "name" in params else ""
        head = _HEAD.format(path=self._path, host=self._netloc, method=method, name=name, more=self._more)
        message = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": {**params, "_meta": _META}}
        body = orjson.dumps(message)
        return f"{head}{len(body)}\r\n\r\n".encode() + body

    def call(self, tool: str, arguments: dict[str, Any]) -> bytes:
        """The bytes of one ``tools/call``."""
        return self.request("tools/call", {"name": tool, "arguments": arguments})


def result_of(body: bytes) -> dict[str, Any]:
    """The result of an answer. Raises ``CallFailed`` for a JSON-RPC error and for a tool's."""
    message = orjson.loads(body)
    result = message.get("result")
    if not isinstance(result, dict) or result.get("isError"):
        raise CallFailed(f"the call failed: {body[:1000].decode(errors='replace')}")
    return result


async def call(target: Target, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """One call on a connection of its own."""
    connection = await target.connect()
    try:
        return result_of(await connection.post(target.call(tool, arguments)))
    finally:
        connection.close()
