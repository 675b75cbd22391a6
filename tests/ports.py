"""Ports for servers that tests start as processes of their own."""

from __future__ import annotations

import atexit
import socket

_kept: list[socket.socket] = []


def free_port() -> int:
    """A port of 127.0.0.1 that stays ours until this process ends.

    It is bound here and never listened on: with ``SO_REUSEADDR`` on both sides a server may bind it beside us, while the
    kernel gives it neither to another test's server nor to a connection of anybody's. A port that is looked up and let go
    may be taken in between, and a client that waits for its server may even be connected to itself.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _kept.append(kept)
    return int(kept.getsockname()[1])


@atexit.register
def _let_go() -> None:
    for kept in _kept:
        kept.close()
