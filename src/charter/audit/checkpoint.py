"""Signed checkpoints: C2SP ``tlog-checkpoint`` bodies in C2SP ``signed-note`` envelopes, with Ed25519.

A note is a text that ends in a newline, an empty line, and signature lines ``— <key name> <base64>``. A checkpoint's
text is its origin, the tree's size and the base64 root, one a line. Keys are exchanged as *vkeys*:
``<name>+<key id, 8 hex digits>+<base64 of type byte and public key>``. Rotating a key means to trust both vkeys for
a while, and may mean to sign with both. Lines of unknown keys, such as witnesses', are left alone.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from charter.audit.merkle import HASH_BYTES
from charter.errors import IntegrityError, InvalidInput

ED25519 = 0x01
COSIGNATURE = 0x04  # C2SP tlog-cosignature: Ed25519 with a timestamp
MAX_NOTE_BYTES = 1_000_000
MAX_SIGNATURES = 100
_SIGNATURE_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_KEY_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]+")
_PREVIOUS = re.compile(r"previous ([1-9][0-9]{0,18})", re.ASCII)
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


def origin_of(tenant: str) -> str:
    """The origin of a tenant's log, which is also its key name: ``charter/<tenant>``, percent-encoded."""
    return "charter/" + quote(tenant, safe="")


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name. ``kind`` is the signed-note type byte: a log's (1) or a witness's (4)."""

    name: str
    public: bytes
    kind: int = ED25519

    def __post_init__(self) -> None:
        if not _KEY_NAME.fullmatch(self.name):
            raise InvalidInput("A key name is not empty and has no spaces and no '+'.", code="bad_vkey")
        if len(self.public) != 32 or self.kind not in (ED25519, COSIGNATURE):
            raise InvalidInput("Charter verifies Ed25519 keys: type 1 or 4 and 32 bytes.", code="bad_vkey")

    @property
    def key_id(self) -> bytes:
        """The four bytes that a signature line begins with."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.kind]) + self.public).decode()}"

    @classmethod
    def parse(cls, vkey: str) -> VerifierKey:
        """Read a vkey. Raises ``InvalidInput`` (``bad_vkey``)."""
        name, _, rest = vkey.strip().partition("+")
        key_id, _, encoded = rest.partition("+")
        material = _base64(encoded)
        if not material:
            raise InvalidInput("This is no vkey: name+hash+base64key.", code="bad_vkey")
        key = cls(name, material[1:], material[0])
        if key.key_id.hex() != key_id:
            raise InvalidInput("The vkey's hash does not fit its name and key.", code="bad_vkey")
        return key

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Did this key sign the text? A witness's signature (type 4) begins with eight bytes of time."""
        if self.kind == COSIGNATURE:
            text = _cosigned(text, int.from_bytes(signature[:8], "big"))
            signature = signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key under a name. It never shows itself."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = VerifierKey(name, private.public_key().public_bytes_raw())

    @classmethod
    def from_seed(cls, name: str, seed: bytes) -> Signer:
        """From the 32 secret bytes of RFC 8032."""
        return cls(name, Ed25519PrivateKey.from_private_bytes(seed))

    def __repr__(self) -> str:
        return f"Signer({self.key})"

    def line(self, text: bytes) -> bytes:
        """The signature line for a note's text."""
        return _line(self.key, self._private.sign(text))

    def cosignature(self, text: bytes, unix_seconds: int) -> bytes:
        """The line of a witness who says: at this time this was the largest consistent checkpoint that I saw."""
        witness = VerifierKey(self.key.name, self.key.public, COSIGNATURE)
        signature = self._private.sign(_cosigned(text, unix_seconds))
        return _line(witness, unix_seconds.to_bytes(8, "big") + signature)


def _line(key: VerifierKey, signature: bytes) -> bytes:
    return f"— {key.name} {b64encode(key.key_id + signature).decode()}\n".encode()


def _cosigned(text: bytes, unix_seconds: int) -> bytes:
    return b"cosignature/v1\ntime %d\n" % unix_seconds + text


