"""``charter workflows``: where the runs are, and ending one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import orjson
import typer

from charter.cli.editing import json_from
from charter.cli.output import Json, note, page_json, print_fields, print_json, print_table, say, stranger, todo
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.model.actions import AgentActions
from charter.model.commands import (
    AdvanceWorkflow,
    CancelWorkflow,
    PauseWorkflow,
    ResumeWorkflow,
    RetryWorkflow,
    ReviewStep,
)
from charter.model.principal import Principal
from charter.model.reply import Advanced, WorkflowContext
from charter.model.times import rfc3339

if TYPE_CHECKING:
    from charter.server.app import Charter

Resolution = Literal["retry", "skip", "supply", "fail"]
commands = typer.Typer(no_args_is_help=True, help="Runs: where they are, and ending one.")
WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow, wf_….")]


@commands.command("list")
def list_(
    status: Annotated[
        str | None, typer.Option("--status", help="running, waiting, paused, completed, failed, …")
    ] = None,
    template: Annotated[str | None, typer.Option("--template", help="name, or name@version")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="The person whom the run serves.")] = None,
    blocked_on: Annotated[
        str | None,
        typer.Option("--blocked-on", help="What it waits for: approval, agent, timer, …, or with whom: agent:NAME."),
    ] = None,
    older: Annotated[str | None, typer.Option("--older-than", help="Started before then: 30m, 12h, 7d.")] = None,
    newer: Annotated[str | None, typer.Option("--newer-than", help="Started since then: 30m, 12h, 7d.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000)] = 50,
    after: Annotated[str | None, typer.Option("--after", help="The cursor of the next page.")] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Runs, newest first."""
    from charter.store.port import Filter, Page

    ages = age(older, "--older-than"), age(newer, "--newer-than")

    async def read(charter: Charter, caller: Principal) -> Any:
        now = charter.gate.parts.clock()
        before, since = (None if ms is None else rfc3339(now - ms) for ms in ages)
        where = Filter(
            status=status,
            template=template,
            owner=owner,
            blocked_on=blocked_on,
            started_before=before,
            started_after=since,
        )
        return await charter.queries.workflows(caller, where, Page(limit=limit, after=after))

    rows, cursor = run_as(who(as_name, role, token_file), read)
    if as_json:
        page_json(rows, cursor)
        return
    table = [(r.workflow_id, r.status, r.template, r.owner, r.blocked_on, r.purpose, r.started_at) for r in rows]
    headers = ("id", "status", "template", "owner", "waits for", "purpose", "started")
    print_table(headers, table, empty="No workflows yet.")
    if cursor:
        note(f"More: --after {cursor}")


_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def age(text: str | None, option: str) -> int | None:
    """Milliseconds of ``30m``, ``12h`` or ``7d``."""
    if text is None:
        return None
    number, unit = text[:-1], _UNITS.get(text[-1:])
    if unit is None or not number.isascii() or not number.isdigit() or len(number) > 5:
        raise typer.BadParameter("Write a number and m, h or d: 30m, 12h, 7d.", param_hint=option)
    return int(number) * unit


