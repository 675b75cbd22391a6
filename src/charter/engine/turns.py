"""Sharing the event loop's turns: a burst of work begins a part at a time, so that what else goes on has its part of each."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Lets ``most`` enter in one turn of the event loop; who comes later waits for the next turns, first come first."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """At once while there is room in this turn. It need not be left."""
        loop = asyncio.get_running_loop()
        if self._left == self._most:
            loop.call_soon(self._next)
        if self._left:
            self._left -= 1
            return
        place = loop.create_future()
        self._waiting.append(place)
        await place

    def _next(self) -> None:
        self._left = self._most
        while self._left and self._waiting:
            place = self._waiting.popleft()
            if not place.done():  # it was cancelled
                place.set_result(None)
                self._left -= 1
        if self._left < self._most:
            asyncio.get_running_loop().call_soon(self._next)
