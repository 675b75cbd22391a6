"""Times by cron: in their zone, over daylight saving, and which are run when some were missed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.manifests.cron import MOST, Plan, between, following, plan, problem
from charter.model.template import ScheduleStart
from charter.model.times import rfc3339


def at(cron: str, zone: str = "Europe/Berlin", **more: object) -> ScheduleStart:
    return ScheduleStart.model_validate({"cron": cron, "time_zone": zone, **more})


@pytest.mark.parametrize(
    ("cron", "zone", "says"),
    [
        ("0 9 * *", "UTC", "five fields"),
        ("0 0 9 * * *", "UTC", "five fields"),
        ("61 * * * *", "UTC", "no cron expression"),
        ("0 9 * * MOON", "UTC", "no cron expression"),
        ("0 0 30 2 *", "UTC", "day-of-month|never"),
        ("0 9 * * *", "Europe/Atlantis", "no time zone"),
        ("0 9 * * *", "../../etc/passwd", "no time zone"),
        ("0 9 * * *", "", "no time zone"),
    ],
)
def test_what_gives_no_times_is_told(cron: str, zone: str, says: str) -> None:
    found = problem(cron, zone)
    assert found is not None
    assert any(part in found for part in says.split("|"))


@pytest.mark.parametrize(
    ("cron", "zone"), [("0 9 * * MON-FRI", "Europe/Berlin"), ("*/5 * * * *", "UTC"), ("0 0 29 2 *", "UTC")]
)
def test_what_gives_times_is_taken(cron: str, zone: str) -> None:
    assert problem(cron, zone) is None


def test_the_same_hour_of_the_day_in_winter_and_summer() -> None:
    nine = at("0 9 * * *")
    assert following(nine, "2026-03-27T12:00:00.000Z") == "2026-03-28T08:00:00.000Z"
    assert following(nine, "2026-03-28T12:00:00.000Z") == "2026-03-29T07:00:00.000Z"


def test_a_time_that_the_clock_jumps_over_comes_right_after_the_jump() -> None:
    times = between(at("30 2 * * *"), "2026-03-28T00:00:00.000Z", "2026-03-30T23:00:00.000Z")
    assert times == ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"]


def test_a_time_that_comes_twice_comes_once() -> None:
    times = between(at("30 2 * * *"), "2026-10-24T12:00:00.000Z", "2026-10-26T12:00:00.000Z")
    assert times == ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"]


def test_every_hour_goes_by_elapsed_time() -> None:
    times = between(at("0 * * * *"), "2026-10-24T23:30:00.000Z", "2026-10-25T03:00:00.000Z")
    assert times == [f"2026-10-25T0{hour}:00:00.000Z" for hour in range(4)]


def test_after_is_left_out_and_until_is_in() -> None:
    noon = at("0 12 * * *", "UTC")
    assert between(noon, "2026-11-21T12:00:00.000Z", "2026-11-22T12:00:00.000Z") == ["2026-11-22T12:00:00.000Z"]
    assert between(noon, "2026-11-21T12:00:00.000Z", "2026-11-22T11:59:59.999Z") == []
    assert between(noon, "2026-11-22T12:00:00.000Z", "2026-11-21T12:00:00.000Z") == []


def test_a_long_absence_costs_little() -> None:
    times = between(at("* * * * *", "UTC"), "2020-01-01T00:00:00.000Z", "2026-11-21T12:00:30.000Z")
    assert len(times) == MOST
    assert times[-1] == "2026-11-21T12:00:00.000Z"


DAYS = ["2026-11-18T09:00:00.000Z", "2026-11-19T09:00:00.000Z", "2026-11-20T09:00:00.000Z"]
SINCE = "2026-11-17T12:00:00.000Z"


@pytest.mark.parametrize(
    ("missed", "now", "run"),
    [
        ("skip", "2026-11-20T09:00:59.000Z", DAYS[2:]),
        ("skip", "2026-11-20T09:01:01.000Z", []),
        ("once", "2026-11-20T09:00:59.000Z", DAYS[2:]),
        ("once", "2026-11-20T18:00:00.000Z", DAYS[2:]),
        ("all", "2026-11-20T18:00:00.000Z", DAYS[1:]),
    ],
)
def test_what_is_run_of_what_was_missed(missed: str, now: str, run: list[str]) -> None:
    schedule = at("0 9 * * *", "UTC", missed=missed, limit=2)
    assert plan(schedule, SINCE, now) == Plan(tuple(DAYS), tuple(run))


STARTS = st.integers(min_value=29_000_000, max_value=30_500_000)
CRONS = st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "15 10 * * MON", "59 23 L * *", "0 0 1 */2 *"])
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])


@settings(max_examples=50, deadline=None)
@given(CRONS, ZONES, STARTS, st.integers(min_value=0, max_value=3000))
def test_looking_back_finds_what_looking_forward_finds(cron: str, zone: str, start: int, span: int) -> None:
    after, until = (rfc3339(minute * 60_000) for minute in (start, start + span))
    schedule, forward, time = at(cron, zone), list[str](), after
    while (found := following(schedule, time)) is not None and found <= until:
        forward.append(found)
        time = found
    assert between(schedule, after, until, most=10_000) == forward