def _base64(text: str) -> bytes | None:
    """Standard base64 in its one canonical spelling, or None."""
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return data if b64encode(data).decode() == text else None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A log's tree head: the first ``size`` leaves have this ``root``."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @property
    def previous(self) -> int | None:
        """The size of the checkpoint that was signed before this one, where the note says it (``following``)."""
        found = (_PREVIOUS.fullmatch(line) for line in self.extensions)
        return next((int(match[1]) for match in found if match), None)

    def text(self) -> bytes:
        """The note text that is signed. Raises ``InvalidInput`` when the parts do not make lines."""
        lines = (self.origin, str(self.size), b64encode(self.root).decode(), *self.extensions)
        if any(not line or not line.isprintable() for line in lines):
            raise InvalidInput("A checkpoint's lines are not empty and printable.", code="bad_checkpoint")
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> Checkpoint:
        """Read a note's text. Raises ``IntegrityError`` (``bad_checkpoint``)."""
        try:
            lines = text.decode().split("\n")
        except UnicodeDecodeError:
            lines = []
        if len(lines) < 4 or lines.pop() or not all(lines) or not _SIZE.fullmatch(lines[1]):
            raise IntegrityError("This is no checkpoint: origin, size, root.", code="bad_checkpoint")
        root = _base64(lines[2])
        if root is None or len(root) != HASH_BYTES:
            raise IntegrityError("The checkpoint's root is no SHA-256 hash.", code="bad_checkpoint")
        return cls(lines[0], int(lines[1]), root, tuple(lines[3:]))


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """A checkpoint that the log's key signed, and which trusted keys' lines it carries."""

    checkpoint: Checkpoint
    signed_by: tuple[VerifierKey, ...]

    @property
    def witnesses(self) -> tuple[VerifierKey, ...]:
        """The trusted witnesses among them."""
        return tuple(key for key in self.signed_by if key.kind == COSIGNATURE)


def following(size: int | None) -> tuple[str, ...]:
    """The extension line by which a checkpoint vouches for the one before it, so that none is taken away unnoticed."""
    return (f"previous {size}",) if size else ()


def sign_checkpoint(checkpoint: Checkpoint, *signers: Signer) -> bytes:
    """The signed note. The first signer's name must be the origin; further ones are for rotation."""
    if not signers or signers[0].key.name != checkpoint.origin:
        raise InvalidInput("A checkpoint is signed under its origin as key name.", code="bad_checkpoint")
    text = checkpoint.text()
    return text + b"\n" + b"".join(signer.line(text) for signer in signers)


def add_line(note: bytes, line: bytes) -> bytes:
    """The note with one more signature line, for instance a witness's."""
    split_note(note + line)
    return note + line


def split_note(note: bytes) -> tuple[bytes, list[Signature]]:
    """A note's text and its signature lines, unverified. Raises ``IntegrityError`` (``bad_note``)."""
    text, found, tail = note.rpartition(b"\n\n")
    try:
        lines = tail.decode().split("\n")
        shown = note.decode()
    except UnicodeDecodeError:
        raise _bad_note("it is not UTF-8") from None
    if len(note) > MAX_NOTE_BYTES or not found or not text:
        raise _bad_note("it has no text and signatures, or is too large")
    if any(char < " " and char != "\n" for char in shown):
        raise _bad_note("it has control characters")
    if lines.pop() or not lines or len(lines) > MAX_SIGNATURES:
        raise _bad_note("it has no signature lines, or too many")
    return text + b"\n", [_signature(line) for line in lines]


def _signature(line: str) -> Signature:
    match = _SIGNATURE_LINE.fullmatch(line)
    data = _base64(match[2]) if match else None
    if match is None or data is None or len(data) < 5:
        raise _bad_note("a signature line is malformed")
    return Signature(match[1], data[:4], data[4:])


def _bad_note(why: str) -> IntegrityError:
    return IntegrityError(f"This is no signed note: {why}.", code="bad_note")


def open_note(note: bytes, trusted: Iterable[VerifierKey]) -> tuple[bytes, tuple[VerifierKey, ...]]:
    """The text, and the trusted keys that signed it (at least one).

    Raises ``IntegrityError``: ``bad_note``; ``bad_signature`` when the line of a trusted key does not verify;
    ``untrusted_note`` when no trusted key signed.
    """
    text, signatures = split_note(note)
    keys = {(key.name, key.key_id): key for key in trusted}
    signed_by: dict[VerifierKey, None] = {}
    for line in signatures:
        key = keys.get((line.name, line.key_id))
        if key is None:
            continue
        if not key.verifies(text, line.signature):
            raise IntegrityError(f"The signature of {key.name} is wrong.", code="bad_signature")
        signed_by[key] = None
    if not signed_by:
        raise IntegrityError("No trusted key signed this note.", code="untrusted_note")
    return text, tuple(signed_by)


def verify_checkpoint(note: bytes, trusted: Iterable[VerifierKey], origin: str | None = None) -> Verified:
    """The checkpoint of a signed note, which a trusted key of the log itself signed.

    ``origin``, when given, must be the checkpoint's. A witness alone is not enough. Raises ``IntegrityError``:
    as ``open_note``, ``bad_checkpoint``, ``wrong_origin``, ``untrusted_note``.
    """
    text, signed_by = open_note(note, trusted)
    checkpoint = Checkpoint.parse(text)
    if origin is not None and checkpoint.origin != origin:
        raise IntegrityError(f"The checkpoint is of {checkpoint.origin}, not {origin}.", code="wrong_origin")
    if not any(key.kind == ED25519 and key.name == checkpoint.origin for key in signed_by):
        raise IntegrityError("No trusted key of this log signed the checkpoint.", code="untrusted_note")
    return Verified(checkpoint, signed_by)
