"""Charter as a user has it (``charter init``, ``upstream add``, ``token issue``, ``serve``), and its callers' workflows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import processes
from bench.processes import NotStarted, Running
from bench.rpc import CallFailed, Target, call

TOOL = "up__echo"
TEMPLATE = "bench-session"
CALLS_BUDGET = 1_000_000_000
_TEMPLATE = f"""\
name: {TEMPLATE}
version: "1"
title: A long session
description: One agent step whose budget of calls a benchmark does not use up.
steps:
  - id: work
    type: agent
    instructions: Call the tool.
    allowed_tools: ["*"]
    calls: {CALLS_BUDGET}
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A configured Charter in its folder, with an agent's token."""

    folder: Path
    port: int
    token: str

    @property
    def database(self) -> Path:
        """Its SQLite file."""
        return next(path for path in (self.folder / ".charter").iterdir() if path.suffix in (".db", ".sqlite"))


def install(folder: Path, upstream: Running) -> Installed:
    """Set up a Charter in front of this upstream by its own commands; shipped policies, token auth, SQLite on disk."""
    port = processes.free_port()
    _cli(["init", "--bare", "--person", "alice", str(folder)])
    config = folder / "charter.toml"
    config.write_text(config.read_text().replace("port = 8420", f"port = {port}"))
    (folder / "templates").mkdir(exist_ok=True)
    (folder / "templates" / f"{TEMPLATE}.yaml").write_text(_TEMPLATE)
    _set(config, "workflows", "templates", '"templates"')
    _cli(["--config", str(config), "upstream", "add", "up", "--url", upstream.url])
    token = _cli(["--config", str(config), "token", "issue", "--agent", "agent-1", "--acts-for", "alice"])
    return Installed(folder, port, token.strip())


def _set(config: Path, section: str, key: str, value: str) -> None:
    """Set a key that the starter's file has commented out, or not."""
    lines = [line for line in config.read_text().splitlines() if not line.startswith(f"{key} =")]
    if f"[{section}]" not in lines:
        lines.append(f"[{section}]")
    lines.insert(lines.index(f"[{section}]") + 1, f"{key} = {value}")
    config.write_text("\n".join(lines) + "\n")


def _cli(args: list[str]) -> str:
    command = [sys.executable, "-m", "charter.cli", *args]
    done = subprocess.run(command, cwd=processes.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotStarted(f"charter {' '.join(args[:4])}: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return done.stdout


@contextmanager
def served(installed: Installed) -> Iterator[Running]:
    """``charter serve``, until the block ends."""
    argv = [sys.executable, "-m", "charter.cli", "--config", str(installed.folder / "charter.toml"), "serve"]
    url = f"http://127.0.0.1:{installed.port}/mcp"
    with processes.command("charter", argv, url, {"CHARTER_SERVER_LOG_LEVEL": "error"}) as running:
        yield Running(running.name, url, running.pid, {"token": installed.token})


class Sessions:
    """Workflows by caller, and the requests made in them: one workflow for each caller, as agents have."""

    def __init__(self, running: Running) -> None:
        self.target = Target(running.url, {"Authorization": f"Bearer {running.more['token']}"})
        self.ids: list[dict[str, str]] = []

    async def start(self, callers: int) -> None:
        """Workflows until there is one for each of so many callers."""
        while len(self.ids) < callers:
            self.ids.append(await self.open())

    async def renew(self, caller: int) -> None:
        """A new workflow for this caller; the old one is cancelled, as work ends."""
        await self.end(caller)
        self.ids[caller] = await self.open()

    async def end(self, caller: int) -> str:
        """Cancel this caller's workflow and tell its id."""
        workflow_id = self.ids[caller]["workflow_id"]
        await call(self.target, "cancel_workflow", {"workflow_id": workflow_id, "reason": "done"})
        return workflow_id

    async def open(self) -> dict[str, str]:
        """The two ids of a new workflow's open invocation."""
        arguments = {"template": TEMPLATE, "purpose": "Measure how long a governed call takes"}
        context = (await call(self.target, "start_workflow", arguments))["structuredContent"]
        if not context.get("invocations"):
            raise CallFailed(f"the workflow has no open invocation: {context}")
        names = ("workflow_id", "agent_invocation_id")
        return {name: {**context, **context["invocations"][0]}[name] for name in names}

    def by_name(self, caller: int, arguments: Mapping[str, Any]) -> bytes:
        """A call of the governed tool under its own name."""
        return self.target.call(TOOL, {**self.ids[caller], **arguments})

    def by_invoke(self, caller: int, arguments: Mapping[str, Any]) -> bytes:
        """The same call through ``invoke_tool``."""
        return self.target.call("invoke_tool", {**self.ids[caller], "tool": TOOL, "arguments": dict(arguments)})
