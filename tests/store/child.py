"""A second process for the store's tests: ``python -m tests.store.child COMMAND PATH ...``. It prints one JSON a line."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from charter.errors import CharterError
from charter.store.port import Claim, Store, VersionConflict
from charter.store.sqlite import SqliteStore
from tests.store.making import a_batch, a_workflow, an_effect


def say(**what: Any) -> None:
    print(json.dumps(what), flush=True)


async def endless(store: Store, name: str) -> None:
    """Append without end, several at a time, and say what was acknowledged."""

    async def write(stream: str) -> None:
        version = await store.version("acme", stream)
        while True:
            key = f"{stream}-{version}"
            batch = a_batch(
                stream, version, events=3, workflow=a_workflow(stream), claims=(Claim("request", key, name),)
            )
            appended = await store.append(batch)
            version = appended.version
            say(stream=stream, version=version, first_seq=appended.first_seq, key=key, ids=[e.id for e in batch.events])

    await asyncio.gather(*(write(f"{name}-{n}") for n in range(8)))


async def contended(store: Store, times: str) -> None:
    """Append to the one stream that everybody writes, so many times, deciding again after each conflict."""
    done = 0
    while done < int(times):
        try:
            appended = await store.append(a_batch("shared", await store.version("acme", "shared")))
        except VersionConflict:
            continue
        done += 1
        say(version=appended.version)


async def full(store: Store, path: str) -> None:
    """Append while the files may not grow, then again when they may."""
    await store.append(a_batch("before"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_of(path + "-wal") + 4096, hard))
    answers = await asyncio.gather(
        *(store.append(a_batch(f"failed-{n}", 0)) for n in range(10)), return_exceptions=True
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for answer in answers:
        assert isinstance(answer, CharterError), answer
        say(**answer.as_json())
    await store.append(a_batch("after"))


def size_of(path: str) -> int:
    return os.path.getsize(path)


async def enlisted(store: Store, instance: str) -> None:
    """Be alive, with an effect running, until killed."""
    await store.enlist(instance)
    await store.append(a_batch(effects=(an_effect("e1", instance=instance),)))
    say(instance=instance)
    await asyncio.sleep(600)


COMMANDS: dict[str, Callable[[Store, str], Awaitable[None]]] = {
    "endless": endless,
    "contended": contended,
    "full": full,
    "enlisted": enlisted,
}


async def main(command: str, path: str, *more: str) -> None:
    store = SqliteStore(path)
    await store.open()
    await COMMANDS[command](store, *(more or (path,)))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