@commands.command("show")
def show(
    workflow_id: WorkflowId,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Where one run is, and who or what it waits for."""

    async def read(charter: Charter, caller: Principal) -> WorkflowContext:
        return await charter.queries.workflow(caller, workflow_id)

    found = run_as(who(as_name, role, token_file), read)
    if as_json:
        print_json(found)
    else:
        print_context(found)


def print_context(found: WorkflowContext) -> None:
    """A run for a person."""
    output = None if found.output is None else orjson.dumps(found.output, option=orjson.OPT_INDENT_2).decode()
    print_fields(
        [
            ("workflow", found.workflow_id),
            ("template", found.template),
            ("status", found.status),
            ("purpose", stranger(found.purpose)),
            ("case", stranger(found.case_id) if found.case_id else None),
            ("dry run", found.dry_run or None),
            ("steps", "\n".join(f"{step}: {status}" for step, status in found.steps.items())),
            ("waits for", "\n".join(stranger(item.detail) for item in found.blocked_by)),
            ("approvals", "\n".join(item.approval_id for item in found.blocked_by if item.approval_id)),
            ("output", output),
            ("reason", stranger(found.reason) if found.reason else None),
        ]
    )


@commands.command("cancel")
def cancel(
    workflow_id: WorkflowId,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Goes on record.")] = "",
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """End a run without its result; what has run stays as it is."""

    async def work(charter: Charter, caller: Principal) -> WorkflowContext:
        command = CancelWorkflow(workflow_id=workflow_id, reason=reason)
        answer: WorkflowContext = await charter.gate.handle(caller, command)
        return answer

    found = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json(found)
    else:
        say(f"{workflow_id} is {found.status}.")


@commands.command("review")
def review(
    workflow_id: WorkflowId,
    step_id: Annotated[str, typer.Argument(metavar="STEP", help="The step that waits for review.")],
    resolution: Annotated[
        Resolution, typer.Argument(help="Try it again, go on without it, supply its output, or let the run fail.")
    ],
    output: Annotated[
        str | None, typer.Option("--output", help="With supply: the step's output, JSON or @FILE.")
    ] = None,
    comment: Annotated[str, typer.Option("--comment", "-m", help="Why; goes on record.")] = "",
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Say how a step that failed goes on. `retry` is run by the server."""
    value = json_from(output, "--output") if output is not None else None

    async def work(charter: Charter, caller: Principal) -> WorkflowContext:
        command = ReviewStep(
            workflow_id=workflow_id, step_id=step_id, resolution=resolution, comment=comment, output=value
        )
        answer: WorkflowContext = await charter.gate.handle(caller, command)
        return answer

    found = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json(found)
    else:
        say(f"{step_id} is {found.steps[step_id]}; {workflow_id} is {found.status}.")


@commands.command("retry")
def retry(
    workflow_id: WorkflowId,
    reason: Annotated[str, typer.Option("--reason", "-m", help="Goes on record.")] = "",
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Have a failed run go on, from the steps that failed. The server runs them."""
    _hold(RetryWorkflow(workflow_id=workflow_id, reason=reason), who(as_name, role, token_file), as_json)


@commands.command("advance")
def advance(
    workflow_id: WorkflowId,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Have a run go on if it can: says what was due and was done, and what is missing. The server runs its steps."""

    async def work(charter: Charter, caller: Principal) -> Advanced:
        answer: Advanced = await charter.gate.handle(caller, AdvanceWorkflow(workflow_id=workflow_id))
        return answer

    found = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json(found)
        return
    ready = "\n".join(f"{step} (by the server: charter serve)" for step in found.ready)
    print_fields(
        [
            ("workflow", found.workflow_id),
            ("status", found.status),
            ("done now", "\n".join(stranger(item.detail) for item in found.moved) or "nothing was due"),
            ("runs now", ready or None),
            ("missing", "\n".join(stranger(item.detail) for item in found.missing) or None),
            ("next", stranger(todo(found.next_step))),
        ]
    )


@commands.command("actions")
def actions(
    workflow_id: WorkflowId,
    invocation: Annotated[
        str | None, typer.Option("--invocation", help="Of this grant alone, inv_…; else of the first open one's agent.")
    ] = None,
    agent_role: Annotated[
        list[str] | None, typer.Option("--agent-role", help="A role of the agent's; else those that it had last.")
    ] = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """What the agent that works in a run may do now, and why not the rest."""
    held = tuple(agent_role or ())

    async def read(charter: Charter, caller: Principal) -> AgentActions:
        return await charter.queries.actions(caller, workflow_id, invocation, agent_roles=held)

    found = run_as(who(as_name, role, token_file), read)
    if as_json:
        print_json(found)
        return
    say(f"{found.agent} in {found.workflow_id}, which is {found.status}:")
    for item in found.invocations:
        rows = [(p.proposal_id, p.may, p.approval_from or p.waits_for, p.code, p.reason) for p in item.proposals]
        rows += [(p.name, p.may, p.approval_from, p.code, p.reason) for p in (*item.tools, *item.verbs)]
        headers = (item.agent_invocation_id or "no open grant", "may", "from", "code", "why")
        print_table(headers, rows, empty="Nothing.")
    rows = [(p.name, p.may, p.approval_from, p.code, p.reason) for p in found.verbs]
    print_table(("the workflow", "may", "from", "code", "why"), rows, empty="Nothing.")
    for blocker in found.waits_for:
        say(stranger(blocker.detail))


Reason = Annotated[str, typer.Option("--reason", "-m", help="Goes on record.")]


@commands.command("pause")
def pause(
    workflow_id: WorkflowId,
    reason: Reason = "",
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Open no step and run no new call; answers and outcomes still go on record."""
    _hold(PauseWorkflow(workflow_id=workflow_id, reason=reason), who(as_name, role, token_file), as_json)


@commands.command("resume")
def resume(
    workflow_id: WorkflowId,
    reason: Reason = "",
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Go on with a paused run."""
    _hold(ResumeWorkflow(workflow_id=workflow_id, reason=reason), who(as_name, role, token_file), as_json)


def _hold(command: PauseWorkflow | ResumeWorkflow | RetryWorkflow, caller_of: Any, as_json: bool) -> None:
    async def work(charter: Charter, caller: Principal) -> WorkflowContext:
        answer: WorkflowContext = await charter.gate.handle(caller, command)
        return answer

    found = run_as(caller_of, work)
    if as_json:
        print_json(found)
    else:
        say(f"{command.workflow_id} is {found.status}.")
