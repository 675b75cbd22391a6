"""``tools/call`` over streamable HTTP on protocol 2026-07-28, straight from the caller's task.

That protocol is stateless: a call is one POST that needs nothing of the SDK's session. Going past its queues, tasks and
models costs a third of the processor time, which is what the governed road spends on policy and record. Connecting,
listing and listening stay with the SDK's client. The wire format is the SDK's own; tests run both ways side by side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from itertools import count
from typing import Any, Final

import mcp_types as types
import orjson
from mcp.shared.inbound import encode_header_value, mcp_param_headers, x_mcp_header_map
from opentelemetry import trace
from opentelemetry.propagate import inject

from charter.model.base import JsonObject
from charter.tools.failures import LOST, NOT_SENT, REFUSED_BY_HTTP, TOO_LARGE, CallError, from_rpc, own
from charter.tools.http_guard import refusal
from charter.tools.wire import Broken, Head, Headers, Unreachable, Wire, Wires

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
_CAPABILITIES: Final[JsonObject] = {"elicitation": {"form": {}, "url": {}}}
_tracer = trace.get_tracer("charter.tools")


class HttpLane:
    """Calls one upstream. ``headers`` are Charter's own credential there; ``on_trouble`` hears of failed connections."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        version: str,
        client_info: types.Implementation,
        max_bytes: int,
        on_trouble: Callable[[], None],
    ) -> None:
        self._wires = Wires(url)
        self._max_bytes, self._on_trouble = max_bytes, on_trouble
        self._numbers = count(1)
        self._param_headers: dict[str, Mapping[tuple[str, ...], str]] = {}
        self._stamp: JsonObject = {
            types.PROTOCOL_VERSION_META_KEY: version,
            types.CLIENT_INFO_META_KEY: client_info.model_dump(by_alias=True, mode="json", exclude_none=True),
            types.CLIENT_CAPABILITIES_META_KEY: _CAPABILITIES,
        }
        fixed = {
            "host": self._wires.host.decode(),
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "mcp-protocol-version": version,
            "mcp-method": "tools/call",
        }
        self._headers: Headers = [(key.lower().encode(), value.encode()) for key, value in {**headers, **fixed}.items()]

    def learn(self, tools: Mapping[str, JsonObject]) -> None:
        """Remember which arguments of which tool travel as headers (``x-mcp-header``), from a listing."""
        maps = {name: x_mcp_header_map(tool["inputSchema"]) for name, tool in tools.items()}
        self._param_headers = {name: found for name, found in maps.items() if found}

    def close(self) -> None:
        """Close idle connections; calls under way end by themselves."""
        self._wires.close()

    async def call(
        self, params: JsonObject, progress: Progress | None, capabilities: JsonObject | None = None
    ) -> JsonObject:
        """The raw result. Raises ``CallError``. A cancellation closes the connection, which cancels the call upstream.

        ``capabilities``: what the caller's client can answer; without it, forms.
        """
        number, name = next(self._numbers), params["name"]
        attributes = {"mcp.method.name": "tools/call", "jsonrpc.request.id": str(number), "gen_ai.tool.name": name}
        with _tracer.start_as_current_span(
            f"MCP send tools/call {name}", kind=trace.SpanKind.CLIENT, attributes=attributes
        ):
            meta = {**params["_meta"], **self._stamp}
            if capabilities is not None:
                meta[types.CLIENT_CAPABILITIES_META_KEY] = capabilities
            inject(meta)
            if progress is not None:
                meta["progressToken"] = number
            message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {**params, "_meta": meta}}
            try:
                body = orjson.dumps(message)
            except TypeError:
                raise own(NOT_SENT, "The call cannot be written as JSON.") from None
            return await self._exchange(number, body, self._call_headers(params), progress)

    def _call_headers(self, params: JsonObject) -> Headers:
        name = params["name"]
        headers = [*self._headers, (b"mcp-name", encode_header_value(name).encode())]
        if found := self._param_headers.get(name):
            headers += [
                (k.lower().encode(), v.encode()) for k, v in mcp_param_headers(found, params["arguments"]).items()
            ]
        return headers

    async def _exchange(self, number: int, body: bytes, headers: Headers, progress: Progress | None) -> JsonObject:
        try:
            wire = await self._wires.take()
        except Unreachable as error:
            self._on_trouble()
            raise own(NOT_SENT, f"The upstream cannot be reached ({error}).") from None
        try:
            await wire.post(self._wires.target, [*headers, (b"content-length", b"%d" % len(body))], body)
            response = await wire.head()
            return await _Answer(wire, number, self._max_bytes, progress).read(response)
        except Broken as error:
            self._on_trouble()
            raise own(LOST, f"The connection to the upstream broke ({error}).") from None
        finally:
            self._wires.give(wire)  # closes it unless the answer was read to its end


