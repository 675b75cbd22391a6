"""``charter ARGS`` in a process of its own, forked from one that has imported it: a process as any other, without the
seconds that the imports take. Only the interpreter's own start is not gone through; tests of serving start it anew.
"""

from __future__ import annotations

import multiprocessing
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "charter.cli.root",
        "charter.server.app",
        "charter.server.evaluator",
        "charter.tools.adding",
        "charter.tools.registry",
        "charter.tools.runner",
        "tests.forked",
    ]
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and what it wrote."""

    code: int
    out: str
    err: str


def charter(argv: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: str = "") -> Ended:
    """Run one command in ``folder``, on no terminal, with exactly this environment."""
    with tempfile.TemporaryDirectory() as place:
        streams = [os.path.join(place, name) for name in ("in", "out", "err")]
        Path(streams[0]).write_text(stdin, "utf-8")
        child = _context.Process(target=_run, args=(list(argv), str(folder), dict(environment), streams))
        child.start()
        child.join(SECONDS)
        if child.exitcode is None:
            child.kill()
            child.join()
            raise AssertionError(f"charter {shlex.join(argv)} did not end in {SECONDS} seconds")
        return Ended(child.exitcode, Path(streams[1]).read_text("utf-8"), Path(streams[2]).read_text("utf-8"))


def _run(argv: list[str], folder: str, environment: dict[str, str], streams: list[str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, (path, flags) in enumerate(zip(streams, (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY), strict=True)):
        os.dup2(os.open(path, flags | (os.O_CREAT if number else 0), 0o600), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - for the process's life
    warnings.simplefilter("error")
    from charter.cli import main

    main(argv)
