"""Finishing what must not be left half done when the caller goes away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import anyio

T = TypeVar("T")
_carried: Final[set[asyncio.Task[Any]]] = set()


async def uninterrupted(work: Awaitable[T]) -> tuple[T, asyncio.CancelledError | None]:
    """Carry ``work`` through whatever happens to the caller; answers its result and the cancellation that came meanwhile.

    The caller puts its books in order and then raises the cancellation, if there is one. Work that is itself part of such work
    is carried already: nobody else knows its task. A future needs no task, which would take two turns of the event loop.
    Work that failed leaves nothing to put in order: then the cancellation is raised, or else what the work raised.
    """
    if asyncio.current_task() in _carried:
        return await work, None
    task = asyncio.ensure_future(work)
    if isinstance(task, asyncio.Task):
        _carried.add(task)
        task.add_done_callback(_carried.discard)
    cancelled: asyncio.CancelledError | None = None
    try:
        await _end_of(task)
    except asyncio.CancelledError as error:
        cancelled = await _regardless(task) or error
    if cancelled is None and anyio.current_effective_deadline() == -math.inf:
        # A scope that was cancelled just now tells it at the next wait only.
        try:
            await anyio.sleep(1)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and task.exception() is not None:
        raise cancelled
    return task.result(), cancelled


async def _regardless(task: asyncio.Future[Any]) -> asyncio.CancelledError | None:
    """Wait for the end. The shield is for cancelled scopes, which say so again at each wait; a task is told once."""
    last: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await _end_of(task)
            except asyncio.CancelledError as error:
                last = error
    return last


def _end_of(task: asyncio.Future[Any]) -> asyncio.Future[None]:
    """Done when the task is. Unlike an await of the task itself, a cancellation of this wait does not reach into it.

    ``asyncio.wait`` does the same at several times the cost, and every governed call waits here twice.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
    return ended
