"""Who is measured, and how each is set up: the same upstream tool, called directly and through each proxy."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt

from bench import disk, processes
from bench.governed import Sessions, install, served
from bench.load import Requests
from bench.processes import Running
from bench.rpc import Target

TEXT = "The quick brown fox jumps over the lazy dog."
EXPECTED = TEXT.encode()
ARGUMENTS = {"text": TEXT}
SECRET = "a secret of the benchmark alone, and of no other thing"
_AIRLOCK_POLICY = """\
version: 1
environment: bench
tools:
  echo:
    tiers: { bench: L0 }
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """``requests`` gives the n-th caller's next request."""

    name: str
    about: str
    target: Target
    running: Running
    requests: Requests


@dataclass(slots=True)
class Field:
    """All that run, and the upstream that they share."""

    upstream: Running
    contestants: list[Contestant] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def named(self, name: str) -> Contestant:
        return next(item for item in self.contestants if item.name == name)


ABOUT: Mapping[str, str] = {
    "direct": "the upstream itself",
    "bare": "the bare proxy: the same SDK, one kept client; governs and records nothing",
    "bare-uvloop": "the bare proxy on uvloop, as Charter runs",
    "charter": "Charter, the governed tool under its own name",
    "charter-invoke": "Charter, by `invoke_tool`",
    "charter-ram": "Charter with its store in memory: what is not the disk's",
    "airlock": "mcp-airlock: bearer token, policy, JSONL chain that is not synced",
    "fastmcp-reused": "FastMCP's proxy with one connected client",
    "fastmcp-default": "FastMCP's proxy as it comes, a client a request",
}


@asynccontextmanager
async def field_of(callers: int, names: tuple[str, ...] = tuple(ABOUT)) -> AsyncIterator[Field]:
    """All contestants, up and ready for so many callers. Those that are not installed are told in ``missing``."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="charter-bench-")))
        upstream = stack.enter_context(processes.module("upstream"))
        found = Field(upstream)
        plain = _plain(upstream, stack, names)
        for name, running in plain.items():
            found.contestants.append(_caller(name, running, {}))
        if {"charter", "charter-invoke"} & set(names):
            await _add_charter(found, stack, folder / "charter", callers)
        if "charter-ram" in names and disk.RAM.is_dir():
            ram = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="charter-bench-", dir=disk.RAM)))
            await _add_charter(found, stack, ram, callers, ram=True)
        _add_competitors(found, stack, folder, names)
        yield found


def _plain(upstream: Running, stack: AsyncExitStack, names: tuple[str, ...]) -> dict[str, Running]:
    started = {"direct": upstream} if "direct" in names else {}
    if "bare" in names:
        started["bare"] = stack.enter_context(processes.module("bare", upstream.url))
    if "bare-uvloop" in names and importlib.util.find_spec("uvloop") is not None:
        started["bare-uvloop"] = stack.enter_context(processes.module("bare", upstream.url, "uvloop"))
    return started


def _caller(name: str, running: Running, headers: dict[str, str]) -> Contestant:
    target = Target(running.url, headers)
    return Contestant(name, ABOUT[name], target, running, lambda _caller: target.call("echo", ARGUMENTS))


async def _add_charter(found: Field, stack: AsyncExitStack, folder: Path, callers: int, *, ram: bool = False) -> None:
    running = stack.enter_context(served(install(folder, found.upstream)))
    sessions = Sessions(running)
    await sessions.start(callers)
    target = sessions.target
    ways = {"charter": sessions.by_name, "charter-invoke": sessions.by_invoke}
    for name, make in ({"charter-ram": sessions.by_name} if ram else ways).items():
        requests = _with(make, ARGUMENTS)
        found.contestants.append(Contestant(name, ABOUT[name], target, running, requests))


def _with(make: Any, arguments: Mapping[str, Any]) -> Requests:
    return lambda caller: make(caller, arguments)


def _add_competitors(found: Field, stack: AsyncExitStack, folder: Path, names: tuple[str, ...]) -> None:
    wanted = [name for name in ("airlock", "fastmcp-reused", "fastmcp-default") if name in names]
    python = processes.competitors_python()
    if python is None:
        found.missing |= dict.fromkeys(wanted, "not installed: `make bench` makes their environment")
        return
    for name in wanted:
        with ExitStack() as own:
            if name == "airlock":
                contestant = _airlock(found.upstream, own, folder, python)
            else:
                mode = name.removeprefix("fastmcp-")
                running = own.enter_context(processes.module("fastmcp_proxy", found.upstream.url, mode, python=python))
                contestant = _caller(name, running, {})
            stack.push(own.pop_all())
            found.contestants.append(contestant)


def _airlock(upstream: Running, stack: ExitStack, folder: Path, python: Path) -> Contestant:
    policy, audit, port = folder / "airlock.yaml", folder / "airlock.jsonl", processes.free_port()
    policy.write_text(_AIRLOCK_POLICY)
    argv = [str(python.parent / "mcp-airlock"), "--policy", str(policy), "--audit", str(audit)]
    argv += ["--upstream", upstream.url, "--port", str(port)]
    url = f"http://127.0.0.1:{port}/mcp"
    running = stack.enter_context(processes.command("airlock", argv, url, {"AIRLOCK_JWT_SECRET": SECRET}))
    token = jwt.encode({"sub": "agent-1", "exp": int(time.time()) + 86_400}, SECRET, "HS256")
    return _caller("airlock", running, {"Authorization": f"Bearer {token}"})
