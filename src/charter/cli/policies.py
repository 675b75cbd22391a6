"""``charter policy``: check, test, explain and replay policies. All but replay and recorded requests need no database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.failing import REFUSED
from charter.cli.ledger import demand_audit, find_event, pages
from charter.cli.output import Json, note, page_json, print_json, print_table, safe, say
from charter.cli.session import As, Roles, TokenFile, Who, run_as, settings, who
from charter.errors import InvalidInput, Misconfigured
from charter.model.principal import Principal
from charter.model.tool import ToolManifest

if TYPE_CHECKING:
    from charter.model.policy import Facts
    from charter.policies import Change, PolicySet
    from charter.server.app import Charter
    from charter.server.settings_model import Settings

commands = typer.Typer(no_args_is_help=True, help="Policies: check, test, explain, replay.")
Folder = Annotated[Path | None, typer.Argument(metavar="[FOLDER]", help="A folder of *.cedar. Default: configured.")]
PolicyFolder = Annotated[Path | None, typer.Option("--policies", help="A folder of *.cedar. Default: configured.")]


def governed(config: Settings) -> tuple[ToolManifest, ...]:
    """The tools that policies may speak of, Charter's own among them, in the order of their names."""
    from charter.tools.folder import load_folder
    from charter.tools.unconnected import UnconnectedTools

    folder = config.tools.manifests
    return UnconnectedTools(load_folder(folder) if folder else ()).all()


def loaded(config: Settings, folder: Path | None) -> PolicySet:
    """The policies of ``folder``, or those configured, validated for the governed tools."""
    from charter.policies import load_policy_set
    from charter.server.evaluator import read_policies

    if folder is not None and not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder.", next_step="Name a folder with *.cedar files.")
    return load_policy_set(read_policies(folder or config.policies.folder), governed(config))


@commands.command("check")
def check(folder: Folder = None, as_json: Json = False) -> None:
    """Parse the policies and validate them against the schema, with the typed arguments of the governed tools."""
    from charter.policies import uncovered

    policies = loaded(settings(), folder)
    missing = uncovered(policies)
    rows = [
        {
            "policy_id": policy.id,
            "file": policy.file,
            "part": policy.part,
            "effect": policy.effect,
            "log_only": policy.log_only,
            "reason": policy.reason,
        }
        for policy in policies.policies.values()
    ]
    if as_json:
        print_json({"policy_set_hash": policies.hash, "uncovered": missing, "items": rows, "next": None})
        return
    print_table(("id", "part", "effect", "file"), [(r["policy_id"], r["part"], r["effect"], r["file"]) for r in rows])
    say(f"\n{len(rows)} policies hold together: {policies.hash}")
    if missing:
        note(
            f"No policy permits {', '.join(missing)} to anybody. If that is not meant, the set is older than this Charter: "
            "`charter policy upgrade` shows what it lacks."
        )


@commands.command("test")
def run_tests(folder: Folder = None, as_json: Json = False) -> None:
    """Run the *.test.yaml files beside the policies; exit code 1 when one fails."""
    from charter.policies import run_policy_tests

    config = settings()
    policies = loaded(config, folder)
    documents = _test_documents(folder or config.policies.folder)
    results = run_policy_tests(policies, documents)
    failed = [result for result in results if not result.passed]
    if as_json:
        page_json({**result.model_dump(mode="json"), "passed": result.passed} for result in results)
    else:
        for result in failed:
            say(f"FAILED {result.file}: {result.name}")
            for problem in result.problems:
                say(f"  {problem}")
        say(f"{len(results) - len(failed)} passed, {len(failed)} failed")
    if failed:
        raise typer.Exit(REFUSED)


def _test_documents(folder: Path | None) -> dict[str, Any]:
    from charter.manifests.yaml_text import load
    from charter.policies import shipped_files

    if folder is None:
        files = {name: text for name, text in shipped_files().items() if name.endswith(".test.yaml")}
    else:
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.test.yaml"))}
    if not files:
        raise Misconfigured(
            f"There are no *.test.yaml files in {folder}.",
            code="no_policy_tests",
            next_step="Write tests beside the policies; docs/policies.md describes the format.",
        )
    return {name: load(text, name, code="policy_test_invalid").value for name, text in files.items()}


@commands.command("schema")
def schema(folder: Folder = None) -> None:
    """Print the Cedar schema: what policies may speak of, with the typed arguments of each governed tool."""
    print(safe(loaded(settings(), folder).schema_text), end="")


# -- explain

Flags = dict[str, Any]