class _Answer:
    """Reads the answer to one call: a JSON document, or a stream of events that ends with it."""

    def __init__(self, wire: Wire, number: int, max_bytes: int, progress: Progress | None) -> None:
        self._wire, self._number, self._max_bytes, self._progress = wire, number, max_bytes, progress

    async def read(self, response: Head) -> JsonObject:
        status, headers = response.status, response.headers
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise own(LOST, "The upstream sent a compressed answer although none was asked for.")
        if kind == b"text/event-stream" and status == HTTPStatus.OK:
            return await self._events()
        if kind == b"application/json":
            return self._result(_json(await self._whole()))
        if status < HTTPStatus.MULTIPLE_CHOICES:  # it may have run, whatever stands in the way of its answer
            raise own(LOST, f"The upstream answered with something that is not MCP (HTTP {status}).")
        code, text = refusal(status) or (REFUSED_BY_HTTP, f"The upstream did not answer the call (HTTP {status}).")
        raise own(code, text)

    async def _whole(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while (part := await self._wire.part()) is not None:
            size += len(part)
            self._check(size)
            parts.append(part)
        return b"".join(parts)

    async def _events(self) -> JsonObject:
        buffer = b""
        data: list[bytes] = []
        while (part := await self._wire.part()) is not None:
            *lines, buffer = (buffer + part).split(b"\n")
            for line in lines:
                line = line.rstrip(b"\r")  # noqa: PLW2901
                if line.startswith(b"data:"):
                    data.append(line[5:].removeprefix(b" "))
                elif not line and data:
                    message = _json(b"\n".join(data))
                    data.clear()
                    if message.get("id") == self._number and "method" not in message:
                        return self._result(message)
                    await self._notice(message)
            self._check(len(buffer) + sum(map(len, data)))
        raise Broken("the stream ended without a result")

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise own(TOO_LARGE, f"The upstream's answer is over {self._max_bytes:,} bytes.")

    async def _notice(self, message: JsonObject) -> None:
        params = message.get("params")
        if self._progress is None or message.get("method") != "notifications/progress" or not isinstance(params, dict):
            return
        done, total, text = _number(params.get("progress")), _number(params.get("total")), params.get("message")
        if params.get("progressToken") != self._number or done is None:
            return
        with contextlib.suppress(Exception):  # a door that cannot take a progress report must not fail the call
            await self._progress(done, total, text if isinstance(text, str) else None)

    def _result(self, message: JsonObject) -> JsonObject:
        error, result = message.get("error"), message.get("result")
        if isinstance(error, dict) and isinstance(error.get("code"), int):
            raise from_rpc(error["code"], str(error.get("message", "")), error.get("data"))
        if message.get("id") != self._number or not isinstance(result, dict):
            raise CallError("answered", "upstream_bad_result", "The upstream's answer is not a valid MCP result.")
        return result


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _json(data: bytes) -> JsonObject:
    try:
        message = orjson.loads(data)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict):
        raise CallError("answered", "upstream_bad_result", "The upstream's answer is not JSON-RPC.")
    return message
