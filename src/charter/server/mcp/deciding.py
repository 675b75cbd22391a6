"""The deciding prompts: exact calls shown in a form, a person's confirmation, then the gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import orjson

from charter.errors import CharterError, InvalidInput, Refused
from charter.manifests.arguments import check_arguments
from charter.manifests.plain_text import one_line, plain
from charter.manifests.redaction import shown_fields
from charter.model import commands as cmd
from charter.model.approval import ApprovalVerdict, ShownField
from charter.model.base import JsonObject
from charter.model.json_text import exact_json
from charter.model.principal import Principal
from charter.model.reply import ApprovalView, Decided
from charter.server.mcp import asking, results, showing, wording
from charter.server.mcp.asking import Answered, Context, Question
from charter.server.mcp.parts import Door, call_context

MAX_AT_ONCE: Final = 20
MAX_ARGUMENTS: Final = 256 * 1024
LEAVE: Final = "leave_it"
VERDICTS: Final[dict[str, ApprovalVerdict]] = {
    "approve": "approve",
    "reject": "reject",
    "edit": "edit",
    "request_more_info": "request_more_info",
}
_DO: Final = {
    "approve": "Approve this call",
    "reject": "Reject this call",
    "edit": "Put the changed call in its place",
    "request_more_info": "Ask the agent this question",
    "delegate": "Let this person decide in your place",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A decision that a person wants to make, before it is confirmed."""

    view: ApprovalView
    command: cmd.DecideApproval | cmd.DelegateApproval


