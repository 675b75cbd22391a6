"""Standard input that can be ended from inside: the thread that reads it cannot be woken otherwise."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHUNK = 1 << 16


@contextmanager
def endable_stdin(at_end: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """While the block lasts, descriptor 0 is a pipe that a thread fills from the real one; the result ends it.

    When the real one ends, ``at_end`` is called in that thread, and the pipe stays open until the result is called: what is
    under way may still be answered. Where one cannot wait for a pipe (Windows) neither is there, and the end is the end.
    """
    if os.name != "posix":
        yield lambda: None
        return
    real = os.dup(sys.stdin.fileno())
    filled_from, filling = os.pipe()
    woken, waking = os.pipe()
    os.dup2(filled_from, sys.stdin.fileno())
    os.close(filled_from)
    copying = threading.Thread(target=_copy, args=(real, woken, filling, at_end), daemon=True)
    copying.start()
    try:
        yield lambda: _wake(waking)
    finally:
        _wake(waking)
        os.dup2(real, sys.stdin.fileno())  # whoever reads the pipe is gone; a copy that waits to write meets EPIPE
        copying.join()
        for descriptor in (real, woken, waking):
            os.close(descriptor)


def _wake(waking: int) -> None:
    os.write(waking, b".")


def _copy(real: int, woken: int, filling: int, at_end: Callable[[], object]) -> None:
    sources = [real, woken]
    try:
        while woken not in (ready := select.select(sources, [], [])[0]):
            data = os.read(ready[0], _CHUNK)
            if not data:
                sources.remove(real)
                at_end()
            while data:
                data = data[os.write(filling, data) :]
    except OSError:
        return
    finally:
        os.close(filling)
