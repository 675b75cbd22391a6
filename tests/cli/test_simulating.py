"""``charter simulate`` in an installation that it leaves as it is."""

from __future__ import annotations

from pathlib import Path

from tests.cli.support import Project

TEMPLATE = """
name: noted
version: "1"
steps:
  - {id: note, type: action, tool: casebook__write_note, arguments: {name: x, text: y}}
"""


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_ends_waits_or_fails_and_changes_nothing(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "noted.yaml"
    file.write_text(TEMPLATE)
    yes = tmp_path / "yes.json"
    yes.write_text('{"approvals": {"casebook__write_note": "approve"}}')
    before = _files(project.folder)
    waits = project.here("simulate", str(file))
    assert (waits.code, "waits for:" in waits.out) == (6, True)
    done = project.here("simulate", str(file), "--decisions", f"@{yes}", "--json")
    assert (done.code, done.json["status"]) == (0, "completed")
    assert [call["tool"] for call in done.json["calls"]] == ["casebook__write_note"]
    failed = project.here("simulate", str(file), "--decisions", f"@{yes}", "--fixtures", '{"note": {"error": "full"}}')
    assert (failed.code, "full" in failed.out) == (1, True)
    assert project.here("simulate", str(file), "--decisions", '{"approvals": 5}').code == 2
    assert project.here("simulate", "nothing-like-it").code == 1
    assert _files(project.folder) == before
