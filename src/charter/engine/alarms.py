"""What falls due within the next moment, each with a timer of the event loop's own.

A driver that slept until the first of them would first wake, then look whose time has come, then begin it: on a busy server
each of these waits for its turn behind all calls that go on. A timer begins it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from charter.model.times import unix_ms_of
from charter.store.port import Due


class Alarms:
    """Calls ``ring`` with each run at its time. ``clock``: milliseconds since 1970, which may be set meanwhile."""

    def __init__(self, clock: Callable[[], int], ring: Callable[[Due], None]) -> None:
        self._clock, self._ring = clock, ring
        self._set: dict[Due, tuple[str, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._set)

    def set(self, soon: Iterable[Due]) -> None:
        """Have these runs ring, each once, at their ``wake_at``; and no others any more."""
        before, self._set = self._set, {}
        for due in soon:
            time, handle = before.pop(due, ("", None))
            if handle is not None and time == due.wake_at:
                self._set[due] = time, handle
            else:
                self._arm(due)
                if handle is not None:
                    handle.cancel()
        for _, handle in before.values():
            handle.cancel()

    def clear(self) -> None:
        """Ring no more."""
        self.set(())

    def _arm(self, due: Due) -> None:
        seconds = (unix_ms_of(due.wake_at) - self._clock()) / 1000
        self._set[due] = due.wake_at, asyncio.get_running_loop().call_later(seconds, self._come, due)

    def _come(self, due: Due) -> None:
        if self._clock() < unix_ms_of(due.wake_at):
            self._arm(due)  # the loop's clock was before the other one
            return
        del self._set[due]
        self._ring(due)
