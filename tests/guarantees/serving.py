"""``charter serve`` as a real process that can be killed and started again, and a real MCP client in front of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from charter.manifests.tool_files import UpstreamManifest, render
from charter.policies.shipped import shipped_files
from charter.server.keys import load_keys
from charter.server.settings import Settings, load_settings
from charter.server.starter import write_starter
from charter.server.tokens import issue_token
from tests import forked
from tests.guarantees.upstream import ROOT, wait_for_port
from tests.ports import free_port

HOOK = Path(__file__).parent / "killing"

OBLIGATIONS = """
@id("ask-for-tagged") @obligation("require_approval") @approvers("1") @within("PT24H") @reason("A person agrees first.")
permit (principal, action in Charter::Action::"tool.invoke", resource)
when { resource.tags.contains("ask") } unless { context.approved.contains("any:1") };
"""

FLOW = {
    "name": "flow",
    "version": "1",
    "steps": [
        {"id": "keep", "type": "action", "tool": "counter__write_idempotent", "arguments": {"what": "f", "value": "1"}},
        {"id": "pay", "type": "action", "tool": "counter__charge", "arguments": {"account": "f", "cents": 1}},
    ],
}
WAIT = {
    "name": "wait",
    "version": "1",
    "steps": [{"id": "sure", "type": "approval", "question": "Sure?", "expires_after_seconds": 1}],
}


@dataclass
class Served:
    """One installation in a folder. At most one server process at a time; ``last`` is its exit code."""

    folder: Path
    settings: Settings
    process: subprocess.Popen[bytes] | None = None
    log: list[str] = field(default_factory=list)

    @property
    def database(self) -> Path:
        return self.folder / ".charter" / "charter.sqlite"

    def environment(self, **more: str) -> dict[str, str]:
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("CHARTER_", "OTEL_"))}
        return {**mine, "PYTHONPATH": str(HOOK), **more}

    def start(self, **environment: str) -> None:
        """Start it and wait until it takes connections."""
        command = [sys.executable, "-m", "charter.cli", "--config", str(self.folder / "charter.toml"), "serve"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment(**environment), stdout=log, stderr=log
            )
        wait_for_port(self.process, self.settings.server.port)

    def kill(self) -> None:
        """kill -9, at once."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def wait_until_dead(self) -> None:
        assert self.process is not None
        assert self.process.wait(60) == -signal.SIGKILL

    def stop(self) -> None:
        """End it as an operator would, once it answers: it listens before it minds signals."""
        assert self.process is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.settings.server.port}/healthz", timeout=60) as answer:
            answer.read()
        self.process.terminate()
        assert self.process.wait(60) == 0

    def command(self, *arguments: str) -> Any:
        """Run the command line on this installation; its JSON output."""
        line = forked.command("charter.cli", "--config", str(self.folder / "charter.toml"), *arguments)
        done = subprocess.run(
            line, cwd=ROOT, env=self.environment(), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def token(self) -> str:
        return issue_token(
            load_keys(self.settings.keys_folder),
            subject="agent:load",
            kind="agent",
            roles=("agent",),
            acts_for="ann",
            audience=self.settings.audience,
            issuer=self.settings.local_issuer,
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {self.token()}"}
        async with httpx2.AsyncClient(headers=headers, timeout=20, trust_env=False) as http:
            transport = streamable_http_client(self.settings.resource, http_client=http)
            async with Client(transport) as client:
                yield client


def install(folder: Path, manifest: UpstreamManifest) -> Served:
    """What ``charter init`` writes, with the counting upstream, two templates and policies that seldom ask."""
    tools = tuple(
        tool.model_copy(update={"tags": ("ask",)} if tool.upstream_name == "slow" else {}) for tool in manifest.tools
    )
    files = {name: text for name, text in shipped_files().items() if name.startswith("authorise")}
    extra = {
        "tools/counter.tools.yaml": render(manifest.model_copy(update={"tools": tools})),
        "templates/flow.json": json.dumps(FLOW),
        "templates/wait.json": json.dumps(WAIT),
        **{f"policies/{name}": text for name, text in files.items()},
        "policies/obligations.cedar": OBLIGATIONS,
    }
    write_starter(folder, person="ann", extra=extra)
    (folder / "policies" / "obligations.cedar").write_text(OBLIGATIONS)
    config = folder / "charter.toml"
    config.write_text(config.read_text().replace("port = 8420", f"port = {free_port()}"))
    return Served(folder, load_settings(config, environ={}))
