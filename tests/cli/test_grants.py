"""``charter approvals grant``: within the installation's caps, and with ``--case`` one for all runs of a case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio

from charter.model import commands as cmd
from charter.server.app import Charter, running
from charter.server.settings import load_settings
from tests.cli.recorded import IDE
from tests.cli.support import Project

TOOL = "casebook__append_note"


def test_a_case_s_grant_covers_its_other_runs_and_is_taken_back_from_any_of_them(project: Project) -> None:
    first, second, stranger = _start(project, "c7", "c7", "c8")
    give = ["approvals", "grant", first, "--tool", TOOL, "--any-arguments", "--uses", "3", "--as", "ann"]
    wrong = project.here(*give, "--case", "c8")
    assert wrong.code == 2
    assert "does not belong to case" in wrong.err
    for wide in (("--uses", "101"), ("--hours", "25"), ("--hours", "100000000"), ("--hours", str(10**12))):
        refused = project.here(*give, *wide)
        assert refused.code == 2
        assert "at most 100 calls and 24 hours" in refused.err
        assert "[grants]" in refused.err  # where the caps are
    assert _grants(project, first) == []
    assert "in the runs of case c7" in project.ok(*give, "--case", "c7").out
    assert _append(project, second, stranger) == ["succeeded", "pending_approval"]
    [grant] = _grants(project, second)
    assert (grant["case_id"], grant["uses_left"], grant["revoked"]) == ("c7", 2, False)
    assert _grants(project, stranger) == []
    project.ok("approvals", "revoke", second, grant["grant_id"], "--as", "ann")
    assert _grants(project, first)[0]["revoked"]
    assert _append(project, first) == ["pending_approval"]


def test_a_grant_says_what_it_limits_and_a_refusal_its_real_reason(project: Project) -> None:
    [run] = _start(project, "c7")
    give = ["approvals", "grant", run, "--as", "ann", "--tool"]
    for nothing in ("{}", '{"type": "object", "title": "t"}', '{"properties": {"name": {}}, "required": []}'):
        refused = project.here(*give, TOOL, "--arguments", nothing)
        assert refused.code == 2
        assert "limits nothing" in refused.err
        assert "--any-arguments" in refused.err
    for mistaken in ('{"name": {"const": "welcome"}}', '{"properties": {"name": {"konst": "welcome"}}}'):
        refused = project.here(*give, TOOL, "--arguments", mistaken)
        assert refused.code == 2
        assert "no keyword of JSON Schema" in refused.err
        assert "under properties" in refused.err
    wide = ("--any-arguments", "--uses", "101", "--hours", "25")
    assert "There is no governed tool" in project.here(*give, "casebook__nope", *wide).err
    stranger = project.here("approvals", "grant", run, "--as", "zoe", "--role", "auditor", "--tool", TOOL, *wide)
    assert "at most" not in stranger.err
    assert stranger.code not in (0, 2, 70)
    assert _grants(project, run) == []


def test_where_the_cap_is_lower_the_default_is_the_cap(project: Project) -> None:
    settings = project.folder / "charter.toml"
    settings.write_text(settings.read_text().replace("[grants]", "[grants]\nmax_uses = 3"))
    [run] = _start(project, "c7")
    assert "3 calls of" in project.ok("approvals", "grant", run, "--tool", TOOL, "--any-arguments", "--as", "ann").out
    assert [grant["uses_left"] for grant in _grants(project, run)] == [3]


def _grants(project: Project, run: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = project.ok("approvals", "grants", run, "--as", "ann", "--json").json["items"]
    return found


def _start(project: Project, *cases: str) -> list[str]:
    async def start(charter: Charter, case: str) -> str:
        command = cmd.StartWorkflow(template="governed-session", purpose="Plan", case_id=case)
        return str((await charter.gate.handle(IDE, command)).workflow_id)

    return _within(project, start, cases)


def _append(project: Project, *runs: str) -> list[str]:
    async def append(charter: Charter, run: str) -> str:
        [invocation] = (await charter.queries.workflow(IDE, run)).invocations
        command = cmd.InvokeTool(
            workflow_id=run,
            agent_invocation_id=invocation.agent_invocation_id,
            tool=TOOL,
            arguments={"name": "welcome", "text": "More.\n"},
        )
        return str((await charter.gate.handle(IDE, command)).status)

    return _within(project, append, runs)


def _within(project: Project, work: Callable[[Charter, str], Awaitable[str]], each: Sequence[str]) -> list[str]:
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def opened() -> list[str]:
        async with running(settings, drive=False) as charter:
            return [await work(charter, one) for one in each]

    return anyio.run(opened)
