"""Who gives a command: tokens, --as, roles; and what people decide with it."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import orjson
import pytest

from tests import forked
from tests.cli.recorded import Recorded
from tests.cli.support import Project, environment

SECRET = "eyJ"


def test_a_token_says_who_it_is_and_show_does_not_repeat_it(project: Project, tmp_path: Path) -> None:
    token = project.token("--agent", "ide", "--acts-for", "ann", "--ttl", "30m", "--acts-for-role", "editor,lead")
    shown = project.ok("token", "show", token, "--json").json
    assert (shown["subject"], shown["kind"], shown["acts_for"], shown["roles"]) == ("ide", "agent", "ann", ["agent"])
    assert shown["acts_for_roles"] == ["editor", "lead"]
    assert shown["audience"] == project.url
    assert SECRET not in project.ok("token", "show", token).out
    file = tmp_path / "token"
    file.write_text(token)
    assert project.ok("token", "show", str(file), "--json").json == shown
    for wrong in (
        ["--agent", "a", "--human", "b"],
        ["--subject", "x"],
        ["--human", "a b"],
        ["--human", "a", "--acts-for", "b"],
        ["--human", "a", "--ttl", "1y"],
        ["--human", "a", "--ttl", "300d"],
        ["--human", "a", "--role", "charter"],
    ):
        assert project.here("token", "issue", *wrong).code == 2, wrong


def test_a_persons_own_token_decides_and_a_revoked_one_does_not(recorded: Recorded, tmp_path: Path) -> None:
    project, file = recorded.project, tmp_path / "token"
    file.write_text(project.token("--human", "dora", "--role", "approver"))
    mine = ["--token-file", str(file)]
    project.ok("approvals", "show", recorded.approval_id, *mine)
    project.ok("token", "revoke", str(file))
    refused = project.here("approvals", "approve", recorded.approval_id, "--yes", *mine)
    assert refused.code == 4
    assert "Next: " in refused.err

    file.write_text(project.token("--human", "dora", "--role", "approver"))
    done = project.charter(
        "approvals", "approve", recorded.approval_id, "--yes", env={"CHARTER_TOKEN": file.read_text()}
    )
    assert done.code == 0, done.both
    decided = project.ok("audit", "log", "--type", "APPROVAL_DECISION", "--json").json["items"][-1]["data"]
    assert decided["decided_by"] == "dora"
    assert "key-folder" not in decided["roles"]


def test_foreign_tokens_are_refused(recorded: Recorded, tmp_path: Path) -> None:
    project, file = recorded.project, tmp_path / "token"
    foreign = ["--audience", "http://127.0.0.1:1/mcp"]
    for text in (
        "nonsense",
        project.token("--human", "dora", *foreign),
        project.token("--human", "d", "--ttl", "1s")[:-9],
    ):
        file.write_text(text)
        assert project.here("approvals", "list", "--token-file", str(file)).code == 4
    both = project.here("approvals", "list", "--token-file", str(file), "--as", "x")
    assert both.code == 2


def test_a_policy_can_forbid_those_who_only_have_the_key_folder(recorded: Recorded) -> None:
    project = recorded.project
    (project.folder / "policies" / "authorise-own.cedar").write_text(
        '@id("personal-tokens-only") @reason("Use a token of your own.")\n'
        'forbid (principal, action == Charter::Action::"approval.decide", resource)\n'
        'when { principal.roles.contains("key-folder") };\n'
    )
    done = project.here("approvals", "approve", recorded.approval_id, "--yes", "--as", "carol")
    assert done.code == 1
    assert "Use a token of your own." in done.err


def test_who_may_not_read_the_record_is_told_so(recorded: Recorded) -> None:
    for command in (["audit", "log"], ["audit", "export", "-"], ["effects", "list"], ["audit", "prove", "1"]):
        done = recorded.project.here(*command, "--as", "mallory", "--role", "visitor")
        assert done.code == 1, command
        assert done.out == ""


def test_deciding_edit_ask_reject(recorded: Recorded) -> None:
    project, approval_id = recorded.project, recorded.approval_id
    project.ok("approvals", "ask", approval_id, "-m", "Which Monday?", "--as", "carol")
    assert "Which Monday?" in project.ok("workflows", "show", recorded.waiting).out

    new = {"name": "plan", "text": "Call them on Tuesday.\n"}
    done = project.ok(
        "approvals", "edit", approval_id, "--arguments", orjson.dumps(new).decode(), "--yes", "--as", "carol"
    )
    assert "it is edited now" in done.out
    [replacement] = project.ok("approvals", "list", "--json").json["items"]
    assert replacement["approval_id"] != approval_id
    assert "Call them on Tuesday." in project.ok("approvals", "show", replacement["approval_id"]).out

    wrong = ["approvals", "edit", replacement["approval_id"], "--yes", "--arguments"]
    assert project.here(*wrong, "[1]").code == 2
    assert project.here(*wrong, '{"name": 7}').code == 2
    project.ok("approvals", "reject", replacement["approval_id"], "--yes", "--as", "carol", "-m", "No.")
    assert project.ok("approvals", "list", "--json").json == {"items": [], "next": None}
    rejected = project.ok("approvals", "list", "--status", "rejected", "--json").json["items"]
    assert [item["approval_id"] for item in rejected] == [replacement["approval_id"]]


def test_yes_needs_ids_and_asking_needs_a_terminal(recorded: Recorded) -> None:
    assert recorded.project.here("approvals", "approve", "--yes").code == 2
    assert recorded.project.charter("approvals", "approve").code == 2
    assert recorded.project.charter("approvals", "review").code == 2
    missing = recorded.project.here(
        "approvals", "approve", "appr_nothing", recorded.approval_id, "--yes", "--as", "carol"
    )
    assert missing.code == 1, "one that is not there is told, the other is decided"
    assert "approve recorded for carol" in missing.out


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    "command",
    [
        ["approve"],
        ["approve", "--yes"],
        ["reject", "--yes"],
        ["edit", "--yes", "--arguments", '{"name": "plan", "text": "x"}'],
        ["delegate", "--to", "dora", "--yes"],
    ],
)
def test_who_may_not_decide_is_told_so_before_anything_is_shown_or_asked(
    recorded: Recorded, command: list[str]
) -> None:
    verb, *options = command
    for name, roles in (("visitor", ["--role", "visitor"]), ("ide", [])):  # no role for it; their own request
        done = recorded.project.here("approvals", verb, recorded.approval_id, *options, "--as", name, *roles)
        assert done.code == 1, done.both
        assert recorded.approval_id in done.err
        assert "Next: " in done.err
        assert "Call them on Monday." not in done.both
        assert "exactly this call" not in done.both
        assert "describe_tools" not in done.err, "a person is told commands"
    assert [item["approval_id"] for item in recorded.project.ok("approvals", "list", "--json").json["items"]] == [
        recorded.approval_id
    ]


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals")
def test_reviewing_on_a_terminal_shows_each_call_and_asks(recorded: Recorded) -> None:
    project = recorded.project
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        forked.command("charter.cli", "approvals", "review", "--as", "carol"),
        cwd=project.folder,
        env=environment({"TERM": "dumb"}),
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(follower)
    os.write(leader, b"a\nlooks right\n")
    out, _ = process.communicate(timeout=60)
    os.close(leader)
    assert process.returncode == 0, out
    assert "Call them on Monday." in out
    assert "approve recorded for carol" in out


def test_a_standing_grant_is_given_seen_and_taken_back(recorded: Recorded) -> None:
    project, run = recorded.project, recorded.waiting
    give = ["approvals", "grant", run, "--tool", "casebook__append_note", "--as", "ann"]
    assert project.here(*give).code == 2, "which arguments must be said"
    assert project.here(*give, "--any-arguments", "--uses", "5000").code == 2
    assert project.here(*give, "--arguments", '{"type": 7}').code == 2
    twice = project.here(*give, "--arguments", '{"type": "object", "type": "string"}')
    assert twice.code == 2
    assert "'type' is given twice" in twice.err
    risky = project.here("approvals", "grant", run, "--tool", "casebook__delete_note", "--any-arguments", "--as", "ann")
    assert risky.code == 1
    bounds = '{"type": "object", "properties": {"name": {"const": "plan"}}}'
    project.ok(*give, "--arguments", bounds, "--uses", "3")
    [grant] = project.ok("approvals", "grants", run, "--as", "ann", "--json").json["items"]
    assert (grant["tool"], grant["uses_left"], grant["revoked"]) == ("casebook__append_note", 3, False)
    project.ok("approvals", "revoke", run, grant["grant_id"], "--as", "ann")
    assert project.ok("approvals", "grants", run, "--as", "ann", "--json").json["items"][0]["revoked"]


def test_strangers_words_do_no_harm_on_a_terminal(recorded: Recorded) -> None:
    """Control characters of an agent's texts reach no output, in no form of it."""
    import anyio

    from charter.model import commands as cmd
    from charter.server.app import running
    from charter.server.settings import load_settings
    from tests.cli.recorded import IDE

    project = recorded.project
    evil = "\x1b[2J\x1b[1;32mAPPROVED\u202e\x07 [bold red]x[/]"
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def start() -> str:
        async with running(settings, connect=False, drive=False) as charter:
            command = cmd.StartWorkflow(template="governed-session", purpose="x")
            # As a database of other hands may hold it: the doors refuse such a purpose.
            command = command.model_copy(update={"purpose": evil})
            started = await charter.gate.handle(IDE, command)
            return str(started.workflow_id)

    run = anyio.run(start)
    for command in (
        ["workflows", "list"],
        ["workflows", "show", run],
        ["workflows", "list", "--json"],
        ["audit", "log"],
        ["audit", "log", "--json"],
        ["audit", "trace", run],
        ["audit", "show", "1"],
    ):
        out = project.ok(*command).out
        assert not {"\x1b", "\u202e", "\x07"} & set(out), command
    assert "[bold red]x[/]" in project.ok("workflows", "list").out
