"""Proposals that run side by side: looked at together first, then each by its own command through the gate."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from charter.errors import CharterError, Denied, InvalidInput, NotFound, Refused
from charter.gate.grants import Ahead
from charter.gate.parts import CallContext
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.ids import Mint
from charter.model.principal import Principal
from charter.model.reply import BatchMember, BatchOutcome, ToolOutcome
from charter.workflows import decide as rules
from charter.workflows.draft import Draft, Member
from charter.workflows.state import State

if TYPE_CHECKING:
    from charter.gate.gate import Gate

logger = logging.getLogger(__name__)

ROUNDS = 10
"""How often a tool may ask for input before it is given up."""
_SAME = ("tool", "effect_id", "is_error", "content", "structured", "meta", "result_ref", "result_bytes")
_SAME_TOO = ("status", "error_code", "error_message", "next_step")
_CANCELLED = "The tool asked for input, which a batch cannot give: it was answered with “cancel”. Call it by itself."


class Batches:
    """Runs batches for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def run(self, principal: Principal, command: cmd.InvokeBatch, ctx: CallContext) -> BatchOutcome:
        """Run the proposals, at most ``limits.batch_at_once`` at a time; the results stand in the order asked.

        Raises ``Refused`` (``batch_not_ready``, with the members), on record, when any of them may not run now; then none
        has. From there on what goes wrong with a member is its own result. Cancelling it cancels the calls that run, each
        with its end on record, and begins no other.
        """
        tools = await self._checked(principal, command, ctx)
        found: list[BatchMember | None] = [None] * len(tools)
        slots = anyio.CapacityLimiter(self._gate.parts.limits.batch_at_once)
        # Nobody is asked for input on a member's behalf, and only the batch as a whole tells how far it is.
        own = CallContext(trace_id=ctx.trace_id, trace=ctx.trace, capabilities={})

        async def member(index: int) -> None:
            async with slots:
                place = {"index": index, "proposal_id": command.proposal_ids[index], "tool": tools[index]}
                found[index] = await self._member(principal, command, place, own)
            if ctx.progress is not None:
                done = sum(item is not None for item in found)
                with suppress(Exception):  # whoever wanted to know may be gone
                    await ctx.progress(done, len(tools), f"{done} of {len(tools)} calls have ended")

        async with anyio.create_task_group() as tasks:
            for index in range(len(tools)):
                tasks.start_soon(member, index)
        return _outcome(command.workflow_id or "", [item for item in found if item is not None])

    # -- all of them, before any runs

    async def _checked(self, principal: Principal, command: cmd.InvokeBatch, ctx: CallContext) -> tuple[str, ...]:
        gate, workflow_id = self._gate, command.workflow_id
        unknown = not workflow_id or await gate.states.cached(principal.tenant, workflow_id) is None
        if unknown or not command.agent_invocation_id:
            await gate.agents.outside(principal, command, ctx)

        async def make(state: State, now: str, mint: Mint) -> Draft:
            members = await self._members(state, principal, command, now)
            return rules.decide(state, command, await gate.given(state, principal, now, mint, members=members))

        tools: tuple[str, ...] = (await gate.transact(principal, workflow_id or "", make, ctx)).reply
        return tools

    async def _members(
        self, state: State, principal: Principal, command: cmd.InvokeBatch, now: str
    ) -> tuple[Member, ...]:
        """Each is decided as if those before it had run, so that a budget or a grant is enough for all of them."""
        members: list[Member] = []
        grants: Counter[str] = Counter()
        for proposal_id in command.proposal_ids:
            one = _single(command, proposal_id)
            try:
                call = await self._gate.prepare.for_proposal(
                    state, principal, one, now, Ahead(len(members), dict(grants))
                )
            except (Denied, InvalidInput, NotFound, Refused) as problem:
                members.append(Member(proposal_id, problem=problem))
                continue
            if call.grant_id is not None:
                grants[call.grant_id] += 1
            members.append(Member(proposal_id, call))
        return tuple(members)

    # -- each of them, by its own command

    async def _member(
        self, principal: Principal, command: cmd.InvokeBatch, place: JsonObject, ctx: CallContext
    ) -> BatchMember:
        gate, note = self._gate, None
        try:
            outcome: ToolOutcome = await gate.handle(principal, _single(command, place["proposal_id"]), ctx)
            for _ in range(ROUNDS):
                if outcome.status != "input_required":
                    break
                asked = outcome.input_required or {}
                requests = asked.get("inputRequests") or {}
                note = _CANCELLED if requests else note
                answers = {key: {"action": "cancel"} for key in requests} or None
                state = asked.get("requestState")
                outcome = await gate.resume_call(principal, outcome.effect_id or "", answers, state, ctx)
        except CharterError as error:
            return _refused(place, error)
        except Exception as error:  # the others go on, and have their ends on record
            logger.error("a member of a batch failed: %s", type(error).__name__)
            return _refused(place, CharterError("Something went wrong inside Charter."))
        if outcome.status == "input_required":
            return _refused({**place, "effect_id": outcome.effect_id}, _kept_asking(outcome.tool))
        fields: dict[str, Any] = {name: getattr(outcome, name) for name in (*_SAME, *_SAME_TOO)}
        return BatchMember.model_validate({**place, **fields, "note": note})


def _kept_asking(tool: str) -> CharterError:
    return CharterError(
        f"{tool} kept asking for input.",
        code="too_many_rounds",
        next_step="Do not repeat the call; get_workflow shows what is on record of it.",
    )


def _single(command: cmd.InvokeBatch, proposal_id: str) -> cmd.InvokeTool:
    return cmd.InvokeTool(
        workflow_id=command.workflow_id, agent_invocation_id=command.agent_invocation_id, proposal_id=proposal_id
    )


def _refused(place: JsonObject, error: CharterError) -> BatchMember:
    status = "denied" if isinstance(error, Denied) else "error"  # it may have been called: its code says so
    if isinstance(error, Refused | NotFound | InvalidInput):
        status = "refused"
    told = {"error_code": error.error_code, "error_message": error.message, "next_step": error.next_step}
    return BatchMember.model_validate({**place, **told, "status": status, "is_error": True})


def _outcome(workflow_id: str, results: list[BatchMember]) -> BatchOutcome:
    failed = [item for item in results if not item.succeeded]
    told = ""
    if failed:
        places = ", ".join(str(item.index) for item in failed)
        told = f"Read error_code and next_step of the results with index {places}. The others have run: do not send them again."
        if len(failed) == len(results):
            told = "Read error_code and next_step of each result before you send anything again."
    return BatchOutcome(
        workflow_id=workflow_id,
        results=tuple(results),
        succeeded=len(results) - len(failed),
        failed=len(failed),
        next_step=told,
    )