class Deciding:
    """Carries out decisions that people make in prompts."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def decide(self, ctx: Context, person: Principal, prompt: str, arguments: dict[str, str]) -> str | JsonObject:
        """What was decided, in words; or, on 2026-07-28, the form to confirm first. Raises what the gate would raise."""
        kind = f"prompt:{prompt}"
        answered = asking.returned(ctx, kind)
        if answered is None:
            if not asking.can_ask(ctx):
                raise Refused(
                    "Your client cannot show a form, so nobody could confirm this decision here.",
                    code="cannot_confirm",
                    next_step="Decide on the command line: `charter approvals` (it shows the same call).",
                )
            wanted = await self._wanted(person, prompt, arguments)
            put = await asking.ask(ctx, self._question(kind, prompt, wanted))
            if not isinstance(put, Answered):
                return put
            answered = put
        return await self._settle(ctx, person, prompt, arguments, answered)

    async def _wanted(self, person: Principal, prompt: str, arguments: dict[str, str]) -> list[Wanted]:
        """Each approval with the decision on it, checked before anybody is bothered."""
        wanted = []
        for approval_id in ids_of(arguments["approval_id"], many=prompt == "approve"):
            command = _command(prompt, approval_id, arguments, None)
            await self._door.queries.check_decision(person, command)
            view = await self._door.queries.approval(person, approval_id)
            wanted.append(Wanted(view, command))
        return wanted

    def _question(self, kind: str, prompt: str, wanted: list[Wanted]) -> Question:
        parts = [f"{_DO[prompt]}? Your answer holds for exactly what is shown here."]
        properties: JsonObject = {}
        for index, item in enumerate(wanted, 1):
            number = f"[{index} of {len(wanted)}] " if len(wanted) > 1 else ""
            parts += ["", number + self._shown(item)]
            properties[_field(index)] = {
                "type": "string",
                "title": f"{number}{_DO[prompt]}",
                "description": showing.headline(item.view.request),
                "enum": [prompt, LEAVE],
                "enumNames": [_DO[prompt], "Leave it as it is"],
            }
        schema: JsonObject = {"type": "object", "properties": properties, "required": list(properties)}
        requests = [item.view.request for item in wanted]
        memo = [[request.approval_id, request.digest, request.proposal_id] for request in requests]
        return Question(kind, "\n".join(parts), schema, {"asked": memo})

    def _shown(self, item: Wanted) -> str:
        comment = f"\nYour comment: {item.command.comment}" if item.command.comment else ""
        command = item.command
        if isinstance(command, cmd.DelegateApproval):
            return f"{showing.whole(item.view)}\n\nIn your place decides: {one_line(command.to)}{comment}"
        before = "Instead of this call:\n" if command.decision == "edit" else ""
        text = before + showing.whole(item.view)
        if command.edited_arguments is not None:
            text += "\n\nThis one:\n" + self._edited(item.view, command.edited_arguments)
        return text + comment

    def _edited(self, view: ApprovalView, arguments: JsonObject) -> str:
        if view.request.proposal_id is None:
            values = [ShownField(label=one_line(key), value=plain(_text(item))) for key, item in arguments.items()]
            return showing.exact_call(view.request, values)
        manifest = self._door.gate.prepare.manifest(view.request.tool or "")
        return showing.exact_call(view.request, shown_fields(manifest, check_arguments(manifest, arguments)))

    async def _settle(
        self, ctx: Context, person: Principal, prompt: str, arguments: dict[str, str], answered: Answered
    ) -> str:
        lines = []
        for index, (approval_id, digest, proposal_id) in enumerate(answered.memo["asked"], 1):
            if asking.chosen(answered.content, _field(index), (prompt, LEAVE)) != prompt:
                lines.append(f"Approval {approval_id}: left as it is; it was not confirmed.")
                continue
            command = _command(prompt, approval_id, arguments, digest)
            try:
                reply: Decided = await self._door.gate.handle(person, command, call_context(ctx))
                run = f" Call invoke_tool with proposal_id {proposal_id}." if reply.status == "approved" else ""
                lines.append(f"{wording.decided(reply)} Decided by {person.id}.{run if proposal_id else ''}")
            except CharterError as error:
                if len(answered.memo["asked"]) == 1:
                    raise
                lines.append(f"Approval {approval_id}: {results.said(error)}")
        return "\n".join(lines)


def _field(index: int) -> str:
    return f"decision_{index}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _command(
    prompt: str, approval_id: str, arguments: dict[str, str], digest: str | None
) -> cmd.DecideApproval | cmd.DelegateApproval:
    comment = arguments.get("comment", "").strip() or None
    if comment is not None and len(comment) > 4000:
        raise InvalidInput("comment: at most 4000 characters.", detail={"fields": ["comment"]})
    if prompt == "delegate":
        to = arguments["to"].strip()
        if len(to) > 200:
            raise InvalidInput("to: at most 200 characters.", detail={"fields": ["to"]})
        return cmd.DelegateApproval(approval_id=approval_id, to=to, channel="prompt", digest=digest, comment=comment)
    return cmd.DecideApproval(
        approval_id=approval_id,
        decision=VERDICTS[prompt],
        channel="prompt",
        digest=digest,
        comment=comment,
        edited_arguments=_edited_arguments(arguments["arguments"]) if prompt == "edit" else None,
    )


def _edited_arguments(text: str) -> JsonObject:
    try:
        found = exact_json(text) if len(text) <= MAX_ARGUMENTS else None
    except InvalidInput as error:
        if error.error_code != "json_invalid":
            raise
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(
            "arguments: a JSON object with all of the call's arguments is required.",
            next_step='Write it like {"name": "value"}; completion offers the present ones.',
            detail={"fields": ["arguments"]},
        )
    return found


def ids_of(text: str, *, many: bool) -> list[str]:
    """The approval ids that a person typed. Raises ``InvalidInput``."""
    found = list(dict.fromkeys(part for part in (piece.strip() for piece in text.split(",")) if part))
    if not found or (len(found) > 1 and not many) or len(found) > MAX_AT_ONCE:
        limit = f"up to {MAX_AT_ONCE} approval ids" if many else "one approval id"
        raise InvalidInput(f"approval_id: {limit}, please.", detail={"fields": ["approval_id"]})
    return found
