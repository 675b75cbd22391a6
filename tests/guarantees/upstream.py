"""The counting server as a running process, and the real registry and runner in front of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charter.manifests.tool_files import HttpConnection, UpstreamManifest
from charter.model.tool import Quarantine, ToolManifest
from charter.tools.adding import discover, propose
from charter.tools.connecting import Sources
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from charter.tools.upstream import Pace
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
SERVER = "counter"


@dataclass(frozen=True)
class Counting:
    """The counting server's folder and address."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def calls(self, tool: str | None = None) -> list[dict[str, Any]]:
        path = self.folder / "calls.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if tool is None or line["tool"] == tool]

    def counts(self, tool: str) -> Counter[str]:
        """How often the tool was called under each idempotency key."""
        return Counter(line["key"] for line in self.calls(tool))

    def forget(self) -> None:
        (self.folder / "calls.jsonl").unlink(missing_ok=True)


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    while True:
        assert process.poll() is None, "the process ended at once"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)


@contextmanager
def counting_process(folder: Path) -> Iterator[Counting]:
    """The server as a process that lasts as long as the block."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [sys.executable, "-m", "tests.guarantees.counting_server", str(folder), str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        wait_for_port(process, port)
        yield Counting(folder, port)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


_ADJUSTED: dict[str, dict[str, Any]] = {
    "write_idempotent": {"timeout_seconds": 3},
    "slow": {"timeout_seconds": 2},
    "secret_echo": {"sensitive_arguments": ("/password",), "sensitive_results": ("",)},
}


async def counting_manifest(counting: Counting) -> UpstreamManifest:
    """What `charter upstream add` proposes, as an operator would correct it."""
    connection = HttpConnection(url=counting.url)
    manifest, left_out = propose(SERVER, connection, (await discover(SERVER, connection, Sources({}))).tools)
    assert left_out == ()
    tools = tuple(tool.model_copy(update=_ADJUSTED.get(tool.upstream_name, {})) for tool in manifest.tools)
    return manifest.model_copy(update={"tools": tools})


class Governed:
    """The registry as the gate sees it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def find(self, name: str) -> ToolManifest | None:
        entry = self._registry.find(name)
        return entry.manifest if entry is not None else None

    def quarantine(self, name: str) -> Quarantine | None:
        entry = self._registry.find(name)
        return entry.quarantine if entry is not None else None

    def all(self) -> tuple[ToolManifest, ...]:
        return tuple(entry.manifest for entry in self._registry.entries())


@asynccontextmanager
async def connected(manifest: UpstreamManifest) -> AsyncIterator[tuple[Governed, Runner]]:
    """The real tools and the real runner."""
    registry = Registry(lambda: (manifest,), Sources({}), pace=Pace(first_pause=0.02, longest_pause=0.2))
    async with registry.running():
        assert await registry.wait_ready(20) == ()
        yield Governed(registry), Runner(registry)
