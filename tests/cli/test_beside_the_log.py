"""Whoever changes what stands beside the log is found too: `audit verify` names it, `audit rebuild` mends it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import anyio
import orjson
import pytest

from charter.model import commands as cmd
from charter.model.approval import ApprovalRequest
from charter.server.app import running
from charter.server.settings import load_settings
from charter.store.sqlite.migrating import migrate
from charter.store.sqlite.relisting import LISTS
from tests.cli.recorded import IDE, Recorded
from tests.cli.support import Project
from tests.cli.test_erasing import propose_with_a_sensitive_text
from tests.cli.test_tampering import open_raw

pytestmark = pytest.mark.guarantee("G7")

CHANGES = {
    "an approval said to be approved": (
        "UPDATE approvals SET status = 'approved' WHERE status = 'pending'",
        "approvals appr_",
    ),
    "an approval hidden": ("DELETE FROM approvals WHERE status = 'pending'", "approvals appr_"),
    "another request shown": ("UPDATE approvals SET request = '{}'", "approvals appr_"),
    "a run said to be over": ("UPDATE workflows SET status = 'completed', wake_at = NULL", "workflows wf_"),
    "a run hidden": ("DELETE FROM workflows", "workflows wf_"),
    "a run invented": (
        "INSERT INTO workflows SELECT tenant, 'wf_zzz', template, status, owner, purpose, case_id, blocked_on,"
        " started_at, updated_at, wake_at FROM workflows LIMIT 1",
        "workflows wf_zzz",
    ),
    "another owner": ("UPDATE workflows SET owner = 'eve'", "workflows wf_"),
    "a timer put off": (
        "UPDATE workflows SET wake_at = '9999-01-01T00:00:00.000Z' WHERE wake_at IS NOT NULL",
        "workflows wf_",
    ),
    "an effect invented": (
        "INSERT INTO effects SELECT tenant, 'eff_1', workflow_id, 'in_doubt', 'bank__pay', 'srv_1', started_at"
        " FROM workflows LIMIT 1",
        "effects eff_1",
    ),
    "a wait invented": (
        "INSERT INTO waits VALUES ('default', 'invoice.paid', 'wf_1', 'w')",
        "waits invoice.paid/wf_1/w",
    ),
    "a used approval free again": ("DELETE FROM claims WHERE scope = 'approval'", "claims approval:appr_"),
    "an approval used up by nobody": (
        "INSERT INTO claims VALUES ('default', 'approval', 'appr_9', 'eff_9')",
        "claims approval:appr_9",
    ),
    "another template for new runs": (
        "UPDATE claims SET value = 'sha256:0' WHERE scope = 'template_ref'",
        "claims template_ref:",
    ),
    "something sealed by nobody": (
        "INSERT INTO sealed (tenant, ref, key_id, blob) VALUES ('default', 'seal_zzz', 'k', x'01')",
        "sealed seal_zzz: no event refers to it",
    ),
    "a reader beyond the end, who is told nothing more": (
        "INSERT INTO places VALUES ('default', 'nobody', 1000000)",
        "places nobody: 1000000 is no place in the log",
    ),
    "a run set back": ("UPDATE streams SET version = version - 1 WHERE stream LIKE 'wf_%'", "streams wf_"),
    "a run that ends elsewhere": ("UPDATE streams SET last = last - 1 WHERE stream LIKE 'wf_%'", "streams wf_"),
    "a run without its middle": ("UPDATE events SET prev = prev - 1 WHERE version = 4", "events "),
    "a guard taken away": ("SELECT 1", "schema claims_no_delete"),
    "a trigger of somebody's": ("CREATE TRIGGER mine AFTER INSERT ON events BEGIN SELECT 1; END", "schema mine"),
}


SCHEMA = ("a guard taken away", "a trigger of somebody's")


def change(recorded: Recorded, *names: str) -> None:
    """As somebody careful does it: the triggers are put back."""
    with closing(sqlite3.connect(recorded.project.database, isolation_level=None)) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for trigger, _ in triggers:
            raw.execute(f"DROP TRIGGER {trigger}")
        for name in names:
            raw.execute(CHANGES[name][0])
            assert len(names) > 1 or name in SCHEMA or raw.execute("SELECT changes()").fetchone() != (0,)
        for trigger, statement in triggers:
            if SCHEMA[0] not in names or trigger != "claims_no_delete":
                raw.execute(statement)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_beside_the_log_is_found_and_named(recorded: Recorded, name: str) -> None:
    change(recorded, name)
    done = recorded.project.here("audit", "verify", "--json")
    assert done.code == 3, done.both
    assert CHANGES[name][1] in done.json["findings"][0]["text"]
    assert (done.json["findings"][0]["rule"], done.json["first_bad"]) == ("list_differs", None)
    assert "charter audit rebuild" in done.err.splitlines()[1]


def test_the_lists_are_made_anew_from_the_log_by_an_administrator_and_on_record(recorded: Recorded) -> None:
    project = recorded.project
    change(recorded, *CHANGES)
    assert project.here("audit", "rebuild", "-m", "Somebody wrote to it.").code == 1, "operators may not"
    assert project.here("audit", "verify").code == 3
    mended = project.ok("audit", "rebuild", "-m", "Somebody wrote to it.", "--as", "ada", "--role", "admin")
    assert "on record" in mended.out
    assert "Everything verifies" in project.ok("audit", "verify").out
    [event] = project.ok("audit", "log", "--type", "LISTS_REBUILT", "--json").json["items"]
    assert event["data"]["rebuilt_by"] == "ada"
    assert event["data"]["differences"] >= 1
    assert recorded.approval_id in project.ok("approvals", "list").out


def test_nothing_is_made_of_a_log_that_does_not_verify(recorded: Recorded) -> None:
    raw = open_raw(recorded.project.database)
    raw.execute("UPDATE events SET leaf = CAST(replace(leaf, 'casebook', 'cheatbook') AS BLOB) WHERE version = 5")
    raw.execute("DELETE FROM approvals")
    raw.close()
    done = recorded.project.here("audit", "rebuild", "-m", "Hide it.", "--as", "ada", "--role", "admin")
    assert done.code == 3, done.both
    assert "Nothing was rebuilt" in done.err
    with closing(sqlite3.connect(recorded.project.database)) as raw:
        assert raw.execute("SELECT count(*) FROM approvals").fetchone() == (0,)


def test_every_table_is_a_list_that_is_compared_or_says_why_not() -> None:
    """A table that is added here must be added to what `verify` compares, or to those that need no comparison."""
    other = {
        "tenants": "the head: compared with the tree",
        "streams": "compared",
        "events": "the log itself",
        "nodes": "compared",
        "checkpoints": "signed",
        "claims": "compared",
        "places": "how far each reader of the outbox has got is not on record; one outside the log is found",
        "sealed": "each opens in its own place alone, and an event refers to it",
        "snapshots": "sealed; one that does not open is not used",
        "schema_version": "the schema itself is compared",
    }
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as raw:
        migrate(raw)
        tables = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == other.keys() | LISTS.keys()


# -- what is sealed


def test_what_is_sealed_in_anothers_place_or_gone_is_found(project: Project) -> None:
    for _ in range(2):
        propose_with_a_sensitive_text(project)
    assert "Everything verifies" in project.ok("audit", "verify").out
    with closing(sqlite3.connect(project.database, isolation_level=None)) as raw:
        (one, first), (two, second) = raw.execute("SELECT ref, blob FROM sealed ORDER BY ref LIMIT 2").fetchall()
        raw.execute("UPDATE sealed SET blob = ? WHERE ref = ?", (second, one))
        raw.execute("UPDATE sealed SET blob = ? WHERE ref = ?", (first, two))
    done = project.here("audit", "verify", "--json")
    assert (done.code, done.json["first_bad"]["rule"]) == (3, "sealed_damaged")
    assert one in done.json["first_bad"]["text"]
    with closing(sqlite3.connect(project.database, isolation_level=None)) as raw:
        raw.execute("DELETE FROM sealed")
    done = project.here("audit", "verify", "--json")
    assert (done.code, done.json["first_bad"]["rule"]) == (3, "sealed_missing")
    assert "backup" in project.here("audit", "verify").err


def test_another_text_of_a_template_is_found_and_no_run_goes_on_with_it(recorded: Recorded) -> None:
    project = recorded.project
    with closing(open_raw(project.database)) as raw:
        raw.execute(
            "UPDATE claims SET value = replace(value, '\"calls\":1000', '\"calls\":9000') WHERE scope = 'template'"
        )
        assert raw.execute("SELECT changes()").fetchone() == (1,)
    done = project.here("audit", "verify", "--json")
    assert (done.code, done.json["first_bad"]["rule"]) == (3, "template_changed")
    shown = project.here("workflows", "show", recorded.waiting)
    assert shown.code == 3, shown.both
    assert "not what its runs were started with" in shown.err


def test_an_old_copy_of_the_database_is_older_than_what_was_signed_since(recorded: Recorded) -> None:
    """Put back with all its files, it is whole in itself: the checkpoint that is kept beside the keys knows better."""
    project = recorded.project
    with closing(sqlite3.connect(project.database)) as raw, closing(sqlite3.connect(project.folder / "old")) as old:
        raw.backup(old)
    project.ok("approvals", "reject", recorded.approval_id, "--yes", "-m", "No.", "--as", "carol")
    project.ok("audit", "checkpoint")
    for rest in ("-wal", "-shm"):
        project.database.with_name(project.database.name + rest).unlink(missing_ok=True)
    (project.folder / "old").replace(project.database)
    done = project.here("audit", "verify")
    assert done.code == 3, done.both
    assert project.here("audit", "verify", "--json").json["first_bad"]["rule"] == "truncated"
    assert project.here("audit", "checkpoint").code == 3, "nor is it signed"


# -- rows of an older version


def requests_written_without(project: Project, *fields: str) -> None:
    """As a version wrote them that did not know these fields yet."""
    with closing(sqlite3.connect(project.database, isolation_level=None)) as raw:
        rows = raw.execute("SELECT approval_id, request FROM approvals").fetchall()
        assert rows
        for approval_id, text in rows:
            request = orjson.loads(text)
            for name in fields:
                request.pop(name)
            raw.execute(
                "UPDATE approvals SET request = ? WHERE approval_id = ?", (orjson.dumps(request).decode(), approval_id)
            )


def test_a_row_that_an_older_version_wrote_with_fewer_fields_says_the_same(recorded: Recorded) -> None:
    new = [name for name, field in ApprovalRequest.model_fields.items() if not field.is_required()]
    with closing(sqlite3.connect(recorded.project.database)) as raw:
        requests = [orjson.loads(text) for (text,) in raw.execute("SELECT request FROM approvals")]
    defaults = {name: ApprovalRequest.model_fields[name].get_default(call_default_factory=True) for name in new}
    absent = [
        name for name in new if all(orjson.loads(orjson.dumps(defaults[name])) == request[name] for request in requests)
    ]
    assert "dry_run" in absent
    requests_written_without(recorded.project, *absent)
    assert "Everything verifies" in recorded.project.ok("audit", "verify").out


def test_a_field_of_a_request_that_does_not_say_its_default_may_not_be_missing(recorded: Recorded) -> None:
    requests_written_without(recorded.project, "tool")
    done = recorded.project.here("audit", "verify", "--json")
    assert (done.code, done.json["findings"][0]["rule"]) == (3, "list_differs")


@pytest.mark.parametrize(("field", "other"), [("dry_run", True), ("reason", "Something else"), ("unheard_of", 1)])
def test_a_request_changed_in_a_field_is_found_in_a_row_of_an_older_version_too(
    recorded: Recorded, field: str, other: object
) -> None:
    requests_written_without(recorded.project, "dry_run")
    with closing(sqlite3.connect(recorded.project.database, isolation_level=None)) as raw:
        raw.execute(
            "UPDATE approvals SET request = json_set(request, ?, json(?)) WHERE status = 'pending'",
            (f"$.{field}", orjson.dumps(other).decode()),
        )
    done = recorded.project.here("audit", "verify", "--json")
    assert done.code == 3, done.both
    assert done.json["findings"][0]["text"].startswith(f"approvals {recorded.approval_id}: request is another")


@pytest.mark.parametrize("damage", ["UPDATE nodes SET hash = zeroblob(32)", "DELETE FROM nodes"])
def test_a_node_of_the_tree_that_was_changed_is_found(grown: Project, damage: str) -> None:
    """Nodes are kept over 256 events and their powers; a shorter log has none."""
    with closing(sqlite3.connect(grown.database, isolation_level=None)) as raw:
        assert raw.execute(damage).rowcount > 0
    done = grown.here("audit", "verify", "--json")
    assert (done.code, done.json["findings"][0]["rule"]) == (3, "list_differs")
    assert "nodes 8/0" in done.json["findings"][0]["text"]


@pytest.fixture
def grown(project: Project) -> Project:
    settings = load_settings(project.folder / "charter.toml", environ={})

    async def work() -> None:
        async with running(settings, drive=False, connect=False) as charter:
            while (await charter.store.head("default")).size < 256:
                await charter.gate.handle(IDE, cmd.StartWorkflow(template="governed-session", purpose="Plan"))

    anyio.run(work)
    return project
