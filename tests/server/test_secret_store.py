"""Upstreams' credentials are encrypted, bound to their names, and taken at the next connecting."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import IntegrityError, InvalidInput, Misconfigured
from charter.server.secret_store import SecretFile
from charter.store.sealing import Sealer, new_key

KEY = new_key()


def secrets_in(folder: Path, key: bytes = KEY) -> SecretFile:
    return SecretFile(folder / "secrets.json", Sealer({"k1": key}, "k1"))


def test_a_secret_is_kept_encrypted_and_for_its_owner_alone(tmp_path: Path) -> None:
    secrets_in(tmp_path).set("files-token", "hunter2hunter2")
    assert secrets_in(tmp_path)["files-token"] == "hunter2hunter2"
    path = tmp_path / "secrets.json"
    assert b"hunter2" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_secret_moved_to_another_name_does_not_open(tmp_path: Path) -> None:
    held = secrets_in(tmp_path)
    held.set("mine", "value-of-mine")
    path = tmp_path / "secrets.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps({"yours": entries["mine"]}))
    with pytest.raises(IntegrityError):
        held["yours"]


def test_another_key_does_not_open_it(tmp_path: Path) -> None:
    secrets_in(tmp_path).set("a", "b")
    with pytest.raises(IntegrityError):
        secrets_in(tmp_path, new_key())["a"]


def test_what_was_set_elsewhere_is_seen_at_the_next_read(tmp_path: Path) -> None:
    reader, writer = secrets_in(tmp_path), secrets_in(tmp_path)
    assert list(reader) == []
    writer.set("a", "1")
    assert (reader["a"], len(reader)) == ("1", 1)
    assert writer.remove("a")
    assert not writer.remove("a")
    assert "a" not in reader


@given(name=st.sampled_from(["", "a|b", "naïve", "x" * 129, "a\nb"]))
def test_bad_names_change_nothing(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    held = secrets_in(tmp_path_factory.mktemp("secrets"))
    with pytest.raises(InvalidInput):
        held.set(name, "value")
    assert len(held) == 0


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text("{not json")
    with pytest.raises(Misconfigured) as caught:
        list(secrets_in(tmp_path))
    assert "secrets.json" in caught.value.next_step
