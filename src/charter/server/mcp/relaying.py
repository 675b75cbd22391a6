"""What an upstream asks its caller in the middle of a call: passed on where possible, else answered with "cancel"."""

from __future__ import annotations

from typing import Any, Final

import anyio
from mcp import MCPError
from mcp_types import ClientCapabilities
from pydantic import ValidationError

from charter.manifests.plain_text import one_line
from charter.model.base import JsonObject
from charter.server.mcp.asking import WAIT_SECONDS, Context

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
    if params.get("mode") == "url":
        return elicitation.url is not None
    return elicitation.form is not None or elicitation.url is None


async def answers_for_legacy(ctx: Context, asked: JsonObject) -> JsonObject:
    """The questions put one by one as ``elicitation/create`` requests; what is no form is answered with "cancel"."""
    answers: JsonObject = {}
    for key, request in asked["inputRequests"].items():
        params = request.get("params") or {}
        is_form = request.get("method") == "elicitation/create" and params.get("mode", "form") == "form"
        answers[key] = await _form(ctx, params) if is_form else CANCELLED
    return answers


async def _form(ctx: Context, params: JsonObject) -> JsonObject:
    with anyio.move_on_after(WAIT_SECONDS):
        try:
            result = await ctx.session.elicit_form(
                str(params.get("message", "")), params.get("requestedSchema") or {}, related_request_id=ctx.request_id
            )
        except (MCPError, ValidationError):
            return CANCELLED
        found: JsonObject = result.model_dump(
            mode="json", by_alias=True, exclude_none=True, include={"action", "content"}
        )
        return found
    return CANCELLED


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
