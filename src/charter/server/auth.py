"""Who sends a request: verified bearer tokens as the MCP SDK carries them, and the caller of stdio.

How a token is verified is told in ``tokens``. No token is ever passed on to an upstream.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from pydantic import Field

from charter.errors import Unauthenticated
from charter.model.principal import Principal
from charter.server.claims import refused
from charter.server.jwks import JwksKeys
from charter.server.keys import Keys
from charter.server.problems import TOKEN_REFUSED
from charter.server.revoked import RevokedTokens
from charter.server.settings_model import Settings
from charter.server.tokens import Accepted, Verifier

_log = logging.getLogger(__name__)


class VerifiedToken(AccessToken):
    """An access token that was verified, with the principal that it stands for.

    Its text stays out of ``repr``.
    """

    token: str = Field(repr=False)
    principal: Principal
    jti: str | None = None


class TokenVerifier(Verifier[VerifiedToken]):
    """Verifies bearer tokens; fits the MCP SDK's ``TokenVerifier`` protocol."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys | None,
        *,
        jwks: JwksKeys | None = None,
        revoked: RevokedTokens | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(settings, keys, made=_carried, jwks=jwks, revoked=revoked, now=now)

    async def verify_token(self, token: str) -> VerifiedToken | None:
        """The verified token, or None; the SDK answers None with 401."""
        try:
            return await self.verify(token)
        except Unauthenticated as error:
            _log.info("A bearer token was refused: %s.", error.error_code)
            TOKEN_REFUSED.set(self._told(error.error_code))
            return None

    def _told(self, code: str) -> Unauthenticated:
        """What its sender is told. It helps no forger: life and audience are looked at once the signature holds."""
        if code == "token_expired":
            text, step = "The bearer token has expired.", "Get a new token and send that."
        elif code == "token_audience":
            text = f"The bearer token is not for this server: its audience must be {self._settings.resource}."
            step = "Get a token for that audience (RFC 8707: the resource parameter)."
        elif code in ("token_key", "token_signature"):
            code, text = "token_key", "The bearer token is not signed by a key that this server knows."
            step = "Get a token from the issuer that the metadata named in WWW-Authenticate says."
        else:
            return refused("unauthenticated")
        return Unauthenticated(text, code=code, next_step=step)

    def principal(self, token: AccessToken) -> Principal:
        """The principal of a token that this class verified; any other object is refused."""
        if not isinstance(token, VerifiedToken):
            raise refused("token_unverified")
        return token.principal


def _carried(accepted: Accepted) -> VerifiedToken:
    principal, claims = accepted.principal, dict(accepted.claims)
    return VerifiedToken(
        token=accepted.token,
        # The SDK binds sessions and request states to this; so it must tell tenants and kinds apart.
        client_id=f"{principal.tenant}/{principal.kind}/{principal.id}",
        scopes=list(accepted.scopes),
        expires_at=int(claims["exp"]),
        resource=accepted.resource,
        subject=str(claims["sub"]),
        claims=claims,
        principal=principal,
        jti=accepted.jti,
    )


def stdio_principal(settings: Settings) -> Principal:
    """Who calls over stdio, and in anonymous loopback mode: what ``[stdio]`` says, always an agent."""
    stdio = settings.stdio
    return Principal(
        id=stdio.agent,
        kind="agent",
        tenant=settings.tenant,
        roles=stdio.roles,
        acts_for=stdio.acts_for,
        acts_for_roles=stdio.acts_for_roles,
    )


def current_principal(fallback: Principal | None = None) -> Principal:
    """Who sent the request that is being handled.

    ``fallback`` serves stdio and anonymous mode; else a token must be there.
    """
    token = get_access_token()
    if isinstance(token, VerifiedToken):
        return token.principal
    if token is not None or fallback is None:
        raise Unauthenticated("The request carries no verified credential.")
    return fallback
