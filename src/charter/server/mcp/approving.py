"""``request_approval``: the person at the client is asked on the spot where the policy lets them decide, and once."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from charter.errors import CharterError, Refused
from charter.model import commands as cmd
from charter.model.approval import ApprovalVerdict
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.model.reply import ApprovalView, ProposalView
from charter.server.mcp import asking, results, showing, wording
from charter.server.mcp.asking import Answered, Context, Question
from charter.server.mcp.parts import Door, call_context, person_behind

_KIND: Final = "approval"
_CHOICES: Final[tuple[ApprovalVerdict, ...]] = ("approve", "reject", "request_more_info")


class Approving:
    """Requests approvals for agents."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def request(self, ctx: Context, principal: Principal, command: cmd.RequestApproval) -> JsonObject:
        """Put the request on record; ask the client's person if this very call did so, and they may answer here.

        Whoever was asked before is not asked again: the request stays open for every other channel.
        """
        answered = asking.returned(ctx, _KIND)
        if answered is not None:
            return await self._settle(ctx, principal, command, answered)
        view: ProposalView = await self._door.gate.handle(principal, command, call_context(ctx))
        if not view.asked_now or view.approval_id is None or not asking.can_ask(ctx):
            return _shown(view)
        question = await self._question(principal, view.approval_id)
        if question is None:
            return _shown(view)
        put = await asking.ask(ctx, question)
        return await self._settle(ctx, principal, command, put) if isinstance(put, Answered) else put

    async def _question(self, principal: Principal, approval_id: str) -> Question | None:
        """What to ask the person behind this client; None when the policy would not take their answer from here."""
        person = person_behind(principal)
        if person is None:
            return None
        command = cmd.DecideApproval(approval_id=approval_id, decision="approve", channel="elicitation")
        try:
            await self._door.queries.check_decision(person, command)
            view = await self._door.queries.approval(person, approval_id)
        except CharterError:
            return None
        return Question(_KIND, _message(view), _FORM, {"approval_id": approval_id, "digest": view.request.digest})

    async def _settle(
        self, ctx: Context, principal: Principal, command: cmd.RequestApproval, answered: Answered
    ) -> JsonObject:
        """The person's answer through the gate, under their own identity; then how the proposal stands."""
        verdict: ApprovalVerdict | None = asking.chosen(answered.content, "decision", _CHOICES)
        person = person_behind(principal)
        if verdict is not None and person is not None:
            decide = cmd.DecideApproval(
                approval_id=answered.memo["approval_id"],
                decision=verdict,
                channel="elicitation",
                digest=answered.memo["digest"],
                comment=asking.written(answered.content, "comment"),
            )
            with suppress(Refused):  # somebody else decided meanwhile: how it stands now is the answer
                await self._door.gate.handle(person, decide, call_context(ctx))
        view: ProposalView = await self._door.gate.handle(principal, command, call_context(ctx))
        if verdict == "request_more_info":
            asked = asking.written(answered.content, "comment") or "(no question was written)"
            view = view.model_copy(
                update={
                    "next_step": f"The person wants to know more first: {asked} Answer with propose_action: the same tool and "
                    "arguments, and the answer in reason; then request_approval again."
                }
            )
        return _shown(view)


def _shown(view: ProposalView) -> JsonObject:
    return results.answer(wording.proposal(view), view.model_dump(mode="json", exclude_none=True))


def _message(view: ApprovalView) -> str:
    return "\n".join(
        [
            "May this call run? Nothing has run yet. Your answer holds for exactly this call, once.",
            "",
            showing.whole(view),
        ]
    )


_FORM: Final[JsonObject] = {
    "type": "object",
    "properties": {
        "decision": {
            "type": "string",
            "title": "Your decision",
            "enum": list(_CHOICES),
            "enumNames": ["Approve this call", "Reject it", "Ask for more information"],
            "description": "Holds for exactly the call shown above.",
        },
        "comment": {
            "type": "string",
            "title": "Comment or question",
            "description": "Recorded with your decision; the agent sees it.",
            "maxLength": 4000,
        },
    },
    "required": ["decision"],
}
