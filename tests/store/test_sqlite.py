"""What is SQLite's own: the file, its schema, its triggers, its errors, and the plans of its queries."""

from __future__ import annotations

import asyncio
import itertools
import resource
import shutil
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from charter.errors import CharterError, IntegrityError, Misconfigured, Unavailable
from charter.store.port import Batch, Claim, Filter, Page, Sealed
from charter.store.sqlite import SqliteStore, writer
from charter.store.sqlite import connection as connection_module
from charter.store.sqlite.connection import connect, lengthen_log
from charter.store.sqlite.listing import APPROVALS, WORKFLOWS, Listing
from charter.store.sqlite.migrating import migrate, migrations, statements
from tests.store.making import a_batch, a_workflow, whole_log

pytestmark = pytest.mark.anyio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "charter.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, busy_seconds=0.2)
    await store.open()
    yield store
    await store.close()


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()


def test_the_schema_is_the_sum_of_the_migrations() -> None:
    one, other = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    for _, _, sql in migrations():
        for statement in statements(sql):
            one.execute(statement)
    schema = Path(__file__).parents[2] / "src/charter/store/migrations/sqlite/schema.sql"
    other.executescript(schema.read_text())
    assert schema_of(one) == schema_of(other)
    one.close()
    other.close()


def test_migrations_are_numbered_from_one_without_gaps() -> None:
    assert [number for number, _, _ in migrations()] == list(range(1, len(migrations()) + 1))


def test_migrating_again_changes_nothing(path: Path) -> None:
    connection = connect(path, write=True)
    migrate(connection)
    before = schema_of(connection)
    migrate(connection)
    assert schema_of(connection) == before
    connection.close()


async def test_a_newer_charters_file_is_refused(path: Path) -> None:
    await make_and_close(path)
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("INSERT INTO schema_version (version, name) VALUES (9999, 'from the future')")
    raw.close()
    with pytest.raises(Misconfigured) as caught:
        await SqliteStore(path).open()
    assert caught.value.error_code == "store_newer"


async def test_somebody_elses_database_is_refused_and_left_alone(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE theirs (a)")
    with pytest.raises(Misconfigured) as caught:
        await SqliteStore(path).open()
    assert caught.value.error_code == "store_foreign"
    assert [row[1] for row in schema_of(raw)] == ["theirs"]
    raw.close()


async def test_what_is_no_database_is_refused(path: Path, tmp_path: Path) -> None:
    write_a_letter(path)
    with pytest.raises(IntegrityError):
        await SqliteStore(path).open()
    with pytest.raises(Misconfigured):
        await SqliteStore(tmp_path).open()
    with pytest.raises(Misconfigured):
        await SqliteStore(path / "below-a-file.db").open()


async def test_commits_are_synced_and_the_file_is_its_owners(store: SqliteStore, path: Path) -> None:
    connection = connect(path, write=True)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    connection.close()
    assert rights_of(path) == 0o600


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET leaf = x'00'",
        "UPDATE OR REPLACE events SET version = 9 WHERE version = 1",
        "DELETE FROM events",
        "REPLACE INTO events SELECT * FROM events LIMIT 1",
        "UPDATE checkpoints SET note = x'00'",
        "DELETE FROM checkpoints",
        "UPDATE claims SET value = 'mine'",
        "DELETE FROM claims",
    ],
)
async def test_triggers_refuse_to_change_what_was_recorded(store: SqliteStore, path: Path, change: str) -> None:
    await store.append(a_batch(events=2, claims=(Claim("s", "k", "v"),)))
    await store.put_checkpoint("acme", 2, b"note")
    connection = connect(path, write=True)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute(change)
    connection.close()
    assert len(await whole_log(store, "acme")) == 2


async def test_a_hole_in_the_file_is_told_and_not_read_over(store: SqliteStore, path: Path) -> None:
    for _ in range(3):
        await store.append(a_batch("wf_1", events=130))
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("DROP TRIGGER events_no_delete")
        raw.execute("DELETE FROM events WHERE version = 200")
    raw.close()
    with pytest.raises(IntegrityError):
        await store.load("acme", "wf_1")
    with pytest.raises(IntegrityError):
        await store.tree_nodes("acme", [(3, 199 >> 3)])
    assert len(await store.load("acme", "wf_1", 250)) == 140


