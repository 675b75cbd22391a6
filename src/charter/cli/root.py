"""All commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from charter.cli import (
    approvals,
    audit,
    credentials,
    doctor,
    effects,
    fixtures,
    grants,
    keys,
    maintaining,
    policies,
    proving,
    schedules,
    schemas,
    serving,
    signals,
    simulating,
    starting,
    templates,
    tokens,
    tools,
    upgrading,
    upstreams,
    verifying,
    workflows,
)
from charter.cli.output import say
from charter.cli.session import chosen_config

__all__ = ["app"]

_MORE = (grants, maintaining, proving, upgrading, verifying)
"""These add commands to the groups of others when they are imported."""

app = typer.Typer(
    name="charter",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Charter governs LLM agents: workflows decide, agents propose, humans approve, tools execute, audit remembers.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from charter import __version__

        say(f"charter {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="The charter.toml. Default: $CHARTER_CONFIG, ./charter.toml, ./.charter/."),
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="And leave.")] = False,
) -> None:
    """Options of every command."""
    chosen_config.set(config)


app.command("init")(starting.init)
app.command("serve")(serving.serve)
app.command("mcp-config")(serving.mcp_config)
app.command("doctor")(doctor.doctor)
app.command("schema")(schemas.schema)
app.command("simulate")(simulating.simulate)
for _name, _group in (
    ("upstream", upstreams.commands),
    ("tools", tools.commands),
    ("token", tokens.commands),
    ("secret", credentials.commands),
    ("keys", keys.commands),
    ("approvals", approvals.commands),
    ("effects", effects.commands),
    ("workflows", workflows.commands),
    ("signal", signals.commands),
    ("schedules", schedules.commands),
    ("policy", policies.commands),
    ("template", templates.commands),
    ("fixtures", fixtures.commands),
    ("audit", audit.commands),
):
    app.add_typer(_group, name=_name)
