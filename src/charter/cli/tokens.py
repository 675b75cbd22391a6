"""``charter token``: bearer tokens that Charter's own key signs, for local use."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

import orjson
import typer

from charter.cli.output import Json, note, print_fields, print_json
from charter.cli.session import TOKEN_VARIABLE, revoked_tokens, settings
from charter.errors import InvalidInput

if TYPE_CHECKING:
    from charter.server.settings_model import Settings

Kind = Literal["human", "agent", "service"]
commands = typer.Typer(no_args_is_help=True, help="Bearer tokens for local use, signed with the key that init made.")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DEFAULT_ROLES: dict[str, tuple[str, ...]] = {"agent": ("agent",)}


def seconds(text: str) -> int:
    """``90s``, ``30m``, ``8h``, ``7d`` or plain seconds. Raises ``InvalidInput``."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    if not number.isdigit() or not int(number):
        raise InvalidInput(f"{text!r} is no time span.", code="bad_ttl", next_step="Write 90s, 30m, 8h or 7d.")
    return int(number) * _UNITS[unit]


@commands.command("issue")
def issue(
    agent: Annotated[str | None, typer.Option("--agent", help="Same as --subject NAME --kind agent.")] = None,
    human: Annotated[str | None, typer.Option("--human", help="Same as --subject NAME --kind human.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="Whom the token stands for.")] = None,
    kind: Annotated[Kind | None, typer.Option("--kind", help="What the subject is.")] = None,
    roles: Annotated[list[str] | None, typer.Option("--role", "--roles", help="A role; may be given often.")] = None,
    acts_for: Annotated[str | None, typer.Option("--acts-for", help="The person whom the agent serves.")] = None,
    acts_for_roles: Annotated[list[str] | None, typer.Option("--acts-for-role", help="A role of that person.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Default: the configured one.")] = None,
    audience: Annotated[
        str | None, typer.Option("--audience", help="The server's URL. Default: the configured one.")
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", help="How long it lives: 90s, 30m, 8h, 7d.")] = "8h",
    as_json: Json = False,
) -> None:
    """Print a signed token. Whoever holds it is the subject until it expires; keep it out of files that are shared."""
    from charter.server.keys import load_keys
    from charter.server.tokens import issue_token

    name, what = _subject(agent, human, subject, kind)
    loaded = settings()
    given = _names(roles) or _DEFAULT_ROLES.get(what, ())
    token = issue_token(
        load_keys(loaded.keys_folder),
        subject=name,
        kind=what,
        audience=audience or loaded.audience,
        issuer=_issuer(loaded, audience),
        tenant=tenant or loaded.tenant,
        roles=given,
        acts_for=acts_for,
        acts_for_roles=_names(acts_for_roles),
        ttl=_life(loaded, ttl),
    )
    if as_json:
        print_json({"token": token, **_described(token)})
        return
    note(f"For {what} {name}, roles {', '.join(given) or 'none'}, until {_described(token)['expires_at']}.")
    print(token)


def _life(loaded: Settings, ttl: str) -> int:
    """Seconds; no token is made that the server would refuse."""
    lives, most = seconds(ttl), loaded.auth.max_ttl_seconds
    if not loaded.auth.local_keys:
        raise InvalidInput("auth.local_keys is false, so the server would refuse this token.", code="local_keys_off")
    if lives > most:
        raise InvalidInput(f"The server takes no token that lives longer than {most} seconds.", code="bad_ttl")
    return lives


def _issuer(loaded: Settings, audience: str | None) -> str:
    """The origin of the server that the token is for, unless configured: `charter serve --port` moves both."""
    if audience is None or loaded.auth.local_issuer or loaded.server.public_url:
        return loaded.local_issuer
    parts = urlsplit(audience)
    return f"{parts.scheme}://{parts.netloc}"


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Options may be repeated, or hold several names with commas between."""
    return tuple(name.strip() for text in given or () for name in text.split(",") if name.strip())


def _subject(agent: str | None, human: str | None, subject: str | None, kind: Kind | None) -> tuple[str, Kind]:
    named: list[tuple[str, Kind]] = []
    if agent is not None:
        named.append((agent, "agent"))
    if human is not None:
        named.append((human, "human"))
    if subject is not None and kind is not None:
        named.append((subject, kind))
    if len(named) != 1 or (subject is None) != (kind is None):
        raise typer.BadParameter("say whom it is for: --agent NAME, --human NAME, or --subject NAME --kind KIND")
    return named[0]


Given = Annotated[str | None, typer.Argument(metavar="[TOKEN|FILE|-]", help=f"Default: ${TOKEN_VARIABLE}.")]


@commands.command("show")
def show(token: Given = None, as_json: Json = False) -> None:
    """Decode a token. Its signature is not checked, and its text is not shown again."""
    described = _described(_read(token))
    if as_json:
        print_json(described)
    else:
        print_fields([(name.replace("_", " "), _text(value)) for name, value in described.items()])


@commands.command("revoke")
def revoke(token: Given = None) -> None:
    """Take a token back before it expires; running servers see it at once."""
    claims = _claims(_read(token))
    jti = claims.get("jti")
    if not isinstance(jti, str):
        raise InvalidInput("This token has no id (jti), so it cannot be taken back.", code="no_jti")
    revoked_tokens(settings()).add(jti, float(claims.get("exp", 0)))
    note(f"Token {jti} is no longer taken.")


def _read(given: str | None) -> str:
    from charter.server.settings import process_environment

    if given is None:
        given = process_environment().get(TOKEN_VARIABLE)
    if given == "-":
        given = sys.stdin.read()
    if not given:
        raise InvalidInput("There is no token.", code="no_token", next_step=f"Name one, or set {TOKEN_VARIABLE}.")
    if given.count(".") != 2 and Path(given).is_file():
        given = Path(given).read_text(encoding="utf-8")
    return given.strip()


def _claims(token: str) -> dict[str, Any]:
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise InvalidInput("This is no JSON Web Token.", code="token_malformed") from None
    return claims


def _described(token: str) -> dict[str, Any]:
    claims = _claims(token)
    own = claims.get("charter") if isinstance(claims.get("charter"), dict) else {}
    act = claims.get("act")
    return {
        "subject": claims.get("client_id", claims.get("sub")),
        "kind": (own or {}).get("kind"),
        "acts_for": claims.get("sub") if isinstance(act, dict) else None,
        "roles": (own or {}).get("roles"),
        "acts_for_roles": (own or {}).get("acts_for_roles"),
        "tenant": (own or {}).get("tenant"),
        "issuer": claims.get("iss"),
        "audience": claims.get("aud"),
        "issued_at": _moment(claims.get("iat")),
        "expires_at": _moment(claims.get("exp")),
        "id": claims.get("jti"),
    }


def _moment(value: Any) -> str | None:
    try:
        return datetime.fromtimestamp(float(value), UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return ", ".join(map(str, value)) if isinstance(value, list) else orjson.dumps(value).decode()
