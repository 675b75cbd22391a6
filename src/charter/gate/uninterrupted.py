"""Finishing what must not be left half done when the caller goes away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """Carry ``work`` through whatever happens to the caller; answers its result and the cancellation that came meanwhile.

    The caller puts its books in order and then raises the cancellation, if there is one.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait((task,))  # unlike an await of the task itself, a cancellation does not reach into it
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None and anyio.current_effective_deadline() == -math.inf:
        # A cancelled scope tells nothing through the shield, only at the next wait outside of it.
        try:
            await anyio.sleep(1)
        except asyncio.CancelledError as error:
            cancelled = error
    return task.result(), cancelled
