"""kill -9 while a server catches up with the times that passed without it: each starts one run, also by two servers.

No clock is moved: the schedules were set on record some hours ago, and no server has run since.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.model import commands as cmd
from charter.model.principal import service
from charter.model.times import later, rfc3339
from charter.server.app import now_ms, running
from charter.server.settings import load_settings
from charter.server.starter import write_starter
from charter.store.sqlite import SqliteStore
from tests.guarantees.serving import Served
from tests.guarantees.test_crash import streams_of
from tests.guarantees.upstream import ROOT
from tests.ports import free_port

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.guarantee("G6"),
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal"),
]

HOUR = 3600
POLICIES = {"skip": {}, "once": {}, "all": {"limit": 2}}
WANTED = {"skip": 0, "once": 1, "all": 2}
"""How many of the three times that passed start a run: none, the newest, the two newest."""


def scheduled(missed: str, minute: int) -> str:
    schedule = {"cron": f"{minute} * * * *", "missed": missed, **POLICIES[missed]}
    steps = [{"id": "done", "type": "condition", "expression": "true"}]
    return json.dumps({"name": missed, "version": "1", "on_schedule": [schedule], "steps": steps})


async def set_three_hours_ago(folder: Path) -> tuple[Served, list[str]]:
    """An installation whose schedules were set, and whose server was then ended; and the times that have passed since."""
    now = now_ms() // 60_000 * 60_000
    minute = (now // 60_000 - 30) % 60  # half an hour from the next time, so none comes while this runs
    write_starter(folder, person="ann", extra={f"templates/{each}.json": scheduled(each, minute) for each in POLICIES})
    for file in (folder / "tools").iterdir():
        file.unlink()  # no tools are needed
    config = folder / "charter.toml"
    config.write_text(config.read_text().replace("port = 8420", f"port = {free_port()}"))
    settings = load_settings(config, environ={})
    async with running(settings, drive=False, connect=False, clock=lambda: now - 3 * HOUR * 1000) as charter:
        for each in POLICIES:
            keep = cmd.KeepSchedule(schedule=f"{each}/default")
            await charter.gate.handle(service("schedules", "default"), keep)
    return Served(folder, settings), [later(rfc3339(now), -seconds) for seconds in (9000, 5400, 1800)]


async def settled(store: SqliteStore, due: list[str]) -> bool:
    """Whether every schedule is through with what has passed."""
    streams = [await store.load("default", f"schedule:{each}/default") for each in POLICIES]
    return all(json.loads(rows[-1].leaf)["data"]["through"] >= due[-1] for rows in streams)


@pytest.mark.parametrize("deaths", [0, pytest.param(12, marks=pytest.mark.slow)])
async def test_each_time_that_passed_while_the_server_was_dead_starts_one_run(tmp_path: Path, deaths: int) -> None:
    """The last two servers run at once, of which one is to die while it catches up."""
    served, due = await set_three_hours_ago(tmp_path)
    chance = random.Random(5)
    store = SqliteStore(served.database)
    await store.open()
    second: subprocess.Popen[bytes] | None = None
    try:
        for _ in range(deaths):
            when = f"{chance.choice(['before', 'after'])}:{chance.randint(2, 12)}"
            with suppress(AssertionError):  # it may die while it starts
                served.start(KILL_AT_COMMIT=when)
            await until_dead_or_settled(served, store, due)
        second = beside(served, KILL_AT_COMMIT="after:4")
        served.start()
        with anyio.fail_after(60):
            while not await settled(store, due):  # noqa: ASYNC110 - another process does it
                await anyio.sleep(0.1)
        second.send_signal(signal.SIGKILL)
        second.wait()
        served.stop()
    finally:
        await store.close()
        for process in (served.process, second):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
    check(await streams_of(served), due)


def beside(served: Served, **environment: str) -> subprocess.Popen[bytes]:
    """A second server on the same database."""
    config = str(served.folder / "charter.toml")
    command = [sys.executable, "-m", "charter.cli", "--config", config, "serve", "--port", "0"]
    with (served.folder / "second.log").open("ab") as log:
        return subprocess.Popen(command, cwd=ROOT, env=served.environment(**environment), stdout=log, stderr=log)


async def until_dead_or_settled(served: Served, store: SqliteStore, due: list[str]) -> None:
    assert served.process is not None
    with anyio.fail_after(60):
        while served.process.poll() is None:
            if await settled(store, due):
                served.kill()
                return
            await anyio.sleep(0.1)
    assert served.process.returncode == -signal.SIGKILL


def check(found: dict[str, list[Any]], due: list[str]) -> None:
    """One run for each time that the policy does not leave out; what it leaves out is counted."""
    runs = [events for stream, events in found.items() if stream.startswith("wf_")]
    started = Counter((each[0].data["template"].split("@")[0], each[0].data["caused_by"]["due_at"]) for each in runs)
    assert started == {(policy, time): 1 for policy, number in WANTED.items() for time in due[3 - number :]}
    for policy, number in WANTED.items():
        events = found[f"schedule:{policy}/default"]
        fired = [event.data["due_at"] for event in events if event.type == "SCHEDULE_FIRED"]
        assert fired == due[3 - number :]
        assert sum(event.data.get("missed", 0) for event in events) == 3 - number
    assert all(each[-1].type == "WORKFLOW_COMPLETED" for each in runs)
