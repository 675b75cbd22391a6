"""Checkpoints outside the database vouch for their own log, in a file that tenants share as well; `audit verify` compares."""

from __future__ import annotations

from contextlib import closing

import anyio
import pytest

from charter.audit.checkpoint import Signer
from charter.audit.note_file import read_notes
from charter.model import commands as cmd
from charter.model.principal import Principal
from charter.server.app import running
from charter.server.settings import load_settings
from tests.cli.support import Project
from tests.cli.test_tampering import open_raw

pytestmark = pytest.mark.guarantee("G7")

NOTE = "{origin}\n{size}\n" + "A" * 43 + "=\n\n— {origin} AAAAAAAA\n\n"


@pytest.fixture
def shared(project: Project) -> Project:
    """Two tenants, two checkpoints each, all published to one file."""
    config = project.folder / "charter.toml"
    config.write_text(config.read_text().replace("[audit]\n", '[audit]\npublish_file = "published.txt"\n', 1))
    settings = load_settings(config, environ={})

    async def work() -> None:
        async with running(settings, drive=False, connect=False) as charter:
            for _ in range(2):
                for tenant in ("default", "other"):
                    agent = Principal(id="ide", kind="agent", roles=("agent",), acts_for="ann", tenant=tenant)
                    await charter.gate.handle(agent, cmd.StartWorkflow(template="governed-session", purpose="Plan"))
                    await charter.checkpointer.checkpoint(tenant)

    anyio.run(work)
    return project


def published(project: Project) -> str:
    return (project.folder / "published.txt").read_text("utf-8")


def publish(project: Project, text: str) -> None:
    (project.folder / "published.txt").write_text(text, "utf-8")


def test_tenants_that_share_a_published_file_verify_each(shared: Project) -> None:
    assert {line for line in published(shared).splitlines() if line.startswith("charter/")} == {
        "charter/default",
        "charter/other",
    }
    for env in ({}, {"CHARTER_TENANT": "other"}):
        done = shared.charter("audit", "verify", "--json", env=env)
        assert (done.code, done.json["ok"], done.json["notices"]) == (0, True, []), done.both
        assert done.json["tenant"] == env.get("CHARTER_TENANT", "default")


def test_a_forged_checkpoint_of_this_log_is_found_among_them(shared: Project) -> None:
    forged = Signer.from_seed("charter/default", b"\x07" * 32)
    text = NOTE.format(origin="charter/default", size=1).partition("\n\n")[0].encode() + b"\n"
    publish(shared, published(shared) + (text + b"\n" + forged.line(text)).decode() + "\n")
    done = shared.here("audit", "verify", "--json")
    assert (done.code, [each["rule"] for each in done.json["findings"]]) == (3, ["checkpoint_invalid"])


def test_checkpoints_of_logs_that_are_not_here_and_torn_ones_are_told_and_no_damage(shared: Project) -> None:
    strange = NOTE.format(origin="charter/elsewhere", size=1)
    publish(shared, published(shared) + strange + "charter/default\n9\nAAA")
    done = shared.here("audit", "verify", "--json")
    assert done.code == 0, done.both
    [passed_over, torn] = done.json["notices"]
    assert "charter/elsewhere" in passed_over
    assert "1 incomplete checkpoint:" in torn
    assert "1 incomplete checkpoint:" in shared.here("audit", "verify").err


def test_a_file_given_by_hand_without_a_checkpoint_of_this_log_is_no_comparison(shared: Project) -> None:
    for text in ("", "garbage", NOTE.format(origin="charter/elsewhere", size=1)):
        (shared.folder / "given.txt").write_text(text, "utf-8")
        done = shared.here("audit", "verify", "--checkpoints", str(shared.folder / "given.txt"))
        assert done.code == 2, done.both
        assert "holds no checkpoint of charter/default" in done.err


def test_a_note_that_a_crash_tore_does_not_spoil_the_next_one(shared: Project) -> None:
    publish(shared, published(shared) + "charter/default\n9\nAAA")
    with closing(open_raw(shared.database)) as raw:
        raw.execute("DELETE FROM checkpoints")
    (shared.folder / ".charter" / "keys" / "checkpoints" / "default.note").unlink()
    shared.ok("audit", "checkpoint")
    notes = read_notes(published(shared).encode())
    assert (len(notes.notes), notes.torn) == (5, 1)


@pytest.mark.parametrize("which", ["size = (SELECT min(size) FROM checkpoints WHERE tenant = 'default')", "true"])
def test_checkpoints_deleted_from_the_database_are_missed(shared: Project, which: str) -> None:
    with closing(open_raw(shared.database)) as raw:
        raw.execute(f"DELETE FROM checkpoints WHERE tenant = 'default' AND {which}")
        assert raw.execute("SELECT changes()").fetchone() != (0,)
    done = shared.here("audit", "verify", "--json")
    assert done.code == 3, done.both
    assert {each["rule"] for each in done.json["findings"]} == {"checkpoint_missing"}


def test_all_checkpoints_gone_are_missed_by_the_one_beside_the_keys(shared: Project) -> None:
    (shared.folder / "published.txt").unlink()
    with closing(open_raw(shared.database)) as raw:
        raw.execute("DELETE FROM checkpoints")
    done = shared.here("audit", "verify", "--json")
    assert (done.code, done.json["findings"][0]["rule"]) == (3, "checkpoint_missing")


def test_a_checkpoint_deleted_in_the_middle_is_missed_by_the_next_although_nothing_was_published(
    shared: Project,
) -> None:
    (shared.folder / "published.txt").unlink()
    assert shared.here("audit", "verify").code == 0
    with closing(open_raw(shared.database)) as raw:
        raw.execute("DELETE FROM checkpoints WHERE size = (SELECT min(size) FROM checkpoints WHERE tenant = 'default')")
    done = shared.here("audit", "verify", "--json")
    [found] = done.json["findings"]
    assert (done.code, found["rule"]) == (3, "checkpoint_missing")
    assert "signed before that of size" in found["text"]
    log, key = str(shared.folder / "log.charter"), shared.ok("audit", "key").out.strip()
    shared.ok("audit", "export", log)
    file = shared.here("audit", "verify", "--export", log, "--key", key, "--json")
    assert (file.code, file.json["findings"][0]["rule"]) == (3, "checkpoint_missing"), "an export of it shows it too"


def test_a_checkpoint_that_is_signed_again_still_names_the_one_before(shared: Project) -> None:
    """Who deletes the newest one and has it made again gets no chain without the first."""
    (shared.folder / "published.txt").unlink()
    with closing(open_raw(shared.database)) as raw:
        raw.execute("DELETE FROM checkpoints WHERE tenant = 'default'")
    shared.ok("audit", "checkpoint")
    done = shared.here("audit", "verify", "--json")
    assert [each["rule"] for each in done.json["findings"]] == ["checkpoint_missing"]
