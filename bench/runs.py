"""Runs by the hundred thousand: each kind is really started once, by a gate, and copied under ids and times of its own.

What a copy holds is what the gate would have written: its events, its rows in the lists, what it waits for. So it loads, is
due, is listed, and goes on like any other.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from bench.engines.charter import PERSON, gate_on
from charter.engine.embedded import EmbeddedEngine
from charter.model import commands as cmd
from charter.model.template import Template
from charter.model.times import rfc3339
from charter.store.port import ApprovalRow, Batch, Claim, NewEvent, WaitRow, WorkflowRow
from charter.store.sqlite import SqliteStore

TENANT = "default"
AT_ONCE = 64
BEGAN_MS = 1_767_225_600_000
"""2026-01-01: when the copied runs started, the first of them; each next one so much later."""
MS_APART = 10
WAITS_SECONDS = 10 * 365 * 86_400
_IDS = re.compile(r"(?<![A-Za-z0-9])(?:wf|inv|prop|appr|evt|eff|cmd)_[0-9a-f]{8}-[0-9a-f-]{15}(?=[0-9a-f]{12})")
_BEGAN = rfc3339(BEGAN_MS)
_ENDS = rfc3339(BEGAN_MS + WAITS_SECONDS * 1000)


def _template(name: str, *steps: dict[str, Any]) -> Template:
    return Template.model_validate({"name": name, "version": "1", "steps": list(steps)})


TIMER = _template("bench-timer", {"id": "wait", "type": "wait", "seconds": WAITS_SECONDS})
SIGNAL = _template("bench-signal", {"id": "wait", "type": "wait", "signal": {"type": "bench.never"}})
PEOPLE = _template(
    "bench-people",
    {
        "id": "ask",
        "type": "approval",
        "question": "Go on?",
        "requirements": [{"role": "finance"}],
        "expires_after_seconds": WAITS_SECONDS,
    },
)
AGENT = _template(
    "bench-agent",
    {"id": "work", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": WAITS_SECONDS},
)
DONE = _template("bench-done", {"id": "see", "type": "condition", "expression": "true"})
"""A run of it has ended as soon as it has started."""
WAITING = (TIMER, SIGNAL, PEOPLE, AGENT)


@dataclass(frozen=True, slots=True)
class Kind:
    """One recorded run, cut into texts with the ids and times between them; ``claims`` pin its template, once."""

    name: str
    pieces: tuple[str, ...]
    claims: tuple[Claim, ...]

    def copy(self, number: int, *, until_ms: int | None = None) -> Batch:
        """The run of this number; ``until_ms``: when its wait ends instead."""
        suffix, began = f"{number:012x}", rfc3339(BEGAN_MS + number * MS_APART)
        ends = _ENDS if until_ms is None else rfc3339(until_ms)
        fill = {"id": suffix, "began": began, "ends": ends}
        text = "".join(fill[piece] if index % 2 else piece for index, piece in enumerate(self.pieces))
        return _batch(orjson.loads(text))


async def record(*templates: Template) -> list[Kind]:
    """Start one run of each, drive it as far as it goes by itself, and keep what was put on record."""
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as name:
        store = SqliteStore(Path(name) / "sample.db")
        await store.open()
        try:
            return [await _recorded(store, template) for template in templates]
        finally:
            await store.close()


async def _recorded(store: SqliteStore, template: Template) -> Kind:
    batches: list[Batch] = []
    append = store.append

    async def recording(batch: Batch) -> Any:
        batches.append(batch)
        return await append(batch)

    gate = gate_on(store, template, clock=lambda: BEGAN_MS)
    store.append = recording  # type: ignore[method-assign]
    try:
        await gate.handle(PERSON, cmd.StartWorkflow(template=template.name, purpose="Wait for something"))
        await EmbeddedEngine(gate).settle()
        await gate.close()
    finally:
        store.append = append  # type: ignore[method-assign]
    whole = _whole(batches)
    return Kind(template.name, _pieces(replace(whole, claims=())), whole.claims)


def _whole(batches: Sequence[Batch]) -> Batch:
    """All commits of a run as one; of several rows with one key the store takes the last."""
    first = batches[0]
    return replace(
        first,
        events=tuple(event for batch in batches for event in batch.events),
        workflow=next(batch.workflow for batch in reversed(batches) if batch.workflow is not None),
        approvals=tuple(row for batch in batches for row in batch.approvals),
        effects=tuple(row for batch in batches for row in batch.effects),
        waits=tuple(row for batch in batches for row in batch.waits),
        claims=tuple(claim for batch in batches for claim in batch.claims if claim.scope.startswith("template")),
    )


def _pieces(batch: Batch) -> tuple[str, ...]:
    """The text, and at odd places what is to be put there."""
    text = orjson.dumps(asdict(batch)).decode()
    marked = _IDS.sub(lambda found: f"{found[0]}\0id\0", text)
    marked = re.sub("\0id\0[0-9a-f]{12}", "\0id\0", marked)
    for time, place in ((_BEGAN, "began"), (_ENDS, "ends")):
        marked = marked.replace(time, f"\0{place}\0")
    return tuple(marked.split("\0"))


def _batch(found: dict[str, Any]) -> Batch:
    row = found["workflow"]
    return Batch(
        found["tenant"],
        found["stream"],
        0,
        tuple(NewEvent(**event) for event in found["events"]),
        workflow=WorkflowRow(**row) if row else None,
        approvals=tuple(ApprovalRow(**item) for item in found["approvals"]),
        waits=tuple(WaitRow(**item) for item in found["waits"]),
    )


async def pin(store: SqliteStore, kinds: Iterable[Kind]) -> None:
    """Keep the kinds' templates, as the first start of each does."""
    for kind in kinds:
        await store.append(Batch(TENANT, f"tenant:{TENANT}", None, (), claims=kind.claims))


async def fill(store: SqliteStore, batches: Iterable[Batch]) -> None:
    """Append them all, so many at once."""
    waiting = iter(batches)

    async def writer() -> None:
        for batch in waiting:
            await store.append(batch)

    await asyncio.gather(*(writer() for _ in range(AT_ONCE)))
