"""Times by cron expressions in a time zone, and which of them to run when some were missed.

Daylight saving as in Debian's cron: a time that the clock jumps over runs right after the jump, one that comes twice runs
once; expressions with ``*`` in their hours or minutes go by elapsed time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from charter.model.template import ScheduleStart
from charter.model.times import rfc3339, unix_ms_of

FIELDS = 5
MOST = 100
"""So many times that were missed are looked at, the newest."""


def problem(cron: str, time_zone: str) -> str | None:
    """Why these give no times, or None."""
    try:
        zone = _zone(time_zone)
    except (KeyError, ValueError, OSError):
        return f"there is no time zone {time_zone!r}"
    if len(cron.split()) != FIELDS:
        return f"{cron!r} has not five fields: minute, hour, day of the month, month, day of the week"
    try:
        first = next(CronSim(cron, datetime(2026, 1, 1, tzinfo=zone)), None)
    except CronSimError as error:
        return f"{cron!r} is no cron expression: {error}"
    return f"{cron!r} never comes" if first is None else None


def following(schedule: ScheduleStart, after: str) -> str | None:
    """The first time after ``after`` (RFC 3339), or None when there is none any more."""
    found = next(CronSim(schedule.cron, _local(schedule, after)), None)
    return None if found is None else _text(found)


def between(schedule: ScheduleStart, after: str, until: str, most: int = MOST) -> list[str]:
    """The newest ``most`` times with ``after < time <= until``, in order."""
    first = following(schedule, after)
    if first is None or first > until:
        return []
    newest: list[str] = []
    # Strictly before one minute more, which is at or before `until`'s own minute, as times have no seconds.
    for moment in CronSim(schedule.cron, _local(schedule, until, ms_more=60_000), reverse=True):
        text = _text(moment)
        if text <= after or len(newest) == most:
            break
        if text <= until:
            newest.append(text)
    return newest[::-1]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is due: all ``times``, in order, and those of them that are run."""

    times: tuple[str, ...]
    run: tuple[str, ...]


def plan(schedule: ScheduleStart, through: str, now: str) -> Plan:
    """What to do at ``now`` when everything until ``through`` is settled.

    The newest time is not missed while it is at most ``grace_seconds`` past.
    """
    times = between(schedule, through, now)
    if not times:
        return Plan((), ())
    on_time = unix_ms_of(now) - unix_ms_of(times[-1]) <= schedule.grace_seconds * 1000
    if schedule.missed == "all":
        run = times[-schedule.limit :]
    elif schedule.missed == "once" or on_time:
        run = times[-1:]
    else:
        run = []
    return Plan(tuple(times), tuple(run))


def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _local(schedule: ScheduleStart, text: str, ms_more: int = 0) -> datetime:
    return datetime.fromtimestamp((unix_ms_of(text) + ms_more) / 1000, _zone(schedule.time_zone))


def _text(moment: datetime) -> str:
    return rfc3339(int(moment.astimezone(UTC).timestamp() * 1000))
