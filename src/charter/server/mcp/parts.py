"""What every part of the MCP door works with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp_types import ClientCapabilities
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from charter.gate import CallContext, Gate, Queries
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.server.mcp.catalog import INSTRUCTIONS, OwnTool, own_tools
from charter.server.mcp.listing import GovernedListing
from charter.server.telemetry import current_trace_id

PrincipalOf = Callable[[ServerRequestContext[Any, Any] | None], Principal]
"""Who sent this request, from its verified credential (None: the transport still looks at it). Raises ``Unauthenticated``."""

TRACE_KEYS: Final = ("traceparent", "tracestate", "baggage")
_TRACE_LIMIT: Final = 8192


@dataclass(frozen=True, slots=True)
class DoorSettings:
    """``request_state_keys``: at least 32 bytes each, the same in all workers; the first seals, all open. Empty means a
    key of this process alone. ``templates``: name and description of what ``start_workflow`` tells a model it can start.
    """

    name: str = "charter"
    version: str = ""
    title: str | None = "Charter"
    instructions: str = INSTRUCTIONS
    list_governed_tools: bool = True
    request_state_keys: Sequence[bytes] = ()
    templates: Sequence[tuple[str, str]] = ()
    default_template: str = "governed-session"


@dataclass(slots=True)
class Door:
    """The gate, and how its answers are shown."""

    gate: Gate
    queries: Queries
    principal_of: PrincipalOf
    settings: DoorSettings
    own: dict[str, OwnTool] = field(init=False)
    governed: GovernedListing = field(default_factory=GovernedListing)

    def __post_init__(self) -> None:
        self.own = own_tools(self.settings.templates, self.settings.default_template)


def person_behind(principal: Principal) -> Principal | None:
    """The person who sits at the client: the caller itself, or whom the agent's credential says that it acts for."""
    if principal.kind == "human":
        return principal
    if principal.kind == "agent" and principal.acts_for:
        return Principal(id=principal.acts_for, kind="human", tenant=principal.tenant, roles=principal.acts_for_roles)
    return None


def call_context(ctx: ServerRequestContext[Any, Any]) -> CallContext:
    """What travels beside a command: the caller's trace, progress if it asked for it, and what its client can answer."""
    meta: dict[str, Any] = dict(ctx.meta or {})
    trace = {key: meta[key] for key in TRACE_KEYS if isinstance(meta.get(key), str) and len(meta[key]) <= _TRACE_LIMIT}
    return CallContext(
        trace_id=current_trace_id(),
        trace=trace or None,
        progress=ctx.session.report_progress if meta.get("progress_token") is not None else None,
        capabilities=answerable(ctx),
    )


def answerable(ctx: ServerRequestContext[Any, Any]) -> JsonObject:
    """Which of an upstream's questions can be passed on to this caller, as MCP client capabilities.

    Before 2026-07-28 they are put in the middle of the request, which takes a way back to the client; forms only, then.
    """
    announced = ctx.session.client_capabilities
    modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
    if announced is None or not (modern or ctx.session.can_send_request):
        return {}
    found: JsonObject = announced.model_dump(
        mode="json", by_alias=True, exclude_none=True, include={"elicitation", "sampling", "roots"}
    )
    if not modern and found.pop("elicitation", None) is not None and takes_forms(announced):
        found["elicitation"] = {"form": {}}
    return found


def takes_forms(announced: ClientCapabilities) -> bool:
    """True when a client can show its person a form. A bare ``elicitation`` is the oldest way to say so."""
    elicitation = announced.elicitation
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)
