"""What arrives at the socket becomes the request that was meant, or is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from charter.server.http import bind, serve_http
from charter.server.settings_model import ServerSection, Settings

pytestmark = pytest.mark.anyio
MAX_HEAD_BYTES = 64 * 1024
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


async def tell(request: Request) -> Response:
    """What came: the header ``x-probe`` and the body, after which trailers would stand among the headers."""
    body = (await request.body()).decode()
    return JSONResponse({"probe": request.headers.get("x-probe"), "body": body})


@asynccontextmanager
async def connected() -> AsyncIterator[SocketStream]:
    settings = Settings(server=ServerSection(port=0))
    listening, stop, ready = bind(settings), anyio.Event(), anyio.Event()
    port = listening.getsockname()[1]
    app = Starlette(routes=[Route("/", tell, methods=["POST"])])

    async def serve() -> None:
        await serve_http(app, settings, listening=listening, on_ready=lambda _: ready.set(), stop=stop)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        await ready.wait()
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            yield stream
        stop.set()


def post(body: bytes, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n%b" % (more, len(body), body)


async def answer(stream: SocketStream) -> bytes:
    """One whole answer, head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
    while len(body) < length:
        body += await stream.receive()
    return head + b"\r\n\r\n" + body


async def test_white_space_around_a_header_value_is_no_part_of_it() -> None:
    async with connected() as stream:
        await stream.send(post(b"x", b"X-Probe: \t tools/call \t \r\n"))
        assert b'"probe":"tools/call"' in await answer(stream)


async def test_a_connection_serves_one_request_after_another_whole_and_in_pieces() -> None:
    async with connected() as stream:
        for _ in range(2):
            whole = post(b"hello")
            await stream.send(whole[:20])
            await anyio.lowlevel.checkpoint()
            await stream.send(whole[20:])
            assert b'"body":"hello"' in await answer(stream)
        await stream.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert b'"body":"abcde"' in await answer(stream)


async def test_an_offer_to_upgrade_is_passed_over_and_the_connection_goes_on() -> None:
    async with connected() as stream:
        await stream.send(post(b"one", UPGRADE))
        assert b'"body":"one"' in await answer(stream)
        await stream.send(post(b"two"))
        assert b'"body":"two"' in await answer(stream)


async def test_an_offer_to_upgrade_may_come_in_pieces_in_chunks_and_once_more_behind_the_first() -> None:
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % UPGRADE
    async with connected() as stream:
        for start in range(0, len(chunked), 50):
            await stream.send(chunked[start : start + 50])
            await anyio.lowlevel.checkpoint()
        assert b'"body":"abc"' in await answer(stream)
        await stream.send(post(b"one", UPGRADE) + post(b"two", UPGRADE))
        both = b""
        while b'"two"' not in both:
            both += await stream.receive()
        assert both.index(b'"one"') < both.index(b'"two"')


async def test_what_stands_behind_the_body_is_no_header() -> None:
    async with connected() as stream:
        head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        await stream.send(head + b"2\r\nhi\r\n0\r\nX-Probe: forged\r\n\r\n")
        assert b'"probe":null' in await answer(stream)


async def test_a_request_of_the_older_version_needs_no_host_and_closes() -> None:
    async with connected() as stream:
        await stream.send(b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        assert b'"body":"hi"' in await answer(stream)
        with pytest.raises(anyio.EndOfStream):
            await stream.receive()


async def test_an_endless_head_is_refused_and_a_big_body_is_not() -> None:
    async with connected() as stream:
        await stream.send(post(b"y" * (4 * MAX_HEAD_BYTES)))
        assert (await answer(stream)).startswith(b"HTTP/1.1 200")
        await stream.send(b"POST / HTTP/1.1\r\nHost: h\r\n")
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)):  # noqa: PT012
            for number in range(1000):
                await stream.send(b"X-%d: %b\r\n" % (number, b"z" * 8000))
            while await stream.receive():
                pass


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost : h\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nX-Probe: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nX-Probe: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nHost: other\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST / HTTP/3.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        b"NONSENSE\r\n\r\n",
    ],
    ids=[
        "two lengths",
        "a signed length",
        "a length and chunks",
        "chunks and something after them",
        "a chunk's size with a prefix",
        "a chunk's size that ends in half a line break",
        "space before the colon",
        "half a line break in a value",
        "a null in a value",
        "two hosts",
        "no host",
        "a tunnel",
        "HTTP/2",
        "no version that there is",
        "no request",
    ],
)
async def test_what_two_servers_could_read_in_two_ways_is_refused(head: bytes) -> None:
    async with connected() as stream:
        await stream.send(head)
        assert (await stream.receive()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_an_answer_leaves_in_one_piece(more: bytes) -> None:
    """A client that waits for it wakes once, whether the connection stays or closes after it."""
    async with connected() as stream:
        await stream.send(post(b"hello", more))
        first = await stream.receive()
        assert b"HTTP/1.1 200" in first
        assert b'"body":"hello"' in first
        if more:
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
