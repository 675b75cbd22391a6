"""What the direct road makes of servers that answer badly: always an outcome, never a hang, never a lie about what ran."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from mcp_types import Implementation

from charter.tools.failures import CallError
from charter.tools.http_lane import HttpLane

pytestmark = pytest.mark.anyio

GOOD = {"content": [{"type": "text", "text": "ok"}]}
Script = Callable[[SocketStream, dict[str, Any]], Any]


def answer(body: bytes, *, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    return head.encode() + body


def result(request: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": GOOD, **more}).encode()


class Server:
    """Answers each request with the script, on as many connections as come, and counts both."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.trouble = 0

    def note(self) -> None:
        self.trouble += 1

    async def serve(self, stream: SocketStream) -> None:
        self.connections += 1
        data = b""
        async with stream:
            try:
                while True:
                    while b"\r\n\r\n" not in data:
                        data += await stream.receive()
                    head, _, data = data.partition(b"\r\n\r\n")
                    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
                    while len(data) < int(headers["content-length"]):
                        data += await stream.receive()
                    request = json.loads(data[: int(headers["content-length"])])
                    data = data[int(headers["content-length"]) :]
                    self.requests.append((headers, request))
                    if await self.script(stream, request) == "close":
                        return
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return


@asynccontextmanager
async def lane_to(script: Script, **more: Any) -> AsyncIterator[tuple[Server, HttpLane]]:
    server = Server(script)
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)
    options: dict[str, Any] = {"max_bytes": 10_000, **more}
    lane = HttpLane(
        f"http://127.0.0.1:{port}/mcp?a=1",
        {"Authorization": "Bearer own"},
        version="2026-07-28",
        client_info=Implementation(name="charter", version="0"),
        on_trouble=server.note,
        **options,
    )
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, server.serve)
        yield server, lane
        lane.close()
        tasks.cancel_scope.cancel()


CALL: dict[str, Any] = {"name": "t", "arguments": {"a": 1}, "_meta": {"k": "v"}}


def always(body: bytes | Callable[[dict[str, Any]], bytes], then: str = "") -> Script:
    async def script(stream: SocketStream, request: dict[str, Any]) -> str:
        await stream.send(body(request) if callable(body) else body)
        return then

    return script


async def failure(lane: HttpLane) -> CallError:
    with anyio.fail_after(60), pytest.raises(CallError) as caught:
        await lane.call(CALL, None)
    return caught.value


async def test_one_call_is_one_request_on_a_kept_connection() -> None:
    async with lane_to(always(lambda request: answer(result(request)))) as (server, lane):
        for _ in range(5):
            assert await lane.call(CALL, None) == GOOD
        assert (server.connections, len(server.requests)) == (1, 5)
        headers, request = server.requests[0]
        assert headers["authorization"] == "Bearer own"
        assert headers["mcp-name"] == "t"
        assert request["params"]["_meta"]["k"] == "v"
        assert request["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
async def test_events_are_read_however_they_are_cut(size: int, end: str) -> None:
    def stream_of(request: dict[str, Any]) -> bytes:
        number = request["id"]
        progress = {"method": "notifications/progress", "params": {"progressToken": number, "progress": 1, "total": 2}}
        foreign = {"method": "notifications/progress", "params": {"progressToken": "other", "progress": 9}}
        text = json.dumps({"jsonrpc": "2.0", "id": number, "result": GOOD}, indent=1)
        lines = [
            ": hello",
            "",
            "event: message",
            f"data: {json.dumps(progress)}",
            "",
            f"data:{json.dumps(foreign)}",
            "",
        ]
        lines += [f"data: {line}" for line in text.split("\n")] + ["", ""]
        return end.join(lines).encode()

    async def script(stream: SocketStream, request: dict[str, Any]) -> None:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        body = stream_of(request)
        for start in range(0, len(body), size):
            part = body[start : start + size]
            await stream.send(b"%x\r\n%s\r\n" % (len(part), part))
        await stream.send(b"0\r\n\r\n")

    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))
        raise RuntimeError("a door that breaks")

    async with lane_to(script) as (_, lane):
        assert await lane.call(CALL, progress) == GOOD
        assert await lane.call(CALL, None) == GOOD
    assert seen == [(1.0, 2.0, None)]


