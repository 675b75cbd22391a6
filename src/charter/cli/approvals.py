"""``charter approvals``: what waits for people, and their decisions, each on one exact call that was shown."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from charter.cli.approval_view import needed, print_view
from charter.cli.editing import arguments_from, edited
from charter.cli.failing import exit_code, tell
from charter.cli.output import Json, note, page_json, print_json, print_table, safe, say, todo
from charter.cli.session import As, Roles, TokenFile, Who, run_as, who
from charter.errors import CharterError, InvalidInput
from charter.model.approval import ApprovalVerdict
from charter.model.commands import DecideApproval, DelegateApproval
from charter.model.principal import Principal
from charter.model.reply import ApprovalView, Decided

if TYPE_CHECKING:
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="What waits for people, and their decisions.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID…]", help="Default: all that are pending, one by one.")]
OneId = Annotated[str, typer.Argument(metavar="ID", help="The approval, appr_….")]
Comment = Annotated[str | None, typer.Option("--comment", "-m", help="Goes on record beside the decision.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; each call is printed all the same.")]
Digest = Annotated[
    str | None, typer.Option("--digest", help="The digest of the call that you looked at; another one is refused.")
]


@commands.command("list")
def list_(
    status: Annotated[str, typer.Option("--status", help="pending, approved, rejected, … or all.")] = "pending",
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only this workflow's.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50,
    after: Annotated[str | None, typer.Option("--after", help="The cursor of the next page.")] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Requests for approval, newest first."""
    from charter.store.port import Filter, Page

    where = Filter(status=None if status == "all" else status, workflow_id=workflow)

    async def read(charter: Charter, caller: Principal) -> Any:
        return await charter.queries.approvals(caller, where, Page(limit=limit, after=after))

    rows, cursor = run_as(who(as_name, role, token_file), read)
    if as_json:
        page_json(({**orjson.loads(row.request), "status": row.status} for row in rows), cursor)
        return
    table = [(r.approval_id, r.status, r.tool or "(a step)", r.risk, r.requested_by, r.expires_at) for r in rows]
    print_table(("id", "status", "tool", "risk", "asked by", "until"), table, empty="Nothing waits for people.")
    if cursor:
        note(f"More: --after {cursor}")


