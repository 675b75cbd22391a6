"""``tools/call`` over streamable HTTP on protocol 2026-07-28, straight from the connection to the MCP server.

That protocol is stateless: a call is one POST with one answer. The SDK's transport serves it with a task group, two more
tasks, a stream and models of request and response, at a third of a governed call's processor time. This lane takes the
plain case alone: an authenticated, well-formed call that wants no progress reports. It checks it by the SDK's own ladder
and hands it to the SDK's own kernel (``serve_one``): validation, middleware, tracing and handler are the same. Whatever is
out of the ordinary, every refusal included, passes on untouched to the SDK's transport. Tests run both ways side by side.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import anyio
import orjson
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import modern_error_data, serve_one
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundModernRoute,
    classify_inbound_request,
    find_duplicated_routing_header,
)
from mcp.shared.message import MessageMetadata, ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, ErrorData, RequestId
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from charter.errors import InvalidInput, Unavailable
from charter.model.base import JsonObject
from charter.model.json_text import read_json
from charter.server.json_rpc import Refusal, again, body_messages, is_request_id
from charter.server.settings_model import MCP_PATH

PING_SECONDS: Final = 15.0
"""A silent answer becomes a stream that is pinged, so that no proxy between closes it: as the SDK's transport does."""
LOOK_AFTER_SECONDS: Final = 0.05
"""A call that has taken so long is cancelled when its client leaves; a shorter one is done before that helps anybody."""

_METHOD: Final = "tools/call"
_MEMBERS: Final = frozenset(("jsonrpc", "id", "method", "params"))
_PARAMS: Final = frozenset(("name", "arguments", "_meta", "inputResponses", "requestState"))
_JSON: Final = "application/json"
_EVENTS: Final = "text/event-stream"


@dataclass(frozen=True, slots=True)
class _Call:
    """One call that passed the ladder."""

    request_id: RequestId
    params: JsonObject
    route: InboundModernRoute
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Exchange:
    """``mcp.shared.dispatcher.DispatchContext`` of a call that asked for no reports and may be asked nothing in between."""

    transport: TransportContext
    request_id: RequestId
    message_metadata: MessageMetadata
    progress_token: None = None
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)
    can_send_request: bool = False

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> JsonObject:
        """There is no way back on this revision."""
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Nobody asked for it."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Nobody asked for it."""


class CallLane:
    """ASGI middleware in front of ``app``, which serves ``server`` by the SDK's transport.

    ``backend`` is the one that guards ``app``, or None in anonymous mode; ``limit_bytes`` its body limit.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        server: Server[Any],
        backend: BearerAuthBackend | None,
        limit_bytes: int,
        ping_seconds: float = PING_SECONDS,
    ) -> None:
        self._app, self._server, self._backend = app, server, backend
        self._limit, self._ping_seconds = limit_bytes, ping_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the plain case; pass all else on."""
        headers = _plain(scope, self._limit)
        if headers is None:
            await self._app(scope, receive, send)
            return
        user: AuthenticatedUser | None = None
        if self._backend is not None:
            found = await self._backend.authenticate(HTTPConnection(scope))
            if found is None:
                await self._app(scope, receive, send)
                return
            user = found[1]
        messages = await body_messages(receive, self._limit)
        token = auth_context_var.set(user)
        try:
            call = self._read(b"".join(message.get("body", b"") for message in messages), headers)
            if call is None:
                await self._app(scope, again(messages, receive), send)
                return
            await self._serve(call, scope, receive, _Answer(send, self._ping_seconds))
        finally:
            auth_context_var.reset(token)

    def _read(self, body: bytes, headers: Mapping[str, str]) -> _Call | None:
        try:
            decoded = read_json(body)
        except InvalidInput:
            return None
        if not isinstance(decoded, dict) or not _is_plain_call(decoded):
            return None
        route = classify_inbound_request(decoded, headers=headers)
        if not isinstance(route, InboundModernRoute):
            return None
        params = decoded["params"]
        if (lookup := self._server.get_tool_input_schema) is not None and lookup(params["name"]) is not None:
            return None  # arguments that are repeated in headers
        return _Call(decoded["id"], params, route, headers)

    async def _serve(self, call: _Call, scope: Scope, receive: Receive, answer: _Answer) -> None:
        task = asyncio.current_task()
        assert task is not None
        gone = _Gone(task, receive)
        try:
            with answer.kept_alive():
                status, body = await _outcome(call.request_id, self._result(call, scope, receive))
            gone.stop()
            await answer.finish(status, body)
        except asyncio.CancelledError:
            if (answer.begun and not gone.seen) or task.uncancel() > 0:
                raise
            if not gone.seen:  # cut off by the server, which ends and waits for this call no longer
                await answer.finish(503, _cut_off(call.request_id))
        finally:
            gone.stop()

    def _result(self, call: _Call, scope: Scope, receive: Receive) -> Awaitable[JsonObject]:
        route = call.route
        exchange = _Exchange(
            TransportContext(kind="streamable-http", can_send_request=False, headers=call.headers),
            call.request_id,
            ServerMessageMetadata(request_context=Request(scope, receive)),
        )
        connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        return serve_one(self._server, exchange, _METHOD, call.params, connection=connection, lifespan_state={})


