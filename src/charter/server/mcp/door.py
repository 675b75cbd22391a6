"""The MCP door, put together: translation only, no rules, no SQL."""

from __future__ import annotations

from typing import Any, Final

from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp_types import (
    CallToolRequestParams,
    CompleteRequestParams,
    GetPromptRequestParams,
    NotificationParams,
    PaginatedRequestParams,
    PromptsCapability,
    ReadResourceRequestParams,
    ServerCapabilities,
    SetLevelRequestParams,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    UnsubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from charter.gate import Gate, Queries
from charter.server.mcp.asking import WAIT_SECONDS
from charter.server.mcp.calling import Tools
from charter.server.mcp.completing import Completions
from charter.server.mcp.notices import Notices
from charter.server.mcp.params import fields_named
from charter.server.mcp.parts import Door, DoorSettings, PrincipalOf
from charter.server.mcp.prompts import Prompts
from charter.server.mcp.resources import Resources

_PRIVATE: Final = CacheHint(ttl_ms=0, scope="private")
_SHORT: Final = CacheHint(ttl_ms=5_000, scope="private")


class CharterServer(Server[Any]):
    """The low-level server with Charter's handlers. ``notices`` hears of commits and of changed tools."""

    notices: Notices

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        """As the SDK's, but it says by default that changed lists are announced, because they are."""
        options = notification_options or NotificationOptions(tools_changed=True, resources_changed=True)
        return super().create_initialization_options(options, experimental_capabilities, extensions)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> ServerCapabilities:
        """As the SDK's, without what is not done: the prompts never change, and 2026-07-28 clients are not told by logs."""
        found = super().get_capabilities(
            notification_options, experimental_capabilities, extensions, protocol_version=protocol_version
        )
        if protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return found
        return found.model_copy(update={"logging": None, "prompts": PromptsCapability(list_changed=False)})


def build_mcp_server(
    gate: Gate, queries: Queries, *, principal_of: PrincipalOf, settings: DoorSettings | None = None
) -> CharterServer:
    """The server for every transport and both protocol eras.

    It joins ``gate.watchers``; tell it of changed tools by ``server.notices.tools_changed`` (``Registry.subscribe``).
    """
    settings = settings or DoorSettings()
    door = Door(gate, queries, principal_of, settings)
    tools = Tools(door)
    server = CharterServer(
        settings.name,
        version=settings.version,
        title=settings.title,
        instructions=settings.instructions,
        cache_hints={
            "tools/list": _SHORT,
            "prompts/list": _SHORT,
            "resources/list": _PRIVATE,
            "resources/templates/list": _SHORT,
            "resources/read": _PRIVATE,
        },
        get_tool_input_schema=tools.header_schema,
    )
    _add_handlers(server, door, tools)
    server.middleware += [_boundary(door), fields_named]
    gate.watchers.append(server.notices.watch)
    return server


def _add_handlers(server: CharterServer, door: Door, tools: Tools) -> None:
    prompts, resources = Prompts(door), Resources(door)
    server.notices = notices = Notices(door, resources)
    add = server.add_request_handler
    add("tools/list", PaginatedRequestParams, tools.page)
    add("tools/call", CallToolRequestParams, tools.call)
    add("prompts/list", PaginatedRequestParams, prompts.list)
    add("prompts/get", GetPromptRequestParams, prompts.get)
    add("completion/complete", CompleteRequestParams, Completions(door).complete)
    add("resources/list", PaginatedRequestParams, resources.list)
    add("resources/templates/list", PaginatedRequestParams, resources.templates)
    add("resources/read", ReadResourceRequestParams, resources.read)
    add("resources/subscribe", SubscribeRequestParams, notices.subscribe)
    add("resources/unsubscribe", UnsubscribeRequestParams, notices.unsubscribe)
    add("logging/setLevel", SetLevelRequestParams, notices.set_level)
    add("subscriptions/listen", SubscriptionsListenRequestParams, notices.listen)
    server.add_notification_handler("notifications/initialized", NotificationParams, notices.joined)


def _boundary(door: Door) -> RequestStateBoundary:
    """Seals what a client carries between rounds, and binds it to the principal: another one's state opens nothing."""

    def who(ctx: ServerRequestContext[Any, Any]) -> str:
        principal = door.principal_of(ctx)
        return "|".join((principal.tenant, principal.kind, principal.id, principal.acts_for or ""))

    keys = list(door.settings.request_state_keys)
    audience = door.settings.name
    if keys:
        security = RequestStateSecurity(keys=keys, ttl=WAIT_SECONDS, bind_principal=who, audience=audience)
    else:
        security = RequestStateSecurity.ephemeral(ttl=WAIT_SECONDS, audience=audience)
        security.bind_principal = who
    return RequestStateBoundary(security, default_audience=audience)
