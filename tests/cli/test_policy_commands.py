"""Policies on the command line: check, test, explain a described or a recorded request, replay the record."""

from __future__ import annotations

import shutil

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