async def test_a_text_that_cannot_be_read_is_damage_and_is_not_quoted(store: SqliteStore, path: Path) -> None:
    await store.append(a_batch("wf_1", events=3))
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("DROP TRIGGER events_no_update")
        raw.execute("UPDATE events SET type = CAST(x'ff736563726574' AS TEXT) WHERE version = 2")
    raw.close()
    for reading in (store.log("acme", 0, 10), store.log("acme", 0, 1000), store.load("acme", "wf_1")):
        with pytest.raises(IntegrityError) as caught:
            await reading
        assert caught.value.error_code == "store_damaged"
        assert "secret" not in str(caught.value)


def damage_schema(path: Path) -> None:
    """What SQLite then says of it quotes bytes that are no text."""
    whole = path.read_bytes()
    assert b"CREATE TABLE checkpoints" in whole
    path.write_bytes(whole.replace(b"CREATE TABLE checkpoints", b"CREATE TABL\xff checkpoints"))


async def test_a_damaged_schema_is_an_integrity_failure(path: Path) -> None:
    await make_and_close(path)
    damage_schema(path)
    with pytest.raises(IntegrityError) as caught:
        await SqliteStore(path).open()
    assert caught.value.error_code == "store_damaged"


async def test_a_lock_held_too_long_is_told_and_later_appends_go_on(store: SqliteStore, path: Path) -> None:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable) as caught:
        await store.append(a_batch("wf_1", 0))
    assert caught.value.error_code == "store_busy"
    assert "unknown" not in caught.value.detail
    assert await store.load("acme", "wf_1") == []  # readers do not wait
    raw.execute("ROLLBACK")
    raw.close()
    await store.append(a_batch("wf_1", 0))
    assert len(await whole_log(store, "acme")) == 1


def files_of(path: Path) -> list[Path]:
    return [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]


def replaced(path: Path, aside: Path, copied: bool | None) -> None:
    """The file is moved away with its log; a copy of it, another, or (None) nothing is in its place."""
    copy = aside / "copy.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM INTO ?", (str(copy),))
    for file in files_of(path):
        file.rename(aside / file.name)
    if copied is not None:
        path.write_bytes(copy.read_bytes() if copied else b"")


def put_back(path: Path, aside: Path) -> None:
    for file in files_of(path):
        (aside / file.name).replace(file)


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("copied", [None, False, True])
async def test_nothing_is_acknowledged_into_a_file_that_was_moved_deleted_or_replaced(
    store: SqliteStore,
    path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    copied: bool | None,
) -> None:
    """SQLite would go on writing into the file that it has open, and all of that would be gone at its end."""
    monkeypatch.setattr(connection_module, "LOOK_SECONDS", 0)
    aside = tmp_path_factory.mktemp("aside")
    await store.append(a_batch("wf_1", 0))
    replaced(path, aside, copied)
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await store.append(a_batch("wf_2", 0))
        assert caught.value.error_code == "store_replaced"
        assert "-wal" in caught.value.next_step
        assert store.trouble() == "store_replaced"
    put_back(path, aside)
    await store.append(a_batch("wf_2", 0))
    assert store.trouble() is None
    assert len(await whole_log(store, "acme")) == 2


async def test_the_event_loop_commits_only_what_nobody_makes_it_wait_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHORT_SECONDS", 1e9)
    store = SqliteStore(path, busy_seconds=20)
    await store.open()
    await store.append(a_batch("wf_1", 0))
    raw = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    raw.execute("BEGIN IMMEDIATE")
    waiting = [asyncio.ensure_future(store.append(a_batch(f"wf_{number}", 0))) for number in range(2, 5)]
    for _ in range(100):  # the loop turns although another process holds the lock
        await asyncio.sleep(0)
    assert not any(append.done() for append in waiting)
    raw.execute("ROLLBACK")
    raw.close()
    await asyncio.gather(*waiting)
    assert len(await whole_log(store, "acme")) == 4
    await store.close()


