"""Opens one MCP client for an upstream's connection, with credentials of its own and none of a client's.

What the manifest refers to is resolved here, at each connecting, from Charter's environment and its secrets; nothing
of it is kept or logged. A child process gets the variables that its manifest names beside PATH, HOME and the user's name.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx2
import mcp_types as types
from mcp import Client, StdioServerParameters
from mcp.client.session import ClientRequestContext, IncomingMessage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

import charter
from charter.errors import Misconfigured
from charter.manifests.tool_files import Era, HttpConnection, Reference, StdioConnection, UpstreamManifest
from charter.tools.child import child
from charter.tools.http_guard import GuardedTransport
from charter.tools.listing import Refuse, Screen

CONNECT_SECONDS = 10.0
CLIENT_INFO = types.Implementation(name="charter", version=charter.__version__)


class _WithoutWhatWasRead(logging.Filter):
    """The SDK logs a line or event that is no message with the error that quotes it; a quote may hold a secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.exc_info = record.exc_text = None
        return True


for _name in ("mcp.client.streamable_http", "mcp.client.session", "client"):
    logging.getLogger(_name).addFilter(_WithoutWhatWasRead())


@dataclass(slots=True)
class Hooks:
    """What the supervisor hears of: ``lost`` (it is over), ``trouble`` (look whether it is), ``changed`` (list again),
    ``refused`` (a listed tool that cannot be used, and why)."""

    lost: Callable[[], None] = lambda: None
    trouble: Callable[[], None] = lambda: None
    changed: Callable[[], None] = lambda: None
    refused: Refuse = lambda name, why: None


@dataclass(slots=True)
class Stderr:
    """The last few kilobytes that a child wrote to its standard error; for the operator, never for a client."""

    tail: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        return self.tail.decode("utf-8", "replace").strip()


@dataclass(slots=True)
class Sources:
    """Where references are resolved: Charter's environment and the decrypted secrets, as given by the composition root."""

    environment: Mapping[str, str]
    secrets: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, reference: Reference, *, what: str) -> str:
        """The referred value. Raises ``Misconfigured`` (``missing_secret``) naming the reference, never a value."""
        value = reference.value
        where = "the manifest"
        if reference.env is not None:
            value, where = self.environment.get(reference.env), f"environment variable {reference.env}"
        elif reference.secret is not None:
            value, where = self.secrets.get(reference.secret), f"secret {reference.secret}"
        if not value:
            raise Misconfigured(
                f"{what} needs {where}, which is not set.",
                code="missing_secret",
                next_step=f"Set {where} for Charter and reload, or change the reference in the tool file.",
            )
        return reference.prefix + value


@asynccontextmanager
async def open_client(
    upstream: UpstreamManifest, sources: Sources, hooks: Hooks, stderr: Stderr
) -> AsyncIterator[Client]:
    """A connected client. Enter and leave it in one task. Raises whatever the connecting raises."""
    connection, screen, most = upstream.connection, Screen(hooks.refused), upstream.max_result_bytes
    if isinstance(connection, StdioConnection):
        parameters = _stdio_parameters(upstream.server, connection, sources)
        streams = child(parameters, screen, stderr.tail, max_line=most)
        async with _client(_Watched(streams, screen, hooks.lost), hooks, connection.era) as client:
            yield client
    else:
        async with _http_client(upstream, connection, sources, hooks) as http:
            streams = streamable_http_client(connection.url, http_client=http, max_sse_event_size=most)
            async with _client(_Watched(streams, screen, lambda: None), hooks, connection.era) as client:
                yield client


def _client(transport: Any, hooks: Hooks, era: Era) -> Client:
    async def on_message(message: IncomingMessage) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            hooks.changed()

    # The stub announces that multi-round trips are understood; they are passed on to the caller, not answered here.
    return Client(
        transport,
        client_info=CLIENT_INFO,
        elicitation_callback=_nobody_to_ask,
        message_handler=on_message,
        mode=era,
        cache=None,
    )


async def _nobody_to_ask(
    context: ClientRequestContext, params: types.ElicitRequestParams
) -> types.ElicitResult | types.ErrorData:
    return types.ElicitResult(action="cancel")


def _stdio_parameters(server: str, connection: StdioConnection, sources: Sources) -> StdioServerParameters:
    env = {
        name: sources.resolve(reference, what=f"Variable {name} of upstream {server}")
        for name, reference in connection.env.items()
    }
    return StdioServerParameters(command=connection.command, args=list(connection.args), env=env, cwd=connection.cwd)


def resolve_headers(server: str, connection: HttpConnection, sources: Sources) -> dict[str, str]:
    """The headers with Charter's own credential for this upstream. Raises ``Misconfigured`` when one is missing."""
    headers = {
        name: sources.resolve(reference, what=f"Header {name} of upstream {server}")
        for name, reference in connection.headers.items()
    }
    return headers | {"accept-encoding": "identity"}


def _http_client(
    upstream: UpstreamManifest, connection: HttpConnection, sources: Sources, hooks: Hooks
) -> httpx2.AsyncClient:
    # Reading has no time-out of its own: calls have theirs, and the listening stream is idle by nature.
    limits = httpx2.Limits(max_connections=upstream.concurrency + 4, max_keepalive_connections=upstream.concurrency + 4)
    inner = httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)
    return httpx2.AsyncClient(
        transport=GuardedTransport(inner, max_bytes=upstream.max_result_bytes, on_trouble=hooks.trouble),
        headers=resolve_headers(upstream.server, connection, sources),
        timeout=httpx2.Timeout(30.0, connect=CONNECT_SECONDS, read=None),
        follow_redirects=False,
        trust_env=False,
    )


class _Watched:
    """A transport whose listings are looked through, and that tells when its read stream ends: the SDK itself keeps quiet
    about a dead child."""

    def __init__(self, inner: Any, screen: Screen, on_end: Callable[[], None]) -> None:
        self._inner, self._screen, self._on_end = inner, screen, on_end

    async def __aenter__(self) -> tuple[Any, Any]:
        read, write = await self._inner.__aenter__()
        return _WatchedRead(read, self._screen, self._on_end), _WatchedWrite(write, self._screen)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        result: bool | None = await self._inner.__aexit__(kind, error, trace)
        return result


class _End:
    """One end of a transport, wrapped."""

    def __init__(self, inner: Any, screen: Screen) -> None:
        self._inner, self._screen = inner, screen

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class _WatchedWrite(_End):
    async def send(self, item: SessionMessage) -> None:
        self._screen.sent(item)
        await self._inner.send(item)


class _WatchedRead(_End):
    def __init__(self, inner: Any, screen: Screen, on_end: Callable[[], None]) -> None:
        super().__init__(inner, screen)
        self._on_end = on_end

    async def receive(self) -> Any:
        return await self._screen.received(await self._inner.receive())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await self._inner.__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise
        return await self._screen.received(item)
