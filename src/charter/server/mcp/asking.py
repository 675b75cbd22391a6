"""Asking the person behind a client, in both protocol eras.

2026-07-28: the answer to the request is a question (``input_required``), and the client sends the request again with the
person's answer and the state, which ``RequestStateBoundary`` seals and binds to principal, method, name and arguments.
Older revisions: ``elicitation/create`` in the middle of the request. That a client accepted proves only that *the client* said
yes: the policy says for what that is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
import orjson
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp_types import ElicitResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from charter.errors import InvalidInput
from charter.model.base import JsonObject
from charter.server.mcp.parts import takes_forms

Context = ServerRequestContext[Any, Any]
ChoiceT = TypeVar("ChoiceT", bound=str)
KEY: Final = "answer"
WAIT_SECONDS: Final = 600.0
"""How long a person is waited for; the sealed state of 2026-07-28 lives as long."""


@dataclass(frozen=True, slots=True)
class Question:
    """A form for a person. ``memo`` comes back with the answer; ``kind`` says which question it was."""

    kind: str
    message: str
    schema: JsonObject
    memo: JsonObject


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back. ``content`` is empty unless the person sent the form."""

    accepted: bool
    content: JsonObject
    memo: JsonObject


NOBODY: Final = Answered(accepted=False, content={}, memo={})


def is_modern(ctx: Context) -> bool:
    """True on 2026-07-28 and later: no server may send requests of its own there."""
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def can_ask(ctx: Context) -> bool:
    """True when this client can show its person a form now."""
    capabilities = ctx.session.client_capabilities
    if capabilities is None or not takes_forms(capabilities):
        return False
    return is_modern(ctx) or ctx.session.can_send_request


async def ask(ctx: Context, question: Question) -> Answered | JsonObject:
    """Put the question: on 2026-07-28 the ``input_required`` result to answer with, before that the person's answer."""
    if is_modern(ctx):
        return {
            "resultType": "input_required",
            "inputRequests": {KEY: form_request(question.message, question.schema)},
            "requestState": orjson.dumps({"kind": question.kind, "memo": question.memo}).decode(),
        }
    with anyio.move_on_after(WAIT_SECONDS):
        return await _elicit(ctx, question)
    return Answered(accepted=False, content={}, memo=question.memo)


def form_request(message: str, schema: JsonObject) -> JsonObject:
    """An ``elicitation/create`` request in form mode."""
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": schema}}


async def _elicit(ctx: Context, question: Question) -> Answered:
    try:
        result = await ctx.session.elicit_form(question.message, question.schema, related_request_id=ctx.request_id)
    except (MCPError, ValidationError):  # the client refused to ask, or answered with what is no answer
        return Answered(accepted=False, content={}, memo=question.memo)
    return _answered(result, question.memo)


def _answered(result: ElicitResult, memo: JsonObject) -> Answered:
    accepted = result.action == "accept"
    return Answered(accepted=accepted, content=dict(result.content or {}) if accepted else {}, memo=memo)


def returned(ctx: Context, kind: str) -> Answered | None:
    """The answer to an earlier round's question of this kind, or None when this is the first round.

    Answers without the state that belongs to them are not looked at: nobody asked for them. The state is ours: the
    boundary has verified it. Raises ``InvalidInput`` for an answer that is none.
    """
    memo = memo_of(ctx, kind)
    if memo is None:
        return None
    raw = (ctx.params or {}).get("inputResponses")
    given = raw.get(KEY) if isinstance(raw, Mapping) else None
    if given is None:
        return Answered(accepted=False, content={}, memo=memo)
    try:
        return _answered(ElicitResult.model_validate(given, by_name=False), memo)
    except ValidationError:
        raise InvalidInput(f"inputResponses.{KEY} is not the answer to an elicitation.") from None


def memo_of(ctx: Context, kind: str) -> JsonObject | None:
    """What was remembered with a question of this kind, when this request carries its state."""
    text = (ctx.params or {}).get("requestState") if is_modern(ctx) else None
    if not isinstance(text, str):
        return None
    state: JsonObject = orjson.loads(text)
    memo: JsonObject = state["memo"]
    return memo if state["kind"] == kind else None


def chosen(content: JsonObject, field: str, among: tuple[ChoiceT, ...]) -> ChoiceT | None:
    """The choice that the person made in a form, or None: what is not one of ours is no choice."""
    value = content.get(field)
    return next((choice for choice in among if choice == value), None)


def written(content: JsonObject, field: str, limit: int = 4000) -> str | None:
    """The text that the person wrote in a form, cut to ``limit``; None when there is none."""
    value = content.get(field)
    return value.strip()[:limit] or None if isinstance(value, str) else None