async def test_the_log_beside_the_file_does_not_grow_without_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHORT_SECONDS", 1e9)
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 50)
    store = SqliteStore(path)
    await store.open()
    sizes = []
    for version in range(400):
        await store.append(a_batch("wf_1", version))
        sizes.append(wal_of(path).stat().st_size)
    assert max(sizes[200:]) <= 2 * max(sizes[:100])  # it is used again from its beginning
    await store.close()


async def test_a_log_made_longer_ends_where_it_ended(path: Path, tmp_path: Path) -> None:
    """What a crash leaves: the log with zeros behind its last frame, which another process then reads and goes on with."""
    store, raw = SqliteStore(path), connect(path, write=True)
    await store.open()
    left = tmp_path / "left"
    left.mkdir()
    for version in range(30):
        await store.append(a_batch("wf_1", version))
        lengthen_log(raw, 4 * version)
    assert wal_of(path).stat().st_size > 100 * 4096
    for part in (path, wal_of(path)):
        shutil.copy(part, left / part.name)
    again = SqliteStore(left / path.name)
    await again.open()
    assert await whole_log(again, "acme") == await whole_log(store, "acme")
    await again.append(a_batch("wf_1", 30))
    await again.close()
    raw.close()
    await store.close()
    await again.open()
    assert [event.version for event in await whole_log(again, "acme")] == list(range(1, 32))
    await again.close()


async def test_a_log_that_cannot_be_made_longer_stays_as_it_is(path: Path) -> None:
    store, raw = SqliteStore(path), connect(path, write=True, busy_seconds=0)
    await store.open()
    await store.append(a_batch("wf_1", 0))
    length = wal_of(path).stat().st_size
    raw.execute("BEGIN IMMEDIATE")
    other = connect(path, write=True, busy_seconds=0)
    lengthen_log(other, 1000)  # somebody writes
    raw.execute("ROLLBACK")
    assert wal_of(path).stat().st_size == length
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length + 100_000, hard))
    try:
        lengthen_log(other, 1000)  # as on a full disk: a part can be written, the rest not
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert wal_of(path).stat().st_size == length
    await store.append(a_batch("wf_1", 1))
    assert len(await whole_log(store, "acme")) == 2
    raw.close()
    other.close()
    await store.close()


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


async def test_erased_bytes_are_in_none_of_the_files(store: SqliteStore, path: Path) -> None:
    secret = b"a-secret-that-must-go" * 10
    await store.append(a_batch(sealed=(Sealed("seal_1", "k", secret),)))
    await store.erase("acme", "seal_1")
    assert all(secret not in content for content in contents_beside(path))


@pytest.mark.parametrize(
    ("listing", "where"),
    [
        (WORKFLOWS, Filter()),
        (WORKFLOWS, Filter(status="running")),
        (WORKFLOWS, Filter(owner="ann")),
        (WORKFLOWS, Filter(template="t@1")),
        (WORKFLOWS, Filter(blocked_on="approval")),
        (WORKFLOWS, Filter(blocked_on="agent:writer")),
        (WORKFLOWS, Filter(template="t")),
        (WORKFLOWS, Filter(template="t", status="failed")),
        (WORKFLOWS, Filter(started_before="2027", started_after="2026")),
        (WORKFLOWS, Filter(template="t", status="failed", started_before="2027")),
        (WORKFLOWS, Filter(owner="ann", blocked_on="approval", started_after="2026")),
        (WORKFLOWS, Filter(owner="ann", status="failed")),
        (WORKFLOWS, Filter(owner="ann", template="t")),
        (WORKFLOWS, Filter(owner="ann", template="t@1", started_before="2027")),
        (WORKFLOWS, Filter(status="waiting", blocked_on="approval")),
        (WORKFLOWS, Filter(template="t", blocked_on="approval")),
        (WORKFLOWS, Filter(template="t@1", status="failed")),
        (WORKFLOWS, Filter(template="t@1", blocked_on="agent:writer", started_before="2027")),
        (WORKFLOWS, Filter(extra={"case_id": "c"})),
        (APPROVALS, Filter()),
        (APPROVALS, Filter(status="pending")),
        (APPROVALS, Filter(workflow_id="wf_1")),
        (APPROVALS, Filter(owner="ann")),
    ],
)
async def test_a_page_of_a_list_is_read_off_an_index(
    store: SqliteStore, path: Path, listing: Listing, where: Filter
) -> None:
    connection = connect(path, write=False)
    sql, values = listing.query("acme", where, Page(after=listing.cursor(("x",) * len(listing.columns))))
    plan = " ".join(row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + sql, values))
    connection.close()
    assert "SEARCH" in plan
    assert "USING INDEX" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan
    equal = sum(value is not None for value in (where.status, where.owner, where.template, where.blocked_on))
    assert plan.count("=?") >= equal + 1, "the tenant, and every filter of the pair"


