"""A real ``charter init`` and ``charter serve`` in processes of their own, as a user has them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from charter.manifests.definitions import governed_name
from charter.manifests.tool_files import Era, HttpConnection, UpstreamManifest
from charter.tools.folder import load_file, save
from tests import forked

ROOT = Path(__file__).parents[2]
READY = "Charter serves MCP at "
STARTING_SECONDS = 60.0


@dataclass
class Output:
    """What a child wrote, read as it comes so that it never blocks."""

    lines: list[str] = field(default_factory=list)

    def follow(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    def text(self) -> str:
        return "\n".join(self.lines)


@contextmanager
def process(command: list[str], *, ready: str, cwd: Path = ROOT) -> Iterator[tuple[str, Output]]:
    """A child until the block ends; gives the line of its standard error that begins with ``ready``, and the rest."""
    child = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    output = Output()
    reader = threading.Thread(target=output.follow, args=(child.stderr,), daemon=True)
    reader.start()
    try:
        yield _first(child, output, ready), output
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        reader.join(10)
        assert child.stderr is not None
        child.stderr.close()


def _first(child: subprocess.Popen[str], output: Output, ready: str) -> str:
    until = time.monotonic() + STARTING_SECONDS
    while time.monotonic() < until:
        found = next((line for line in list(output.lines) if line.startswith(ready)), None)
        if found is not None:
            return found
        if child.poll() is not None:
            break
        time.sleep(0.05)
    raise AssertionError(f"{child.args!r} did not become ready:\n{output.text()}")


@dataclass(frozen=True)
class Project:
    """A folder that ``charter init`` made."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "charter.toml"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "charter.cli", "--config", str(self.config), *arguments]

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """What a command printed; it must succeed."""
        done = subprocess.run(
            forked.command("charter.cli", "--config", str(self.config), *arguments),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
        )
        assert done.returncode == 0, f"charter {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """What a command printed with ``--json``."""
        return orjson.loads(self.run(*arguments, "--json"))

    def govern(self, url: str, names: Mapping[str, Era]) -> None:
        """``charter upstream add`` once, then what an operator does: say how risky the tools are.

        The same upstream is governed under each name, reached by that era of the protocol.
        """
        first = next(iter(names))
        self.run("upstream", "add", first, "--url", url)
        folder = self.folder / "tools"
        added = load_file(folder / f"{first}.tools.yaml")
        for name, era in names.items():
            save(folder, _renamed(added, name, HttpConnection(url=url, era=era)))

    @contextmanager
    def serving(self, *options: str) -> Iterator[Served]:
        """``charter serve`` on any free port; its address is given under the name ``localhost``."""
        with process(self.command("serve", "--port", "0", *options), ready=READY) as (line, output):
            yield Served(line.removeprefix(READY).replace("127.0.0.1", "localhost"), output)


@dataclass(frozen=True)
class Served:
    """A server that answers at ``url``."""

    url: str
    output: Output


def _renamed(upstream: UpstreamManifest, name: str, connection: HttpConnection) -> UpstreamManifest:
    """The upstream under another name, with tools that never ask."""
    tools = tuple(
        tool.model_copy(
            update={
                "name": governed_name(name, tool.upstream_name),
                "server": name,
                "risk": "low",
                "side_effects": "none",
            }
        )
        for tool in upstream.tools
    )
    return upstream.model_copy(update={"server": name, "connection": connection, "tools": tools})


def new_project(folder: Path, person: str = "pat") -> Project:
    """``charter init`` in a new folder."""
    project = Project(folder)
    done = subprocess.run(
        forked.command("charter.cli", "init", str(folder), "--person", person),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return project
