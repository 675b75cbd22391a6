"""Pages that list what there is, list all of it: tools, prompts, resources, fields, members, ids, settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from charter.audit.envelope import Envelope
from charter.audit.export import EXPORT_VERSION
from charter.manifests.tool_files import HttpConnection, StdioConnection, UpstreamManifest
from charter.model.tool import ShownArgument, ToolManifest
from charter.server.mcp.catalog import own_tools
from charter.server.mcp.prompts import PROMPTS
from charter.server.mcp.resources import PENDING, TEMPLATES
from charter.server.mcp.results import RPC_CODES
from tests.docs.pages import ROOT

# What `charter upstream add` and `charter tools pin` write, or what follows from it.
NOT_WRITTEN_BY_HAND = {"name", "server", "upstream_name", "description", "input_schema", "output_schema"}
NOT_WRITTEN_BY_HAND |= {"annotations", "definition_hash", "pointer"}


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def row(page: str, name: str) -> str:
    """The row of a table that begins with this name."""
    [found] = [line for line in text(page).splitlines() if line.startswith(f"| `{name}` |")]
    return found


def test_the_readme_counts_charters_own_tools_and_names_each() -> None:
    names = list(own_tools([], "governed-session"))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    counted = {"Nine": 9, "Ten": 10, "Eleven": 11, "Twelve": 12}
    told = re.search(r"^(\w+) tools: (.+?) \(\[the MCP door\]", readme, re.MULTILINE | re.DOTALL)
    assert told is not None
    assert counted[told[1]] == len(names)
    assert sorted(re.findall(r"`(\w+)`", told[2])) == sorted(names)


@pytest.mark.parametrize("tool", own_tools([], "governed-session").values(), ids=lambda tool: tool.name)
def test_each_of_charters_own_tools_is_listed_with_its_arguments(tool: object) -> None:
    name, takes = getattr(tool, "name"), getattr(tool, "takes")  # noqa: B009 - typed as object for the ids
    listed = row("mcp.md", name)
    for argument in takes:
        ids = argument in ("workflow_id", "agent_invocation_id") and "the ids" in listed
        assert ids or f"`{argument}`" in listed, argument


@pytest.mark.parametrize("name", PROMPTS)
def test_each_prompt_is_listed_with_its_arguments(name: str) -> None:
    listed = row("mcp.md", name)
    assert set(re.findall(r"`(\w+)`", listed)) == {name, *(item["name"] for item in PROMPTS[name].arguments)}


def test_resources_and_error_codes_are_listed() -> None:
    page = text("mcp.md")
    assert all(f"`{uri}`" in page for uri in (PENDING, *(uri for uri, _, _ in TEMPLATES)))
    assert all(str(code) in page for code in RPC_CODES.values())


@pytest.mark.parametrize("model", [ToolManifest, UpstreamManifest, StdioConnection, HttpConnection, ShownArgument])
def test_every_field_of_a_tool_file_is_explained(model: type[ToolManifest]) -> None:
    page = text("tools.md")
    missing = [name for name in model.model_fields if name not in NOT_WRITTEN_BY_HAND and f"`{name}`" not in page]
    assert [name for name in missing if name not in ("tools", "how")] == []


def test_the_ledgers_page_names_every_member_of_a_leaf_and_its_versions() -> None:
    page = text("ledger.md")
    assert [name for name in Envelope.__dataclass_fields__ if f"`{name}`" not in page] == []
    assert f'"charter_export":{EXPORT_VERSION}' in page


def test_every_decision_is_in_the_list_of_decisions() -> None:
    listed = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", text("adr/README.md"), re.MULTILINE)
    pages = sorted(path.name for path in (ROOT / "docs" / "adr").glob("0*.md"))
    assert [target for _, _, target in listed] == pages
    for number, title, target in listed:
        head = Path(ROOT / "docs" / "adr" / target).read_text(encoding="utf-8").splitlines()[0]
        assert head == f"# {number}. {title}"
