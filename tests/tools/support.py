"""Real upstream processes for the tests of this room."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio

from charter.manifests.tool_files import Era, HttpConnection, StdioConnection, UpstreamManifest
from charter.model.effect import Effect
from charter.model.tool import ToolManifest
from charter.tools.adding import discover, propose
from charter.tools.connecting import Sources
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from charter.tools.upstream import Pace
from tests import forked

ROOT = Path(__file__).parents[2]
SERVER = "tests.tools.servers.everything"
QUICK = Pace(first_pause=0.02, longest_pause=0.2)
NOTHING = Sources({})


def stdio(state: Path, era: Era = "auto") -> StdioConnection:
    program, *args = forked.command(SERVER, "--state", str(state))
    return StdioConnection(command=program, args=tuple(args), cwd=str(ROOT), era=era)


@contextmanager
def http_process(state: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    command = forked.command(SERVER, "--state", str(state), "--http", str(port))
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        _wait_for_port(process, port)
        yield process
    finally:
        process.send_signal(signal.SIGHUP)  # passed on; it ends the server at once, and then this one
        process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    while True:
        assert process.poll() is None, "the upstream ended at once"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


def http(port: int, era: Era = "auto") -> HttpConnection:
    return HttpConnection(url=f"http://127.0.0.1:{port}/mcp", era=era)


_offered: dict[str, list[dict[str, Any]]] = {}


async def manifest_of(
    connection: StdioConnection | HttpConnection, server: str = "every", **more: Any
) -> UpstreamManifest:
    """What `charter upstream add` would write. Each server is asked once in a test run, over whatever it is behind first."""
    what = "casebook" if server == "casebook" else SERVER
    if what not in _offered:
        _offered[what] = (await discover(server, connection, NOTHING)).tools
    proposed, left_out = propose(server, connection, _offered[what])
    assert left_out == ()
    return proposed.model_copy(update=more)


@asynccontextmanager
async def running(*manifests: UpstreamManifest, sources: Sources = NOTHING) -> AsyncIterator[tuple[Registry, Runner]]:
    registry = Registry(lambda: manifests, sources, pace=QUICK)
    async with registry.running():
        assert await registry.wait_ready(20) == ()
        yield registry, Runner(registry)


def effect(tool: ToolManifest, **arguments: Any) -> Effect:
    return Effect(
        effect_id="eff_1",
        tenant="default",
        workflow_id="wf_1",
        step_id="s",
        tool=tool,
        arguments=arguments,
        idempotency_key="key-1",
    )


def calls(state: Path) -> list[dict[str, Any]]:
    path = state / "calls.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(true: Callable[[], bool], seconds: float = 20) -> None:
    with anyio.fail_after(seconds):
        while not true():  # noqa: ASYNC110 - it waits for other processes
            await anyio.sleep(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
