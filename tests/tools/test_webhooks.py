"""Standard Webhooks signatures: the specification's own example, and everything that must not pass."""

from __future__ import annotations

import pytest

from charter.errors import InvalidInput, Unauthenticated
from charter.tools import webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, NOW, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
KEYS = (webhooks.key_of(SECRET),)


def signed(**changes: str) -> dict[str, str]:
    return {**webhooks.signed_headers([SECRET], ID, NOW, BODY), **changes}


def test_it_signs_as_the_specification_shows() -> None:
    assert signed() == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    assert webhooks.secret_text(webhooks.key_of(SECRET)) == SECRET


def test_what_was_signed_verifies_and_gives_its_id() -> None:
    assert webhooks.verify(KEYS, signed(), BODY, NOW + 299) == ID


def test_while_secrets_are_exchanged_both_verify() -> None:
    headers = webhooks.signed_headers(["another secret of enough bytes", SECRET], ID, NOW, BODY)
    assert webhooks.verify(KEYS, headers, BODY, NOW) == ID
    assert webhooks.verify((b"x" * 24, *KEYS), signed(), BODY, NOW) == ID


@pytest.mark.parametrize(
    ("changes", "body", "now", "code"),
    [
        ({}, b'{"test": 2432232315}', NOW, "bad_signature"),
        ({"webhook-id": "msg_other"}, BODY, NOW, "bad_signature"),
        ({"webhook-timestamp": str(NOW + 1)}, BODY, NOW, "bad_signature"),
        ({"webhook-timestamp": "١٢٣"}, BODY, NOW, "bad_signature"),
        ({"webhook-timestamp": "-1"}, BODY, NOW, "bad_signature"),
        ({"webhook-timestamp": "9" * 400}, BODY, NOW, "bad_signature"),
        ({"webhook-timestamp": ""}, BODY, NOW, "bad_signature"),
        ({"webhook-signature": ""}, BODY, NOW, "bad_signature"),
        ({"webhook-signature": "v1,"}, BODY, NOW, "bad_signature"),
        ({"webhook-signature": "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, BODY, NOW, "bad_signature"),
        ({"webhook-signature": "v1,\ud800é"}, BODY, NOW, "bad_signature"),
        (
            {"webhook-signature": "v1,x " * 10 + "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
            BODY,
            NOW,
            "bad_signature",
        ),
        ({}, BODY, NOW + 301, "stale_signature"),
        ({}, BODY, NOW - 301, "stale_signature"),
    ],
)
def test_nothing_else_verifies(changes: dict[str, str], body: bytes, now: int, code: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        webhooks.verify(KEYS, signed(**changes), body, now)
    assert caught.value.error_code == code


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_each_header_is_needed(missing: str) -> None:
    headers = signed()
    del headers[missing]
    with pytest.raises(Unauthenticated):
        webhooks.verify(KEYS, headers, BODY, NOW)


def test_without_a_key_nothing_verifies() -> None:
    with pytest.raises(Unauthenticated):
        webhooks.verify((), signed(), BODY, NOW)


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_!!!", "whsec_c2hvcnQ="])
def test_a_secret_that_is_no_key_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        webhooks.key_of(secret)
    assert caught.value.error_code == "bad_webhook_secret"
    assert not secret or secret == "whsec_" or secret not in caught.value.message


@pytest.mark.parametrize("message_id", ["", "a.b", "x" * 201])
def test_an_id_that_could_be_read_two_ways_is_not_signed(message_id: str) -> None:
    with pytest.raises(InvalidInput):
        webhooks.signed_headers([SECRET], message_id, NOW, BODY)
