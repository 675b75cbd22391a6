"""Who is calling. Comes from a verified credential, never from an argument."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

from charter.model.base import Model

PrincipalKind = Literal["human", "agent", "service"]

Channel = Literal["elicitation", "prompt", "cli", "console", "api", "template"]
"""How a person's decision reached Charter. The policy says which channel is strong enough for which risk.

``elicitation`` and ``prompt`` travel through the agent's own client, so they prove only that the client said yes;
``cli`` and ``console`` carry a credential of the person's own. ``api`` is a service's or agent's own call.
"""


class Principal(Model):
    """A caller. ``acts_for`` names the person whom an agent serves (the ``act`` relation of RFC 8693)."""

    id: str
    kind: PrincipalKind
    tenant: str = "default"
    roles: tuple[str, ...] = ()
    acts_for: str | None = None
    acts_for_roles: tuple[str, ...] = ()

    def actor(self) -> dict[str, str]:
        """How this principal is named in an event: ``kind``, ``id`` and, where there is one, ``acts_for``."""
        out = {"kind": self.kind, "id": self.id}
        if self.acts_for:
            out["acts_for"] = self.acts_for
        return out


_ID = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]{1,256}")


def could_be_id(text: str) -> bool:
    """Whether a credential can carry this id: up to 256 visible characters, no spaces."""
    return _ID.fullmatch(text) is not None


AGENT_APPROVER = "agent-approver"
"""The role that an agent's credential must hold before any policy may let it decide an approval."""


def person_key(id_: str) -> str:
    """What separation of duties compares: ``ann``, ``Ann`` and full-width letters are one person under three spellings."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", id_).casefold())


@lru_cache(maxsize=256)
def service(name: str, tenant: str) -> Principal:
    """Charter itself acting, for instance the engine when a timer fires."""
    return Principal(id=f"charter:{name}", kind="service", tenant=tenant, roles=("charter",))
