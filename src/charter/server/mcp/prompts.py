"""Prompts for people: see what waits, and decide on it. Every decision is confirmed in a form and recorded under the
person's own identity, with channel ``prompt``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from mcp_types import GetPromptRequestParams, PaginatedRequestParams

from charter.errors import CharterError, Denied, InvalidInput, NotFound
from charter.manifests.plain_text import fenced
from charter.model.base import JsonObject
from charter.model.next_steps import said_at
from charter.model.principal import Principal
from charter.server.mcp import results, showing
from charter.server.mcp.asking import Context
from charter.server.mcp.deciding import Deciding
from charter.server.mcp.parts import Door, person_behind
from charter.store.port import Filter, Page

MAX_LISTED: Final = 50

_APPROVAL_ID: Final = {
    "name": "approval_id",
    "description": "The request to decide on: appr_….",
    "required": True,
}
_COMMENT: Final = {
    "name": "comment",
    "description": "Recorded with the decision; the agent sees it.",
    "required": False,
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as listed."""

    name: str
    title: str
    description: str
    arguments: tuple[Mapping[str, Any], ...] = ()

    def wire(self) -> JsonObject:
        """As ``prompts/list`` shows it."""
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "arguments": [dict(item) for item in self.arguments],
        }


_MANY: Final = {**_APPROVAL_ID, "description": "The request to approve: appr_…; several with commas between them."}
PROMPTS: Final = {
    prompt.name: prompt
    for prompt in (
        Prompt("pending_approvals", "What waits for a decision", "Every request that waits, each with its exact call."),
        Prompt(
            "review_approval",
            "Review a request",
            "The exact call, the reason, the policy that asked, and what else this agent did in this workflow.",
            (_APPROVAL_ID,),
        ),
        Prompt("approve", "Approve", "Approve exactly the calls shown; you confirm them in a form.", (_MANY, _COMMENT)),
        Prompt("reject", "Reject", "Say no to a call; you confirm it in a form.", (_APPROVAL_ID, _COMMENT)),
        Prompt(
            "edit",
            "Approve with changes",
            "Put other arguments in the call's place: a new call, which the policy judges anew.",
            (
                _APPROVAL_ID,
                {
                    "name": "arguments",
                    "description": "All of the call's arguments, as a JSON object.",
                    "required": True,
                },
                _COMMENT,
            ),
        ),
        Prompt(
            "delegate",
            "Let somebody else decide",
            "Hand your part in a decision to another person, for this request alone; you confirm it in a form.",
            (
                _APPROVAL_ID,
                {"name": "to", "description": "Who decides in your place, by their id.", "required": True},
                _COMMENT,
            ),
        ),
        Prompt(
            "request_more_info",
            "Ask for more information",
            "Ask the agent a question; the request stays open.",
            (_APPROVAL_ID, {**_COMMENT, "description": "Your question to the agent.", "required": True}),
        ),
    )
}


class Prompts:
    """Lists prompts and carries them out."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._deciding = Deciding(door)

    async def list(self, _ctx: Context, _params: PaginatedRequestParams | None) -> JsonObject:
        """``prompts/list``."""
        return {"prompts": [prompt.wire() for prompt in PROMPTS.values()], "resultType": "complete"}

    async def get(self, ctx: Context, params: GetPromptRequestParams) -> JsonObject:
        """``prompts/get``. Errors are JSON-RPC errors whose data has code, message and next_step, in a person's words."""
        try:
            return await self._get(ctx, params.name, dict(params.arguments or {}))
        except CharterError as error:
            error.next_step = said_at("commands", error.next_step)
            results.raise_rpc(error)
        except UnicodeEncodeError:
            results.raise_rpc(InvalidInput("The arguments hold text that is not valid Unicode."))

    async def _get(self, ctx: Context, name: str, arguments: dict[str, str]) -> JsonObject:
        prompt = PROMPTS.get(name)
        if prompt is None:
            raise NotFound(
                f"There is no prompt {name[:200]!r}.",
                code="unknown_prompt",
                next_step=f"There are: {', '.join(PROMPTS)}.",
            )
        _check(prompt, arguments)
        principal = self._door.principal_of(ctx)
        if name == "pending_approvals":
            return _message("What waits for a decision", await self._pending(principal))
        person = person_behind(principal)
        if person is None:
            raise Denied(
                "This credential names no person, so nobody could decide here.",
                code="no_person",
                next_step="Decide with a credential of your own, on the command line: `charter approvals`.",
            )
        if name == "review_approval":
            return _message("The request", await self._review(person, arguments["approval_id"].strip()))
        decided = await self._deciding.decide(ctx, person, name, arguments)
        return decided if isinstance(decided, dict) else _message("Decided", decided)

    async def _pending(self, principal: Principal) -> str:
        reader = person_behind(principal) or principal
        rows, more = await self._door.queries.approvals(reader, Filter(status="pending"), Page(limit=MAX_LISTED))
        views = []
        for row in rows:
            with suppress(CharterError):  # listed, but not for this reader to see
                views.append(await self._door.queries.approval(reader, row.approval_id))
        if not views:
            return "Nothing waits for a decision."
        cases = [
            f"{index}. {showing.headline(view.request)}\n\n{fenced(showing.whole(view))}"
            for index, view in enumerate(views, 1)
        ]
        rest = "\n\nThere are more; decide on these first." if more else ""
        ids = ", ".join(view.request.approval_id for view in views)
        return (
            f"{len(views)} request(s) wait for a decision.\n\n" + "\n\n".join(cases) + f"{rest}\n\n"
            f"To decide, use the prompts approve, reject, edit or request_more_info. All at once: approve with {ids}"
        )

    async def _review(self, person: Principal, approval_id: str) -> str:
        view = await self._door.queries.approval(person, approval_id)
        text = f"{showing.whole(view)}\n\n{showing.history(view)}"
        answers = "".join(
            f"\n- {item.decided_by}: {item.decision}{f' ({item.comment})' if item.comment else ''}"
            for item in view.decisions
        )
        return f"{showing.headline(view.request)} — {view.status}\n\n{fenced(text)}" + (
            f"\n\nAnswers so far:\n{fenced(answers.strip())}" if answers else ""
        )


def _check(prompt: Prompt, arguments: dict[str, str]) -> None:
    """Required arguments are there, others are not. Raises ``InvalidInput``."""
    known = [item["name"] for item in prompt.arguments]
    results.unknown_fields(arguments, known)
    missing = [
        item["name"] for item in prompt.arguments if item["required"] and not arguments.get(item["name"], "").strip()
    ]
    if missing:
        raise InvalidInput(
            f"The prompt {prompt.name} needs: {', '.join(missing)}.",
            next_step="Give the missing arguments; the prompt pending_approvals shows what waits.",
            detail={"fields": missing},
        )


def _message(description: str, text: str) -> JsonObject:
    return {
        "resultType": "complete",
        "description": description,
        "messages": [{"role": "user", "content": results.text_block(text)}],
    }
