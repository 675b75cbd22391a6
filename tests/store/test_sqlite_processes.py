"""Several processes on one SQLite file, and processes that are killed. Guarantee 6: what was acknowledged survives."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from charter.store.port import Store
from charter.store.sqlite import SqliteStore
from tests.store.making import a_batch, an_effect, whole_log

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "charter.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    store = SqliteStore(path)
    await store.open()
    yield store
    await store.close()


def child(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.store.child", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What a child says until it ends; a last line that the kill cut off does not count."""
    assert process.stdout
    with process.stdout as lines:
        return [json.loads(line) for line in lines if line.endswith("\n")]


async def test_processes_that_write_one_stream_lose_nothing_and_leave_no_gap(store: Store, path: Path) -> None:
    children = [child("contended", path, 40) for _ in range(3)]
    versions = [line["version"] for process in children for line in said(process)]
    assert [process.wait() for process in children] == [0, 0, 0]
    assert sorted(versions) == list(range(1, 121))
    assert len(await whole_log(store, "acme")) == 120


async def test_all_that_a_killed_writer_acknowledged_is_there_and_verifies(path: Path) -> None:
    chance = random.Random(7)
    acknowledged: list[dict[str, Any]] = []
    for round_ in range(6):
        process = child("endless", path, "writer")
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(chance.randrange(1, 120))]
        process.kill()
        acknowledged += [json.loads(line) for line in lines] + said(process)
        process.wait()
        store = SqliteStore(path)
        await store.open()
        by_seq = {event.seq: event for event in await whole_log(store, "acme")}
        for line in acknowledged:
            events = [by_seq[line["first_seq"] + n] for n in range(3)]
            assert [event.id for event in events] == line["ids"]
            assert {event.stream for event in events} == {line["stream"]}
            assert events[-1].version == line["version"]
            assert await store.claimed("acme", "request", line["key"]) == "writer"
        await store.append(a_batch("between", round_))
        await store.close()
    assert acknowledged


async def test_a_killed_writer_beside_a_living_one_harms_nobody(store: Store, path: Path) -> None:
    process = child("endless", path, "doomed")
    assert process.stdout
    process.stdout.readline()
    for version in range(20):
        await store.append(a_batch("living", version))
    process.kill()
    said(process)
    process.wait()
    for version in range(20, 40):
        await store.append(a_batch("living", version))
    events = await whole_log(store, "acme")
    assert [event.version for event in events if event.stream == "living"] == list(range(1, 41))
    # Each of its batches has three events: whole or not there.
    doomed = [event.stream for event in events if event.stream.startswith("doomed")]
    assert all(doomed.count(stream) % 3 == 0 for stream in set(doomed))


async def test_when_commit_fails_all_of_the_group_fail_and_nothing_of_it_is_there(store: Store, path: Path) -> None:
    process = child("full", path)
    answers = said(process)
    assert process.wait() == 0
    assert len(answers) == 10
    for answer in answers:
        assert answer["code"] == "store_unavailable"
        assert answer["next_step"]
        assert answer["detail"] == {"unknown": True}  # an error of the disk in COMMIT itself
    streams = {event.stream for event in await whole_log(store, "acme")}
    assert streams == {"before", "after"}


async def test_the_effects_of_a_killed_server_are_found_and_those_of_a_living_one_left(
    store: Store, path: Path
) -> None:
    process = child("enlisted", path, "srv_child")
    assert process.stdout
    process.stdout.readline()
    assert await store.running_effects_of_dead_instances() == []
    process.kill()
    said(process)
    process.wait()
    assert await store.running_effects_of_dead_instances() == [("acme", an_effect("e1", instance="srv_child"))]
    # Again, now that the dead server's lock file has been removed.
    assert len(await store.running_effects_of_dead_instances()) == 1
