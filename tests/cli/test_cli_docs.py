"""docs/cli.md, the README and the errors name only commands that exist, and docs/cli.md names them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from charter.cli import failing
from charter.cli.root import app

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by its words."""
    command = command or get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield path, command
        return
    for name, part in inner.items():
        yield from commands(part, (*path, name))


KNOWN = dict(commands())


def named_in(text: str) -> set[tuple[str, ...]]:
    """The commands that a text names as ``charter …``, each by the words that name it."""
    found = set()
    for line in re.findall(r"charter (?:--config \S+ )?((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)?)", text):
        words = tuple(line.split())
        found.add(words[:1] if words[:1] in KNOWN else words)
    return found


def test_every_command_is_documented() -> None:
    documented = named_in("\n".join(re.findall(r"`(charter [^`]+)`", TEXT)))
    assert documented >= KNOWN.keys(), KNOWN.keys() - documented


def test_every_option_that_is_named_in_a_row_exists() -> None:
    for row in TEXT.splitlines():
        match = re.match(r"\| `charter ([^`]*)`", row)
        if match is None:
            continue
        [words] = named_in("charter " + match[1])
        known = {name for param in KNOWN[words].params for name in (*param.opts, *param.secondary_opts)}
        other = {"--audience"} if words == ("serve",) else set()  # of the command that the row points to
        assert set(re.findall(r"--[a-z][a-z-]+", row)) <= known | other, row


@pytest.mark.parametrize("place", ["README.md", "src/charter", "docs"])
def test_commands_named_elsewhere_exist(place: str) -> None:
    """In backticks: in the README, in docs, and in the next steps that errors give."""
    path = ROOT / place
    files = [path] if path.is_file() else [item for item in path.rglob("*") if item.suffix in (".py", ".md", ".cedar")]
    for file in files:
        quoted = re.findall(r"`(charter [a-z][^`\n]*)`", file.read_text(encoding="utf-8"))
        for words in named_in("\n".join(quoted)):
            groups = {known[0] for known in KNOWN}
            assert words in KNOWN or (len(words) == 1 and words[0] in groups), f"{file}: charter {' '.join(words)}"


def test_every_command_and_option_has_help() -> None:
    for path, command in KNOWN.items():
        assert command.help, path
        for param in command.params:
            named = getattr(param, "help", None) or param.metavar or param.name in ("limit", "verdict")
            assert named, f"{path}: {param.name}"


def test_the_exit_codes_of_the_page_are_those_of_the_code() -> None:
    table = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", TEXT)}
    codes = {value for name, value in vars(failing).items() if name.isupper() and isinstance(value, int)}
    assert table == codes


def test_each_exit_code_means_one_thing_and_stands_in_the_table() -> None:
    codes = [value for name, value in vars(failing).items() if name.isupper() and isinstance(value, int)]
    assert len(codes) == len(set(codes)) >= 9
    table = TEXT.partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == set(codes)
