"""uvicorn's HTTP/1.1 connection, whose answers leave in one piece.

uvicorn writes an answer's head and its body one after the other, and uvloop sends each at once: two system calls, and the
client wakes twice for one answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


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


class HttpConnection(H11Protocol):
    """What ``uvicorn.Config(http=...)`` takes.

    h11, because httptools leaves white space in headers, which breaks MCP's header checks, and drops the body of a request
    that offers an upgrade, as Java's client does.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._gathering = Gathering(transport)
        super().connection_made(self._gathering)

    def on_response_complete(self) -> None:
        self._gathering.flush()
        super().on_response_complete()
