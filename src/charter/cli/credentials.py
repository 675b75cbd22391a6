"""``charter secret``: the credentials that upstreams need, encrypted beside the keys."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from charter.cli.output import Json, page_json, say
from charter.cli.session import settings
from charter.errors import NotFound

if TYPE_CHECKING:
    from charter.server.secret_store import SecretFile

commands = typer.Typer(no_args_is_help=True, help="Credentials of upstreams, encrypted; manifests say `secret: NAME`.")
Name = Annotated[str, typer.Argument(metavar="NAME")]


def _file() -> SecretFile:
    from charter.server.keys import load_keys
    from charter.server.secret_store import secret_file

    loaded = settings()
    return secret_file(loaded, load_keys(loaded.keys_folder))


@commands.command("set")
def set_(name: Name) -> None:
    """Keep a secret: asked for without an echo, or the whole of standard input but for the line break at its end."""
    value = (
        getpass.getpass(f"{name}: ") if sys.stdin.isatty() else sys.stdin.read().removesuffix("\n").removesuffix("\r")
    )
    _file().set(name, value)
    say(f"{name} is kept, encrypted. Refer to it in a manifest as `secret: {name}`.")


@commands.command("list")
def list_(as_json: Json = False) -> None:
    """The names; never the values."""
    names = sorted(_file())
    if as_json:
        page_json(names)
    else:
        say("\n".join(names) or "No secrets.")


@commands.command("remove")
def remove(name: Name) -> None:
    """Forget a secret."""
    if not _file().remove(name):
        raise NotFound(f"There is no secret {name!r}.", next_step="`charter secret list` shows the names.")
    say(f"{name} is forgotten.")
