"""Bearer tokens: issuing them with Charter's own key, and verifying those and an identity provider's.

A token is taken only if all of this holds: three parts, at most 16 KiB; header ``typ`` one of the configured
types, no ``crit``, a ``kid`` that names a trusted key; a signature by that key under *the key's* algorithm
(the header's ``alg`` must agree, it never chooses); the issuer that the key belongs to; an audience that is
this server (RFC 8707); ``iat``, ``nbf`` and ``exp`` that hold now, within the leeway; a life no longer than
configured; not revoked. All else is a 401; the reason goes to the log as a code, and the sender is told of
three: expired, another audience, no key known here.

No token is ever passed on to an upstream.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import jwt

from charter.errors import CharterError, InvalidInput, Unauthenticated
from charter.model.principal import Principal, PrincipalKind
from charter.server.claims import RESERVED, local_principal, provider_principal, refused, valid_id
from charter.server.keys import Keys, VerifyKey
from charter.server.revoked import RevokedTokens
from charter.server.settings_model import Settings

if TYPE_CHECKING:
    from charter.server.jwks import JwksKeys

TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068's media type, not a secret
MAX_TOKEN_CHARACTERS = 16_384
MAX_CACHED = 4096
CACHE_SECONDS = 300.0
"""How long a verified token is believed before its signature is checked again (its key may have been
withdrawn).
"""

T = TypeVar("T")

_REQUIRED = ["iss", "aud", "sub", "iat", "exp"]
_jwt = jwt.PyJWT(options={"enforce_minimum_key_length": True})


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a verified token says. Its text stays out of ``repr``."""

    token: str = field(repr=False)
    principal: Principal
    claims: Mapping[str, Any]
    jti: str | None
    scopes: tuple[str, ...]
    resource: str


def issue_token(
    keys: Keys,
    *,
    subject: str,
    kind: PrincipalKind,
    audience: str,
    issuer: str,
    tenant: str = "default",
    roles: Sequence[str] = (),
    acts_for: str | None = None,
    acts_for_roles: Sequence[str] = (),
    ttl: int = 8 * 3600,
    now: Callable[[], float] = time.time,
) -> str:
    """A signed token for ``subject``, living ``ttl`` seconds; the claims are laid out in
    ``charter.server.claims``.

    ``acts_for`` is for agents: the person behind. Raises ``InvalidInput`` for names that no token may carry.
    """
    if not valid_id(subject) or (acts_for is not None and not valid_id(acts_for)):
        raise InvalidInput(
            "A subject is up to 256 visible characters without spaces, and not `charter:…`.",
            code="bad_subject",
        )
    if RESERVED in (*roles, *acts_for_roles):
        raise InvalidInput("The role `charter` is Charter's own.", code="reserved_role")
    if (acts_for is not None and kind != "agent") or (acts_for is None and acts_for_roles):
        raise InvalidInput("Only an agent acts for somebody, who must be named.", code="acts_for_needs_agent")
    if ttl <= 0:
        raise InvalidInput("A token lives for at least one second.", code="bad_ttl")
    issued = int(now())
    own: dict[str, Any] = {"kind": kind, "tenant": tenant, "roles": list(roles)}
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience,
        "sub": acts_for or subject,
        "client_id": subject,
    }
    claims |= {
        "iat": issued,
        "nbf": issued,
        "exp": issued + ttl,
        "jti": secrets.token_urlsafe(16),
        "charter": own,
    }
    if acts_for is not None:
        claims["act"] = {"sub": subject}
        own["acts_for_roles"] = list(acts_for_roles)
    _refuse_unverifiable(claims)
    key = keys.tokens[0]
    return _jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": TOKEN_TYPE, "kid": key.kid})


def _provider_keys(url: str) -> JwksKeys:
    from charter.server.jwks import JwksKeys  # with an HTTP client, which few commands need

    return JwksKeys(url)


def _refuse_unverifiable(claims: Mapping[str, Any]) -> None:
    try:
        local_principal(claims)
    except Unauthenticated as error:
        raise InvalidInput(
            f"No valid token could say this ({error.error_code}).",
            code="bad_token_claims",
            next_step="A tenant is letters, digits and ._-; a role is a text of up to 128 characters.",
        ) from None


