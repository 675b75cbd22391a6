"""Sends ``KeepSchedule`` when a schedule's time has come. All that must last is on record; this only keeps an alarm."""

from __future__ import annotations

import logging

import anyio

from charter.errors import CharterError
from charter.gate import Gate
from charter.gate.schedules import Schedules
from charter.model import commands as cmd
from charter.model.principal import service
from charter.model.times import unix_ms_of

logger = logging.getLogger(__name__)

LONGEST_SLEEP = 20.0
"""Seconds; the clock may be set, and the machine may have slept."""
PAUSE = 5.0


class Scheduler:
    """Keeps the schedules of one tenant. Any number of processes may: each time is started once."""

    def __init__(self, gate: Gate, tenant: str) -> None:
        self._gate, self._principal = gate, service("schedules", tenant)
        self._schedules = Schedules(gate)

    async def run(self) -> None:
        """Until cancelled. Templates that are published meanwhile are among them at the next look."""
        while True:
            left = await self.tick()
            await anyio.sleep(min(LONGEST_SLEEP, left))

    async def tick(self) -> float:
        """Start what is due now; seconds until the next time."""
        times, left = [], LONGEST_SLEEP
        for name in [timed.name for timed in self._schedules.all()]:
            try:
                times.append(await self._gate.handle(self._principal, cmd.KeepSchedule(schedule=name)))
            except CharterError as error:
                logger.warning("schedule %s could not be kept: %s", name, error.error_code)
                left = PAUSE
        now = self._gate.parts.clock()
        return min([left, *(max(0.05, (unix_ms_of(at) - now) / 1000) for at in times if at is not None)])