@pytest.mark.parametrize(
    ("reply", "certainty", "code"),
    [
        (answer(b"<html>", kind="text/html", status="503 Service Unavailable"), "unknown", "upstream_lost"),
        (answer(b"", kind="text/plain", status="401 Unauthorized"), "not_run", "upstream_refused"),
        (answer(b"", kind="text/plain", status="404 Not Found"), "not_run", "upstream_refused"),
        (answer(b"", kind="text/plain", status="202 Accepted"), "unknown", "upstream_lost"),
        (answer(b"<html>", kind="text/html"), "unknown", "upstream_lost"),
        (
            answer(b"", status="307 Temporary Redirect", kind="text/plain", extra="Location: /x\r\n"),
            "not_run",
            "upstream_refused",
        ),
        (answer(b"not json"), "answered", "upstream_bad_result"),
        (answer(b"[]"), "answered", "upstream_bad_result"),
        (answer(b'{"jsonrpc":"2.0","id":999,"result":{}}'), "answered", "upstream_bad_result"),
        (answer(b'{"jsonrpc":"2.0","id":1,"result":3}'), "answered", "upstream_bad_result"),
        (answer(b"x" * 20_000), "answered", "result_too_large"),
        (answer(b"data: " + b"x" * 20_000, kind="text/event-stream"), "answered", "result_too_large"),
        (answer(b"\x1f\x8b", extra="Content-Encoding: gzip\r\n"), "unknown", "upstream_lost"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "unknown", "upstream_lost"),
        (b"", "unknown", "upstream_lost"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
            "unknown",
            "upstream_lost",
        ),
        (answer(b": nothing\n\n", kind="text/event-stream"), "unknown", "upstream_lost"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "unknown", "upstream_lost"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            "unknown",
            "upstream_lost",
        ),
        (answer(b"{}", extra="Content-Length: 3\r\n"), "unknown", "upstream_lost"),
    ],
)
async def test_a_bad_answer_has_an_outcome(reply: bytes, certainty: str, code: str) -> None:
    async with lane_to(always(reply, "close")) as (server, lane):
        error = await failure(lane)
        assert (error.certainty, error.code) == (certainty, code)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("before", "behind", "kept"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"", True),
        (b"", b"trash\r\n\r\n", False),
        (b"", answer(b"{}"), False),
    ],
    ids=["an interim answer", "trash behind it", "another answer behind it"],
)
async def test_what_comes_beside_an_answer_does_not_spoil_it(before: bytes, behind: bytes, kept: bool) -> None:
    async with lane_to(always(lambda request: before + answer(result(request)) + behind)) as (server, lane):
        for _ in range(2):
            assert await lane.call(CALL, None) == GOOD
        assert server.connections == (1 if kept else 2)


async def test_an_answer_may_end_with_the_connection() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    async with lane_to(always(lambda request: head + result(request), "close")) as (server, lane):
        for _ in range(2):
            assert await lane.call(CALL, None) == GOOD
        assert server.connections == 2


async def test_a_header_cannot_hold_another() -> None:
    async with lane_to(always(lambda request: answer(result(request)))) as (server, lane):
        lane._headers.append((b"x-probe", b"a\r\nmcp-name: other"))
        assert (await failure(lane)).code == "upstream_lost"
        assert server.requests == []


async def test_a_json_rpc_error_keeps_the_connection() -> None:
    def refuse(request: dict[str, Any]) -> bytes:
        error = {"code": -32602, "message": "no", "data": {"x": 1}}
        return answer(
            json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode(), status="400 Bad Request"
        )

    async with lane_to(always(refuse)) as (server, lane):
        for _ in range(3):
            error = await failure(lane)
            assert (error.certainty, error.rpc_code, error.data) == ("not_run", -32602, {"x": 1})
        assert server.connections == 1


async def test_a_server_that_closes_after_each_answer_is_connected_again() -> None:
    async with lane_to(always(lambda request: answer(result(request)), "close")) as (server, lane):
        for _ in range(3):
            assert await lane.call(CALL, None) == GOOD
            await anyio.sleep(0.05)
        assert (server.connections, server.trouble) == (3, 0)


async def test_nobody_there_is_known_not_to_have_run() -> None:
    async with lane_to(always(b"")) as (server, lane):
        listener = lane._wires
        listener._port = 1
        error = await failure(lane)
        assert (error.certainty, error.code) == ("not_run", "upstream_unavailable")
        assert server.trouble == 1


async def test_giving_up_closes_the_connection_and_the_next_call_has_its_own() -> None:
    came, gone = anyio.Event(), anyio.Event()

    async def script(stream: SocketStream, request: dict[str, Any]) -> str:
        if request["id"] > 1:
            await stream.send(answer(result(request)))
            return ""
        came.set()
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()
        gone.set()
        return "close"

    async with lane_to(script) as (server, lane):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lane.call, CALL, None)
            await came.wait()
            tasks.cancel_scope.cancel()
        with anyio.fail_after(60):
            await gone.wait()
        assert await lane.call(CALL, None) == GOOD
        assert server.connections == 2
