"""How every contestant of this folder is served: uvicorn with h11 on a free port of the loopback address."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn


def listening() -> socket.socket:
    """A bound socket. The protocol is named, because asyncio sets TCP_NODELAY on accepted sockets only then."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    bound.bind(("127.0.0.1", 0))
    bound.listen(1024)  # before READY is said: who connects then waits in the queue
    return bound


def serve(app: Any, *, uvloop: bool = False) -> None:
    """Serve until a signal; ``READY URL`` goes to standard output once the address is known."""
    bound = listening()
    print(f"READY http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
    config = uvicorn.Config(
        app,
        http="h11",
        loop="uvloop" if uvloop else "asyncio",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="error",
        timeout_keep_alive=600,
    )
    uvicorn.Server(config).run(sockets=[bound])
