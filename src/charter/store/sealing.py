"""Encryption of what must not be in the log: AES-256-GCM, with keys that are kept outside the database.

A sealed blob is one format byte (1), a 12-byte random nonce, then ciphertext and tag. It is bound to its tenant and
reference, so that it cannot be moved to another.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from charter.errors import IntegrityError, InvalidInput, Misconfigured
from charter.store.port import Sealed

KEY_BYTES = 32
_FORMAT = b"\x01"
_NONCE_BYTES = 12


def new_key() -> bytes:
    """A fresh 256-bit key."""
    return AESGCM.generate_key(bit_length=KEY_BYTES * 8)


class Sealer:
    """A key ring: ``current`` seals, all open. Rotate by adding a key and naming it current."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        if current not in keys:
            raise Misconfigured(f"The sealing key {current!r} is not in the key ring.", code="sealing_key_missing")
        for key_id, key in keys.items():
            if len(key) != KEY_BYTES:
                raise Misconfigured(f"The sealing key {key_id!r} must have {KEY_BYTES} bytes.", code="sealing_key_bad")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = current

    def seal(self, tenant: str, ref: str, plaintext: bytes) -> Sealed:
        """Encrypt under the current key. ``ref`` must not contain ``|``."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._ciphers[self._current].encrypt(nonce, plaintext, _binding(tenant, ref))
        return Sealed(ref, self._current, _FORMAT + nonce + ciphertext)

    def open(self, tenant: str, sealed: Sealed) -> bytes:
        """Decrypt. Raises ``IntegrityError`` when it was changed or moved, ``Misconfigured`` when its key is not here."""
        cipher = self._ciphers.get(sealed.key_id)
        if cipher is None:
            raise Misconfigured(
                f"The sealing key {sealed.key_id!r} is not in the key ring.",
                code="sealing_key_missing",
                next_step="Put the old key back into the key ring; it stays there as long as anything is sealed by it.",
            )
        blob = sealed.blob
        start = len(_FORMAT) + _NONCE_BYTES
        try:
            if blob[:1] != _FORMAT:
                raise InvalidTag
            return cipher.decrypt(blob[1:start], blob[start:], _binding(tenant, sealed.ref))
        except (InvalidTag, ValueError):
            raise IntegrityError(f"The sealed bytes of {sealed.ref} do not open.", code="sealed_damaged") from None


def _binding(tenant: str, ref: str) -> bytes:
    if "|" in ref:
        raise InvalidInput("A sealed reference has no '|'.", code="bad_ref")
    return f"{tenant}|{ref}".encode()