@commands.command("explain")
def explain(
    event: Annotated[
        str | None,
        typer.Argument(metavar="[EVENT]", help="A recorded POLICY_DECISION, by event id or sequence number."),
    ] = None,
    facts: Annotated[
        str | None, typer.Option("--facts", help="The request as JSON or YAML text, @FILE, or - for standard input.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", help="tool.invoke, approval.decide, …")] = None,
    tool: Annotated[
        str | None, typer.Option("--tool", help="A governed tool; fills in what its manifest says.")
    ] = None,
    caller: Annotated[str | None, typer.Option("--caller", metavar="KIND:ID", help="agent:ide, human:ann, …")] = None,
    caller_role: Annotated[list[str] | None, typer.Option("--caller-role", help="A role of the caller.")] = None,
    acts_for: Annotated[str | None, typer.Option("--acts-for", help="The person whom the agent serves.")] = None,
    outside: Annotated[bool, typer.Option("--outside", help="Outside any workflow.")] = False,
    policies: PolicyFolder = None,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Why would this request be permitted, denied or asked? A recorded one, or one that you describe."""
    from charter.cli.explaining import described
    from charter.policies import explain as explain_policies

    config, decided_by = settings(), ""
    if event is not None:
        request, decided_by = _recorded(who(as_name, role, token_file), event)
    else:
        flags = {"action": action, "tool": tool, "caller": caller, "roles": caller_role, "acts_for": acts_for}
        request = described(facts, flags, governed(config), tenant=config.tenant, outside=outside)
    present = loaded(config, policies)
    answer = explain_policies(present, request)
    if as_json:
        then = {"recorded_policy_set_hash": decided_by, "same_policies": decided_by == present.hash} if event else {}
        print_json({"facts": request, **answer.model_dump(mode="json"), "policy_set_hash": present.hash, **then})
    else:
        say(answer.text())
        if event is not None:
            say(_which_set(decided_by, present.hash))


def _which_set(recorded: str, present: str) -> str:
    """Policies change: what follows is what the present ones say, which need not be what was said then."""
    if recorded == present:
        return "By the policies of now, which are those that it was decided by."
    return (
        f"By the policies of NOW ({present}). It was decided by ANOTHER set ({recorded}), "
        "so this need not be what was said then; `charter audit show` has that."
    )


def _recorded(by: Who, event: str) -> tuple[Facts, str]:
    """The request, and the hash of the policy set that decided it."""
    from charter.model.policy import Facts

    async def read(charter: Charter, caller: Principal) -> dict[str, Any]:
        demand_audit(charter, caller)
        return await find_event(charter, caller.tenant, event)

    envelope = run_as(by, read)
    facts = envelope["data"].get("facts")
    if envelope["type"] != "POLICY_DECISION" or facts is None:
        raise InvalidInput(
            f"Event {event} is a {envelope['type']} and holds no request.",
            next_step="List those that do: charter audit log --type POLICY_DECISION",
        )
    return Facts.model_validate(facts), str(envelope["data"].get("policy_set_hash"))


# -- replay


@commands.command("replay")
def replay(
    candidate: Annotated[Path, typer.Option("--candidate", help="The folder of the candidate policies.")],
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only this workflow's requests.")] = None,
    since: Annotated[int, typer.Option("--from", help="From this sequence number.")] = 0,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
    as_json: Json = False,
) -> None:
    """Decide the recorded requests anew under candidate policies and list what would change.

    Arguments are on record as redacted, so a policy on a sensitive argument sees the redacted one.
    """
    config = settings()
    active, other = loaded(config, None), loaded(config, candidate)

    async def work(charter: Charter, caller: Principal) -> Any:
        demand_audit(charter, caller)
        return await _replayed(charter, caller, active, other, workflow, since)

    count, unreadable, changes = run_as(who(as_name, role, token_file), work)
    if as_json:
        print_json({"replayed": count, "unreadable": unreadable, "items": [_change(*item) for item in changes]})
        return
    for seq, change in changes:
        say(f"#{seq} {change.text()}")
    say(f"{count} recorded requests decided anew, {len(changes)} would change.")
    if unreadable:
        note(f"{unreadable} could not be read by this release and were left out.")


async def _replayed(
    charter: Charter, caller: Principal, active: PolicySet, other: PolicySet, workflow: str | None, since: int
) -> tuple[int, int, list[tuple[int, Change]]]:
    from charter.policies import compare

    count = unreadable = 0
    changes: list[tuple[int, Change]] = []
    async for page in pages(charter, caller.tenant, since, types=("POLICY_DECISION",)):
        for event in page:
            facts = event["data"].get("facts")
            if facts is None or workflow not in (None, event["stream"]):
                continue
            count += 1
            try:
                changes += [(event["seq"], change) for change in compare(active, other, [facts])]
            except InvalidInput:
                unreadable += 1
    return count, unreadable, changes


def _change(seq: int, change: Change) -> dict[str, Any]:
    return {"seq": seq, **change.model_dump(mode="json", exclude={"index"})}
