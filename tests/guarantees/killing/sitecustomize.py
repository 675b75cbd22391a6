"""In a child process only: kills it at the commit that ``KILL_AT_COMMIT`` names (``before:3``, ``after:3``).

``COUNT_COMMITS`` names a file that grows by a byte a commit. The product knows nothing of this.
"""

import os
import signal
from typing import Any

KILL, COUNT = os.environ.get("KILL_AT_COMMIT", ""), os.environ.get("COUNT_COMMITS", "")


class Watched:
    """The writer's connection; its COMMITs are counted."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._when, _, number = KILL.partition(":")
        self._left = int(number or 0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        if sql != "COMMIT":
            return self._connection.execute(sql, *values)
        self._left -= 1
        if COUNT:
            with open(COUNT, "ab") as file:
                file.write(b".")
        if self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = self._connection.execute(sql, *values)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer


if KILL or COUNT:
    from charter.store.sqlite.writer import Writer

    original = Writer.__init__

    def watched(self: Writer, connection: Any) -> None:
        original(self, Watched(connection))  # type: ignore[arg-type]

    Writer.__init__ = watched  # type: ignore[method-assign]