class Verifier(Generic[T]):
    """Verifies bearer tokens. ``made`` turns what a good one says into what callers get, once a token."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys | None,
        *,
        made: Callable[[Accepted], T],
        jwks: JwksKeys | None = None,
        revoked: RevokedTokens | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._made, self._now = settings, made, now
        own = keys.tokens if keys is not None and settings.auth.local_keys else ()
        self._local = {key.kid: VerifyKey(key=key.public, algorithm="EdDSA") for key in own}
        url = settings.auth.jwks_url
        self._jwks = jwks or (_provider_keys(url) if url else None)
        self.revoked = revoked if revoked is not None else RevokedTokens(now=now)
        self._cache: OrderedDict[bytes, tuple[float, Accepted, T]] = OrderedDict()

    async def verify(self, token: str) -> T:
        """What ``made`` makes of a good token. Raises ``Unauthenticated`` with a code ``token_…``."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii():
            raise refused("token_malformed")
        name = hashlib.sha256(token.encode()).digest()
        cached = self._cache.get(name)
        if cached is not None and cached[0] > self._now():
            self._cache.move_to_end(name)
            _, accepted, made = cached
            self._check_life(accepted.claims)
        else:
            self._cache.pop(name, None)
            accepted = await self._verify_anew(token)
            made = self._made(accepted)
            self._remember(name, accepted, made)
        if accepted.jti is not None and accepted.jti in self.revoked:
            raise refused("token_revoked")
        return made

    async def _verify_anew(self, token: str) -> Accepted:
        key, issuer, local = await self._key_for(_header(token, self._settings.auth.token_types))
        if key.algorithm not in self._settings.auth.algorithms:
            raise refused("token_algorithm")
        claims = self._signed_claims(token, key, issuer)
        self._check_life(claims)
        try:
            principal = local_principal(claims) if local else provider_principal(claims, self._settings)
        except CharterError:
            raise
        except (ValueError, TypeError):
            raise refused("token_claims") from None
        jti = claims.get("jti")
        if jti is not None and not isinstance(jti, str):
            raise refused("token_claims")
        scope = claims.get("scope")
        return Accepted(
            token=token,
            principal=principal,
            claims=claims,
            jti=jti,
            scopes=tuple(scope.split()) if isinstance(scope, str) else (),
            resource=self._settings.resource,
        )

    async def _key_for(self, header: Mapping[str, Any]) -> tuple[VerifyKey, str, bool]:
        """The key that ``kid`` names, the issuer whose key it is, and whether it is Charter's own."""
        kid = header["kid"]
        own = self._local.get(kid)
        if own is not None:
            return own, self._settings.local_issuer, True
        found = await self._jwks.get(kid) if self._jwks is not None else None
        if found is None:
            raise refused("token_key")
        return found, self._settings.auth.issuer or "", False

    def _signed_claims(self, token: str, key: VerifyKey, issuer: str) -> dict[str, Any]:
        try:
            return _jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._settings.audience,
                issuer=issuer,
                # Times are checked in _check_life: by the clock handed in, and again for cached tokens.
                options={"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidAudienceError:
            raise refused("token_audience") from None
        except jwt.InvalidIssuerError:
            raise refused("token_issuer") from None
        except jwt.MissingRequiredClaimError:
            raise refused("token_claims") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise refused("token_signature") from None

    def _check_life(self, claims: Mapping[str, Any]) -> None:
        auth, now = self._settings.auth, self._now()
        issued, expires = _seconds(claims["iat"]), _seconds(claims["exp"])
        if expires + auth.leeway_seconds <= now:
            raise refused("token_expired")
        if max(issued, _seconds(claims.get("nbf", 0))) > now + auth.leeway_seconds:
            raise refused("token_not_yet")
        if not 0 < expires - issued <= auth.max_ttl_seconds:
            raise refused("token_lives_too_long")

    def _remember(self, name: bytes, accepted: Accepted, made: T) -> None:
        self._cache[name] = (self._now() + CACHE_SECONDS, accepted, made)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)


def _header(token: str, types: Sequence[str]) -> dict[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise refused("token_malformed") from None
    kind = header.get("typ")
    normal = kind.lower().removeprefix("application/") if isinstance(kind, str) else None
    if normal not in {name.lower() for name in types}:
        raise refused("token_type")
    if "crit" in header or not isinstance(header.get("kid"), str):
        raise refused("token_key")
    return header


def _seconds(value: Any) -> float:
    """A NumericDate (RFC 7519): a finite number of plausible size; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or abs(value) > 2**53:
        raise refused("token_times")
    return float(value)
