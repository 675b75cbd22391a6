"""Schedules at the gate: each time starts one run, whatever dies in between; what was missed is on record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from charter.engine.schedules import Scheduler
from charter.errors import Denied, NotFound, Unavailable
from charter.model import commands as cmd
from charter.model.principal import service
from charter.model.template import Template
from charter.policies.shipped import shipped_files
from charter.server.evaluator import PolicySets
from charter.store.port import Filter, Page
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, DAY, OPS, Clock, Desk

pytestmark = pytest.mark.anyio
HOUR = 3600
NINE = {"cron": "0 9 * * *", "time_zone": "UTC", "input": {"day": "{{ schedule.time }}"}}


def timed(*schedules: dict[str, Any], version: str = "1", **more: Any) -> Template:
    steps = [{"id": "done", "type": "condition", "expression": "true"}]
    return Template.model_validate(
        {"name": "report", "version": version, "on_schedule": list(schedules), "steps": steps, **more}
    )


async def keep(desk: Desk, name: str = "report/default") -> Any:
    return await desk.gate.handle(service("schedules", "default"), cmd.KeepSchedule(schedule=name))


async def runs(desk: Desk) -> list[str]:
    """The times for which runs were started."""
    rows, _ = await desk.store.workflows("default", Filter(), Page(limit=200))
    return sorted([(await desk.events(row.workflow_id))[0].data["caused_by"]["due_at"] for row in rows])


async def record(desk: Desk, name: str = "report/default") -> list[tuple[str, Any]]:
    events = await desk.events(f"schedule:{name}")
    return [(event.type, event.data.get("due_at") or event.data.get("missed")) for event in events]


def at_eight(clock: Clock) -> str:
    """2027-01-15, eight in the morning."""
    clock.ms = 1_800_000_000_000
    return "2027-01-15T09:00:00.000Z"


async def test_a_time_that_comes_starts_one_run(opened: Open, upstream: Counting, clock: Clock) -> None:
    nine = at_eight(clock)
    desk = await opened(templates=(timed(NINE),))
    assert await keep(desk) == nine
    assert await runs(desk) == []
    clock.wait(HOUR)
    assert await keep(desk) == "2027-01-16T09:00:00.000Z"
    await keep(desk)
    assert await runs(desk) == [nine]
    (row,), _ = await desk.store.workflows("default", Filter(), Page())
    started, decided, *_ = await desk.events(row.workflow_id)
    assert started.data["input"] == {"day": nine}
    assert started.data["started_by"] == "charter:schedules"
    assert decided.data["facts"]["schedule"] == "report/default"
    fired = (await desk.events("schedule:report/default"))[-1]
    assert (fired.data["workflow_id"], fired.causation_id) == (row.workflow_id, started.causation_id)
    assert await record(desk) == [("SCHEDULE_SET", None), ("SCHEDULE_FIRED", nine)]
    await desk.check_record()


@pytest.mark.guarantee("G6")
async def test_a_process_that_dies_before_the_firing_is_on_record_starts_nothing_twice(
    opened: Open, upstream: Counting, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    nine = at_eight(clock)
    desk = await opened(templates=(timed(NINE),))
    await keep(desk)
    clock.wait(HOUR)
    append, left = desk.store.append, [1]

    async def dying(batch: Any) -> Any:
        if not left:
            raise Unavailable("gone")
        left.pop()
        return await append(batch)

    with monkeypatch.context() as broken:
        broken.setattr(desk.store, "append", dying)
        with pytest.raises(Unavailable):
            await keep(desk)
    assert await runs(desk) == [nine]
    after = await opened(templates=(timed(NINE),))
    clock.wait(DAY)
    await keep(after)
    assert await runs(after) == [nine, "2027-01-16T09:00:00.000Z"]
    assert [item for item in await record(after) if item[0] == "SCHEDULE_FIRED"] == [
        ("SCHEDULE_FIRED", nine),
        ("SCHEDULE_FIRED", "2027-01-16T09:00:00.000Z"),
    ]


async def test_two_processes_at_once_start_one_run(opened: Open, upstream: Counting, clock: Clock) -> None:
    nine = at_eight(clock)
    desks = [await opened(templates=(timed(NINE),)) for _ in range(2)]
    await keep(desks[0])
    clock.wait(HOUR)
    await asyncio.gather(*(keep(desk) for desk in (*desks, *desks)))
    assert await runs(desks[0]) == [nine]
    assert await record(desks[0]) == [("SCHEDULE_SET", None), ("SCHEDULE_FIRED", nine)]


@pytest.mark.parametrize(
    ("missed", "started", "recorded"),
    [
        ("skip", [], [("SCHEDULE_MISSED", 3)]),
        ("once", [17], [("SCHEDULE_FIRED", 17)]),
        ("all", [16, 17], [("SCHEDULE_FIRED", 16), ("SCHEDULE_FIRED", 17)]),
    ],
)
async def test_times_that_passed_while_nobody_was_there(
    opened: Open, upstream: Counting, clock: Clock, missed: str, started: list[int], recorded: list[Any]
) -> None:
    at_eight(clock)
    schedule = {**NINE, "missed": missed, "limit": 2}
    await keep(await opened(templates=(timed(schedule),)))
    clock.wait(2 * DAY + 8 * HOUR)
    desk = await opened(templates=(timed(schedule),))
    await keep(desk)
    await keep(desk)
    day = "2027-01-{}T09:00:00.000Z".format
    assert await runs(desk) == [day(number) for number in started]
    wanted = [(type_, day(what) if type_ == "SCHEDULE_FIRED" else what) for type_, what in recorded]
    assert (await record(desk))[1:] == wanted
    counted = [event.data.get("missed", 0) for event in await desk.events("schedule:report/default")]
    assert sum(counted) + len(started) == 3
    clock.wait(DAY)
    await keep(desk)
    assert len(await runs(desk)) == len(started) + (missed != "skip")


async def test_a_schedule_that_says_other_times_begins_anew(opened: Open, upstream: Counting, clock: Clock) -> None:
    at_eight(clock)
    await keep(await opened(templates=(timed(NINE),)))
    clock.wait(3 * DAY)
    desk = await opened(templates=(timed({**NINE, "cron": "30 9 * * *"}, version="2"),))
    assert await keep(desk) == "2027-01-18T09:30:00.000Z"
    assert await runs(desk) == []
    assert [type_ for type_, _ in await record(desk)] == ["SCHEDULE_SET", "SCHEDULE_SET"]


async def test_a_start_that_is_denied_or_whose_input_is_wrong_is_on_record_and_not_tried_again(
    opened: Open, upstream: Counting, tools: tuple[Governed, Runner], tmp_path: Path, clock: Clock
) -> None:
    files = shipped_files()
    files["authorise.cedar"] += """
