"""How a governed call ends, as its caller sees it: through ``invoke_tool``, or as the tool itself would have answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import orjson
from mcp import MCPError
from mcp_types import MISSING_REQUIRED_CLIENT_CAPABILITY

from charter.errors import CharterError, Refused
from charter.model import commands as cmd
from charter.model.base import Json, JsonObject
from charter.model.principal import Principal
from charter.model.reply import ToolOutcome
from charter.server.mcp import results
from charter.server.mcp.asking import Context, is_modern, memo_of
from charter.server.mcp.listing import Listed
from charter.server.mcp.parts import Door, call_context
from charter.server.mcp.relaying import MAX_ROUNDS, answers_for_legacy, passable, refusing_answers

_INPUT: Final = "input"
UPSTREAM_ERROR: Final = "io.charter/upstream-error"
"""In the metadata of a result: the JSON-RPC error by which the upstream answered, as it came."""
_ENDED: Final = {
    "pending_approval": ("approval_required", "Nothing has run: people must approve this call first."),
    "denied": ("denied", "Nothing has run: the policy denies this call."),
    "failed": ("tool_failed", "The tool gave no result."),
    "in_doubt": ("in_doubt", "Nobody knows whether the tool ran."),
}


class ToolCalls:
    """Invokes governed tools for callers of both protocol eras."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def invoke(
        self, ctx: Context, principal: Principal, command: cmd.InvokeTool, *, listed: Listed | None
    ) -> JsonObject:
        """Run the call, or the next round of it. ``listed``: it was called under its own name."""
        gate, context = self._door.gate, call_context(ctx)
        memo = memo_of(ctx, _INPUT)
        if memo is None:
            outcome: ToolOutcome = await gate.handle(principal, command, context)
        else:
            responses = (ctx.params or {}).get("inputResponses") or {}
            outcome = await gate.resume_call(principal, memo["effect_id"], dict(responses), memo["state"], context)
        note: str | None = None
        for _ in range(MAX_ROUNDS):
            if outcome.status != "input_required":
                _refuse_if_incapable(ctx, outcome)
                return render(outcome, listed, note)
            asked: JsonObject = outcome.input_required or {}
            if is_modern(ctx) and passable(asked, ctx.session.client_capabilities):
                return passed_on(outcome, asked)
            answers, note = await self._answer_here(ctx, asked, note)
            effect_id = outcome.effect_id or ""
            outcome = await gate.resume_call(principal, effect_id, answers, asked.get("requestState"), context)
        raise Refused(
            f"{outcome.tool} kept asking for input.",
            code="too_many_rounds",
            next_step="Do not repeat the call; get_workflow shows what is on record of it.",
            detail={"effect_id": outcome.effect_id},
        )

    async def _answer_here(
        self, ctx: Context, asked: JsonObject, note: str | None
    ) -> tuple[JsonObject | None, str | None]:
        """What the upstream asked, answered where the caller cannot take the question: by form, else with "cancel"."""
        if not asked.get("inputRequests"):
            return None, note
        can_send = not is_modern(ctx) and ctx.session.can_send_request
        if can_send and passable(asked, ctx.session.client_capabilities):
            return await answers_for_legacy(ctx, asked), note
        return refusing_answers(asked)


def _refuse_if_incapable(ctx: Context, outcome: ToolOutcome) -> None:
    """2026-07-28 wants the refusal of a call that takes a capability which the client lacks as a JSON-RPC error."""
    error = (outcome.meta or {}).get(UPSTREAM_ERROR)
    if is_modern(ctx) and error is not None and error["code"] == MISSING_REQUIRED_CLIENT_CAPABILITY:
        raise MCPError(code=error["code"], message=error["message"], data=error["data"])


def passed_on(outcome: ToolOutcome, asked: JsonObject) -> JsonObject:
    """The upstream's question to the caller; the state of the upstream travels inside ours."""
    memo = {"effect_id": outcome.effect_id, "state": asked.get("requestState")}
    result: JsonObject = {
        "resultType": "input_required",
        "requestState": orjson.dumps({"kind": _INPUT, "memo": memo}).decode(),
        "_meta": meta_of(outcome),
    }
    if asked.get("inputRequests"):
        result["inputRequests"] = asked["inputRequests"]
    return result


def meta_of(outcome: ToolOutcome) -> JsonObject:
    """Charter's ids beside the metadata of the upstream's own answer."""
    meta: JsonObject = dict(outcome.meta or {})
    meta |= {"io.charter/workflow_id": outcome.workflow_id, "io.charter/status": outcome.status}
    for name, value in (("effect_id", outcome.effect_id), ("proposal_id", outcome.proposal_id)):
        if value:
            meta[f"io.charter/{name}"] = value
    return meta


