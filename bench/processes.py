"""Contestants as processes of their own: started, waited for, asked for their memory, ended."""

from __future__ import annotations

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

ROOT = Path(__file__).resolve().parent.parent
COMPETITORS = ROOT / ".venv-bench"
"""The competitors' environment, made by ``make bench`` from ``requirements/bench.lock``."""
START_SECONDS = 60.0


class NotStarted(Exception):
    """A contestant did not come up; the text is the end of what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that serves MCP at ``url``; ``more`` is what it said of itself."""

    name: str
    url: str
    pid: int
    more: dict[str, str]

    def rss_mb(self) -> float:
        """Resident memory in MiB (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found.group(1)) / 1024 if found else float("nan")

    def cpu_seconds(self) -> float:
        """User and system time so far (Linux)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def competitors_python() -> Path | None:
    """The competitors' interpreter, or None where their environment was not made."""
    python = COMPETITORS / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return python if python.exists() else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def module(
    name: str, *args: str, python: Path | None = None, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """``python -m bench.contestants.NAME ARGS``, up once it has printed ``READY URL [KEY=VALUE …]``."""
    command = [str(python or sys.executable), "-m", f"bench.contestants.{name}", *args]
    with _process(command, env) as process:
        words = _first_line(process, name).split()
        if len(words) < 2 or words[0] != "READY":
            raise NotStarted(f"{name} said {words!r}")
        more = dict(word.split("=", 1) for word in words[2:])
        yield Running(name, words[1], process.pid, more)


@contextmanager
def command(name: str, argv: Sequence[str], url: str, env: Mapping[str, str] | None = None) -> Iterator[Running]:
    """A program that says nothing when it is up: waited for by connecting to ``url``."""
    with _process(argv, env) as process:
        port = int(url.rsplit(":", 1)[1].split("/", 1)[0])
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise NotStarted(f"{name} did not come up")
        yield Running(name, url, process.pid, {})


@contextmanager
def _process(argv: Sequence[str], env: Mapping[str, str] | None) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as said:
        environment = {**os.environ, **(env or {})}
        process = subprocess.Popen(
            argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
        )
        try:
            yield process
        except BaseException:
            said.seek(max(0, said.seek(0, os.SEEK_END) - 4_000))
            sys.stderr.write(f"{argv[-1]} said last:\n{said.read().decode(errors='replace')}\n")
            raise
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _first_line(process: subprocess.Popen[bytes], name: str) -> str:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        if not selector.select(START_SECONDS):
            raise NotStarted(f"{name} said nothing for {START_SECONDS:g} s")
    return process.stdout.readline().decode()


def counts(upstream: Running) -> Counter[str]:
    """How many requests of each MCP method the upstream has had."""
    with urllib.request.urlopen(upstream.url.removesuffix("/mcp") + "/counts", timeout=10) as answer:
        return Counter(orjson.loads(answer.read()))
