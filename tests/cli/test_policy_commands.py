"""Policies on the command line: check, test, explain a described or a recorded request, replay the record."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from charter import policies
from charter.policies.shipped import shipped_files, was_shipped
from tests.cli.recorded import Recorded
from tests.cli.support import Project


def test_the_starter_policies_hold_together_and_pass_their_tests(project: Project) -> None:
    done = project.ok("policy", "check")
    assert "approve-medium-risk" in done.out
    assert "policies hold together: sha256:" in done.out
    assert project.ok("policy", "test").out.endswith(" 0 failed\n")


def test_a_broken_policy_names_file_and_mend(project: Project) -> None:
    (project.folder / "policies" / "authorise-mine.cedar").write_text('@id("x") permit (principal, action, resource')
    done = project.here("policy", "check")
    assert done.code == 2
    assert "authorise-mine.cedar" in done.err
    assert len(done.err.strip().splitlines()) >= 2


def test_a_failing_policy_test_says_what_it_got(project: Project) -> None:
    file = project.folder / "policies" / "charter.test.yaml"
    file.write_text(
        file.read_text().replace("{ verdict: permit, code: permitted,", "{ verdict: deny, code: permitted,")
    )
    done = project.here("policy", "test")
    assert done.code == 1
    assert "FAILED charter.test.yaml: a plain read never asks" in done.out
    assert "verdict: expected deny, got permit" in done.out


def test_a_described_request_is_explained(project: Project) -> None:
    asked = project.ok("policy", "explain", "--tool", "casebook__write_note", "--caller", "agent:ide")
    assert asked.out.startswith("require_approval")
    assert "approve-medium-risk" in asked.out
    outside = project.ok("policy", "explain", "--tool", "casebook__read_note", "--caller", "agent:ide", "--outside")
    assert outside.out.startswith("deny (workflow_required)")
    facts = "{action: audit.read, resource_type: Ledger, resource_id: default, principal: {id: a, kind: human}}"
    assert project.ok("policy", "explain", "--facts", facts, "--json").json["decision"]["verdict"] == "deny"
    assert project.here("policy", "explain", "--caller", "agent:ide").code == 2
    assert project.here("policy", "explain", "--tool", "casebook__fly", "--caller", "agent:x").code == 1


def test_a_recorded_decision_is_explained_by_its_event(recorded: Recorded) -> None:
    project = recorded.project
    events = project.ok("audit", "log", "--type", "POLICY_DECISION", "--workflow", recorded.done, "--json").json[
        "items"
    ]
    asked = next(event for event in events if event["data"]["verdict"] == "require_approval")
    by_id = project.ok("policy", "explain", asked["id"])
    assert by_id.out.startswith("require_approval")
    assert project.ok("policy", "explain", str(asked["seq"])).out == by_id.out
    other = project.ok("audit", "log", "--type", "TOOL_INVOKE", "--json").json["items"][0]
    assert project.here("policy", "explain", other["id"]).code == 2


def test_replay_lists_what_a_candidate_would_change(recorded: Recorded) -> None:
    project = recorded.project
    candidate = project.folder / "policies-next"
    shutil.copytree(project.folder / "policies", candidate)
    same = project.ok("policy", "replay", "--candidate", str(candidate)).out
    assert "0 would change" in same

    more = (
        '@id("no-writes") @reason("Not now.") forbid (principal, action in Charter::Action::"tool.invoke", resource)\n'
    )
    (candidate / "authorise-zz.cedar").write_text(more + 'when { resource.risk == "medium" };\n')
    changed = project.ok("policy", "replay", "--candidate", str(candidate), "--json").json
    assert changed["replayed"] > len(changed["items"]) > 0
    assert {item["direction"] for item in changed["items"]} == {"stricter"}
    assert {item["after"]["verdict"] for item in changed["items"]} == {"deny"}
    only = project.ok("policy", "replay", "--candidate", str(candidate), "--workflow", recorded.waiting, "--json").json
    assert 0 < len(only["items"]) < len(changed["items"])


def test_a_recorded_decision_explained_by_other_policies_says_so(recorded: Recorded) -> None:
    project = recorded.project
    event = str(project.ok("audit", "log", "--type", "POLICY_DECISION", "--json").json["items"][0]["seq"])
    assert "which are those that it was decided by" in project.ok("policy", "explain", event).out
    assert project.ok("policy", "explain", event, "--json").json["same_policies"] is True
    policy = project.folder / "policies" / "authorise.cedar"
    closed = '@id("closed") @reason("Closed.") forbid (principal is Charter::Agent, action, resource);'
    policy.write_text(policy.read_text("utf-8") + closed, "utf-8")
    shown = project.ok("policy", "explain", event)
    assert "ANOTHER set" in shown.out
    assert "Closed." in shown.out
    answer = project.ok("policy", "explain", event, "--json").json
    assert answer["same_policies"] is False
    assert answer["recorded_policy_set_hash"] != answer["policy_set_hash"]


# -- an installation whose policies an older version shipped


PUBLISH = re.compile(r'@id\("[^"]*"\)[^;]*?template\.publish"[^;]*;\n', re.DOTALL)


@pytest.fixture
def older(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Policies as a version shipped them that knew no publishing of templates."""
    file = project.folder / "policies" / "authorise.cedar"
    text, count = PUBLISH.subn("", file.read_text())
    assert count == 1
    file.write_text(text)
    shipped = {("authorise.cedar", text)}
    monkeypatch.setattr(policies, "was_shipped", lambda name, text: (name, text) in shipped or was_shipped(name, text))
    return file


