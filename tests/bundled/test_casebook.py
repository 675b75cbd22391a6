"""The bundled casebook does real work on real files, over both transports, and never outside its folder."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from charter.bundled.casebook import IDEMPOTENCY_KEY, build
from charter.bundled.notes import MAX_NOTE, NoteError, Notes
from charter.manifests.definitions import propose_manifest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with Client(build(tmp_path)) as connected:
        yield connected


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content


async def failure(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(getattr(result.content[0], "text", ""))


async def test_a_note_lives_and_dies(client: Client, tmp_path: Path) -> None:
    assert await call(client, "write_note", name="case-12/summary", text="# Summary\n") == {
        "name": "case-12/summary",
        "created": True,
        "characters": 10,
    }
    assert (tmp_path / "case-12" / "summary.md").read_text() == "# Summary\n"
    again = await call(client, "write_note", name="case-12/summary", text="# Summary\n")
    assert again["created"] is False
    await call(client, "append_note", name="case-12/summary", text="Paid.")
    assert (await call(client, "read_note", name="case-12/summary"))["text"] == "# Summary\nPaid.\n"
    assert await call(client, "list_notes") == {"notes": ["case-12/summary"]}
    assert await call(client, "delete_note", name="case-12/summary") == {"name": "case-12/summary"}
    assert await call(client, "list_notes") == {"notes": []}


async def test_errors_say_what_to_do(client: Client) -> None:
    assert "Call list_notes" in await failure(client, "read_note", name="none")
    assert "Call list_notes" in await failure(client, "append_note", name="none", text="x")
    assert "Call list_notes" in await failure(client, "delete_note", name="none")


OUTSIDE = ["../x", "/etc/passwd", "a/../../x", ".hidden", "a\\..\\x", "a\n", "a//b", "", "a\x00", "x" * 500]


@pytest.mark.parametrize("name", OUTSIDE)
async def test_no_name_leads_outside(client: Client, tmp_path: Path, name: str) -> None:
    await failure(client, "write_note", name=name, text="x")
    with pytest.raises(NoteError):
        Notes(tmp_path).path(name)
    assert os.listdir(tmp_path) == []


async def test_a_symbolic_link_does_not_lead_outside(client: Client, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.md").write_text("s3cr3t")
    os.symlink(outside, tmp_path / "link")
    os.symlink(outside / "secret.md", tmp_path / "one.md")
    for name in ("link/secret", "one"):
        assert "s3cr3t" not in await failure(client, "read_note", name=name)
        await failure(client, "write_note", name=name, text="x")
    assert "s3cr3t" not in json.dumps(await call(client, "search_notes", query="s3cr3t"))
    assert (outside / "secret.md").read_text() == "s3cr3t"


async def test_a_preview_changes_nothing(client: Client, tmp_path: Path) -> None:
    await call(client, "write_note", name="a", text="one\ntwo\n")
    diff = (await call(client, "preview_write_note", name="a", text="one\nthree\n"))["diff"]
    assert "-two" in diff
    assert "+three" in diff
    assert (await call(client, "preview_write_note", name="a", text="one\ntwo\n"))["diff"] == ""
    assert (await call(client, "preview_write_note", name="new", text="x"))["diff"].startswith("--- /dev/null")
    assert (tmp_path / "a.md").read_text() == "one\ntwo\n"
    assert not (tmp_path / "new.md").exists()


async def test_searching_many_notes_reports_progress(client: Client, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"n{number:02}.md").write_text(f"Note {number}\nNeedle {number}\n")
    seen: list[tuple[float, float | None]] = []

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total))

    result = await client.call_tool("search_notes", {"query": "nEEdle 5"}, progress_callback=progress)
    found = result.structured_content
    assert [match["name"] for match in found["matches"]] == ["n05", *(f"n5{n}" for n in range(10))]
    assert found["matches"][0] == {"name": "n05", "line": 2, "excerpt": "Needle 5"}
    assert (found["searched"], found["more"]) == (60, False)
    assert seen == [(0, 60), (25, 60), (50, 60)]
    few = await call(client, "search_notes", query="needle", limit=3)
    assert (len(few["matches"]), few["more"]) == (3, True)


async def test_a_notice_is_sent_once_for_one_idempotency_key(client: Client, tmp_path: Path) -> None:
    notice = {"to": "billing@example.org", "subject": "Refund", "text": "Please."}

    async def send(key: str | None) -> Any:
        meta: Any = {IDEMPOTENCY_KEY: key} if key else None
        return (await client.session.call_tool("send_notice", notice, meta=meta)).structured_content

    assert await send("k1") == {"number": 1, "repeated": False}
    assert await send("k1") == {"number": 1, "repeated": True}
    assert await send("k2") == {"number": 2, "repeated": False}
    assert await send(None) == {"number": 3, "repeated": False}
    assert await send(None) == {"number": 4, "repeated": False}
    lines = [json.loads(line) for line in (tmp_path / "outbox.jsonl").read_text().splitlines()]
    assert [line["idempotency_key"] for line in lines] == ["k1", "k2", None, None]


async def test_its_annotations_lead_to_sensible_proposals(client: Client) -> None:
    tools = (await client.list_tools()).tools
    assert all(tool.output_schema and tool.description and tool.title for tool in tools)
    proposed = [propose_manifest("casebook", tool.model_dump(by_alias=True, exclude_none=True)) for tool in tools]
    assert {item.upstream_name: (item.risk, item.side_effects, item.idempotent) for item in proposed} == {
        "list_notes": ("low", "none", True),
        "read_note": ("low", "none", True),
        "search_notes": ("low", "none", True),
        "preview_write_note": ("low", "none", True),
        "write_note": ("high", "irreversible", True),
        "append_note": ("medium", "reversible", False),
        "delete_note": ("high", "irreversible", False),
        "send_notice": ("high", "irreversible", False),
    }


def test_a_note_has_a_limit(tmp_path: Path) -> None:
    with pytest.raises(NoteError, match="256 KiB"):
        Notes(tmp_path).write("a", "x" * (MAX_NOTE + 1))


async def test_it_runs_as_a_command_over_stdio(tmp_path: Path) -> None:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "charter.bundled.casebook", "--folder", str(tmp_path)]
    )
    async with Client(parameters) as client:
        await call(client, "write_note", name="a", text="x")
    assert (tmp_path / "a.md").read_text() == "x"
