"""Change notifications: ``subscriptions/listen`` on 2026-07-28, ``resources/subscribe`` and list changes before it.

Tenants do not meet: each has a bus of its own. A notice says only *that* something changed; whoever reads it then is asked by
the policy. Nothing is remembered for a client that is away: it reads again when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler, ResourcesListChanged, ResourceUpdated, ServerEvent, ToolsListChanged
from mcp_types import (
    LoggingLevel,
    NotificationParams,
    SetLevelRequestParams,
    SubscribeRequestParams,
    SubscriptionFilter,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from charter.errors import CharterError, InvalidInput
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.server.mcp import results
from charter.server.mcp.parts import Door
from charter.server.mcp.resources import PENDING, Resources, workflow_uri

_log = logging.getLogger(__name__)
Context = ServerRequestContext[Any, Any]
MAX_URIS: Final = 200
_LEVELS: Final[tuple[LoggingLevel, ...]] = get_args(LoggingLevel)
"""From ``debug`` to ``emergency``."""
_DONE: Final[JsonObject] = {}  # strict clients of the older revisions refuse any member in an empty result


@dataclass(slots=True, eq=False)
class Bus:
    """One tenant's events, to whoever listens now."""

    listeners: dict[object, Callable[[ServerEvent], None]] = field(default_factory=dict)

    def tell(self, event: ServerEvent) -> None:
        """Tell every listener; none of them waits or raises."""
        for listener in list(self.listeners.values()):
            listener(event)

    async def publish(self, event: ServerEvent) -> None:
        """As the SDK calls it."""
        self.tell(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Listen until the answer is called."""
        token = object()
        self.listeners[token] = listener

        def end() -> None:
            self.listeners.pop(token, None)

        return end


@dataclass(slots=True, eq=False)
class _Session:
    """A client of an older revision: what it subscribed to and what it has not been told yet, each thing once."""

    connection: Connection
    end: Callable[[], None]
    uris: set[str] = field(default_factory=set)
    level: LoggingLevel | None = None
    waiting: dict[ServerEvent, None] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None

    def told(self, event: ServerEvent) -> None:
        if isinstance(event, ResourceUpdated) and event.uri not in self.uris:
            return
        self.waiting[event] = None
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self.waiting:
            event = next(iter(self.waiting))
            del self.waiting[event]
            if isinstance(event, ResourceUpdated):
                await self.connection.send_resource_updated(event.uri)
            elif isinstance(event, ToolsListChanged):
                await self.connection.send_tool_list_changed()
                await self._say("notice", "The governed tools are others now; list them again.")
            else:
                await self.connection.send_resource_list_changed()

    async def _say(self, level: LoggingLevel, text: str) -> None:
        if self.level is not None and _LEVELS.index(level) >= _LEVELS.index(self.level):
            await self.connection.notify("notifications/message", {"level": level, "logger": "charter", "data": text})

    def close(self) -> None:
        self.end()
        self.waiting.clear()
        if self.task is not None:
            self.task.cancel()


class Notices:
    """Hears of commits and of changed tools, and tells clients."""

    def __init__(self, door: Door, resources: Resources) -> None:
        self._door, self._resources = door, resources
        self._buses: dict[str, Bus] = {}
        self._handlers: dict[str, ListenHandler] = {}
        self._sessions: dict[Connection, _Session] = {}

    def bus(self, tenant: str) -> Bus:
        """The tenant's own."""
        found = self._buses.get(tenant)
        if found is None:
            found = self._buses[tenant] = Bus()
        return found

    def wanted(self) -> bool:
        """True while anybody listens: only then is it worth looking at what other processes appended."""
        return any(bus.listeners for bus in self._buses.values())

    # -- what changed

    def watch(self, tenant: str, stream: str, types: Sequence[str]) -> None:
        """A commit (see ``Gate.watchers``). ``types`` may be empty when nobody knows what was in it."""
        bus = self._buses.get(tenant)
        if bus is None or not bus.listeners:
            return
        uri = workflow_uri(stream)
        bus.tell(ResourceUpdated(uri=uri))
        bus.tell(ResourceUpdated(uri=f"{uri}/audit"))
        if not types or any(item.startswith("APPROVAL_") for item in types):
            bus.tell(ResourceUpdated(uri=PENDING))
        if "WORKFLOW_STARTED" in types:
            bus.tell(ResourcesListChanged())

    def tools_changed(self) -> None:
        """The governed tools are others now (see ``Registry.subscribe``)."""
        for bus in self._buses.values():
            bus.tell(ToolsListChanged())

    # -- 2026-07-28

    async def listen(self, ctx: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """``subscriptions/listen``: the caller's tenant only, and only resources that the caller may read."""
        principal = self._principal(ctx)
        asked = params.notifications
        uris = [uri for uri in (asked.resource_subscriptions or [])[:MAX_URIS] if await self._readable(principal, uri)]
        honoured: SubscriptionFilter = asked.model_copy(update={"resource_subscriptions": uris})
        handler = self._handlers.get(principal.tenant)
        if handler is None:
            handler = self._handlers[principal.tenant] = ListenHandler(self.bus(principal.tenant))
        return await handler(ctx, params.model_copy(update={"notifications": honoured}))

    def close(self) -> None:
        """End every stream, so that clients know that it was meant."""
        for handler in self._handlers.values():
            handler.close()
        for session in list(self._sessions.values()):
            session.close()
        self._sessions.clear()

    # -- before 2026-07-28

    async def joined(self, ctx: Context, _params: NotificationParams) -> None:
        """``notifications/initialized``: from now on this client is told of changed lists."""
        try:
            self._session(ctx)
        except CharterError as error:
            _log.info("a client without a credential is not told of changes: %s", error.error_code)

    async def subscribe(self, ctx: Context, params: SubscribeRequestParams) -> JsonObject:
        """``resources/subscribe``. Raises the error that reading would."""
        principal = self._principal(ctx)
        try:
            await self._resources.value(principal, params.uri)
            session = self._session(ctx)
            if len(session.uris) >= MAX_URIS:
                raise InvalidInput(f"At most {MAX_URIS} subscriptions a session.", next_step="Unsubscribe some first.")
        except CharterError as error:
            results.raise_rpc(error)
        session.uris.add(params.uri)
        return dict(_DONE)

    async def unsubscribe(self, ctx: Context, params: UnsubscribeRequestParams) -> JsonObject:
        """``resources/unsubscribe``; of what was never subscribed to, too."""
        session = self._sessions.get(_connection(ctx))
        if session is not None:
            session.uris.discard(params.uri)
        return dict(_DONE)

    async def set_level(self, ctx: Context, params: SetLevelRequestParams) -> JsonObject:
        """``logging/setLevel``: from which severity on this session is told in words what happens. Until it asks, nothing."""
        try:
            self._session(ctx).level = params.level
        except CharterError as error:
            results.raise_rpc(error)
        return dict(_DONE)

    def _session(self, ctx: Context) -> _Session:
        connection = _connection(ctx)
        found = self._sessions.get(connection)
        if found is None:
            bus = self.bus(self._door.principal_of(ctx).tenant)
            found = self._sessions[connection] = _Session(connection, end=lambda: None)
            found.end = bus.subscribe(found.told)
            connection.exit_stack.callback(self._left, connection)
        return found

    def _left(self, connection: Connection) -> None:
        session = self._sessions.pop(connection, None)
        if session is not None:
            session.close()

    # -- both

    def _principal(self, ctx: Context) -> Principal:
        try:
            return self._door.principal_of(ctx)
        except CharterError as error:
            results.raise_rpc(error)

    async def _readable(self, principal: Principal, uri: str) -> bool:
        try:
            await self._resources.value(principal, uri)
        except CharterError:
            return False
        return True


def _connection(ctx: Context) -> Connection:
    # The SDK has no public way from a request to its connection; the session is only a view of it for one request.
    connection: Connection = ctx.session._connection
    return connection