def test_a_verb_that_no_policy_permits_is_told(project: Project, older: Path) -> None:
    done = project.ok("policy", "check")
    assert "No policy permits template.publish to anybody" in done.err
    assert "charter policy upgrade" in done.err
    assert project.ok("policy", "check", "--json").json["uncovered"] == ["template.publish"]


def test_the_starter_set_leaves_no_verb_out(project: Project) -> None:
    assert "No policy permits" not in project.ok("policy", "check").err
    assert project.ok("policy", "check", "--json").json["uncovered"] == []


def test_what_nobody_changed_is_upgraded_and_what_somebody_changed_is_left(project: Project, older: Path) -> None:
    mine = older.with_name("obligations.cedar")
    mine.write_text(mine.read_text().replace('@within("PT24H")', '@within("PT8H")'))
    kept, before = mine.read_text(), older.read_text()
    shown = project.ok("policy", "upgrade")
    assert "authorise.cedar: as an older version shipped it" in shown.out
    assert "obligations.cedar: changed since it was shipped" in shown.out
    assert "charter.test.yaml: as this version ships it" in shown.out
    assert re.search(r'^\+.*Charter::Action::"template\.publish"', shown.out, re.MULTILINE)
    assert "template.publish" in shown.err
    assert older.read_text() == before, "nothing is written unless it is asked for"

    done = project.ok("policy", "upgrade", "--write", "--json").json
    assert done["written"] == ["authorise.cedar", "obligations.cedar.new"]
    assert done["uncovered"] == []
    assert older.read_text() == shipped_files()["authorise.cedar"]
    assert mine.read_text() == kept
    assert mine.with_name("obligations.cedar.new").read_text() == shipped_files()["obligations.cedar"]
    assert "template.publish" not in project.ok("policy", "check").err
    assert project.ok("policy", "test").out.endswith(" 0 failed\n")
    assert "Nothing to upgrade" not in project.ok("policy", "upgrade").err, "theirs still differs"


def test_a_file_that_somebody_took_away_is_not_put_in_force(project: Project) -> None:
    folder = project.folder / "policies"
    (folder / "authorise.cedar").rename(folder / "authorise-ours.cedar")
    assert "authorise.cedar: not in the folder" in project.ok("policy", "upgrade").out
    assert project.ok("policy", "upgrade", "--write", "--json").json["written"] == ["authorise.cedar.new"]
    assert not (folder / "authorise.cedar").exists()
    project.ok("policy", "check")


def test_a_set_that_would_not_load_is_not_written(project: Project, older: Path) -> None:
    """Somebody had written the missing permit themselves, under the name that it was shipped under later."""
    shipped = PUBLISH.search(shipped_files()["authorise.cedar"])
    assert shipped is not None
    older.with_name("authorise-ours.cedar").write_text(shipped[0])
    before = older.read_text()
    assert project.here("policy", "upgrade", "--write").code == 2
    assert older.read_text() == before
    assert not list(older.parent.glob("*.new"))


def test_every_text_that_is_shipped_is_known_again() -> None:
    """When you change a shipped file: `sha256sum` it and add the line to src/charter/policies/shipped/versions.txt."""
    for name, text in shipped_files().items():
        assert was_shipped(name, text), f"{hashlib.sha256(text.encode()).hexdigest()}  {name}"
    assert not was_shipped("authorise.cedar", "")
