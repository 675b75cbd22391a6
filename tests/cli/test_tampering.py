"""Whoever changes the database file is found: `charter audit verify` names the first bad event and ends with 3."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from charter.audit.merkle import Frontier, leaf_hash
from tests.cli.recorded import Recorded

pytestmark = pytest.mark.guarantee("G7")

VICTIM = 9
"""An event in the middle, covered by a checkpoint."""


def open_raw(path: Path) -> sqlite3.Connection:
    """As an attacker with a shell would: the triggers go first."""
    raw = sqlite3.connect(path, isolation_level=None)
    for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        raw.execute(f'DROP TRIGGER "{name}"')
    return raw


def edited(raw: sqlite3.Connection) -> None:
    leaf = raw.execute("SELECT leaf FROM events WHERE pos % 1099511627776 = ?", (VICTIM,)).fetchone()[0]
    raw.execute(
        "UPDATE events SET leaf = ? WHERE pos % 1099511627776 = ?", (leaf.replace(b'"cmd_0', b'"cmd_1', 1), VICTIM)
    )


def edited_with_its_hash(raw: sqlite3.Connection) -> None:
    """And the tree over it made anew, so that only the signed checkpoint can tell."""
    edited(raw)
    leaves = [leaf for (leaf,) in raw.execute("SELECT leaf FROM events ORDER BY pos")]
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    raw.execute("UPDATE tenants SET frontier = ?", (tree.to_bytes(),))


def deleted(raw: sqlite3.Connection) -> None:
    raw.execute("DELETE FROM events WHERE pos % 1099511627776 = ?", (VICTIM,))


def reordered(raw: sqlite3.Connection) -> None:
    (one,) = raw.execute("SELECT leaf FROM events WHERE pos % 1099511627776 = ?", (VICTIM,)).fetchone()
    (two,) = raw.execute("SELECT leaf FROM events WHERE pos % 1099511627776 = ?", (VICTIM + 1,)).fetchone()
    raw.execute("UPDATE events SET leaf = ? WHERE pos % 1099511627776 = ?", (two, VICTIM))
    raw.execute("UPDATE events SET leaf = ? WHERE pos % 1099511627776 = ?", (one, VICTIM + 1))


def retold(raw: sqlite3.Connection) -> None:
    """The row beside the leaf says another thing; lists would show it."""
    raw.execute("UPDATE events SET type = 'EFFECT_IN_DOUBT' WHERE pos % 1099511627776 = ?", (VICTIM,))


CHANGES: dict[str, tuple[Callable[[sqlite3.Connection], None], int]] = {
    "edited": (edited, VICTIM),
    "deleted": (deleted, VICTIM),
    "reordered": (reordered, VICTIM),
    "retold": (retold, VICTIM),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_and_the_first_bad_event_named(recorded: Recorded, name: str) -> None:
    change, first = CHANGES[name]
    raw = open_raw(recorded.project.database)
    change(raw)
    raw.close()
    done = recorded.project.charter("audit", "verify")
    assert done.code == 3, done.both
    assert f"The first bad event is number {first}" in done.err
    assert done.err.strip().splitlines()[-1].startswith("Next: ")
    report = recorded.project.here("audit", "verify", "--json").json
    assert report["first_bad"]["seq"] == first


def test_an_edit_with_the_tree_made_anew_is_found_by_the_checkpoints(recorded: Recorded) -> None:
    """Of such an edit only the range between two checkpoints is known: it is the second one's root that differs."""
    raw = open_raw(recorded.project.database)
    edited_with_its_hash(raw)
    raw.close()
    done = recorded.project.charter("audit", "verify", "--json")
    assert done.code == 3
    assert done.json["first_bad"]["seq"] <= VICTIM
    assert done.json["first_bad"]["rule"] in ("leaf_hash", "root_mismatch")


