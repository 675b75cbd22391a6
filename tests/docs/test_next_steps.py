"""A next step is told in the words of the door: verbs to agents, commands on the command line, neither over plain HTTP."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from charter.errors import NotFound, Refused
from charter.model.next_steps import NOT_PERMITTED, VERBS, said_at
from charter.server.mcp.catalog import own_tools

SOURCE = Path(__file__).parents[2] / "src" / "charter"
NAMES = ("next_step", "default_next_step")
VERB = re.compile(rf"(?<!/)\b({'|'.join(VERBS)})\b")


def text_of(node: ast.expr | None) -> str | None:
    """A literal, what is filled in standing as ``X``; None for what is made elsewhere."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    return None


def next_steps() -> Iterator[tuple[str, str]]:
    """Every next step that is written in the source, with where."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            found = None
            if isinstance(node, ast.keyword) and node.arg in NAMES:
                found = text_of(node.value)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(target, ast.Name) and "next" in target.id.lower() for target in targets):
                    found = text_of(node.value)
            if found and VERB.search(found):
                yield f"{path.relative_to(SOURCE)}", found


FOUND = sorted({text: where for where, text in next_steps()}.items())


def test_there_are_some() -> None:
    assert len(FOUND) > 10


@pytest.mark.parametrize(("text", "where"), FOUND)
def test_nobody_at_another_door_is_sent_to_an_agents_verb(text: str, where: str) -> None:
    told = said_at("commands", text)
    assert not re.search(rf"(?<!agent )\b[Cc]all ({'|'.join(VERBS)})", told), where
    assert told[:1] in (text[:1], "R", "H", "U", "C", "`")
    over_http = said_at("http", text)
    assert not VERB.search(over_http), where
    assert over_http.endswith("."), where
    assert over_http[0].isupper(), where


def test_the_verbs_are_those_of_the_door() -> None:
    assert set(own_tools((), "governed-session")) <= set(VERBS)


@pytest.mark.parametrize(
    ("text", "commands", "http"),
    [
        ("Wait a little.", "Wait a little.", "Wait a little."),
        (
            "Do not repeat the call; get_workflow shows what is on record of it.",
            "Do not repeat the call; `charter workflows show WORKFLOW` shows what is on record of it.",
            "Do not repeat the call.",
        ),
        (
            "Do not repeat the call. Charter keeps trying; get_workflow shows when it is settled.",
            "Do not repeat the call. Charter keeps trying; `charter workflows show WORKFLOW` shows when it is settled.",
            "Do not repeat the call. Charter keeps trying.",
        ),
        ("Call propose_action to make a proposal.", "Have the agent call propose_action to make a proposal.", None),
        ("See the lists of tools/list.", "See the lists of `charter tools list`.", None),
    ],
)
def test_words(text: str, commands: str, http: str | None) -> None:
    assert said_at("commands", text) == commands
    assert http is None or said_at("http", text) == http


def test_the_general_ones_have_words_of_their_own_at_each_door() -> None:
    for text in (NOT_PERMITTED, NotFound.default_next_step, Refused.default_next_step):
        assert len({text, said_at("commands", text), said_at("http", text)}) == 3
        assert "`charter " in said_at("commands", text)
