"""``charter simulate``: a template against scripted decisions, without a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.editing import arguments_from
from charter.cli.failing import REFUSED, WAITS
from charter.cli.output import Json, note, print_json, say, stranger
from charter.cli.session import chosen_config
from charter.cli.telling import tell

if TYPE_CHECKING:
    from charter.server.simulating import Simulation


def simulate(
    template: Annotated[str, typer.Argument(help="A template file, NAME or NAME@VERSION.")],
    input_: Annotated[str, typer.Option("--input", help="The run's input: JSON or @FILE.")] = "{}",
    decisions: Annotated[
        str, typer.Option("--decisions", help="Who answers what, what agents do, which signals come: JSON or @FILE.")
    ] = "{}",
    fixtures: Annotated[
        str,
        typer.Option("--fixtures", help="What tools answer, by step id or tool name: JSON or @FILE (JSON or YAML)."),
    ] = "{}",
    at: Annotated[str | None, typer.Option("--at", help="When the run starts (RFC 3339). Default: now.")] = None,
    as_json: Json = False,
) -> None:
    """Run a template against scripted decisions, without a server. Calls no tool, writes no file. Exit code 3: it waits."""
    from charter.server.simulating import simulate as run

    done = run(
        template,
        arguments_from(input_, "--input"),
        decisions=arguments_from(decisions, "--decisions"),
        fixtures=_fixtures(fixtures),
        config=chosen_config.get(),
        at=at,
    )
    if as_json:
        print_json(done.as_json())
    else:
        _show(done)
    if done.status == "waiting":
        raise typer.Exit(WAITS)
    if done.status != "completed":
        raise typer.Exit(REFUSED)


def _fixtures(given: str) -> dict[str, Any]:
    """As `[tools] fixtures` names them, in YAML too."""
    if not given.startswith("@") or not given.endswith((".yaml", ".yml")):
        return arguments_from(given, "--fixtures")
    from charter.server.fixture_file import read_fixtures

    return dict(read_fixtures(Path(given[1:])))


def _show(done: Simulation) -> None:
    several = len({event["stream"] for event in done.events}) > 1
    for event in done.events:
        run = f"{event['stream'][-6:]}  " if several else ""
        say(f"{event['time'][:19]}  {run}{_KINDS.get(event['type'], event['type'].lower()):<10}  {_line(event)}")
    for text in done.refused:
        note(f"Refused: {stranger(text)}")
    for name in done.unused:
        note(f"Nothing asked for {stranger(name)}.")
    for text in done.waits_for:
        say(f"waits for: {stranger(text)}")
    say(f"{done.template}: {done.status}" + (f": {stranger(done.reason)}" if done.reason else ""))
    if done.output is not None:
        print_json(done.output)


_KINDS = {
    "WORKFLOW_STARTED": "start",
    "WORKFLOW_STEP": "step",
    "POLICY_DECISION": "policy",
    "APPROVAL_REQUESTED": "asked",
    "APPROVAL_DECISION": "answered",
    "TOOL_INVOKE": "call",
    "TOOL_RESULT": "result",
    "AGENT_INVOKE": "agent",
    "PROPOSAL_MADE": "proposal",
    "COMMAND_REFUSED": "refused",
    "WORKFLOW_COMPLETED": "end",
    "WORKFLOW_FAILED": "end",
    "WORKFLOW_REJECTED": "end",
    "WORKFLOW_CANCELLED": "end",
}


def _line(event: dict[str, Any]) -> str:
    data = event["data"]
    output = data.get("output")
    if event["type"] == "WORKFLOW_STEP" and isinstance(output, dict) and "branch" in output:
        taken = output["branch"]
        return f"{tell(event)}: it is {str(output['value']).lower()}" + (f", branch {taken}" if taken else "")
    return tell(event)
