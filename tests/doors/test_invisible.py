"""What Charter says of itself holds no character that a reader cannot see (issue 3: nothing hidden in schemas)."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import charter.schemas
from charter.errors import InvalidInput
from charter.model import commands as cmd
from charter.model.base import FREE_LINE, LINE
from charter.server.mcp.calling import command_of
from tests.doors.calls import ERAS
from tests.joined import JOINED, MISJOINED
from tests.support import AGENT, CAROL, Harness

HIDDEN = ("Cc", "Cf", "Zl", "Zp", "Co", "Cs", "Cn")
SCHEMAS = sorted(Path(charter.schemas.__path__[0]).glob("*.json"))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item)


def hidden(value: Any) -> list[str]:
    return [
        f"U+{ord(char):04X} in {text[:80]!r}"
        for text in texts(value)
        for char in text
        if char != "\n" and unicodedata.category(char) in HIDDEN
    ]


def test_the_walk_finds_what_is_hidden() -> None:
    assert len(hidden({"a\u200b": ["x\u202e", {"b": "\x1b"}], "c": "d\ne"})) == 3


@pytest.mark.anyio
@pytest.mark.parametrize("era", ERAS)
async def test_nothing_hidden_is_served(charter: Harness, era: str) -> None:
    for principal in (AGENT, CAROL):
        async with charter.client_as(principal, era) as client:
            tools = await client.list_tools()
            prompts = await client.list_prompts()
            templates = await client.list_resource_templates()
        assert tools.tools
        assert prompts.prompts
        for served in (tools, prompts, templates):
            assert hidden(served.model_dump(mode="json", by_alias=True)) == []


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_nothing_hidden_is_published(path: Path) -> None:
    assert hidden(json.loads(path.read_bytes())) == []


@pytest.mark.parametrize("char", [*"\x00\x1f\x7f\x9f\n\u200b\u200f\u2028\u202e\u2060\u2069\ufeff"])
def test_the_pattern_for_one_line_keeps_them_out_all_the_same(char: str) -> None:
    schema = {"type": "string", "pattern": LINE}
    assert not re.search(LINE, f"a{char}b")
    assert not jsonschema.Draft202012Validator(schema).is_valid(f"a{char}b")
    assert re.search(LINE, "Ärger – 日本 👍 u2028 \\")
    assert re.search(FREE_LINE, "\u0645\u06cc\u200c\u062e")
    if char not in "\u200c\u200d":
        assert not re.search(FREE_LINE, f"a{char}b")


@pytest.mark.parametrize("text", [text for _, text in JOINED], ids=[name for name, _ in JOINED])
def test_a_purpose_may_be_written_in_any_script_and_an_id_may_not(text: str) -> None:
    assert command_of(cmd.StartWorkflow, {"template": "t", "purpose": text}).purpose == text
    for name in ("case_id", "idempotency_key", "template"):
        if {"\u200c", "\u200d"} & set(text):
            with pytest.raises(InvalidInput, match=name):
                command_of(cmd.StartWorkflow, {"template": "t", "purpose": "x", name: text})


@pytest.mark.parametrize("text", MISJOINED)
def test_a_joiner_in_a_purpose_that_joins_nothing_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="purpose: One line without control or invisible characters is required"):
        command_of(cmd.StartWorkflow, {"template": "t", "purpose": text})
