"""Stopping well: what is under way is waited for, and nothing new is begun."""

from __future__ import annotations

import asyncio

import anyio

from charter.errors import Unavailable


class UnderWay:
    """The commands that are being carried out, those that wait for their tools included; enter it around each."""

    def __init__(self) -> None:
        self.stopping = False
        self._count = 0
        self._none_left = asyncio.Event()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def demand_open(self) -> None:
        """Raises ``Unavailable`` (``stopping``) once :meth:`drain` was called."""
        if self.stopping:
            raise Unavailable(
                "Charter is stopping and takes nothing new; nothing was changed.",
                code="stopping",
                next_step="Try again when it is back.",
            )

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self.stopping and not self._count:
            self._none_left.set()

    async def drain(self, seconds: float) -> int:
        """Take nothing new, and wait at most so many seconds for what is under way; answers how many commands still are."""
        self.stopping = True
        if self._count:
            with anyio.move_on_after(seconds):
                await self._none_left.wait()
        return self._count
