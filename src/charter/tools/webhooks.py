"""Webhook signatures as in Standard Webhooks (github.com/standard-webhooks/standard-webhooks, v1: HMAC-SHA256).

What is signed is ``id.timestamp.body``, so none of the three can be changed alone. Pure: the time is handed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from charter.errors import InvalidInput, Unauthenticated

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"
PREFIX: Final = "whsec_"
TOLERANCE_SECONDS: Final = 300
MAX_ID: Final = 200
_MAX_SIGNATURES: Final = 10


def secret_text(key: bytes) -> str:
    """A key in the form that people configure: ``whsec_`` and base64."""
    return PREFIX + base64.b64encode(key).decode()


def key_of(secret: str) -> bytes:
    """The key of a configured secret: base64 after ``whsec_``, any other text as its own bytes.

    Raises ``InvalidInput`` (``bad_webhook_secret``), never with the secret in it.
    """
    if not secret.startswith(PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            key = b""
    if len(key) < 16:
        raise InvalidInput(
            "The webhook's secret is no key: it needs at least 16 bytes, as base64 after whsec_.",
            code="bad_webhook_secret",
            next_step="Make one of 24 to 64 random bytes: whsec_ and their base64.",
        )
    return key


def signature(key: bytes, message_id: str, unix_seconds: int, body: bytes) -> str:
    """``v1,`` and the signature."""
    if not message_id or "." in message_id or len(message_id) > MAX_ID:
        raise InvalidInput("A webhook's id has 1 to 200 characters and no dot.", code="bad_webhook_id")
    signed = hmac.new(key, f"{message_id}.{unix_seconds}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


def signed_headers(secrets: Sequence[str], message_id: str, unix_seconds: int, body: bytes) -> dict[str, str]:
    """The three headers of a message. Several secrets, while one replaces another, give several signatures."""
    signatures = [signature(key_of(secret), message_id, unix_seconds, body) for secret in secrets]
    return {ID: message_id, TIMESTAMP: str(unix_seconds), SIGNATURE: " ".join(signatures)}


def verify(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, unix_seconds: int) -> str:
    """The id of a message that one of ``keys`` signed, at most five minutes away from ``unix_seconds``.

    ``headers`` by lower-case names. In constant time for what is secret. Raises ``Unauthenticated``
    (``bad_signature``, ``stale_signature``); the id must be taken once by the caller, against replay.
    """
    message_id, stamp, given = (headers.get(name, "") for name in (ID, TIMESTAMP, SIGNATURE))
    if not message_id or "." in message_id or len(message_id) > MAX_ID or not given:
        raise _bad("bad_signature", f"{ID}, {TIMESTAMP} and {SIGNATURE} are needed.")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise _bad("bad_signature", f"{TIMESTAMP} is no time in seconds since 1970.")
    found = False
    for each in given.split(" ")[:_MAX_SIGNATURES]:
        for key in keys:  # every one is computed: how long it takes tells nothing of which fits
            wanted = signature(key, message_id, int(stamp), body)
            found |= hmac.compare_digest(wanted.encode(), each.encode("utf-8", "replace"))
    if not found:
        raise _bad("bad_signature", "The signature does not fit.")
    if abs(unix_seconds - int(stamp)) > TOLERANCE_SECONDS:
        raise _bad("stale_signature", f"{TIMESTAMP} is more than {TOLERANCE_SECONDS} seconds away from now.")
    return message_id


def _bad(code: str, message: str) -> Unauthenticated:
    return Unauthenticated(
        message, code=code, next_step="Sign id.timestamp.body as Standard Webhooks says, with the secret."
    )