async def test_a_page_of_a_list_takes_the_same_steps_however_many_runs_there_are(
    store: SqliteStore, path: Path
) -> None:
    looks = (
        *(Filter(), Filter(status="waiting"), Filter(status="paused"), Filter(template="t")),
        *(Filter(owner="ann"), Filter(blocked_on="approval"), Filter(blocked_on="approval:nobody")),
        *(Filter(started_before="2026-11-21T09:00:00.000Z"), Filter(template="u", status="waiting")),
        *(Filter(owner="ann", status="paused"), Filter(status="waiting", blocked_on="approval")),
    )
    connection = connect(path, write=False)
    connection.execute("SELECT count(*) FROM workflows").fetchall()  # reads the schema, which takes steps too
    steps: list[list[int]] = []
    for runs in (200, 1_400):
        rows = [
            a_workflow(
                f"wf_{number}",
                template=f"{'tu'[number % 2]}@1",
                status="waiting" if number % 2 == 0 else "completed",
                blocked_on="approval:cat" if number % 2 == 0 else None,
                started_at=f"2026-11-21T08:{number // 60:02d}:{number % 60:02d}.000Z",
            )
            for number in range(runs)
        ]
        await asyncio.gather(*(store.append(a_batch(row.workflow_id, workflow=row)) for row in rows))
        steps.append([_steps(connection, *WORKFLOWS.query("acme", look, Page(50))) for look in looks])
    connection.close()
    assert steps[0] == steps[1]


def _steps(connection: sqlite3.Connection, sql: str, values: Sequence[Any]) -> int:
    """How many instructions SQLite's machine takes for it."""
    count = itertools.count()
    connection.set_progress_handler(lambda: next(count) < 0, 1)
    connection.execute(sql, values).fetchall()
    connection.set_progress_handler(None, 1)
    return next(count)


async def test_many_events_in_one_batch_and_large_ones(store: SqliteStore) -> None:
    await store.append(a_batch("wf_1", 0, events=2000))
    big = Batch("acme", "wf_1", 2000, tuple(a_batch().events), sealed=(Sealed("r", "k", b"x" * 5_000_000),))
    await store.append(big)
    assert len(await whole_log(store, "acme")) == 2001
    sealed = await store.unseal("acme", "r")
    assert sealed is not None
    assert len(sealed.blob) == 5_000_000


async def test_an_error_of_one_member_leaves_what_is_remembered_right(store: SqliteStore) -> None:
    await store.append(a_batch("wf_1", 0, workflow=a_workflow("wf_1")))
    for version in range(1, 4):
        with pytest.raises(CharterError):
            await store.append(a_batch("wf_1", version, workflow=a_workflow("wf_1", status="\ud800")))
        await store.append(a_batch("wf_1", version, workflow=a_workflow("wf_1", status=f"s{version}")))
        row = await store.workflow("acme", "wf_1")
        assert row is not None
        assert row.status == f"s{version}"
    assert len(await whole_log(store, "acme")) == 4


async def make_and_close(path: Path) -> None:
    store = SqliteStore(path)
    await store.open()
    await store.close()


def write_a_letter(path: Path) -> None:
    path.write_bytes(b"This is a letter, and no database at all. " * 200)


def rights_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def contents_beside(path: Path) -> list[bytes]:
    return [file.read_bytes() for file in path.parent.glob(path.name + "*") if file.is_file()]
