"""What an upstream asks its caller in the middle of a call: passed on where possible, else answered with "cancel"."""

from __future__ import annotations

from typing import Any, Final

import anyio
from mcp import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types import (
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ListRootsRequest,
    ListRootsResult,
    Result,
)
from pydantic import ValidationError

from charter.manifests.plain_text import one_line
from charter.model.base import JsonObject
from charter.server.mcp.asking import WAIT_SECONDS, Context
from charter.server.mcp.parts import takes_forms

MAX_ROUNDS: Final = 10
CANCELLED: Final[JsonObject] = {"action": "cancel"}


def passable(asked: JsonObject, capabilities: ClientCapabilities | None) -> bool:
    """True when this client announced that it can answer everything that is asked."""
    requests = asked.get("inputRequests") or {}
    return all(_can_answer(request, capabilities) for request in requests.values())


def _can_answer(request: Any, capabilities: ClientCapabilities | None) -> bool:
    if capabilities is None or not isinstance(request, dict):
        return False
    method, params = request.get("method"), request.get("params") or {}
    if method == "sampling/createMessage":
        return capabilities.sampling is not None
    if method == "roots/list":
        return capabilities.roots is not None
    elicitation = capabilities.elicitation
    if method != "elicitation/create" or elicitation is None:
        return False
    return elicitation.url is not None if params.get("mode") == "url" else takes_forms(capabilities)


async def answers_for_legacy(ctx: Context, asked: JsonObject) -> JsonObject:
    """The questions put one by one as requests to the client; what the older revisions cannot ask is answered "cancel"."""
    return {key: await _asked(ctx, request) for key, request in asked["inputRequests"].items()}


async def _asked(ctx: Context, request: JsonObject) -> JsonObject:
    params: JsonObject = request.get("params") or {}
    with anyio.move_on_after(WAIT_SECONDS):
        try:
            result = await _put(ctx, str(request.get("method")), params)
        except (MCPError, ValidationError):
            return CANCELLED
        if result is None:
            return CANCELLED
        found: JsonObject = result.model_dump(
            mode="json", by_alias=True, exclude_none=True, exclude={"meta", "result_type"}
        )
        return found
    return CANCELLED


async def _put(ctx: Context, method: str, params: JsonObject) -> Result | None:
    """One question in the middle of this request; None for one that the older revisions do not know."""
    if method == "elicitation/create" and params.get("mode", "form") == "form":
        return await ctx.session.elicit_form(
            str(params.get("message", "")), params.get("requestedSchema") or {}, related_request_id=ctx.request_id
        )
    here = ServerMessageMetadata(related_request_id=ctx.request_id)
    if method == "sampling/createMessage":
        question = CreateMessageRequest(params=CreateMessageRequestParams.model_validate(params, by_name=False))
        kind = CreateMessageResultWithTools if question.params.tools else CreateMessageResult
        answer: Result = await ctx.session.send_request(question, kind, metadata=here)
        return answer
    if method == "roots/list":
        return await ctx.session.send_request(ListRootsRequest(), ListRootsResult, metadata=here)
    return None


def refusing_answers(asked: JsonObject) -> tuple[JsonObject, str]:
    """ "Cancel" for every question, so that the upstream ends the call, and what the caller is told about it."""
    requests: dict[str, Any] = asked["inputRequests"]
    said = "; ".join(
        one_line(str((request.get("params") or {}).get("message", key))) for key, request in requests.items()
    )
    note = (
        f"[Charter: the tool asked for input that your client cannot give ({said}); it was answered with “cancel”. "
        "Use a client that supports elicitation to answer it.]"
    )
    return dict.fromkeys(requests, CANCELLED), note
