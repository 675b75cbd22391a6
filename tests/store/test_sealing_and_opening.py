"""Sealing keeps what must not be read; opening chooses the store; instances tell who lives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import Conflict, IntegrityError, InvalidInput, Misconfigured
from charter.store.instances import Instances
from charter.store.opening import open_store
from charter.store.sealing import Sealer, new_key
from charter.store.sqlite import SqliteStore

OLD, NEW = new_key(), new_key()


@given(st.text(), st.binary(max_size=200))
def test_what_was_sealed_opens_again_and_shows_nothing(tenant: str, plaintext: bytes) -> None:
    sealer = Sealer({"k": NEW}, "k")
    if not tenant.isascii():
        tenant = "t"
    sealed = sealer.seal(tenant, "seal_1", plaintext)
    assert sealer.open(tenant, sealed) == plaintext
    assert len(plaintext) < 4 or plaintext not in sealed.blob


def test_the_same_bytes_are_sealed_differently_each_time() -> None:
    sealer = Sealer({"k": NEW}, "k")
    assert sealer.seal("t", "r", b"x").blob != sealer.seal("t", "r", b"x").blob


def test_old_keys_open_and_the_current_one_seals() -> None:
    before = Sealer({"old": OLD}, "old").seal("t", "r", b"secret")
    ring = Sealer({"old": OLD, "new": NEW}, "new")
    assert ring.open("t", before) == b"secret"
    assert ring.seal("t", "r", b"secret").key_id == "new"
    with pytest.raises(Misconfigured):
        Sealer({"new": NEW}, "new").open("t", before)


def test_changed_or_moved_bytes_do_not_open() -> None:
    sealer = Sealer({"k": NEW, "k2": OLD}, "k")
    sealed = sealer.seal("t", "r", b"secret")
    for at in range(len(sealed.blob)):
        changed = bytearray(sealed.blob)
        changed[at] ^= 1
        with pytest.raises(IntegrityError):
            sealer.open("t", replace(sealed, blob=bytes(changed)))
    for tenant, moved in [
        ("other", sealed),
        ("t", replace(sealed, ref="r2")),
        ("t", replace(sealed, key_id="k2")),
        ("t", replace(sealed, blob=sealed.blob[:10])),
        ("t", replace(sealed, blob=b"")),
    ]:
        with pytest.raises(IntegrityError):
            sealer.open(tenant, moved)


def test_a_reference_cannot_reach_into_the_tenants_name() -> None:
    with pytest.raises(InvalidInput):
        Sealer({"k": NEW}, "k").seal("a", "b|c", b"x")


@pytest.mark.parametrize(("keys", "current"), [({}, "k"), ({"k": b"short"}, "k"), ({"k": NEW}, "other")])
def test_a_key_ring_that_does_not_hold_together_is_refused(keys: dict[str, bytes], current: str) -> None:
    with pytest.raises(Misconfigured):
        Sealer(keys, current)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:charter.db", "charter.db"),
        ("sqlite:/data/charter.db", "/data/charter.db"),
        ("sqlite:///data/charter.db", "/data/charter.db"),
        ("data/charter.db", "data/charter.db"),
    ],
)
def test_a_url_or_path_names_the_store(url: str, path: str) -> None:
    store = open_store(url)
    assert isinstance(store, SqliteStore)
    assert store.path == Path(path)


@pytest.mark.parametrize(
    "url", ["postgres://u:hunter2@h/db", "postgresql://u:hunter2@h/db", "mysql:hunter2", "sqlite:", ""]
)
def test_a_url_that_names_no_store_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value.as_json())


def test_an_instance_lives_until_it_leaves(tmp_path: Path) -> None:
    mine, other = Instances(tmp_path / "i"), Instances(tmp_path / "i")
    assert not other.alive("srv_1")
    mine.enlist("srv_1")
    mine.enlist("srv_1")
    assert other.alive("srv_1")
    assert mine.alive("srv_1")
    with pytest.raises(Conflict):
        other.enlist("srv_1")
    mine.close()
    assert not other.alive("srv_1")
    assert list((tmp_path / "i").iterdir()) == []


def test_enlisting_clears_away_the_files_of_the_dead(tmp_path: Path) -> None:
    (tmp_path / "srv_dead.lock").write_text("1\n")
    instances = Instances(tmp_path)
    instances.enlist("srv_1")
    assert [file.name for file in tmp_path.iterdir()] == ["srv_1.lock"]
    instances.close()
