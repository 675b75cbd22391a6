"""Identifiers: a prefix that says what it is, then a UUIDv7 (RFC 9562), so they sort by time.

The pure floor never draws randomness: a :class:`Mint` is handed to it with the time and the entropy of one
command, and gives the same ids each time it is asked with the same ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

PREFIXES = {
    "workflow": "wf",
    "invocation": "inv",
    "proposal": "prop",
    "approval": "appr",
    "event": "evt",
    "effect": "eff",
    "grant": "grant",
    "command": "cmd",
    "sealed": "seal",
    "instance": "srv",
    "signal": "sig",
}


def uuid7_text(unix_ms: int, entropy: bytes) -> str:
    """A UUIDv7 in canonical text from milliseconds since 1970 and at least 10 bytes of entropy."""
    value = (unix_ms & ((1 << 48) - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@dataclass(slots=True)
class Mint:
    """Makes ids and salts from the time and entropy of one command; deterministic in both."""

    unix_ms: int
    entropy: bytes
    _count: int = field(default=0)

    def _draw(self) -> bytes:
        self._count += 1
        return hashlib.blake2b(self._count.to_bytes(4, "big"), key=self.entropy, digest_size=16).digest()

    def new(self, kind: str) -> str:
        """A new id of this kind: ``mint.new("workflow")`` gives ``wf_0192…``."""
        return f"{PREFIXES[kind]}_{uuid7_text(self.unix_ms, self._draw())}"

    def salt(self) -> str:
        """128 bits as hexadecimal text, to salt a digest with."""
        return self._draw().hex()

    def per_mille(self) -> int:
        """0 to 999 by chance, for waits that should not all end at once."""
        return int.from_bytes(self._draw()[:4], "big") % 1000
