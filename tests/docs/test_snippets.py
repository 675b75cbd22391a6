"""What a page shows as a file loads with Charter's own loaders."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from charter.manifests.templates import load_template
from charter.manifests.tool_files import parse
from charter.manifests.yaml_text import load
from charter.model.fixture import Fixtures
from charter.policies import PolicySources, load_policy_set, run_policy_tests, shipped_files, shipped_sources
from charter.server.settings import load_settings
from charter.tools.folder import load_folder
from tests.docs.pages import PAGES, Block, Page

ELSEWHERE = {
    # Its policies speak of tools that the page supposes; this test supplies them.
    ("docs/policies.md", "cedar"): "tests/policies/test_docs.py",
    ("docs/policies.md", "cedar-obligations"): "tests/policies/test_docs.py",
}
DIAGRAMS = ("flowchart", "sequenceDiagram", "stateDiagram-v2")
KNOWN = {"console", "python", "toml", "yaml", "json", "cedar", "cedar-obligations", "mermaid", "text", "diff", "sh"}


def _snippets(*languages: str) -> list[object]:
    return [
        pytest.param(page, block, id=f"{page.name}:{block.line}")
        for page in PAGES
        for block in page.blocks
        if block.language in languages and (page.name, block.language) not in ELSEWHERE
    ]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.language for page in PAGES for block in page.blocks} <= KNOWN


@pytest.mark.parametrize(("page", "block"), _snippets("toml"))
def test_toml_is_a_configuration_or_a_clients(page: Page, block: Block, tmp_path: Path) -> None:
    if "mcp_servers" in tomllib.loads(block.text):  # the entry of a client that keeps its own in TOML
        return
    file = tmp_path / "charter.toml"
    file.write_text(block.text)
    load_settings(file, environ={})


@pytest.mark.parametrize(("page", "block"), _snippets("yaml"))
def test_yaml_is_a_template_a_tool_file_fixtures_or_policy_tests(page: Page, block: Block) -> None:
    value = load(block.text, page.name, code="docs").value
    assert isinstance(value, dict)
    if "steps" in value:
        load_template(block.text, page.name)
    elif "tests" in value:
        results = run_policy_tests(load_policy_set(shipped_sources()), {"docs.test.yaml": value})
        assert [result.problems for result in results if not result.passed] == []
    elif "server" not in value:
        assert Fixtures.model_validate({"answers": value}).answers
    else:
        # A page may leave out the pinned definitions, which nobody writes by hand.
        tools = [{**tool, **_pinned(tool)} for tool in value.get("tools", [])]
        parse(json.dumps({**value, "tools": tools}), page.name)


def _pinned(tool: dict[str, object]) -> dict[str, object]:
    from charter.manifests.definitions import definition_hash

    if "definition" in tool:
        return {}
    definition = {"inputSchema": {"type": "object"}}
    return {"definition": {"hash": definition_hash({"name": tool["tool"], **definition}), **definition}}


@pytest.mark.parametrize(("page", "block"), _snippets("json"))
def test_json_is_json(page: Page, block: Block) -> None:
    json.loads(re.sub(r"…", "", block.text))


@pytest.mark.parametrize(("page", "block"), _snippets("cedar", "cedar-obligations"))
def test_policies_load_beside_the_starter_set(page: Page, block: Block, initialised: Path) -> None:
    name = "obligations-docs.cedar" if block.language == "cedar-obligations" else "authorise-docs.cedar"
    tools = [tool for upstream in load_folder(initialised / "tools") for tool in upstream.tools]
    starter = {file: text for file, text in shipped_files().items() if file.endswith(".cedar")}
    load_policy_set(PolicySources.from_files({**starter, name: block.text}), tools)


@pytest.mark.parametrize(("page", "block"), _snippets("mermaid"))
def test_diagrams_begin_as_one_that_is_known(page: Page, block: Block) -> None:
    assert block.text.split()[0] in DIAGRAMS