def render(outcome: ToolOutcome, listed: Listed | None, note: str | None = None) -> JsonObject:
    """The outcome as a result. What did not run is an error on both roads, so that a model cannot overlook it."""
    if outcome.status in _ENDED:
        return _not_done(outcome)
    blocks = result_blocks(outcome)
    if note:
        blocks = [*blocks, results.text_block(note)]
    if listed is not None:
        structured = outcome.structured
        if outcome.result_ref or outcome.status == "dry_run":
            structured = _notice(outcome) if listed.manifest.output_schema is not None else None
        return results.answer(None, structured, is_error=outcome.is_error, blocks=blocks, meta=meta_of(outcome))
    return results.answer(
        _summary(outcome), _whole(outcome), is_error=outcome.is_error, blocks=blocks, meta=meta_of(outcome)
    )


def _not_done(outcome: ToolOutcome) -> JsonObject:
    code, message = _ENDED[outcome.status]
    error = CharterError(
        outcome.error_message or message, code=outcome.error_code or code, next_step=outcome.next_step or None
    )
    more: JsonObject = {"status": outcome.status, "workflow_id": outcome.workflow_id, "tool": outcome.tool}
    if outcome.effect_id:
        more["effect_id"] = outcome.effect_id
    if outcome.proposal is not None:
        more |= {"proposal_id": outcome.proposal_id, "proposal": outcome.proposal.model_dump(mode="json")}
    return {**results.failed(error, **more), "_meta": meta_of(outcome)}


def result_blocks(outcome: ToolOutcome) -> list[JsonObject]:
    """The tool's own answer, or a link to it where it was too large to send."""
    if not outcome.result_ref:
        return list(outcome.content)
    link: JsonObject = {
        "type": "resource_link",
        "uri": result_uri(outcome),
        "name": f"Result of {outcome.tool}",
        "mimeType": "application/json",
        "size": outcome.result_bytes,
    }
    return [results.text_block(f"{outcome.tool} ran. {_stored(outcome)}"), link]


def result_uri(outcome: ToolOutcome) -> str:
    """Where a stored result is read."""
    return f"charter://workflows/{outcome.workflow_id}/results/{outcome.effect_id}"


def _stored(outcome: ToolOutcome) -> str:
    return (
        f"Its result of {outcome.result_bytes:,} bytes was too large to send and is stored; "
        f"read the resource {result_uri(outcome)}. Do not repeat the call."
    )


def _notice(outcome: ToolOutcome) -> JsonObject:
    notice: JsonObject = {"status": outcome.status, "message": _summary(outcome), "next_step": outcome.next_step}
    if outcome.result_ref:
        notice |= {"result_uri": result_uri(outcome), "result_bytes": outcome.result_bytes}
        notice["next_step"] = outcome.next_step or f"Read the resource {result_uri(outcome)}."
    return {"charter": notice}


def _summary(outcome: ToolOutcome) -> str:
    if outcome.result_ref:
        return f"{outcome.tool} ran (effect {outcome.effect_id}). {_stored(outcome)}"
    if outcome.status == "dry_run":
        return f"{outcome.tool} was not executed: this workflow is a dry run."
    if outcome.is_error:
        return f"{outcome.tool} ran and answered with an error (effect {outcome.effect_id}). Its answer follows."
    return f"{outcome.tool} ran (effect {outcome.effect_id}). Its answer follows."


_KEPT: tuple[tuple[str, Callable[[ToolOutcome], Json]], ...] = (
    ("proposal_id", lambda outcome: outcome.proposal_id),
    ("effect_id", lambda outcome: outcome.effect_id),
    ("structured", lambda outcome: outcome.structured),
    ("error_code", lambda outcome: outcome.error_code),
    ("error_message", lambda outcome: outcome.error_message),
)


def _whole(outcome: ToolOutcome) -> JsonObject:
    """The outcome without its content blocks, which follow the text. By hand: this is the hot path."""
    whole: JsonObject = {
        "status": outcome.status,
        "workflow_id": outcome.workflow_id,
        "tool": outcome.tool,
        "is_error": outcome.is_error,
        "result_bytes": outcome.result_bytes,
        "next_step": outcome.next_step,
    }
    for name, read in _KEPT:
        value = read(outcome)
        if value is not None:
            whole[name] = value
    if outcome.result_ref:
        whole["result_ref"] = result_uri(outcome)
    return whole
