"""From a verified token's claims to a principal. Pure: what is read here was signed by a trusted key.

Charter's own tokens follow RFC 9068 (``at+jwt``) and name an agent that acts for a person as RFC 8693 does:
``sub`` is the person on whose behalf, ``act.sub`` the agent that acts. What those claims cannot say is in
``charter``::

    {"iss": "http://127.0.0.1:8420", "aud": "http://127.0.0.1:8420/mcp", "sub": "ann", "act": {"sub":
    "ide-agent"},
     "client_id": "ide-agent", "iat": …, "nbf": …, "exp": …, "jti": "…",
     "charter": {"kind": "agent", "tenant": "default", "roles": ["agent"], "acts_for_roles": ["editor"]}}

An agent on its own, a person or a service has itself as ``sub`` and no ``act``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from charter.errors import Unauthenticated
from charter.model.principal import Principal, PrincipalKind, could_be_id
from charter.server.settings_model import Settings

RESERVED = "charter"
"""Charter's own services are ``charter:…`` with the role ``charter``; no token may claim to be one."""

_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_ROLES = 200


def refused(code: str) -> Unauthenticated:
    """What a bad token gets: one sentence for all, and a code for the log. Never anything from the token."""
    return Unauthenticated("The bearer token is not valid for this server.", code=code)


def valid_id(value: Any) -> bool:
    """An identifier that a credential can carry, not one of Charter's own."""
    return isinstance(value, str) and could_be_id(value) and not value.lower().startswith(f"{RESERVED}:")


def _id(value: Any) -> str:
    if not valid_id(value):
        raise refused("token_subject")
    return str(value)


def _tenant(value: Any) -> str:
    if not isinstance(value, str) or not _TENANT.fullmatch(value):
        raise refused("token_tenant")
    return value


def local_principal(claims: Mapping[str, Any]) -> Principal:
    """The principal of a token that Charter signed."""
    own, act = claims.get("charter"), claims.get("act")
    if not isinstance(own, dict) or own.get("kind") not in get_args(PrincipalKind):
        raise refused("token_claims")
    subject, kind = _id(claims.get("sub")), own["kind"]
    if act is None:
        caller, person = subject, None
    elif kind == "agent" and isinstance(act, dict) and set(act) == {"sub"}:
        caller, person = _id(act["sub"]), subject
    else:
        raise refused("token_act")
    if claims.get("client_id") != caller or (person is None and own.get("acts_for_roles")):
        raise refused("token_claims")
    return Principal(
        id=caller,
        kind=kind,
        tenant=_tenant(own.get("tenant")),
        roles=_roles(own.get("roles")),
        acts_for=person,
        acts_for_roles=_roles(own.get("acts_for_roles")),
    )


def provider_principal(claims: Mapping[str, Any], settings: Settings) -> Principal:
    """The principal of an identity provider's token, as ``[auth]`` and ``[auth.claims]`` map it.

    Whoever is not known for a person's or a service's client is an agent acting for the token's subject.
    """
    auth, where = settings.auth, settings.auth.claims
    subject = _id(_at(claims, where.subject))
    client = _id(next((claims[name] for name in where.client if name in claims), None))
    roles = _mapped(_roles(_at(claims, where.roles)), where.role_map)
    tenant = settings.tenant if where.tenant is None else _tenant(_at(claims, where.tenant))
    act = claims.get("act")
    if act is not None:
        agent = _id(act.get("sub") if isinstance(act, dict) else None)
    elif client in auth.human_clients:
        return Principal(id=subject, kind="human", tenant=tenant, roles=roles)
    elif client in auth.service_clients:
        return Principal(id=subject, kind="service", tenant=tenant, roles=roles)
    elif subject == client:  # the client credentials grant: nobody is behind it
        return Principal(id=client, kind="agent", tenant=tenant, roles=_union(auth.agent_roles, roles))
    else:
        agent = client
    return Principal(
        id=agent, kind="agent", tenant=tenant, roles=auth.agent_roles, acts_for=subject, acts_for_roles=roles
    )


def _at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of exactly this name (names may be URLs), else the one that the dots lead to."""
    if path in claims:
        return claims[path]
    node: Any = claims
    for part in path.split("."):
        if not isinstance(node, dict):
            return None
        node = node.get(part)
    return node


def _roles(value: Any) -> tuple[str, ...]:
    """A list of names, or names with spaces between; the reserved role is never taken over."""
    if value is None:
        return ()
    names = value.split() if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > _MAX_ROLES:
        raise refused("token_roles")
    if not all(isinstance(name, str) and 0 < len(name) <= 128 for name in names):
        raise refused("token_roles")
    return _union((), tuple(name for name in names if name != RESERVED))


def _mapped(roles: tuple[str, ...], role_map: Mapping[str, str]) -> tuple[str, ...]:
    """With a map, only the groups that it names count."""
    if not role_map:
        return roles
    return _union((), tuple(role_map[name] for name in roles if name in role_map and role_map[name] != RESERVED))


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
