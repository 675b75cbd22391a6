"""``charter keys``: which keys sign the ledger's checkpoints, and another one from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.output import Json, page_json, print_table, say
from charter.cli.session import As, Roles, TokenFile, run_as, settings, who
from charter.model.commands import RotateKey
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter

commands = typer.Typer(no_args_is_help=True, help="The keys that sign the ledger's checkpoints.")


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """The public keys (vkeys): the one that signs now, and those that were retired, with the size up to which they count."""
    from charter.server.keys import load_keys

    config = settings()
    keys = load_keys(config.keys_folder)
    rows: list[dict[str, Any]] = [{"vkey": keys.vkey(config.tenant), "state": "signs", "up_to": None}]
    for item in reversed(keys.retired):
        rows.append({"vkey": str(item.key(config.tenant)), "state": "retired", "up_to": item.sizes.get(config.tenant)})
    if as_json:
        page_json(rows)
    else:
        print_table(("vkey", "state", "up to event"), [tuple(row.values()) for row in rows], empty="No keys.")


@commands.command("rotate")
def rotate(
    reason: Annotated[str, typer.Option("--reason", "-m", help="Goes on record.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Sign checkpoints with a new key from now on. Takes the role admin; running servers follow by themselves.

    The rotation is on record, and both keys sign the checkpoint over it. What the old key signed before still verifies with it;
    what it signs later does not.
    """

    async def work(charter: Charter, caller: Principal) -> str:
        return await _rotate(charter, caller, reason)

    vkey = run_as(who(as_name, role, token_file), work)
    say("Checkpoints are signed by a new key; who did it and why is on record. Give this to whoever verifies:")
    say(vkey)


async def _rotate(charter: Charter, caller: Principal, reason: str) -> str:
    from charter.server.key_rotation import Rotation, close

    rotation = Rotation.begin(charter.keys)
    tenants = sorted({*await charter.store.tenants(), caller.tenant})
    for tenant in (caller.tenant, *(name for name in tenants if name != caller.tenant)):
        command = RotateKey(old_key=charter.keys.vkey(tenant), new_key=str(rotation.signer(tenant).key), reason=reason)
        await charter.gate.handle(caller.model_copy(update={"tenant": tenant}), command)
        await charter.checkpointer.checkpoint(tenant, also=rotation.signer(tenant))
    keys = rotation.install(charter.settings.tenant)
    # Asked after the new key is in place: a server that still signed with the old one had read its size before.
    close(keys, {tenant: (await charter.store.head(tenant)).size for tenant in tenants})
    return keys.vkey(caller.tenant)
