"""The command line as people use it: subprocesses on a temporary folder, beside a real server."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import yaml
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from charter.cli.failing import run_command
from charter.cli.root import app
from tests import forked
from tests.ports import free_port

PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)

    @property
    def both(self) -> str:
        """Everything that a person at a terminal would see."""
        return self.out + self.err


@dataclass(frozen=True, slots=True)
class Project:
    """A folder that ``charter init`` made, with a port of its own."""

    folder: Path
    port: int
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def database(self) -> Path:
        return self.folder / ".charter" / "charter.sqlite"

    def charter(self, *args: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Done:
        """One command in a process of its own. Nothing that it prints may be a traceback."""
        return charter(*args, cwd=self.folder, stdin=stdin, env={**self.env, **(env or {})})

    def here(self, *args: str) -> Done:
        """One command in this process, which is quicker; ``charter`` shows that the same works in one of its own."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = run_command(app, ["--config", str(self.folder / "charter.toml"), *args])
        return Done(code, out.getvalue(), err.getvalue())

    def ok(self, *args: str, **more: Any) -> Done:
        """The same, which must succeed."""
        done = self.charter(*args, **more) if more else _beside_the_loop(self.here, *args)
        assert done.code == 0, f"charter {' '.join(args)}: {done.code}\n{done.both}"
        return done

    def token(self, *args: str) -> str:
        return self.ok("token", "issue", *args).out.strip()

    @contextmanager
    def serving(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """``charter serve``, ended by SIGTERM; it must end well."""
        command = forked.command("charter.cli", "serve", *args)
        process = subprocess.Popen(
            command, cwd=self.folder, env=environment(self.env), stderr=subprocess.PIPE, text=True
        )
        try:
            until(process, "Charter serves MCP at")
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert process.returncode == 0

    @asynccontextmanager
    async def client(self, token: str, mode: str = "auto") -> AsyncIterator[Client]:
        """A real MCP client over streamable HTTP."""
        headers = {"authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
        ):
            yield client


def until(process: subprocess.Popen[str], words: str) -> str:
    """The line of standard error with these words. Others may come before: a server that waited for an upstream says so."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        if words in line:
            return line
        lines.append(line)
    raise AssertionError("".join(lines))


def charter(*args: str, cwd: Path, stdin: str | None = None, env: dict[str, str] | None = None) -> Done:
    """``charter ARGS`` in a process of its own, on no terminal. Nothing that it prints may be a traceback."""
    ended = subprocess.run(
        forked.command("charter.cli", *args),
        cwd=cwd,
        env=environment(env or {}),
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    done = Done(ended.returncode, ended.stdout, ended.stderr)
    assert "Traceback" not in done.both, done.both
    return done


def _beside_the_loop(work: Callable[..., Done], *args: str) -> Done:
    """A command runs an event loop of its own, which does not go inside another one, but in a thread beside it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work, *args).result()


def environment(extra: dict[str, str]) -> dict[str, str]:
    """This process's, without what would configure Charter, and with warnings as errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CHARTER_")}
    return {**kept, "PYTHONWARNINGS": "error", "USER": "ann", "LOGNAME": "ann", **extra}


def copied(template: Path, folder: Path) -> Project:
    """A copy of an initialised folder, moved to a port of its own, with a casebook that starts at once."""
    shutil.copytree(template, folder)
    port = free_port()
    config = folder / "charter.toml"
    config.write_text(re.sub(r"(?m)^port = \d+", f"port = {port}", config.read_text()))
    tools = folder / "tools" / "casebook.tools.yaml"
    tools.write_text(quick(tools.read_text().replace(str(template), str(folder))))
    return Project(folder, port)


def quick(tools: str) -> str:
    """The tool file of the casebook, which is started by :mod:`tests.forked`."""
    written = yaml.safe_load(tools)["connection"]
    if written["args"][:2] != ["-m", "charter.bundled.casebook"]:
        return tools  # it was made so
    quickly = forked.command(*written["args"][1:])
    was = "".join(f"  - {word}\n" for word in written["args"])
    assert was in tools
    return tools.replace(was, "".join(f"  - {word}\n" for word in quickly[1:]))
