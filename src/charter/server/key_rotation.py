"""Another key for the ledger's checkpoints. The old private half is gone afterwards; its public half is kept, with its limit.

Written in an order in which a crash leaves a folder that works: the retired key is listed before the new one stands in its
place, and its limits are set last.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from charter.audit.checkpoint import Signer, VerifierKey, origin_of
from charter.errors import CharterError
from charter.server.keys import CHECKPOINT, RETIRED, VKEY, Keys, RetiredKey, load_keys, signer_key
from charter.server.whole_file import PRIVATE, replace_whole


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new key, not yet in place."""

    keys: Keys
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def begin(cls, keys: Keys) -> Rotation:
        """With a fresh key."""
        return cls(keys, Ed25519PrivateKey.generate())

    def signer(self, tenant: str) -> Signer:
        """Signs with the new key."""
        return Signer(origin_of(tenant), self.private)

    def install(self, tenant: str) -> Keys:
        """List the old key as retired, then put the new one in its place. The keys as they are now."""
        folder = self.keys.folder
        old = RetiredKey(self.keys.checkpoint.public_key().public_bytes_raw(), {})
        _put_retired(folder, (*self.keys.retired, old))
        replace_whole(folder / CHECKPOINT, signer_key(tenant, self.private), mode=PRIVATE)
        replace_whole(folder / VKEY, str(self.signer(tenant).key).encode() + b"\n", mode=PRIVATE)
        return load_keys(folder)


def close(keys: Keys, sizes: Mapping[str, int]) -> Keys:
    """Set the limits of keys that have none yet: nothing longer is believed to be theirs."""
    _put_retired(keys.folder, tuple(item if item.sizes else replace(item, sizes=sizes) for item in keys.retired))
    return load_keys(keys.folder)


class PresentKey:
    """Signs with the key that is in the folder now, so that a running server follows a rotation."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._seen = _stamp(keys.folder)

    def signer(self, tenant: str) -> Signer:
        """The present one; the one known before while the folder cannot be read."""
        return self._present().signer(tenant)

    def trusted(self, tenant: str) -> list[VerifierKey]:
        """Whose signatures under the last checkpoint are good."""
        return self._present().verifiers(tenant)

    def _present(self) -> Keys:
        stamp = _stamp(self._keys.folder)
        if stamp != self._seen:
            try:
                self._keys, self._seen = load_keys(self._keys.folder), stamp
            except CharterError:
                return self._keys
        return self._keys


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        found = (folder / CHECKPOINT).stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


def _put_retired(folder: Path, retired: tuple[RetiredKey, ...]) -> None:
    listed = [{"public": base64.b64encode(item.public).decode(), "sizes": dict(item.sizes)} for item in retired]
    data = orjson.dumps({"keys": listed}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    replace_whole(folder / RETIRED, data, mode=PRIVATE)