class _Gone:
    """Cancels the call when its client has left, as closing the connection means on this revision.

    It looks for that from ``LOOK_AFTER_SECONDS`` on: a task for each call is a good part of what a short call costs.
    """

    def __init__(self, call: asyncio.Task[Any], receive: Receive) -> None:
        self.seen = False
        self._call, self._receive = call, receive
        self._watch: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(LOOK_AFTER_SECONDS, self._look)

    def _look(self) -> None:
        self._watch = asyncio.create_task(self._wait(self._receive))

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.seen = True
        self._call.cancel()

    def stop(self) -> None:
        """Look no more: the answer is on its way."""
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()


class _Answer:
    """A JSON document; or, when it was long in coming, a stream of events that ends with it."""

    def __init__(self, send: Send, ping_seconds: float) -> None:
        self._send, self._ping_seconds = send, ping_seconds
        self._pinging: asyncio.Task[None] | None = None
        self._streams = False  # the pings may be stopped before they have said so
        self.begun = False
        self._timer: asyncio.TimerHandle | None = None

    def kept_alive(self) -> _Answer:
        """A context in which silence is filled with pings."""
        return self

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._ping_seconds, self._start_pinging)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    def _start_pinging(self) -> None:
        self._pinging = asyncio.create_task(self._ping())

    async def _ping(self) -> None:
        headers = [
            (b"content-type", _EVENTS.encode()),
            (b"cache-control", b"no-cache, no-transform"),
            (b"connection", b"keep-alive"),
            (b"x-accel-buffering", b"no"),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._streams = True
        while True:
            await self._send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})
            await asyncio.sleep(self._ping_seconds)

    async def finish(self, status: int, body: bytes) -> None:
        """Send the answer; a stream has said 200 already, and the error stands in its last event."""
        self.begun = True
        if self._streams:
            event = b"event: message\r\ndata: " + body + b"\r\n\r\n"
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
            return
        headers = [(b"content-length", b"%d" % len(body)), (b"content-type", _JSON.encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _plain(scope: Scope, limit: int) -> Mapping[str, str] | None:
    """The headers of what may be a plain call; None for what is none, by these alone."""
    if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != MCP_PATH:
        return None
    pairs = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in scope["headers"]]
    headers = dict(pairs)
    length, accepted = headers.get("content-length", ""), headers.get("accept", "")
    plain = (
        headers.get("mcp-method") == _METHOD
        and headers.get("mcp-protocol-version") in MODERN_PROTOCOL_VERSIONS
        and headers.get("content-type") == _JSON
        and _JSON in accepted
        and _EVENTS in accepted
        and length.isascii()
        and length.isdigit()
        and int(length) <= limit
        and not any(key.startswith("mcp-param-") for key in headers)
        and find_duplicated_routing_header(pairs) is None
        and sum(key == "authorization" for key, _ in pairs) <= 1
    )
    return headers if plain else None


def _is_plain_call(message: JsonObject) -> bool:
    request_id, params = message.get("id"), message.get("params")
    if message.keys() != _MEMBERS or message["jsonrpc"] != "2.0" or message["method"] != _METHOD:
        return False
    if not is_request_id(request_id) or not isinstance(params, dict):
        return False
    if not params.keys() <= _PARAMS or not isinstance(params.get("name"), str):
        return False
    if not isinstance(params.get("arguments", {}), dict) or not isinstance(params.get("_meta"), dict):
        return False
    return "progressToken" not in params["_meta"]


def _cut_off(request_id: RequestId) -> bytes:
    """What a client is told whose call was still under way when Charter had to end: the call is not to be made again."""
    error = Unavailable(
        "Charter stopped while this was under way; what it asked for may have been done.",
        code="stopping",
        next_step="Do not repeat it. When Charter is back, call get_workflow: it shows what ran, and what is in doubt.",
    )
    message = Refusal(INTERNAL_ERROR, error, request_id).message()
    return orjson.dumps(message)


async def _outcome(request_id: RequestId, result: Awaitable[JsonObject]) -> tuple[int, bytes]:
    """HTTP status and JSON-RPC response; what a handler's error says of its insides stays here."""
    message: JsonObject = {"jsonrpc": "2.0", "id": request_id}
    try:
        message["result"] = await result
        status = 200
    except Exception as error:
        data: ErrorData = modern_error_data(error)
        status = ERROR_CODE_HTTP_STATUS.get(data.code, 200)
        message["error"] = data.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        return status, orjson.dumps(message)
    except TypeError:  # an integer of more than 64 bits, which JSON may have and orjson has not
        return status, json.dumps(message, separators=(",", ":")).encode()
