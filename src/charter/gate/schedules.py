"""Runs that start at times: due ones are started, each once, and what was fired or missed is on record.

A schedule's stream says through which time it is settled, so a restart goes on there. A start claims its schedule and
time in its own commit: a process that dies before it could record the firing finds the claim and starts nothing again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from charter.errors import CharterError, InvalidInput, NotFound, Unavailable
from charter.gate.outcomes import only_charter
from charter.gate.parts import CallContext
from charter.manifests import cron
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model import signal_events as sev
from charter.model.base import Model
from charter.model.principal import Principal
from charter.model.reply import ScheduleView
from charter.model.template import ScheduleStart, Template
from charter.store.port import AlreadyClaimed, Claim
from charter.workflows import expressions
from charter.workflows.calls import denied
from charter.workflows.facts import ledger_facts

if TYPE_CHECKING:
    from charter.gate.gate import Gate

SCOPE, STARTS = "schedule", "schedule_start"


@dataclass(frozen=True, slots=True)
class Timed:
    """A schedule of a template's newest version."""

    template: Template
    schedule: ScheduleStart

    @property
    def name(self) -> str:
        """What it is called everywhere: ``template/name``."""
        return f"{self.template.name}/{self.schedule.name}"

    @property
    def stream(self) -> str:
        """Where its firings are on record."""
        return f"schedule:{self.name}"


class Schedules:
    """Keeps times for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def all(self) -> list[Timed]:
        """Every schedule that is published."""
        return [Timed(item, each) for item in self._gate.parts.templates.scheduled() for each in item.on_schedule]

    async def keep(self, principal: Principal, command: cmd.KeepSchedule, ctx: CallContext) -> str | None:
        """Start what is due of one schedule; its next time. Only Charter itself sends it.

        Raises ``NotFound``, and ``Unavailable``: then it is sent again and goes on where it was.
        """
        only_charter(principal)
        timed = next((item for item in self.all() if item.name == command.schedule), None)
        if timed is None:
            raise NotFound(f"There is no schedule {command.schedule}.", code="unknown_schedule")
        now, _ = self._gate.moment()
        through = await self._settled(principal.tenant, timed)
        if through is None:
            through = now
            data = sev.ScheduleSet(**_named(timed), through=now)
            await self._record(principal, timed, "SCHEDULE_SET", data, (), ctx)
        todo, missed = cron.plan(timed.schedule, through, now), 0
        for due_at in todo.times:
            known = await self._gate.parts.store.claimed(principal.tenant, STARTS, f"{timed.name}|{due_at}")
            if known is None and due_at not in todo.run:
                missed += 1
            else:
                await self._fire(principal, timed, due_at, known, missed, ctx)
                missed = 0
        if missed:
            await self._miss(principal, timed, todo.times[-1], missed, ctx)
        return cron.following(timed.schedule, todo.times[-1] if todo.times else max(through, now))

    async def _settled(self, tenant: str, timed: Timed) -> str | None:
        """Through which time; None when the schedule is new, or says other times than before."""
        last = await self._last(tenant, timed)
        if last is None or (last["cron"], last["time_zone"]) != (timed.schedule.cron, timed.schedule.time_zone):
            return None
        return str(last["through"])

    async def _last(self, tenant: str, timed: Timed) -> dict[str, Any] | None:
        store = self._gate.parts.store
        version = await store.version(tenant, timed.stream)
        rows = await store.load(tenant, timed.stream, after_version=version - 1) if version else []
        return orjson.loads(rows[-1].leaf)["data"] if rows else None

    async def _miss(self, principal: Principal, timed: Timed, through: str, missed: int, ctx: CallContext) -> None:
        data = sev.ScheduleMissed(**_named(timed), through=through, missed=missed, policy=timed.schedule.missed)
        claims = (Claim(SCOPE, f"{timed.name}|missed|{through}", through),)
        await self._record(principal, timed, "SCHEDULE_MISSED", data, claims, ctx)

    async def _fire(
        self, principal: Principal, timed: Timed, due_at: str, known: str | None, missed: int, ctx: CallContext
    ) -> None:
        """Start the run of one time, or find it started; ``missed`` times before it were left out."""
        key, why = f"{timed.name}|{due_at}", None
        command_id = self._gate.moment()[1].new("command")
        try:
            known = known or await self._start(principal, timed, due_at, key, command_id, ctx)
        except Unavailable:
            raise
        except CharterError as error:
            why = f"{error.error_code}: {error.message}"
        data = sev.ScheduleFired(
            **_named(timed),
            through=due_at,
            due_at=due_at,
            template=timed.template.ref,
            workflow_id=known,
            not_started=why,
            missed=missed,
        )
        claims = (Claim(SCOPE, key, known or ""),)
        await self._record(principal, timed, "SCHEDULE_FIRED", data, claims, ctx, command_id)

    async def _start(
        self, principal: Principal, timed: Timed, due_at: str, key: str, command_id: str, ctx: CallContext
    ) -> str:
        """A start like any other: the policy decides on it, with ``context.schedule``."""
        schedule = timed.schedule
        scope = {"schedule": {"name": schedule.name, "time": due_at, "time_zone": schedule.time_zone}}
        value = expressions.render(schedule.input, scope)
        if not isinstance(value, dict):
            raise InvalidInput("The input of a run is an object.", code="schedule_input")
        start = cmd.StartWorkflow(
            template=timed.template.ref,
            input=value,
            purpose=f"Schedule {timed.name} at {due_at}",
            idempotency_key=f"schedule:{key}",
        )
        cause = sev.Cause(schedule=timed.name, due_at=due_at)
        context = await self._gate.starts.start(
            principal, start, ctx, claims=((STARTS, key),), command_id=command_id, caused_by=cause
        )
        return str(context.workflow_id)

    async def _record(
        self,
        principal: Principal,
        timed: Timed,
        type_: str,
        data: Model,
        claims: tuple[Claim, ...],
        ctx: CallContext,
        command_id: str | None = None,
    ) -> None:
        event = ev.Event(type=type_, time="", data=data)
        try:
            await self._gate.record_outside(
                principal, [event], ctx, stream=timed.stream, claims=claims, command_id=command_id
            )
        except AlreadyClaimed:  # another process was as quick, and started nothing else
            return

    async def listed(self, principal: Principal) -> list[ScheduleView]:
        """Every schedule, what it did last, and when it comes next. Raises ``Denied``."""
        decision = self._gate.prepare.evaluate(ledger_facts(principal, "audit.read"))
        if decision.verdict != "permit":
            raise denied(decision)
        now, _ = self._gate.moment()
        found = []
        for timed in self.all():
            last = await self._last(principal.tenant, timed) or {}
            found.append(
                ScheduleView(
                    schedule=timed.name,
                    template=timed.template.ref,
                    cron=timed.schedule.cron,
                    time_zone=timed.schedule.time_zone,
                    missed=timed.schedule.missed,
                    settled_through=last.get("through"),
                    last_run=last.get("workflow_id"),
                    not_started=last.get("not_started"),
                    next_at=cron.following(timed.schedule, now),
                )
            )
        return found


def _named(timed: Timed) -> dict[str, str]:
    return {"schedule": timed.name, "cron": timed.schedule.cron, "time_zone": timed.schedule.time_zone}
