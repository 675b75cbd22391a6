"""What tests of outbound steps share: a desk whose only tools are Charter's own, and real sites to call."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from charter.manifests.built_in import BUILT_IN
from charter.model.template import Template
from charter.model.tool import Quarantine, ToolManifest
from charter.server.evaluator import PolicySets
from charter.tools.connecting import Sources
from charter.tools.egress import Egress, GuardedClient
from charter.tools.outbound import Outbound, Place
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from tests.guarantees.world import Clock, Desk, desk_on

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
EVERYWHERE = Egress(hosts=("http://*:*", "*:*"), private=LOOPBACK)


class OwnTools:
    """Charter's own tools, and no upstream's."""

    def find(self, name: str) -> ToolManifest | None:
        return BUILT_IN.get(name)

    def quarantine(self, name: str) -> Quarantine | None:
        return None

    def all(self) -> tuple[ToolManifest, ...]:
        return tuple(BUILT_IN.values())


def place(*secrets: str, egress: Egress = EVERYWHERE) -> Place:
    """A place that may reach this machine, and use these secrets everywhere."""
    return Place(egress, dict.fromkeys(secrets, ("http://*:*", "*:*")))


def outbound(secrets: Mapping[str, str] | None = None, where: Place | None = None, **more: Any) -> Outbound:
    """Charter's own tools with these secrets."""
    found = where or place(*(secrets or {}))
    return Outbound(lambda _tenant: found, secrets or {}, GuardedClient(Egress()), **more)


_policies: list[PolicySets] = []


def shipped() -> PolicySets:
    """The shipped policies; immutable, so one is enough."""
    if not _policies:
        _policies.append(PolicySets(None, None, OwnTools().all()))
    return _policies[0]


@asynccontextmanager
async def outside_desk(
    path: Path, templates: Sequence[Template], own: Outbound, clock: Clock | None = None, **more: Any
) -> AsyncIterator[Desk]:
    """A desk that runs these templates; ``path`` is the database."""
    runner = Runner(Registry(tuple, Sources({})), own, more.pop("fixtures", None))
    more.setdefault("policies", shipped())
    async with desk_on(path, OwnTools(), runner, clock or Clock(), templates=templates, **more) as desk:
        yield desk