def test_a_log_that_was_cut_off_is_found(recorded: Recorded) -> None:
    """Events, head and the last checkpoint dropped: what was published elsewhere shows it."""
    project = recorded.project
    kept = project.folder / "elsewhere.txt"
    kept.write_text(project.ok("audit", "checkpoint").out)
    raw = open_raw(project.database)
    (size,) = raw.execute("SELECT size FROM tenants").fetchone()
    raw.execute("DELETE FROM events WHERE pos % 1099511627776 >= ?", (size - 4,))
    assert project.charter("audit", "verify").code == 3

    leaves = [leaf for (leaf,) in raw.execute("SELECT leaf FROM events ORDER BY pos")]
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    raw.execute("UPDATE tenants SET size = ?, frontier = ?", (size - 4, tree.to_bytes()))
    raw.execute("DELETE FROM checkpoints WHERE size > ?", (size - 4,))
    raw.close()
    done = project.charter("audit", "verify", "--checkpoints", str(kept))
    assert done.code == 3
    assert f"The first bad event is number {size - 4}" in done.err


def test_a_log_rewritten_whole_is_neither_verified_nor_signed_anew(recorded: Recorded) -> None:
    """Who can write the database but holds no key: leaf, hashes and tree made anew, all checkpoints dropped."""
    project = recorded.project
    project.ok("audit", "checkpoint")
    raw = open_raw(project.database)
    edited_with_its_hash(raw)
    columns = [row[1] for row in raw.execute("PRAGMA table_info(events)")]
    if "leaf_hash" in columns:
        for pos, leaf in raw.execute("SELECT pos, leaf FROM events").fetchall():
            raw.execute("UPDATE events SET leaf_hash = ? WHERE pos = ?", (leaf_hash(leaf), pos))
    raw.execute("DELETE FROM checkpoints")
    raw.close()
    assert project.charter("audit", "verify").code == 3
    signed = project.charter("audit", "checkpoint")
    assert signed.code == 3, signed.both
    assert "does not extend the last checkpoint" in signed.err
    assert project.charter("audit", "verify").code == 3, "nothing was signed that would cover the forgery"


def test_an_insertion_is_found(recorded: Recorded) -> None:
    raw = open_raw(recorded.project.database)
    columns = [row[1] for row in raw.execute("PRAGMA table_info(events)")]
    last = raw.execute("SELECT * FROM events ORDER BY pos DESC LIMIT 1").fetchone()
    row = dict(zip(columns, last, strict=True))
    (size,) = raw.execute("SELECT size FROM tenants").fetchone()
    event = orjson.loads(row["leaf"])
    forged = orjson.dumps({**event, "seq": size, "version": event["version"] + 1, "id": event["id"][:-1] + "0"})
    row |= {"pos": row["pos"] + 1, "leaf": forged, "id": event["id"][:-1] + "0"}
    if "version" in row:
        row["version"] = event["version"] + 1
    marks = ", ".join("?" for _ in columns)
    raw.execute(f"INSERT INTO events VALUES ({marks})", [row[name] for name in columns])
    raw.close()
    done = recorded.project.charter("audit", "verify")
    assert done.code == 3
    assert f"The first bad event is number {size}" in done.err


def test_a_damaged_file_is_an_integrity_failure_and_no_crash(recorded: Recorded) -> None:
    """Not an attack but a bad disk: whatever of the file is destroyed, the answer is two lines and 3."""
    database = recorded.project.database
    whole = database.read_bytes()
    for seed in range(6):
        chance, data = random.Random(seed), bytearray(whole)
        for _ in range(200):
            data[chance.randrange(4096, len(data))] = chance.randrange(256)
        database.write_bytes(data)
        done = recorded.project.here("audit", "verify")
        assert done.code == 3, done.both
        assert len(done.err.strip().splitlines()) == 2
    for rest in (whole[: len(whole) // 2], b"garbage" * 1000):
        database.write_bytes(rest)
        assert recorded.project.here("audit", "verify").code == 3


def test_what_is_whole_verifies(recorded: Recorded) -> None:
    done = recorded.project.ok("audit", "verify")
    assert "Everything verifies" in done.out
    assert "2 signed checkpoints match" in done.out
    assert recorded.project.ok("audit", "verify", recorded.done, "--json").json["ok"]
    assert recorded.project.charter("audit", "verify", "wf_nothing").code == 2
