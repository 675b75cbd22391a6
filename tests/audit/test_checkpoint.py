"""Checkpoints are C2SP tlog-checkpoints in C2SP signed notes."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.audit.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    Signer,
    VerifierKey,
    add_line,
    open_note,
    origin_of,
    sign_checkpoint,
    split_note,
    verify_checkpoint,
)
from charter.audit.merkle import EMPTY_ROOT
from charter.errors import CharterError, IntegrityError, InvalidInput

ORIGIN = "charter/acme"
LOG = Signer.from_seed(ORIGIN, bytes(range(32)))
NEXT = Signer.from_seed(ORIGIN, bytes(range(1, 33)))
WITNESS = Signer.from_seed("witness.example.com/w1", bytes(range(2, 34)))
WITNESS_KEY = VerifierKey(WITNESS.key.name, WITNESS.key.public, COSIGNATURE)
POINT = Checkpoint(ORIGIN, 42, sha256(b"root").digest())
NOTE = sign_checkpoint(POINT, LOG)

# From the documentation of golang.org/x/mod/sumdb/note, the format's first implementation.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
""".encode()


def refused(note: bytes, *trusted: VerifierKey, origin: str | None = ORIGIN) -> str:
    with pytest.raises(IntegrityError) as caught:
        verify_checkpoint(note, trusted or [LOG.key], origin)
    return caught.value.error_code


def test_a_note_of_another_implementation_opens() -> None:
    text, signed_by = open_note(GO_NOTE, [VerifierKey.parse(GO_VKEY)])
    assert text.startswith(b"If you think")
    assert text.endswith(b"is.\n")
    assert [str(key) for key in signed_by] == [GO_VKEY]


def test_the_format_does_not_change() -> None:
    assert str(LOG.key) == "charter/acme+3d8f6406+AQOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
    assert NOTE.decode() == GOLDEN


GOLDEN = """charter/acme
42
SBNJTRN+FjG7owHVrKtue7eqdM4RhdRWVl71HXN2d7I=

— charter/acme PY9kBlHTst/7ITLZUFTPYH+/zboxlpcITNucbpUryj/cXUNw2DqpMINmWKA/b/eGC8E6N4tyagEo6XEoiqUsCwAD3wQ=
"""


def test_a_checkpoint_reads_back() -> None:
    found = verify_checkpoint(NOTE, [LOG.key], ORIGIN)
    assert found.checkpoint == POINT
    assert found.signed_by == (LOG.key,)
    assert verify_checkpoint(sign_checkpoint(Checkpoint(ORIGIN, 0, EMPTY_ROOT), LOG), [LOG.key]).checkpoint.size == 0


def test_while_a_key_is_rotated_old_and_new_are_trusted() -> None:
    both = sign_checkpoint(POINT, LOG, NEXT)
    assert verify_checkpoint(both, [NEXT.key]).signed_by == (NEXT.key,)
    assert verify_checkpoint(both, [LOG.key]).signed_by == (LOG.key,)
    assert set(verify_checkpoint(both, [LOG.key, NEXT.key]).signed_by) == {LOG.key, NEXT.key}
    assert refused(NOTE, NEXT.key) == "untrusted_note"


def test_witness_lines_are_tolerated_and_verified_when_trusted() -> None:
    seen = add_line(NOTE, WITNESS.cosignature(POINT.text(), 1_795_000_000))
    assert verify_checkpoint(seen, [LOG.key]).witnesses == ()
    assert verify_checkpoint(seen, [LOG.key, WITNESS_KEY]).witnesses == (WITNESS_KEY,)
    forged = add_line(NOTE, WITNESS.cosignature(b"something else\n", 1_795_000_000))
    assert refused(forged, LOG.key, WITNESS_KEY) == "bad_signature"
    assert refused(POINT.text() + b"\n" + WITNESS.cosignature(POINT.text(), 1), WITNESS_KEY) == "untrusted_note"


def test_another_logs_key_does_not_sign_for_this_log() -> None:
    other = Signer.from_seed("charter/rival", bytes(32))
    note = POINT.text() + b"\n" + other.line(POINT.text())
    assert refused(note, LOG.key, other.key) == "untrusted_note"
    assert refused(sign_checkpoint(Checkpoint("charter/rival", 1, EMPTY_ROOT), other), other.key) == "wrong_origin"
    with pytest.raises(InvalidInput):
        sign_checkpoint(POINT, other)
    with pytest.raises(InvalidInput):
        sign_checkpoint(POINT)


@given(st.integers(0, len(NOTE) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(at: int, flip: int) -> None:
    changed = NOTE[:at] + bytes([NOTE[at] ^ flip]) + NOTE[at + 1 :]
    assert refused(changed) in {"bad_note", "bad_signature", "untrusted_note", "bad_checkpoint", "wrong_origin"}


@given(st.binary(max_size=200))
def test_noise_is_refused_calmly(noise: bytes) -> None:
    refused(noise)
    refused(NOTE + noise + b"x")


@pytest.mark.parametrize(
    "text",
    [
        "charter/acme\n42\n",
        "charter/acme\n042\n{root}\n",
        "charter/acme\n-1\n{root}\n",
        "charter/acme\n٤٢\n{root}\n",
        "charter/acme\n42\n{root}\n\nextension\n",
        "charter/acme\n42\nAAAA\n",
        "charter/acme\n42\nnot base64\n",
        "\n42\n{root}\n",
    ],
)
def test_a_signed_text_must_still_be_a_checkpoint(text: str) -> None:
    body = text.format(root=b64encode(POINT.root).decode()).encode()
    assert refused(body + b"\n" + LOG.line(body)) == "bad_checkpoint"


def test_extension_lines_are_kept() -> None:
    point = Checkpoint(ORIGIN, 1, EMPTY_ROOT, ("kept",))
    assert verify_checkpoint(sign_checkpoint(point, LOG), [LOG.key]).checkpoint == point
    with pytest.raises(InvalidInput):
        Checkpoint(ORIGIN, 1, EMPTY_ROOT, ("two\nlines",)).text()


def test_limits_of_a_note() -> None:
    line = b"\xe2\x80\x94 x AAAAAAAA\n"
    split_note(NOTE + line * 16)
    for bad in (NOTE + line * 100, b"a" * 1_000_001, NOTE.replace(b"42", b"4\x0b2"), NOTE[:-1]):
        with pytest.raises(IntegrityError):
            split_note(bad)


@given(st.binary(min_size=32, max_size=32), st.sampled_from([1, 4]), st.text("abc./-é", min_size=1))
def test_vkeys_read_back(public: bytes, kind: int, name: str) -> None:
    key = VerifierKey(name, public, kind)
    assert VerifierKey.parse(str(key)) == key


@pytest.mark.parametrize(
    "vkey",
    ["", "x", "a+b", "a+00000000+AQ==", GO_VKEY[:-4], GO_VKEY.replace("c74f20a3", "c74f20a4"), " +" + GO_VKEY],
)
def test_what_is_no_vkey_is_refused(vkey: str) -> None:
    with pytest.raises(CharterError) as caught:
        VerifierKey.parse(vkey)
    assert caught.value.error_code == "bad_vkey"


def test_a_tenant_with_an_odd_name_has_a_key_name() -> None:
    assert origin_of("acme") == "charter/acme"
    assert origin_of("a b+c/é") == "charter/a%20b%2Bc%2F%C3%A9"


def test_a_signer_does_not_show_its_secret() -> None:
    assert repr(LOG) == f"Signer({LOG.key})"
