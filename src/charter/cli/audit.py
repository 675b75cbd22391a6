"""``charter audit log|show|trace|key|checkpoint|erase``: reading the record, and erasing what is sealed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from charter.cli.failing import INTEGRITY
from charter.cli.ledger import demand_audit, event_of, find_stored, pages
from charter.cli.output import Json, console, note, page_json, print_fields, print_json, print_table, safe, say
from charter.cli.session import As, Roles, TokenFile, run, run_as, settings, who
from charter.cli.telling import tell, who_did
from charter.errors import InvalidInput
from charter.model.commands import EraseSealed
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.audit.tree_view import TreeLine
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="The record: read it, prove it, verify it.")


@commands.command("log")
def log(
    types: Annotated[list[str] | None, typer.Option("--type", help="Only such events, e.g. TOOL_INVOKE.")] = None,
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only this workflow's.")] = None,
    since: Annotated[int | None, typer.Option("--from", min=0, help="From this sequence number on.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 50,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Events in order: the newest, or those from a sequence number on."""
    wanted = [name.strip().upper() for text in types or () for name in text.split(",")]

    async def read(charter: Charter, caller: Principal) -> list[dict[str, Any]]:
        if workflow is not None:
            found = await charter.queries.events(caller, workflow)
            found = [event for event in found if event["seq"] >= (since or 0)]
            found = [event for event in found if not wanted or event["type"] in wanted]
            return found[:limit] if since is not None else found[-limit:]
        demand_audit(charter, caller)
        return (
            await _newest(charter, caller, wanted, limit)
            if since is None
            else await _from(charter, caller, wanted, since, limit)
        )

    events = run_as(who(as_name, role, token_file), read)
    following = str(events[-1]["seq"] + 1) if events and len(events) == limit and since is not None else None
    if as_json:
        page_json(events, following)
        return
    rows = [(e["seq"], e["time"], e["type"], e["stream"], who_did(e), tell(e)) for e in events]
    print_table(("seq", "time", "type", "id of stream", "who", "what"), rows, empty="No such events.")
    if following:
        note(f"More: --from {following}")


async def _from(charter: Charter, caller: Principal, types: list[str], since: int, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for page in pages(charter, caller.tenant, since, types=types):
        found += page
        if len(found) >= limit:
            break
    return found[:limit]


async def _newest(charter: Charter, caller: Principal, types: list[str], limit: int) -> list[dict[str, Any]]:
    """Backwards in growing windows until there are enough."""
    end = (await charter.store.head(caller.tenant)).size
    window, found = max(limit, 200), list[dict[str, Any]]()
    while end > 0 and len(found) < limit:
        start = max(0, end - window)
        stored = await charter.store.log(caller.tenant, start, end - start, types)
        found = [event_of(item) for item in stored if item.seq < end] + found
        end, window = start, window * 2
    return found[-limit:]


@commands.command("show")
def show(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Its id, evt_…, or its sequence number.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """One event as recorded, and the hash of its leaf."""
    from charter.audit.merkle import leaf_hash

    async def read(charter: Charter, caller: Principal) -> Any:
        demand_audit(charter, caller)
        return await find_stored(charter, caller.tenant, event)

    stored = run_as(who(as_name, role, token_file), read)
    found = event_of(stored)
    if as_json:
        print_json({**found, "leaf_hash": leaf_hash(stored.leaf).hex()})
        return
    print_fields(
        [
            ("event", f"{found['id']} · number {found['seq']}"),
            ("type", found["type"]),
            ("time", found["time"]),
            ("who", who_did(found)),
            ("stream", f"{found['stream']}, version {found['version']}"),
            ("caused by", found.get("causation_id")),
            ("trace", found.get("trace_id")),
            ("what", tell(found)),
            ("leaf hash", leaf_hash(stored.leaf).hex()),
            ("data", safe(orjson.dumps(found["data"], option=orjson.OPT_INDENT_2).decode())),
        ]
    )


@commands.command("trace")
def trace(
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW", help="The workflow, wf_….")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """One workflow as a tree: steps, invocations, proposals, decisions, approvals, calls; and whether it obeys the rules."""
    from charter.audit.envelope import envelope_of
    from charter.audit.trace import TRACE_RULES, validate_trace
    from charter.audit.tree_view import tree_lines

    async def read(charter: Charter, caller: Principal) -> list[dict[str, Any]]:
        return await charter.queries.events(caller, workflow_id)

    events = [envelope_of(event) for event in run_as(who(as_name, role, token_file), read)]
    lines, findings = tree_lines(events), validate_trace(events)
    if as_json:
        print_json({"items": lines, "next": None, "findings": [finding.as_json() for finding in findings]})
    else:
        print_tree(workflow_id, lines)
        say()
        say(f"{len(events)} events, checked against {len(TRACE_RULES)} rules: {len(findings) or 'no'} findings.")
    for finding in findings if not as_json else ():
        say(f"  event {finding.seq} ({finding.event_id}) {finding.rule}: {finding.text}")
    if findings:
        raise typer.Exit(INTEGRITY)


def print_tree(title: str, lines: list[TreeLine]) -> None:
    """The tree on standard output."""
    from rich.text import Text
    from rich.tree import Tree

    top = Tree(Text(title))
    path = [top]
    for line in lines:
        del path[line.depth + 1 :]
        path.append(path[-1].add(Text(f"{line.time[11:19]} {line.text}")))
    console().print(top)


@commands.command("key")
def key(tenant: Annotated[str | None, typer.Option("--tenant", help="Default: the configured one.")] = None) -> None:
    """Print the public key (vkey) of the ledger: all that offline verification needs."""
    from charter.server.keys import load_keys

    config = settings()
    print(load_keys(config.keys_folder).vkey(tenant or config.tenant))


@commands.command("checkpoint")
def checkpoint(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Default: the configured one.")] = None,
) -> None:
    """Sign a checkpoint of the ledger now and print it; publish it where others keep it."""

    async def sign(charter: Charter) -> bytes:
        name = tenant or charter.settings.tenant
        signed = await charter.checkpointer.checkpoint(name)
        if signed is None:
            kept = await charter.store.checkpoints(name)
            if not kept:
                raise InvalidInput("The log is empty: there is nothing to sign.", code="empty_log")
            signed = kept[-1][1]
        return signed

    print(run(sign).decode(), end="")


@commands.command("erase")
def erase(
    ref: Annotated[str, typer.Argument(metavar="REF", help="What an event refers to: sealed_ref or result_ref.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Goes on record.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Erase sealed content for good, for whoever has a right to that; the record stays whole. Takes the role admin."""

    async def work(charter: Charter, caller: Principal) -> Any:
        return await charter.gate.handle(caller, EraseSealed(ref=ref, reason=reason))

    run_as(who(as_name, role, token_file), work)
    say(f"{ref} is erased; who did it and why is on record. Copies and backups of the database still have it.")
