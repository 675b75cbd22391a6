"""What commands work with: the settings, a Charter for as long as the command lasts, and who gives the command.

Who: a bearer token from ``--token-file`` or ``CHARTER_TOKEN``, verified as the server would. Without one, ``--as NAME``
(default: the login name) is taken, because whoever can read the key folder could issue such a token anyway: one that
lives a minute is issued, verified and thrown away. Its roles are those of ``--role``, by default all that a person at
the operator's machine needs, and always ``key-folder``, so that the record shows it and a policy can forbid it.
"""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import anyio
import typer

from charter.errors import Unauthenticated
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter
    from charter.server.auth import TokenVerifier
    from charter.server.keys import Keys
    from charter.server.revoked import RevokedTokens
    from charter.server.settings_model import Settings
    from charter.server.tokens import Verifier

T = TypeVar("T")

TOKEN_VARIABLE = "CHARTER_TOKEN"  # noqa: S105 - the variable's name
KEY_FOLDER_ROLE = "key-folder"
DEFAULT_ROLES = ("approver", "operator", "auditor")
_SECONDS = 60

chosen_config: ContextVar[Path | None] = ContextVar("charter_config", default=None)

As = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Who you are, where no token says it. Default: your login name."),
]
Roles = Annotated[
    list[str] | None,
    typer.Option("--role", metavar="ROLE", help=f"Your roles with --as. Default: {', '.join(DEFAULT_ROLES)}."),
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="A file with your bearer token. Else $CHARTER_TOKEN, else --as.")
]


@dataclass(frozen=True, slots=True)
class Who:
    """What the options say of the caller."""

    name: str | None = None
    roles: tuple[str, ...] = ()
    token_file: Path | None = None


def who(name: str | None, roles: list[str] | None, token_file: Path | None) -> Who:
    """From a command's options."""
    if token_file is not None and (name is not None or roles):
        raise typer.BadParameter("give either --token-file or --as and --role, not both")
    return Who(name, tuple(roles or ()), token_file)


def settings() -> Settings:
    """The configuration of this command."""
    from charter.server.settings import load_settings

    return load_settings(chosen_config.get())


def run(work: Callable[[Charter], Awaitable[T]], *, connect: bool = False, using: Settings | None = None) -> T:
    """Open a Charter on the configured database, beside a server that may run on it, and do ``work`` with it."""
    from charter.server.app import running

    config = using or settings()

    async def body() -> T:
        async with running(config, connect=connect, drive=False) as charter:
            return await work(charter)

    return anyio.run(body)


def run_as(
    by: Who, work: Callable[[Charter, Principal], Awaitable[T]], *, connect: bool = False, using: Settings | None = None
) -> T:
    """The same, with the verified caller."""

    async def body(charter: Charter) -> T:
        return await work(charter, await principal(charter.settings, charter.keys, by))

    return run(body, connect=connect, using=using)


def verifier(config: Settings, keys: Keys) -> TokenVerifier:
    """Verifies tokens as the server does, those taken back included."""
    from charter.server.auth import TokenVerifier

    return TokenVerifier(config, keys, revoked=revoked_tokens(config))


def _principals(config: Settings, keys: Keys) -> Verifier[Principal]:
    """The same without the parts that a server needs."""
    from charter.server.tokens import Verifier

    return Verifier(config, keys, made=lambda accepted: accepted.principal, revoked=revoked_tokens(config))


def revoked_tokens(config: Settings) -> RevokedTokens:
    """The list of tokens that were taken back, beside the keys."""
    from charter.server.revoked import RevokedTokens

    return RevokedTokens(config.keys_folder / "revoked.txt")


async def principal(config: Settings, keys: Keys, by: Who) -> Principal:
    """Who gives this command. Raises ``Unauthenticated``."""
    token = _given_token(by)
    if token is None:
        token = _own_token(config, keys, by)
    return await _principals(config, keys).verify(token)


def _given_token(by: Who) -> str | None:
    from charter.server.settings import process_environment

    if by.token_file is not None:
        return by.token_file.read_text(encoding="utf-8").strip()
    if by.name is not None or by.roles:
        return None
    return process_environment().get(TOKEN_VARIABLE, "").strip() or None


def _own_token(config: Settings, keys: Keys, by: Who) -> str:
    from charter.server.tokens import issue_token

    if not config.auth.local_keys:
        raise Unauthenticated(
            "Charter's own tokens are turned off (auth.local_keys = false), so --as cannot be used.",
            next_step=f"Put a token of your identity provider into {TOKEN_VARIABLE}, or name it by --token-file.",
        )
    return issue_token(
        keys,
        subject=by.name or login_name(),
        kind="human",
        audience=config.audience,
        issuer=config.local_issuer,
        tenant=config.tenant,
        roles=(*(by.roles or DEFAULT_ROLES), KEY_FOLDER_ROLE),
        ttl=_SECONDS,
    )


def login_name() -> str:
    """The operating system's name for whoever gives the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "operator"
