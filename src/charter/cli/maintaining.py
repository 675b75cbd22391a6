"""``charter audit rebuild``: what stands beside the log, made anew from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from charter.cli.audit import commands
from charter.cli.output import say
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.cli.verifying import first_bad, verify_log
from charter.errors import IntegrityError
from charter.model.commands import RebuildLists
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter


@commands.command("rebuild")
def rebuild(
    reason: Annotated[str, typer.Option("--reason", "-m", help="Goes on record.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Make lists, claims and pointers beside the log anew from it, after `verify` found them changed. Takes the role admin.

    The log must verify: what is made of a forged log would be forged too. Best done while no server runs.
    """

    async def work(charter: Charter, caller: Principal) -> int:
        report, _, _ = await verify_log(charter, [], [])
        if not report.ok:
            worst = report.first_bad
            raise IntegrityError(
                f"Nothing was rebuilt: the log itself does not verify. {first_bad(worst) if worst else report.findings[0].text}"
            )
        return int(await charter.gate.handle(caller, RebuildLists(reason=reason)))

    found = run_as(who(as_name, role, token_file), work)
    say(f"The lists are made anew; {found or 'no'} differences were found before. Who did it and why is on record.")
