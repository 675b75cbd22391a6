"""`charter keys rotate`: another key signs, the change is on record, and what the old key signed still verifies with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.audit.checkpoint import Checkpoint, Signer, origin_of, sign_checkpoint
from charter.server.key_rotation import PresentKey, Rotation, close
from charter.server.keys import create_keys, load_keys
from tests.cli.recorded import Recorded

pytestmark = pytest.mark.guarantee("G7")
ROTATE = ("keys", "rotate", "-m", "A laptop was lost.", "--as", "ada", "--role", "admin")


def test_a_rotation_is_on_record_and_both_keys_verify_what_they_signed(recorded: Recorded) -> None:
    project = recorded.project
    old = project.ok("audit", "key").out.strip()
    before = project.ok("audit", "checkpoint").out
    assert project.here("keys", "rotate", "-m", "No.").code == 1, "operators may not"
    assert project.ok("audit", "key").out.strip() == old, "and nothing was changed"
    new = project.ok(*ROTATE).out.strip().splitlines()[-1]
    assert (new != old, project.ok("audit", "key").out.strip()) == (True, new)
    [event] = project.ok("audit", "log", "--type", "KEY_ROTATED", "--json").json["items"]
    assert (event["data"]["old_key"], event["data"]["new_key"]) == (old, new)
    assert (event["data"]["rotated_by"], event["data"]["reason"]) == ("ada", "A laptop was lost.")
    assert "Everything verifies" in project.ok("audit", "verify").out
    assert [row["state"] for row in project.ok("keys", "list", "--json").json["items"]] == ["signs", "retired"]

    project.ok("approvals", "reject", recorded.approval_id, "--yes", "-m", "No.", "--as", "carol")
    project.ok("audit", "checkpoint")
    kept = project.folder / "kept.txt"
    kept.write_text(before)
    assert "Everything verifies" in project.ok("audit", "verify", "--checkpoints", str(kept)).out
    project.ok("audit", "export", str(project.folder / "log.charter"))
    verify = ("audit", "verify", "--export", str(project.folder / "log.charter"))
    assert "Everything verifies" in project.ok(*verify, "--key", old, "--key", new).out
    assert project.here(*verify, "--key", old).code == 3, "the old key alone does not vouch for what came after"
    proof = project.folder / "proof.json"
    proof.write_text(project.ok("audit", "prove", str(event["seq"])).out)
    project.ok("audit", "verify", "--proof", str(proof), "--key", new)


def test_what_a_retired_key_signs_later_is_not_believed(recorded: Recorded) -> None:
    project = recorded.project
    thief = load_keys(project.folder / ".charter" / "keys").checkpoint
    project.ok(*ROTATE)
    project.ok("approvals", "reject", recorded.approval_id, "--yes", "-m", "No.", "--as", "carol")
    note = sign_checkpoint(Checkpoint(origin_of("default"), 1000, b"\0" * 32), Signer(origin_of("default"), thief))
    forged = project.folder / "forged.txt"
    forged.write_bytes(note)
    done = project.here("audit", "verify", "--checkpoints", str(forged))
    assert done.code == 3, done.both
    assert "after it was retired" in done.both


def test_a_running_server_follows_and_a_second_rotation_keeps_the_first(tmp_path: Path) -> None:
    keys = create_keys(tmp_path)
    present = PresentKey(keys)
    first = Rotation.begin(keys)
    assert present.signer("t").key == keys.signer("t").key
    after = close(first.install("t"), {"t": 7})
    assert present.signer("t").key == first.signer("t").key == after.signer("t").key
    assert keys.signer("t").key in present.trusted("t")
    again = close(Rotation.begin(after).install("t"), {"t": 9})
    assert [item.sizes for item in again.retired] == [{"t": 7}, {"t": 9}]
    assert not again.retired[0].signed_too_late("t", 7)
    assert again.retired[0].signed_too_late("t", 8)
    assert again.retired[0].signed_too_late("other", 1)
    (tmp_path / "checkpoint.key").write_bytes(b"half")
    assert present.signer("t").key == after.signer("t").key or present.signer("t").key == again.signer("t").key
