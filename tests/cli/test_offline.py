"""What is given to others verifies with only the public key, and not when a byte of it was changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.recorded import Recorded
from tests.cli.support import Done, charter


def elsewhere(tmp_path: Path, *args: str) -> Done:
    """On a machine that has nothing of this Charter but what it was given."""
    place = tmp_path / "elsewhere"
    place.mkdir(exist_ok=True)
    return charter("audit", "verify", *args, cwd=place)


@pytest.mark.parametrize("part", ["log", "workflow"])
def test_an_export_verifies_with_only_the_key(recorded: Recorded, tmp_path: Path, part: str) -> None:
    project, file = recorded.project, tmp_path / "export.jsonl"
    only = ["--workflow", recorded.done] if part == "workflow" else []
    project.ok("audit", "export", str(file), *only)
    key = project.ok("audit", "key").out.strip()

    good = elsewhere(tmp_path, "--export", str(file), "--key", key, "--json")
    assert good.code == 0, good.both
    assert good.json["covered"] == good.json["events"] > 5

    data = file.read_bytes()
    victim = next(i for i, line in enumerate(data.splitlines()) if b'"TOOL_INVOKE"' in line)
    lines = data.splitlines(keepends=True)
    number = int(lines[victim].rpartition(b'"seq":')[2].split(b",")[0])
    changed = [*lines[:victim], lines[victim].replace(b"list_notes", b"read_notes"), *lines[victim + 1 :]]
    file.write_bytes(b"".join(changed))
    bad = elsewhere(tmp_path, "--export", str(file), "--key", key)
    assert bad.code == 3
    assert "The first bad event is" in bad.err
    if part == "workflow":
        assert f"number {number}" in bad.err

    file.write_bytes(b"".join(lines[: victim + 1]))
    assert elsewhere(tmp_path, "--export", str(file), "--key", key).code == 3


def test_another_key_vouches_for_nothing(recorded: Recorded, initialised: Path, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    recorded.project.ok("audit", "export", str(file))
    other = charter("init", "--bare", "other", cwd=tmp_path)
    assert other.code == 0
    vkey = tmp_path / "other" / ".charter" / "keys" / "checkpoint.vkey"
    assert elsewhere(tmp_path, "--export", str(file), "--key", str(vkey)).code == 3
    assert elsewhere(tmp_path, "--export", str(file)).code == 2  # no key, no trust
    assert recorded.project.charter("audit", "export", str(file)).code == 2  # not written over


def test_one_event_is_proven(recorded: Recorded, tmp_path: Path) -> None:
    project, file = recorded.project, tmp_path / "proof.json"
    [event] = project.ok("audit", "log", "--type", "APPROVAL_DECISION", "--json").json["items"]
    file.write_text(project.ok("audit", "prove", event["id"]).out)
    key = project.ok("audit", "key").out.strip()
    assert elsewhere(tmp_path, "--proof", str(file), "--key", key).code == 0
    file.write_text(file.read_text().replace("carol", "mario"))
    assert elsewhere(tmp_path, "--proof", str(file), "--key", key).code == 3


def test_an_event_after_the_last_checkpoint_is_proven_by_a_new_one(recorded: Recorded) -> None:
    project = recorded.project
    project.ok("workflows", "cancel", recorded.waiting, "--as", "ann", "-m", "enough")
    [event] = project.ok("audit", "log", "--type", "WORKFLOW_CANCELLED", "--json").json["items"]
    assert project.ok("audit", "prove", event["id"]).json["size"] > event["seq"]


@pytest.mark.parametrize("text", ["", "garbage", "{}", "[1]\n"])
def test_a_file_that_is_no_export_is_said_to_be_none(recorded: Recorded, text: str) -> None:
    project = recorded.project
    (project.folder / "given").write_text(text)
    vkey = project.here("audit", "key").out.strip()
    done = project.here("audit", "verify", "--export", str(project.folder / "given"), "--key", vkey)
    assert done.code == 2, done.both
    assert "This is no export of Charter (made by `charter audit export`)." in done.err
