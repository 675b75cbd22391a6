"""``charter approvals grant|grants|revoke``: standing grants, recorded and revocable decisions for calls within bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.approvals import Comment, commands
from charter.cli.editing import arguments_from
from charter.cli.output import Json, page_json, print_table, say, stranger
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.errors import InvalidInput
from charter.model.approval import GrantBounds
from charter.model.commands import GiveGrant, RevokeGrant
from charter.model.principal import Principal
from charter.model.times import LATEST_MS, rfc3339

if TYPE_CHECKING:
    from charter.server.app import Charter

WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow, wf_….")]


@commands.command("grant")
def grant(
    workflow_id: WorkflowId,
    tool: Annotated[str, typer.Option("--tool", help="server__tool")],
    arguments: Annotated[
        str | None, typer.Option("--arguments", help="JSON Schema that the arguments must satisfy; JSON or @FILE.")
    ] = None,
    any_arguments: Annotated[bool, typer.Option("--any-arguments", help="Whatever the arguments are.")] = False,
    case: Annotated[
        str | None, typer.Option("--case", help="For all runs of this case, which must be the workflow's.")
    ] = None,
    uses: Annotated[
        int | None, typer.Option("--uses", min=1, max=10_000, help="So many calls; default: 10, or the cap.")
    ] = None,
    hours: Annotated[int | None, typer.Option("--hours", min=1, help="For so long; default: 1.")] = None,
    comment: Comment = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Give a standing grant: calls of this tool within these bounds need no approval of their own."""
    if (arguments is None) == (not any_arguments):
        raise typer.BadParameter("say which arguments: --arguments SCHEMA, or --any-arguments")
    schema = _limiting(arguments_from(arguments)) if arguments is not None else {}

    async def work(charter: Charter, caller: Principal) -> tuple[str, int, int]:
        caps = charter.gate.parts.limits
        most = uses or max(1, min(10, caps.grant_uses))
        lasts = hours or 1  # no cap is below an hour
        expires_at = rfc3339(min(charter.gate.parts.clock() + lasts * 3_600_000, LATEST_MS))
        bounds = GrantBounds(
            tool=tool,
            arguments=schema,
            workflow_id=workflow_id if case is None else None,
            case_id=case,
            uses=most,
            expires_at=expires_at,
        )
        command = GiveGrant(workflow_id=workflow_id, bounds=bounds, channel="cli", comment=comment)
        return await charter.gate.handle(caller, command), most, lasts

    grant_id, most, lasts = run_as(who(as_name, role, token_file), work)
    where = f" in the runs of case {stranger(case)}" if case is not None else ""
    say(f"{grant_id}: {most} calls of {tool}{where} within the next {lasts} h need no approval of their own.")
    say(f"Next: charter approvals revoke {workflow_id} {grant_id}  takes it back.")


def _limiting(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema, compiled once to see that it holds. Raises ``Misconfigured``, ``InvalidInput`` (``grant_bounds``)."""
    from charter.manifests.arguments import compile_schema
    from charter.manifests.limiting import limits, unknown_keyword

    compile_schema(schema, what="The grant's schema")
    if unknown_keyword(schema) is None and not limits(schema):
        raise InvalidInput(
            "This schema limits nothing: whatever the arguments are, they would do.",
            code="grant_bounds",
            next_step='Name arguments under properties, as {"properties": {"NAME": {"maximum": 5}}, "required": ["NAME"]}, '
            "or say --any-arguments if that is meant.",
        )
    return schema


@commands.command("grants")
def grants(
    workflow_id: WorkflowId,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """The standing grants of a workflow and of its case, and what is left of them."""

    async def read(charter: Charter, caller: Principal) -> list[dict[str, Any]]:
        return [
            {
                "grant_id": item.given.grant_id,
                "case_id": item.given.bounds.case_id,
                "tool": item.given.bounds.tool,
                "arguments": item.given.bounds.arguments,
                "uses_left": item.uses_left,
                "expires_at": item.given.bounds.expires_at,
                "revoked": item.revoked,
                "given_by": item.given.given_by,
            }
            for item in await charter.queries.grants(caller, workflow_id)
        ]

    found = run_as(who(as_name, role, token_file), read)
    if as_json:
        page_json(found)
        return
    rows = [
        (g["grant_id"], g["tool"], g["case_id"], g["uses_left"], g["expires_at"], g["revoked"], g["given_by"])
        for g in found
    ]
    print_table(("id", "tool", "case", "uses left", "until", "revoked", "given by"), rows, empty="No standing grants.")


@commands.command("revoke")
def revoke(
    workflow_id: WorkflowId,
    grant_id: Annotated[str, typer.Argument(metavar="GRANT", help="The grant, grant_….")],
    comment: Comment = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Take a standing grant back; calls that run already are not stopped."""

    async def work(charter: Charter, caller: Principal) -> Any:
        command = RevokeGrant(workflow_id=workflow_id, grant_id=grant_id, comment=comment)
        return await charter.gate.handle(caller, command)

    run_as(who(as_name, role, token_file), work)
    say(f"{grant_id} is taken back.")