@id("no-nights") @reason("Not by this one.") @code("closed") @next("Ask.")
forbid (principal, action == Charter::Action::"workflow.start", resource)
when { context has schedule && context.schedule == "report/night" };
"""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    at_eight(clock)
    schedules = ({**NINE, "name": "night"}, {**NINE, "name": "wrong", "input": {"no": "{{ schedule.none }}"}})
    desk = await opened(templates=(timed(*schedules),), policies=PolicySets(tmp_path, None, tools[0].all()))
    for name in ("report/night", "report/wrong"):
        await keep(desk, name)
    clock.wait(HOUR)
    for name, code in (("report/night", "closed"), ("report/wrong", "expression_error")):
        for _ in range(2):
            await keep(desk, name)
        last = await desk.last(f"schedule:{name}", "SCHEDULE_FIRED")
        assert last["not_started"].startswith(f"{code}: ")
    assert await runs(desk) == []
    verdicts = [event.data["verdict"] for event in await desk.events("tenant:default")]
    assert verdicts == ["deny"]


async def test_only_charter_keeps_schedules(opened: Open, upstream: Counting) -> None:
    desk = await opened(templates=(timed(NINE),))
    for somebody in (OPS, AGENT):
        with pytest.raises(Denied):
            await desk.gate.handle(somebody, cmd.KeepSchedule(schedule="report/default"))
    with pytest.raises(NotFound):
        await keep(desk, "report/none")


async def test_the_list_says_when_it_comes_and_what_it_did(opened: Open, upstream: Counting, clock: Clock) -> None:
    nine = at_eight(clock)
    desk = await opened(templates=(timed(NINE),))
    scheduler = Scheduler(desk.gate, "default")
    assert await scheduler.tick() == 20.0
    clock.wait(HOUR - 10)
    assert 9 < await scheduler.tick() < 10.1
    clock.wait(10)
    await scheduler.tick()
    (listed,) = await desk.gate.schedules.listed(OPS)
    assert (listed.schedule, listed.settled_through) == ("report/default", nine)
    assert listed.next_at == "2027-01-16T09:00:00.000Z"
    assert listed.last_run is not None
    with pytest.raises(Denied):
        await desk.gate.schedules.listed(AGENT)
