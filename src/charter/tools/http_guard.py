"""An HTTP transport that never lets one failed request take a whole MCP connection with it.

In the SDK an exception from the HTTP layer ends the client and every call in flight (python-sdk #3560, #915). Here each
failure becomes an HTTP response that carries a JSON-RPC error, whose code says whether the request left this machine.
The guard also refuses redirects, compressed answers (they can be bombs) and answers over the size cap.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from http import HTTPStatus

import httpx2
import orjson

from charter.tools.failures import LOST, NOT_SENT, REFUSED_BY_HTTP, TOO_LARGE, own_error

SESSION_HEADER = "mcp-session-id"
_NEVER_LEFT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)


class GuardedTransport(httpx2.AsyncBaseTransport):
    """Wraps ``inner``. ``on_trouble`` is called, in the event loop, whenever the connection is in doubt."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, *, max_bytes: int, on_trouble: Callable[[], None]) -> None:
        self._inner, self._max_bytes, self._on_trouble = inner, max_bytes, on_trouble

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._inner.handle_async_request(request)
        except _NEVER_LEFT as error:
            self._on_trouble()
            return _rpc_error(request, NOT_SENT, f"The upstream cannot be reached ({type(error).__name__}).")
        except httpx2.TransportError as error:
            self._on_trouble()
            return _rpc_error(request, LOST, f"The connection to the upstream broke ({type(error).__name__}).")
        return await self._examined(request, response)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _examined(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        status = response.status_code
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _rpc_error(request, LOST, "The upstream sent a compressed answer although none was asked for.")
        if status == HTTPStatus.NOT_FOUND and SESSION_HEADER in request.headers:
            self._on_trouble()
        if kind == "text/event-stream" and status == HTTPStatus.OK:
            if request.method == "GET":
                response.stream = _Watched(response.stream, self._on_trouble)
            return response
        body = await self._body(request, response)
        if isinstance(body, httpx2.Response):
            return body
        if kind != "application/json" and (why := refusal(status)):
            return _rpc_error(request, *why)
        headers = [(key, value) for key, value in response.headers.multi_items() if key != "content-length"]
        return httpx2.Response(status, headers=headers, content=body, request=request)

    async def _body(self, request: httpx2.Request, response: httpx2.Response) -> bytes | httpx2.Response:
        parts: list[bytes] = []
        size = 0
        try:
            async for part in _stream(response):
                size += len(part)
                if size > self._max_bytes:
                    return _rpc_error(request, TOO_LARGE, f"The upstream's answer is over {self._max_bytes:,} bytes.")
                parts.append(part)
        except httpx2.TransportError as error:
            self._on_trouble()
            return _rpc_error(request, LOST, f"The connection broke within the answer ({type(error).__name__}).")
        finally:
            await response.aclose()
        return b"".join(parts)


class _Watched(httpx2.AsyncByteStream):
    """The notification stream of the handshake era; its end, however it comes, puts the connection in doubt."""

    def __init__(self, inner: httpx2.SyncByteStream | httpx2.AsyncByteStream, on_end: Callable[[], None]) -> None:
        self._inner, self._on_end = inner, on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        assert isinstance(self._inner, httpx2.AsyncByteStream)
        try:
            async for part in self._inner:
                yield part
        finally:
            self._on_end()

    async def aclose(self) -> None:
        if isinstance(self._inner, httpx2.AsyncByteStream):
            await self._inner.aclose()


def _stream(response: httpx2.Response) -> httpx2.AsyncByteStream:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    return response.stream


def refusal(status: int) -> tuple[int, str] | None:
    """What an HTTP status without a JSON-RPC body means: a 4xx or a redirect was not taken up, a 5xx may have been."""
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return None
    if status < HTTPStatus.BAD_REQUEST:
        return REFUSED_BY_HTTP, f"The upstream redirects (HTTP {status}); redirects are not followed. Correct its url."
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return REFUSED_BY_HTTP, f"The upstream refuses Charter's own credential (HTTP {status})."
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return None  # the SDK reads the era of the server from these
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return REFUSED_BY_HTTP, f"The upstream refused the request (HTTP {status})."
    return LOST, f"The upstream failed (HTTP {status})."


def _rpc_error(request: httpx2.Request, code: int, message: str) -> httpx2.Response:
    body = orjson.dumps({"jsonrpc": "2.0", "id": None, "error": own_error(code, message)})
    status = HTTPStatus.BAD_GATEWAY
    return httpx2.Response(status, headers={"content-type": "application/json"}, content=body, request=request)
