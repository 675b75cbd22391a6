"""``invoke_tool`` with ``proposal_ids``: several proposals side by side, answered in the order in which they were named."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from charter.errors import InvalidInput
from charter.model.base import JsonObject
from charter.model.reply import BatchMember, BatchOutcome, ToolOutcome
from charter.server.mcp import results
from charter.server.mcp.outcomes import result_blocks, result_uri

_TAKES: Final = frozenset(("workflow_id", "agent_invocation_id", "proposal_ids"))
_FIELDS: Final = frozenset(ToolOutcome.model_fields) & frozenset(BatchMember.model_fields)


def demand_alone(arguments: Mapping[str, Any]) -> None:
    """A batch is of proposals alone. Raises ``InvalidInput``."""
    more = sorted(set(arguments) - _TAKES)
    if more:
        raise InvalidInput(
            f"proposal_ids goes with the two ids alone, not with {', '.join(more)}.",
            detail={"fields": more},
            next_step="Propose each call with propose_action and send the proposal ids, or make one call at a time.",
        )


def render(reply: BatchOutcome) -> JsonObject:
    """An error result unless every member succeeded, so that a model cannot overlook it; what ran is in it all the same."""
    structured: JsonObject = {
        "workflow_id": reply.workflow_id,
        "succeeded": reply.succeeded,
        "failed": reply.failed,
        "next_step": reply.next_step,
        "results": [_member(reply, item) for item in reply.results],
    }
    text = f"{reply.succeeded} of {len(reply.results)} calls succeeded."
    if reply.failed:
        text = f"{text} Next: {reply.next_step}"
        code = "batch_partly_failed" if reply.succeeded else "batch_failed"
        structured |= {"code": code, "message": f"{reply.failed} of {len(reply.results)} calls did not succeed."}
    blocks = [block for item in reply.results for block in _blocks(reply, item)]
    meta = {"io.charter/workflow_id": reply.workflow_id}
    return results.answer(text, structured, is_error=reply.failed > 0, blocks=blocks, meta=meta)


def _member(reply: BatchOutcome, item: BatchMember) -> JsonObject:
    shown: JsonObject = item.model_dump(mode="json", exclude_none=True, exclude={"content"})
    return {**shown, "result_ref": result_uri(_single(reply, item))} if item.result_ref else shown


def _blocks(reply: BatchOutcome, item: BatchMember) -> Iterable[JsonObject]:
    said = [f"[{item.index}] {item.tool} ({item.proposal_id}): {item.status}"]
    if item.is_error and item.status == "succeeded":
        said.append("its answer is an error")
    if item.error_message:
        said.append(f"{item.error_message} ({item.error_code}) — Next: {item.next_step}")
    yield results.text_block(". ".join([*said, *([item.note] if item.note else [])]))
    if item.content or item.result_ref:
        yield from result_blocks(_single(reply, item))


def _single(reply: BatchOutcome, item: BatchMember) -> ToolOutcome:
    """The same as if it had been called by itself; for what ran."""
    return ToolOutcome.model_validate(
        {"workflow_id": reply.workflow_id, **{name: getattr(item, name) for name in _FIELDS}}
    )
