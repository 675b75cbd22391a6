"""Tools in this process that do as they are told: count, fail, lose their answers, or take the whole process with them."""

from __future__ import annotations

from collections import deque
from typing import Any

import orjson

from charter.model.effect import Effect, EffectOutcome
from charter.model.tool import Quarantine, ToolManifest
from charter.store.port import Appended, Batch, Due, Store
from charter.store.sqlite import SqliteStore
from tests.guarantees.auditor import Ran, Tool

WAYS = ("ok", "ok", "ok", "error", "not_run", "lost", "lost_not_run", "die_before", "die_after")


class Died(BaseException):
    """The process is gone. Nothing in it happens after this."""


class Fuse:
    """Burns at the ``left``-th commit, before or after it; once burnt, nothing of this process works any more."""

    def __init__(self) -> None:
        self.left, self.after, self.burnt = 0, False, False

    def light(self, commits: int, *, after: bool) -> None:
        self.left, self.after = commits, after

    def burn(self) -> Died:
        self.burnt = True
        return Died()

    def check(self) -> None:
        if self.burnt:
            raise Died


class FusedStore(SqliteStore):
    """The real store in a process that may die at a commit."""

    fuse = Fuse()

    async def append(self, batch: Batch) -> Appended:
        self.fuse.check()
        self.fuse.left -= 1
        if self.fuse.left == 0 and not self.fuse.after:
            raise self.fuse.burn()
        answer = await super().append(batch)
        if self.fuse.left == 0:
            raise self.fuse.burn()
        return answer

    async def due(self, now: str, limit: int) -> list[Due]:
        self.fuse.check()
        return await super().due(now, limit)


def manifest(name: str, risk: Any, side_effects: Any, *, idempotent: bool) -> ToolManifest:
    return ToolManifest(
        name=f"box__{name}",
        server="box",
        upstream_name=name,
        input_schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        definition_hash=f"sha256:{name}-0",
        risk=risk,
        side_effects=side_effects,
        idempotent=idempotent,
    )


MANIFESTS = (
    manifest("read", "low", "none", idempotent=True),
    manifest("write", "medium", "reversible", idempotent=True),
    manifest("note", "medium", "reversible", idempotent=False),
    manifest("pay", "high", "irreversible", idempotent=False),
)
KNOWN = {
    item.name: Tool(effects=item.side_effects != "none", high=item.risk == "high", idempotent=item.idempotent)
    for item in MANIFESTS
}


class Box:
    """The governed tools, whose definitions may change under everybody's feet."""

    def __init__(self) -> None:
        self.tools = {item.name: item for item in MANIFESTS}
        self.quarantined: set[str] = set()
        self._changes = 0

    def find(self, name: str) -> ToolManifest | None:
        return self.tools.get(name)

    def quarantine(self, name: str) -> Quarantine | None:
        if name not in self.quarantined:
            return None
        return Quarantine(tool=name, pinned_hash="sha256:a", offered_hash="sha256:b", diff="-a\n+b")

    def all(self) -> tuple[ToolManifest, ...]:
        return tuple(self.tools.values())

    def change(self, name: str) -> None:
        self._changes += 1
        changed = {"definition_hash": f"sha256:{name}-{self._changes}"}
        self.tools[name] = self.tools[name].model_copy(update=changed)


class Scripted:
    """Runs as ``ways`` says, in order; ``ran`` is the tools' own count, kept over restarts of the process."""

    def __init__(self, fuse: Fuse) -> None:
        self.fuse, self.ways, self.ran = fuse, deque[str](), list[Ran]()
        self.store: Store | None = None

    def calm(self) -> None:
        """From now on everything goes well."""
        self.ways.clear()
        self.fuse.light(0, after=False)

    async def run(self, effect: Effect, **_: Any) -> EffectOutcome:
        self.fuse.check()
        way = self.ways.popleft() if self.ways else "ok"
        await self._intent_is_on_disk(effect)
        executes = way not in ("not_run", "lost_not_run", "die_before") and not effect.dry_run
        ran = Ran(
            tenant=effect.tenant,
            workflow_id=effect.workflow_id,
            tool=effect.tool.name,
            arguments=effect.arguments,
            key=effect.idempotency_key,
            attempt=effect.attempt,
            executed=executes,
            reported=None,
            dry_run=effect.dry_run,
        )
        self.ran.append(ran)
        if way.startswith("die"):
            raise self.fuse.burn()
        outcome = _outcome("ok" if effect.dry_run else way)
        ran.reported = outcome.status
        return outcome

    async def _intent_is_on_disk(self, effect: Effect) -> None:
        assert self.store is not None
        stored = await self.store.load(effect.tenant, effect.workflow_id)
        intents = [orjson.loads(item.leaf)["data"] for item in stored if item.type == "TOOL_INVOKE"]
        assert any((i["effect_id"], i["attempt"]) == (effect.effect_id, effect.attempt) for i in intents)

    async def preview(self, *_: Any) -> None:
        return None


def _outcome(way: str) -> EffectOutcome:
    if way == "not_run":
        return EffectOutcome(status="failed", error_code="upstream_unavailable", error_message="It is not there.")
    if way.startswith("lost"):
        return EffectOutcome(status="unknown", error_code="upstream_lost", error_message="The connection broke.")
    content = ({"type": "text", "text": "done"},)
    return EffectOutcome(status="succeeded", is_error=way == "error", content=content, structured={"done": way == "ok"})
