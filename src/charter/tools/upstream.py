"""One upstream MCP server, connected once and kept.

A supervised task of its own holds the client: it connects, lists the tools, listens for changes, and when the connection is
lost connects again with growing, jittered pauses. Nothing that happens to one upstream reaches another or its callers
as anything but a clean :class:`~charter.tools.failures.CallError`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import anyio
import mcp_types as types
from mcp import Client, MCPError
from mcp.client.session import ClientSession
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import RootModel, ValidationError

from charter.errors import CharterError
from charter.manifests.definitions import definition_of
from charter.manifests.plain_text import one_line
from charter.manifests.tool_files import HttpConnection, UpstreamManifest
from charter.model.base import JsonObject
from charter.model.canonical import digest
from charter.tools.connecting import CLIENT_INFO, Hooks, Sources, Stderr, open_client, resolve_headers
from charter.tools.failures import LOST, NOT_SENT, CallError, from_rpc, own
from charter.tools.http_lane import HttpLane, Progress
from charter.tools.listing import listed

State = Literal["connecting", "ready", "down", "stopped"]

_random = secrets.SystemRandom()


@dataclass(frozen=True, slots=True)
class Pace:
    """Waiting times in seconds. ``relist``: how often to list again although nothing said that it changed."""

    connect: float = 30.0
    listing: float = 15.0
    relist: float = 300.0
    first_pause: float = 0.25
    longest_pause: float = 30.0


DEFAULT_PACE: Final = Pace()


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool as the upstream offers it now. ``hash`` None: its definition has no canonical form, so it cannot be pinned."""

    tool: JsonObject
    hash: str | None


class _Raw(RootModel[dict[str, Any]]):
    """A result as it came, unparsed: what Charter passes on must not lose what this SDK does not know."""


class _Call(types.Request[dict[str, Any], Literal["tools/call"]]):
    method: Literal["tools/call"] = "tools/call"


@dataclass(slots=True)
class _Signals:
    """What happened to the connection since the supervisor last looked."""

    wake: anyio.Event = field(default_factory=anyio.Event)
    lost: bool = False
    was_ready: bool = False

    def look(self) -> None:
        self.wake.set()

    def lose(self) -> None:
        self.lost = True
        self.wake.set()


