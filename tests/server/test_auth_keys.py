"""The keys: made once, private, whole, and useful to others only by their public halves."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from charter.audit.checkpoint import Checkpoint, VerifierKey, origin_of, sign_checkpoint, verify_checkpoint
from charter.errors import Misconfigured
from charter.server import keys as files
from charter.server.keys import create_keys, load_keys


def test_keys_are_private_files_in_a_private_folder(tmp_path: Path) -> None:
    folder = create_keys(tmp_path / "data" / "keys").folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes) == {files.TOKENS, files.CHECKPOINT, files.VKEY, files.SEALING, files.REQUEST_STATE}
    assert set(modes.values()) == {0o600}


def test_making_keys_again_changes_nothing_and_fills_what_is_missing(tmp_path: Path) -> None:
    first = create_keys(tmp_path)
    (tmp_path / files.REQUEST_STATE).unlink()
    second = create_keys(tmp_path)
    assert second.vkey("t") == first.vkey("t")
    assert second.jwks() == first.jwks()
    assert second.sealing == first.sealing
    assert second.request_state != first.request_state


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_may_read_is_refused_with_the_mend(tmp_path: Path, mode: int) -> None:
    create_keys(tmp_path)
    (tmp_path / files.SEALING).chmod(mode)
    with pytest.raises(Misconfigured) as caught:
        load_keys(tmp_path)
    assert caught.value.error_code == "keys_readable_by_others"
    assert "chmod 600" in caught.value.next_step


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o755)
    with pytest.raises(Misconfigured, match="others may read it"):
        load_keys(tmp_path / "keys")


@pytest.mark.parametrize("name", [files.TOKENS, files.CHECKPOINT, files.SEALING, files.REQUEST_STATE])
@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"keys": []}', b'{"keys": [{"kty": "oct"}]}', b"a+b+c+d+e"]
)
def test_a_damaged_key_is_named_and_its_content_is_not_shown(tmp_path: Path, name: str, content: bytes) -> None:
    create_keys(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Misconfigured) as caught:
        load_keys(tmp_path)
    assert caught.value.error_code == "keys_damaged"
    assert name in caught.value.message
    assert caught.value.__cause__ is None


def test_no_keys_says_run_init(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        load_keys(tmp_path / "none")
    assert caught.value.error_code == "keys_missing"
    assert "charter init" in caught.value.next_step


def test_nothing_secret_shows_in_repr(tmp_path: Path) -> None:
    keys = create_keys(tmp_path)
    shown = repr(keys)
    assert all(repr(secret)[2:-1] not in shown for secret in (*keys.request_state, *keys.sealing.values()))
    assert "Ed25519PrivateKey" not in shown
    assert "d" not in keys.jwks()["keys"][0]


def test_the_verifier_key_is_what_the_audit_room_trusts(tmp_path: Path) -> None:
    keys = create_keys(tmp_path, tenant="acme")
    assert (tmp_path / files.VKEY).read_text() == keys.vkey("acme") + "\n"
    note = sign_checkpoint(Checkpoint(origin_of("acme"), 1, bytes(32)), keys.signer("acme"))
    trusted = VerifierKey.parse((tmp_path / files.VKEY).read_text())
    assert verify_checkpoint(note, [trusted]).checkpoint.size == 1
    assert load_keys(tmp_path).vkey("other") != keys.vkey("acme")
