"""`charter fixtures record`: a real run's answers become the file by which a dry run goes the same way."""

from __future__ import annotations

import anyio
import yaml

from charter.model import commands as cmd
from charter.server.app import running
from charter.server.settings import load_settings
from tests.cli.recorded import IDE
from tests.cli.support import Project

LOOK = """
name: look
version: "1"
steps:
  - {id: found, type: action, tool: casebook__list_notes}
  - {id: read, type: action, tool: casebook__read_note, arguments: {name: "{{ steps.found.output.notes[0] }}"}}
  - {id: gone, type: action, tool: casebook__read_note, arguments: {name: none-such}, on_failure: skip}
  - {id: why, type: action, tool: casebook__search_notes, arguments: {query: Monday}}
output: {notes: "{{ steps.found.output.notes }}", text: "{{ steps.read.output.text }}"}
"""
SECRET = "the safe's number is 4711"


def run_of(project: Project, *, dry_run: bool) -> str:
    """A run as a server would have driven it."""
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def work() -> str:
        async with running(settings, drive=False) as charter:
            start = cmd.StartWorkflow(template="look", purpose="Look", dry_run=dry_run)
            started = await charter.gate.handle(IDE, start)
            await charter.engine.settle()
            return str(started.workflow_id)

    return anyio.run(work)


def changed(project: Project, tool: str, **more: object) -> None:
    """What an operator writes into the tool file."""
    path = project.folder / "tools" / "casebook.tools.yaml"
    document = yaml.safe_load(path.read_text())
    for item in document["tools"]:
        if item["tool"] == tool:
            item.update(more)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def test_a_dry_run_answers_as_the_run_that_was_recorded(project: Project) -> None:
    folder, file = project.folder, project.folder / "fixtures.yaml"
    (folder / "templates" / "look.yaml").write_text(LOOK)
    notes = folder / "casebook"
    notes.mkdir(exist_ok=True)
    (notes / "vault.md").write_text(f"Call on Monday: {SECRET}.\n")
    changed(project, "read_note", sensitive_results=["/text"])
    changed(project, "search_notes", sensitive_results=[""])
    real = run_of(project, dry_run=False)
    output = project.ok("workflows", "show", real, "--role", "operator", "--json").json["output"]
    assert output["notes"] == ["vault", "welcome"]

    shown = project.ok("fixtures", "record", real, "--role", "auditor")
    assert "look/found:" in shown.out
    assert "look/why: no fixture: its result is withheld entirely" in shown.err
    file.write_text("# Ours.\nlook/found: {output: {notes: [other]}}\n")
    kept = project.ok("fixtures", "record", real, "--out", str(file), "--role", "auditor").out
    assert f"look/found: kept as it is in {file}" in kept
    assert f"look/read: added to {file}" in kept
    text = file.read_text()
    assert text.startswith("# Ours.\n")
    assert yaml.safe_load(text)["look/gone"]["error"]
    assert "4711" not in shown.both + text, "what a manifest calls sensitive is in no fixture"
    assert project.ok("fixtures", "record", real, "--out", str(file), "--role", "auditor", "--json").json["added"] == []
    assert file.read_text() == text

    config = folder / "charter.toml"
    config.write_text(config.read_text().replace('#fixtures = "fixtures.yaml"', 'fixtures = "fixtures.yaml"'))
    (notes / "vault.md").unlink()  # nothing is called: the answers are those of then
    simulated = project.ok("simulate", "look", "--fixtures", f"@{file}", "--json").json
    assert (simulated["status"], simulated["output"]["notes"]) == ("completed", ["other"])
    dry = project.ok("workflows", "show", run_of(project, dry_run=True), "--role", "operator", "--json").json
    assert dry["steps"] == {"found": "completed", "read": "completed", "gone": "skipped", "why": "completed"}
    assert dry["output"]["notes"] == ["other"], "what somebody wrote outweighs what was recorded"
    assert dry["output"]["text"] == output["text"] == {"$redacted": True}


def test_who_may_not_read_the_record_and_what_cannot_be_recorded_is_told(project: Project) -> None:
    (project.folder / "templates" / "look.yaml").write_text(LOOK)
    dry = run_of(project, dry_run=True)
    refused = project.here("fixtures", "record", dry, "--role", "auditor")
    assert (refused.code, "dry run" in refused.err) == (2, True), refused.both
    assert project.here("fixtures", "record", dry, "--as", "sam", "--role", "nobody").code == 1
    assert project.here("fixtures", "record", "wf_none", "--role", "auditor").code == 1
    file = project.folder / "fixtures.json"
    file.write_text('{"look/other": {"text": "so"}}')
    real = run_of(project, dry_run=False)
    wrong = project.here("fixtures", "record", real, "--out", str(file), "--role", "auditor")
    assert (wrong.code, "cannot be added to" in wrong.err) == (2, True), wrong.both
    assert file.read_text() == '{"look/other": {"text": "so"}}'
    assert [path.name for path in project.folder.iterdir() if "fixtures" in path.name] == ["fixtures.json"]