class Upstream:
    """Run :meth:`run` in a task of its own; :meth:`call` from any task of the same event loop.

    ``on_listed`` is called in the event loop after every listing and whenever the state changes.
    """

    def __init__(
        self,
        manifest: UpstreamManifest,
        sources: Sources,
        *,
        on_listed: Callable[[], None] = lambda: None,
        pace: Pace = DEFAULT_PACE,
    ) -> None:
        self.manifest = manifest
        self.state: State = "connecting"
        self.last_error: str | None = None
        self.era: str | None = None
        self.offered: Mapping[str, Offered] = {}
        self.refused: Mapping[str, str] = {}
        self.listed = False
        self.stderr = Stderr()
        self._sources, self._on_listed, self._pace = sources, on_listed, pace
        self._session: ClientSession | None = None
        self._lane: HttpLane | None = None
        self._signals = _Signals()
        self._refused: dict[str, str] = {}
        self._slots = anyio.Semaphore(manifest.concurrency, max_value=manifest.concurrency, fast_acquire=True)
        self._ready = anyio.Event()

    async def run(self) -> None:
        """Connect and stay connected until cancelled. Never raises anything but the cancellation."""
        pause = self._pace.first_pause
        try:
            while True:
                self._signals = _Signals()
                try:
                    await self._connected()
                except Exception as error:
                    self.last_error = describe(error)
                if self._signals.was_ready:
                    pause = self._pace.first_pause
                self._enter("down")
                await anyio.sleep(pause * _random.uniform(0.5, 1.0))
                pause = min(pause * 2, self._pace.longest_pause)
        finally:
            self._enter("stopped")

    @property
    def waiting(self) -> int:
        """How many calls wait for a free place."""
        return self._slots.statistics().tasks_waiting

    async def wait_ready(self, seconds: float) -> bool:
        """Whether the upstream is connected and listed, after waiting for it at most so long."""
        with anyio.move_on_after(seconds):
            while self.state != "ready":
                await self._ready.wait()
        return self.state == "ready"

    async def call(
        self,
        name: str,
        arguments: JsonObject,
        *,
        meta: JsonObject,
        timeout: float,  # noqa: ASYNC109 - it belongs to the call and ends as an outcome
        progress: Progress | None = None,
        input_responses: JsonObject | None = None,
        request_state: str | None = None,
        capabilities: JsonObject | None = None,
        still: Callable[[], object] = lambda: None,
    ) -> JsonObject:
        """Call the tool once and give back the raw ``tools/call`` result (complete or ``input_required``).

        ``still`` is asked again after a wait for a free place, just before the call leaves; it raises to stop it.

        Raises ``CallError``. Cancelling the caller, or ``timeout`` seconds passing, cancels the call at the upstream.
        """
        params: JsonObject = {"name": name, "arguments": arguments, "_meta": meta}
        if input_responses is not None:
            params["inputResponses"] = input_responses
        if request_state is not None:
            params["requestState"] = request_state
        sent = False
        with anyio.move_on_after(timeout):
            waits = self._slots.value == 0
            async with self._slots:
                if waits:
                    still()
                session = self._live_session()
                sent = True
                if self._lane is not None:
                    return await self._lane.call(params, progress, capabilities)
                return await _send(session, params, progress)
        if not sent:
            raise CallError("not_run", "upstream_busy", f"{self.manifest.server} has no free place for another call.")
        raise CallError("unknown", "upstream_timeout", f"{self.manifest.server} did not answer in {timeout:g} seconds.")

    def _live_session(self) -> ClientSession:
        session = self._session
        if session is None or self._signals.lost:
            why = f" ({self.last_error})" if self.last_error else ""
            raise CallError("not_run", "upstream_unavailable", f"{self.manifest.server} is not connected{why}.")
        return session

    async def _connected(self) -> None:
        """One connection from beginning to end. Raises what ended it, if that was an error."""
        hooks = Hooks(self._signals.lose, self._signals.look, self._signals.look, self._refused.__setitem__)
        with anyio.fail_after(self._pace.connect) as connecting:
            async with open_client(self.manifest, self._sources, hooks, self.stderr) as client:
                connecting.deadline = float("inf")
                self.era = client.protocol_version
                self._lane = self._open_lane(client.protocol_version)
                try:
                    await self._list(client.session)
                    self._session = client.session
                    self.last_error = None
                    self._signals.was_ready = True
                    self._enter("ready")
                    await self._keep(client)
                finally:
                    self._session = None
                    self._enter("down")  # before the closing, which takes its time where a child does not go by itself
                    if self._lane is not None:
                        self._lane.close()

    def _open_lane(self, version: str) -> HttpLane | None:
        """The direct road for calls, where the protocol needs no session; None otherwise."""
        connection = self.manifest.connection
        if not isinstance(connection, HttpConnection) or version not in MODERN_PROTOCOL_VERSIONS:
            return None
        return HttpLane(
            connection.url,
            resolve_headers(self.manifest.server, connection, self._sources),
            version=version,
            client_info=CLIENT_INFO,
            max_bytes=self.manifest.max_result_bytes,
            on_trouble=self._signals.look,
        )

    async def _keep(self, client: Client) -> None:
        """List again on every change, trouble or long silence, until the connection is lost or does not answer."""
        async with anyio.create_task_group() as tasks:
            if client.protocol_version in MODERN_PROTOCOL_VERSIONS:
                tasks.start_soon(self._listen, client)
            while not self._signals.lost:
                with anyio.move_on_after(self._pace.relist):
                    await self._signals.wake.wait()
                if self._signals.lost:
                    break
                self._signals.wake = anyio.Event()
                began = anyio.current_time()
                await self._list(client.session)
                # One that cries change without end gets a fifth of the time at most.
                await anyio.sleep(4 * (anyio.current_time() - began))
            self.last_error = "the connection was lost"
            tasks.cancel_scope.cancel()

    async def _listen(self, client: Client) -> None:
        """Hold the change stream of 2026-07-28 open. A broken one puts the connection in doubt; changes come by the hooks."""
        tools = client.server_capabilities.tools
        pause = self._pace.first_pause
        while tools is not None and tools.list_changed:
            try:
                async with client.listen(tools_list_changed=True) as events:
                    pause = self._pace.first_pause
                    async for _ in events:
                        self._signals.look()
            except MCPError as error:
                if error.code == types.METHOD_NOT_FOUND:
                    return
            except Exception as error:
                self.last_error = describe(error)
            self._signals.look()
            await anyio.sleep(pause * _random.uniform(0.5, 1.0))
            pause = min(pause * 2, self._pace.longest_pause)

    async def _list(self, session: ClientSession) -> None:
        """Take what the upstream offers now."""
        self._refused.clear()
        with anyio.fail_after(self._pace.listing):
            found = {tool.name: _offered(tool) for tool in await listed(session)}
        refused = dict(self._refused)
        if self._lane is not None:
            self._lane.learn({name: offered.tool for name, offered in found.items()})
        changed = (found, refused) != (self.offered, self.refused) or not self.listed
        self.offered, self.refused, self.listed = found, refused, True
        if changed:
            self._on_listed()

    def _enter(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        if state == "ready":
            self._ready.set()
        elif self._ready.is_set():
            self._ready = anyio.Event()
        self._on_listed()


async def _send(session: ClientSession, params: JsonObject, progress: Progress | None) -> JsonObject:
    try:
        raw = await session.send_request(_Call(params=params), _Raw, progress_callback=cast(Any, progress))
    except MCPError as error:
        raise from_rpc(error.code, error.message, error.data) from None
    except ValidationError:
        raise CallError("answered", "upstream_bad_result", "The upstream's result is not a valid MCP result.") from None
    except ValueError:
        raise own(NOT_SENT, "The call cannot be written as JSON.") from None
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        raise own(LOST, "The connection to the upstream broke.") from None
    except RuntimeError:
        raise CallError("not_run", "upstream_unavailable", "The upstream's connection had already ended.") from None
    return raw.root


def _offered(tool: types.Tool) -> Offered:
    offered = tool.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        return Offered(offered, digest(definition_of(offered)))
    except CharterError:
        return Offered(offered, None)


def describe(error: BaseException) -> str:
    """One short line for the operator, without values, paths or traces; of a group of errors, its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, CharterError):
        return error.message
    if isinstance(error, MCPError):
        return one_line(error.message, limit=200)
    if isinstance(error, FileNotFoundError):
        return "the command was not found"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return type(error).__name__
