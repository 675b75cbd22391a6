"""Runs what a page shows, as a person would in one terminal: one folder, one environment, ids from what was printed before.

``charter`` runs in a process of its own each time (:mod:`tests.forked`: a page has many commands).
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from typer.main import get_command

from tests import forked
from tests.docs.pages import ROOT, Block

SECONDS = 120
ELSEWHERE = frozenset({"npx", "claude", "code", "codex", "gemini", "docker", "curl", "git", "pip", "uv", "sqlite3"})
"""Programs that a page may show and no test starts."""
_ID = re.compile(r"\b(wf|inv|prop|appr|evt|eff|grant)_[0-9a-f]{8}-[0-9a-f-]{27}")
_PLACEHOLDER = re.compile(r"\b(wf|inv|prop|appr|evt|eff|grant)_…")
_ASSIGNED = re.compile(r"(?:export )?([A-Z_]+)=\$\((.+)\)")


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Line:
    """A command and the lines that the page says it prints."""

    command: str
    shown: tuple[str, ...] = ()


def lines_of(block: Block) -> list[Line]:
    """The commands of a console block."""
    found: list[tuple[str, list[str]]] = []
    continued = False
    for text in block.text.splitlines():
        if continued:
            found[-1] = (found[-1][0].removesuffix("\\") + text.strip(), found[-1][1])
        elif text.startswith("$ "):
            found.append((text[2:], []))
        elif text.strip() and not found:
            raise AssertionError(f"line {block.line}: a console block begins with a command: {text!r}")
        elif text.strip():
            found[-1][1].append(text)
        continued = text.endswith("\\")
    return [Line(re.sub(r"(^|\s)#\s.*$", "", command).strip(), tuple(shown)) for command, shown in found]


@functools.cache
def the_command() -> Any:
    """``charter``, with all that is below it."""
    from charter.cli.root import app

    return get_command(app)


def check_command(argv: list[str]) -> None:
    """The command exists, with these options and arguments; nothing runs."""
    command = the_command()
    context: Any = None
    name = "charter"
    while True:
        context = command.make_context(name, list(argv), parent=context)
        if not hasattr(command, "resolve_command"):
            return
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        assert rest, f"{context.command_path}: no command"
        name, command, argv = command.resolve_command(context, rest)
        assert command is not None, f"{context.command_path}: no command {rest[0]}"


@dataclass(slots=True)
class Terminal:
    """One page's terminal. ``home`` holds the project folder, and what a reader has elsewhere."""

    home: Path
    port: int
    folder: Path = field(init=False)
    environment: dict[str, str] = field(init=False)
    ids: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder = self.home / "project"
        programs = self.home / "bin"
        programs.mkdir()
        npx = programs / "npx"  # in the place of the package runner: a real MCP server
        npx.write_text(f"#!/bin/sh\nexec {shlex.join(forked.command('tests.docs.bank', str(self.home)))}\n")
        npx.chmod(0o700)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CHARTER_", "OTEL_"))}
        path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), kept.get("PATH", "")])
        me = {"USER": "ann", "LOGNAME": "ann", "NO_COLOR": "1", "CHARTER_SERVER_PORT": str(self.port)}
        self.environment = {**kept, **me, "PATH": path, "PYTHONPATH": str(ROOT)}

    def run(self, block: Block) -> None:
        """Every command of the block, in order."""
        *_, last = lines = lines_of(block)
        for line in lines:
            if block.directive("shown") is not None:
                self._check(shlex.split(_PLACEHOLDER.sub("id", line.command)))
                continue
            done = self.do(line.command)
            wanted = int(block.directive("exit") or 0) if line is last else 0
            assert done.code == wanted, f"$ {line.command}\nexit code {done.code}\n{done.out}{done.err}"
            _compare(line, done.out + done.err)

    def do(self, command: str) -> Done:
        """Run one command line."""
        if assigned := _ASSIGNED.fullmatch(command):
            done = self.do(assigned[2])
            self.environment[assigned[1]] = done.out.strip()
            return done
        words = shlex.split(_PLACEHOLDER.sub(self._known, command))
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            raise AssertionError(f"{command}: write the variable as `export` on a line of its own")
        target = words.pop() if len(words) > 2 and words[-2] == ">" else None
        if target:
            words.pop()
        done = self._program(words)
        if target:
            (self.folder / target).write_text(done.out)
        for found in _ID.finditer(done.out + done.err):
            self.ids[found[1]] = found[0]
        return done

    def python(self, block: Block) -> None:
        """Run a snippet in the project folder, in an interpreter of its own."""
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", block.text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"line {block.line}\n{ended.stdout}{ended.stderr}"

    def _program(self, words: list[str]) -> Done:
        if words[0] == "charter":
            self._check(words)
            return self._charter(words[1:])
        if words[:1] == ["unset"]:
            self.environment.pop(words[1], None)
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value
        elif words[0] == "cd":
            self.folder = self.folder / words[1]
        elif words[0] == "mkdir":
            (self.folder / words[-1]).mkdir(parents=True, exist_ok=True)
        elif words[0] in ("cat", "cp"):
            return self._files(words)
        else:
            self._check(words)
        return Done(0, "", "")

    def _files(self, words: list[str]) -> Done:
        if words[0] == "cat":
            return Done(0, "".join((self.folder / name).read_text() for name in words[1:]), "")
        *_, source, target = words
        place = self.folder / source
        (shutil.copytree if place.is_dir() else shutil.copy)(place, self.folder / target)
        return Done(0, "", "")

    def _known(self, placeholder: re.Match[str]) -> str:
        assert placeholder[1] in self.ids, f"no id {placeholder[0]} was seen on this page before"
        return self.ids[placeholder[1]]

    def _check(self, words: list[str]) -> None:
        """The command is one that there is."""
        if words[0] == "charter":
            try:
                check_command(words[1:])
            except Exception as error:
                told = getattr(error, "format_message", None)  # typer brings its own errors of usage
                raise AssertionError(f"$ {shlex.join(words)}\n{told() if told else repr(error)}") from None
        elif words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            wanted = [word for word in words[1:] if "=" not in word]
            assert set(wanted) <= set(targets), f"{shlex.join(words)}: the Makefile has no such target"
        elif words[0] == ".":  # the environment that `make setup` makes; here its programs are on the path already
            made = re.findall(r"^VENV \??:?= *(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert words[1:] == [f"{made[0]}/bin/activate"], f"{shlex.join(words)}: the Makefile makes {made}"
        elif words[0] not in ELSEWHERE:
            raise AssertionError(f"$ {shlex.join(words)}\ntests/docs does not know what to do with {words[0]!r}")

    def _charter(self, argv: list[str]) -> Done:
        if argv[:1] == ["serve"]:
            return Done(0, "", "")  # until it is stopped: checked, and run by the tests of the command line
        self.folder.mkdir(exist_ok=True)
        ended = subprocess.run(
            forked.command("charter.cli", *argv),
            cwd=self.folder,
            env=self.environment,
            input="y\n",  # the person says yes
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        return Done(ended.returncode, ended.stdout, ended.stderr)


def _compare(line: Line, printed: str) -> None:
    """Each line that the page shows was printed, in this order."""
    rest = [text.strip() for text in printed.splitlines()]
    for shown in line.shown:
        wanted = re.compile(re.sub(r"(\\ )+", r"\\s+", re.escape(shown.strip())).replace("…", ".*"))
        place = next((index for index, text in enumerate(rest) if wanted.fullmatch(text)), None)
        assert place is not None, f"$ {line.command}\ndid not print: {shown}\nbut:\n{printed}"
        rest = rest[place + 1 :]
