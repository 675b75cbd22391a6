"""Every command that a page shows runs, or, where it would not end or needs the outside, is one that there is."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest

from tests.docs import scenes
from tests.docs.pages import PAGES, Page
from tests.docs.running import Terminal, check_command, lines_of, the_command

SHOWING = [page for page in PAGES if any(block.language == "console" for block in page.blocks)]


@pytest.mark.parametrize("page", SHOWING, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_order(page: Page, terminal: Callable[[bool], Terminal]) -> None:
    blocks = [block for block in page.blocks if block.language == "console"]
    initialises = any(line.command.startswith("charter init") for block in blocks for line in lines_of(block))
    opened = terminal(initialises)
    for block in page.blocks:
        if name := block.directive("file"):
            place = opened.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(block.text, encoding="utf-8")
        elif block.language == "console":
            for kind, what in block.directives:
                if kind == "meanwhile":
                    scenes.play(what, opened)
            opened.run(block)
        elif block.language == "python":
            opened.python(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page: Page) -> None:
    """`charter policy test`, `charter audit verify --export FILE`: words in capitals and dots stand for something."""
    for code in page.inline_code:
        if not code.startswith("charter ") or "`" in code:
            continue
        words = shlex.split(re.sub(r"…|\\?\|\S+", "", code))[1:]
        _exists(page, code, words)


def _exists(page: Page, code: str, words: list[str]) -> None:
    command = the_command()
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        found = command.commands.get(words[0])
        assert found is not None, f"{page.name}: `{code}`: there is no {words[0]}"
        command, words = found, words[1:]
    options = {name for parameter in getattr(command, "params", ()) for name in parameter.opts}
    for word in words:
        if word == "--":
            break
        assert not word.startswith("-") or word.partition("=")[0] in options, f"{page.name}: `{code}`: no {word}"


def test_a_command_that_does_not_exist_is_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        check_command(["audit", "verify", "--nonsense"])
    with pytest.raises(Exception, match="No such command"):
        check_command(["audit", "nonsense"])