@commands.command("show")
def show(
    approval_id: OneId,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """One request as its exact call: arguments, reason, who asked for it and why, what else the agent did."""

    async def read(charter: Charter, caller: Principal) -> ApprovalView:
        return await charter.queries.approval(caller, approval_id)

    view = run_as(who(as_name, role, token_file), read)
    if as_json:
        print_json(view)
    else:
        print_view(view)


# -- deciding


async def decide(
    charter: Charter,
    caller: Principal,
    view: ApprovalView,
    decision: ApprovalVerdict,
    *,
    comment: str | None = None,
    digest: str | None = None,
    arguments: dict[str, Any] | None = None,
) -> Decided:
    """Send one decision, bound to the digest of what was shown."""
    command = DecideApproval(
        approval_id=view.request.approval_id,
        decision=decision,
        channel="cli",
        digest=digest or view.request.digest,
        comment=comment,
        edited_arguments=arguments,
    )
    answer: Decided = await charter.gate.handle(caller, command)
    return answer


def _tell_decided(answer: Decided, caller: Principal) -> None:
    say(f"{answer.approval_id}: {answer.decision} recorded for {caller.id}; it is {answer.status} now.")
    if answer.still_needed:
        say(f"Still needed: {', '.join(needed(item) for item in answer.still_needed)}.")
    if answer.next_step:
        say(f"Next: {todo(answer.next_step)}")


async def _each(
    charter: Charter,
    caller: Principal,
    ids: list[str],
    check: Callable[[str], Awaitable[object]],
    handle: Callable[[ApprovalView], Awaitable[bool]],
) -> int:
    """One after the other; an error with one is told and the next one comes. The worst exit code.

    ``check`` raises for who may not give the answer that is meant, before anything is shown or asked. The answer is
    judged once more when it is given.
    """
    worst = 0
    for approval_id in ids:
        try:
            await check(approval_id)
            view = await charter.queries.approval(caller, approval_id)
            print_view(view)
            if not await handle(view):
                break
        except CharterError as error:
            tell(f"{approval_id}: {error.message}", error.next_step)
            worst = max(worst, exit_code(error))
        say()
    return worst


async def _pending(charter: Charter, caller: Principal) -> list[str]:
    from charter.store.port import Filter, Page

    rows, _ = await charter.queries.approvals(caller, Filter(status="pending"), Page(limit=200))
    return [row.approval_id for row in reversed(rows)]


async def _check(
    charter: Charter,
    caller: Principal,
    approval_id: str,
    decision: ApprovalVerdict,
    *,
    comment: str | None = None,
    digest: str | None = None,
) -> None:
    """Would this answer be taken now? Raises what the gate would."""
    command = DecideApproval(approval_id=approval_id, decision=decision, channel="cli", digest=digest, comment=comment)
    await charter.queries.check_decision(caller, command)


def _decide_many(
    by: Who, ids: list[str] | None, decision: ApprovalVerdict, comment: str | None, digest: str | None, yes: bool
) -> None:
    if digest is not None and len(ids or ()) != 1:
        raise typer.BadParameter("--digest goes with exactly one ID")
    if yes and not ids:
        raise typer.BadParameter("--yes goes with IDs: nobody agrees to what they have not looked at")
    if not yes and not sys.stdin.isatty() and not ids:
        raise InvalidInput("There is no terminal to ask on.", next_step="Name the IDs; --yes does not ask.")

    async def work(charter: Charter, caller: Principal) -> int:
        async def one(view: ApprovalView) -> bool:
            verb = "Approve" if decision == "approve" else "Reject"
            if yes or typer.confirm(f"{verb} exactly this call as {caller.id}?", err=True):
                answer = await decide(charter, caller, view, decision, comment=comment, digest=digest)
                _tell_decided(answer, caller)
            else:
                say("Left as it is.")
            return True

        async def check(approval_id: str) -> None:
            await _check(charter, caller, approval_id, decision, comment=comment, digest=digest)

        pending = ids or await _pending(charter, caller)
        if not pending:
            note("Nothing waits for people.")
        return await _each(charter, caller, pending, check, one)

    raise typer.Exit(run_as(by, work))


@commands.command("approve")
def approve(
    ids: Ids = None,
    yes: Yes = False,
    comment: Comment = None,
    digest: Digest = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Approve: each request is shown as its exact call and confirmed on its own."""
    _decide_many(who(as_name, role, token_file), ids, "approve", comment, digest, yes)


@commands.command("reject")
def reject(
    ids: Ids = None,
    yes: Yes = False,
    comment: Comment = None,
    digest: Digest = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Reject: each request is shown as its exact call and confirmed on its own."""
    _decide_many(who(as_name, role, token_file), ids, "reject", comment, digest, yes)


@commands.command("edit")
def edit(
    approval_id: OneId,
    arguments: Annotated[str | None, typer.Option("--arguments", help="JSON, or @FILE. Default: your $EDITOR.")] = None,
    yes: Yes = False,
    comment: Comment = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Change a call's arguments, or what a step shows: a new request, judged by the policy and asked about anew."""
    given = arguments_from(arguments) if arguments is not None else None

    async def work(charter: Charter, caller: Principal) -> int:
        async def one(view: ApprovalView) -> bool:
            new = given if given is not None else edited(view.arguments or view.request.values or {})
            say("becomes:  " + safe(orjson.dumps(new, option=orjson.OPT_INDENT_2).decode()))
            if yes or typer.confirm(f"Replace the call by this one as {caller.id}?", err=True):
                _tell_decided(await decide(charter, caller, view, "edit", comment=comment, arguments=new), caller)
            return True

        async def check(approval_id: str) -> None:
            await _check(charter, caller, approval_id, "edit", comment=comment)

        return await _each(charter, caller, [approval_id], check, one)

    raise typer.Exit(run_as(who(as_name, role, token_file), work))


@commands.command("delegate")
def delegate(
    approval_id: OneId,
    to: Annotated[str, typer.Option("--to", metavar="PERSON", help="Who decides in your place, by their id.")],
    yes: Yes = False,
    comment: Comment = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Hand your part in a decision to another person: they decide with your roles, for this request alone."""

    async def work(charter: Charter, caller: Principal) -> int:
        meant = DelegateApproval(approval_id=approval_id, to=to, channel="cli", comment=comment)

        async def one(view: ApprovalView) -> bool:
            command = meant.model_copy(update={"digest": view.request.digest})
            if yes or typer.confirm(f"Let {safe(to)} decide in the place of {caller.id}?", err=True):
                answer: Decided = await charter.gate.handle(caller, command)
                say(f"{answer.approval_id}: handed to {safe(to)} by {caller.id}; it is {answer.status} still.")
                say(f"Next: {todo(answer.next_step)}")
            return True

        async def check(_approval_id: str) -> None:
            await charter.queries.check_decision(caller, meant)

        return await _each(charter, caller, [approval_id], check, one)

    raise typer.Exit(run_as(who(as_name, role, token_file), work))


@commands.command("ask")
def ask(
    approval_id: OneId,
    question: Annotated[str, typer.Option("--comment", "-m", "--question", help="What you want to know.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Ask the agent for more before deciding; the request stays pending."""

    async def work(charter: Charter, caller: Principal) -> Decided:
        view = await charter.queries.approval(caller, approval_id)
        return await decide(charter, caller, view, "request_more_info", comment=question)

    answer = run_as(who(as_name, role, token_file), work)
    say(f"{answer.approval_id}: asked. The agent sees the question in get_workflow.")


_CHOICES: dict[str, tuple[str, ApprovalVerdict]] = {
    "a": ("[a]pprove", "approve"),
    "r": ("[r]eject", "reject"),
    "e": ("[e]dit", "edit"),
    "k": ("as[k]", "request_more_info"),
}


@commands.command("review")
def review(as_name: As = None, role: Roles = None, token_file: TokenFile = None) -> None:
    """Go through all that is pending, one exact call at a time: approve, reject, edit, ask, skip."""
    if not sys.stdin.isatty():
        raise InvalidInput("There is no terminal to ask on.", next_step="Use `charter approvals approve ID --yes`.")

    async def work(charter: Charter, caller: Principal) -> int:
        open_: dict[str, list[str]] = {}

        async def check(approval_id: str) -> None:
            open_[approval_id] = await _choices(charter, caller, approval_id)

        async def one(view: ApprovalView) -> bool:
            return await _reviewed(charter, caller, view, open_[view.request.approval_id])

        pending = await _pending(charter, caller)
        note(f"{len(pending)} wait for people." if pending else "Nothing waits for people.")
        return await _each(charter, caller, pending, check, one)

    raise typer.Exit(run_as(who(as_name, role, token_file), work))


async def _choices(charter: Charter, caller: Principal, approval_id: str) -> list[str]:
    """What this person may answer. Raises why they may not approve, where there is nothing else either."""
    found: list[str] = []
    refusal: CharterError | None = None
    for letter, (_, verdict) in _CHOICES.items():
        try:
            await _check(charter, caller, approval_id, verdict, comment="(asked before)")
            found.append(letter)
        except CharterError as error:
            refusal = refusal or error
    if not found and refusal is not None:
        raise refusal
    return found


async def _reviewed(charter: Charter, caller: Principal, view: ApprovalView, letters: list[str]) -> bool:
    offered = " ".join(_CHOICES[letter][0] for letter in letters)
    choice = str(typer.prompt(f"{offered} [s]kip [q]uit", default="s", err=True)).strip().lower()[:1]
    if choice == "q":
        return False
    if choice not in letters:
        return True
    verdict = _CHOICES[choice][1]
    comment = str(typer.prompt("comment", default="", show_default=False, err=True)) or None
    new = edited(view.arguments or view.request.values or {}) if verdict == "edit" else None
    _tell_decided(await decide(charter, caller, view, verdict, comment=comment, arguments=new), caller)
    return True
