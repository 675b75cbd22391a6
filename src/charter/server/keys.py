"""The keys that ``charter init`` makes, one file a purpose, in a folder only the operator can enter.

======================  ================================================================================
``tokens.json``         private JWK set (RFC 7517, Ed25519): signs bearer tokens: the first signs, all verify
``checkpoint.key``      Ed25519, as a C2SP signed-note signer key: signs the ledger's checkpoints
``checkpoint.vkey``     its public half as a C2SP verifier key: give it to whoever verifies offline
``sealing.json``        AES-256 ring: encrypts sensitive values beside the log; ``current`` seals, all unseal
``retired.json``        public keys that signed checkpoints before, each with the size up to which it may have: never secret
``request-state.json``  ring of 32-byte secrets that seal MCP request states; the same for all workers
======================  ================================================================================

Folder 0700, files 0600; a file that others may read is refused. Whoever has these files can issue any token
and sign any checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from charter.audit.checkpoint import ED25519, Signer, VerifierKey, origin_of
from charter.errors import CharterError, Misconfigured

TOKENS, CHECKPOINT, VKEY = "tokens.json", "checkpoint.key", "checkpoint.vkey"
SEALING, REQUEST_STATE, RETIRED = "sealing.json", "request-state.json", "retired.json"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """A token-signing key and its ``kid``, the RFC 7638 thumbprint."""

    kid: str
    private: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> Ed25519PublicKey:
        """The half that verifies."""
        return self.private.public_key()


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key and the one algorithm that it may be used with. The token's header has no say in it."""

    key: Any
    algorithm: str


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A public key that signed checkpoints once. ``sizes``: by tenant, the largest that it may have signed; empty while the
    rotation is under way."""

    public: bytes
    sizes: Mapping[str, int]

    def key(self, tenant: str) -> VerifierKey:
        """Of this tenant's log."""
        return VerifierKey(origin_of(tenant), self.public)

    def signed_too_late(self, tenant: str, size: int) -> bool:
        """Whoever still has the private half could sign; nothing longer than what there was then is believed."""
        return bool(self.sizes) and size > self.sizes.get(tenant, 0)


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys, loaded. Nothing secret shows in ``repr``."""

    folder: Path
    tokens: tuple[TokenKey, ...]
    sealing_current: str
    checkpoint: Ed25519PrivateKey = field(repr=False)
    sealing: Mapping[str, bytes] = field(repr=False)
    request_state: tuple[bytes, ...] = field(repr=False)
    retired: tuple[RetiredKey, ...] = ()

    def verifiers(self, tenant: str) -> list[VerifierKey]:
        """Everything that may have signed this tenant's log: the present key first, then those that were retired."""
        return [self.signer(tenant).key, *(item.key(tenant) for item in self.retired)]

    def signer(self, tenant: str) -> Signer:
        """Signs the checkpoints of this tenant's log: one key for all tenants, each log under its own name."""
        return Signer(origin_of(tenant), self.checkpoint)

    def vkey(self, tenant: str) -> str:
        """The public key of this tenant's log as a C2SP verifier key; all that offline verification needs."""
        return str(self.signer(tenant).key)

    def jwks(self) -> dict[str, Any]:
        """The public halves of the token keys, as a JWK set."""
        return {"keys": [_public_jwk(key.private) | {"kid": key.kid} for key in self.tokens]}


def create_keys(folder: Path, *, tenant: str = "default") -> Keys:
    """Make the keys that are missing and load them all; a key that is there is never replaced.

    ``checkpoint.vkey`` is written for ``tenant``; ``Keys.vkey`` gives the others. Two processes may do this at
    once: the first one's files win.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    makers: dict[str, Callable[[], bytes]] = {
        TOKENS: _new_tokens,
        CHECKPOINT: lambda: _new_checkpoint(tenant),
        SEALING: _new_sealing,
        REQUEST_STATE: _new_request_state,
    }
    for file, make in makers.items():
        if not (folder / file).exists():
            _write_once(folder / file, make())
    keys = load_keys(folder)
    if not (folder / VKEY).exists():
        _write_once(folder / VKEY, keys.vkey(tenant).encode() + b"\n")
    return keys


def load_keys(folder: Path) -> Keys:
    """Read the keys. ``Misconfigured``: ``keys_missing``, ``keys_readable_by_others``, ``keys_damaged``."""
    if folder.is_dir():
        _refuse_open_doors(folder, "700")
    tokens = _parse(folder / TOKENS, _tokens_of)
    checkpoint = _parse(folder / CHECKPOINT, _checkpoint_of)
    current, sealing = _parse(folder / SEALING, _sealing_of)
    request_state = _parse(folder / REQUEST_STATE, _request_state_of)
    return Keys(
        folder=folder,
        tokens=tokens,
        checkpoint=checkpoint,
        sealing_current=current,
        sealing=sealing,
        request_state=request_state,
        retired=_parse(folder / RETIRED, _retired_of) if (folder / RETIRED).exists() else (),
    )


def _new_tokens() -> bytes:
    private = Ed25519PrivateKey.generate()
    jwk = _public_jwk(private)
    jwk |= {"d": _b64url(private.private_bytes_raw()), "kid": _thumbprint(private)}
    return _json({"keys": [jwk]})


def _new_checkpoint(tenant: str) -> bytes:
    return signer_key(tenant, Ed25519PrivateKey.generate())


def signer_key(tenant: str, private: Ed25519PrivateKey) -> bytes:
    """The signer key form of golang.org/x/mod/sumdb/note: the vkey's name and id, type byte and secret."""
    key = Signer(origin_of(tenant), private).key
    material = base64.b64encode(bytes([ED25519]) + private.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{key.name}+{key.key_id.hex()}+{material}\n".encode()


def _new_sealing() -> bytes:
    key = secrets.token_bytes(32)
    key_id = _key_id(key)
    return _json({"current": key_id, "keys": {key_id: base64.b64encode(key).decode()}})


def _new_request_state() -> bytes:
    return _json({"keys": [base64.b64encode(secrets.token_bytes(32)).decode()]})


def _key_id(key: bytes) -> str:
    """Names a sealing key without telling anything of it: half of a domain-separated SHA-256."""
    return "k" + hashlib.sha256(b"charter sealing key id\x00" + key).hexdigest()[:15]


def _public_jwk(private: Ed25519PrivateKey) -> dict[str, Any]:
    x = _b64url(private.public_key().public_bytes_raw())
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA", "use": "sig"}


def _thumbprint(private: Ed25519PrivateKey) -> str:
    """RFC 7638 with the members that RFC 8037 names, in order."""
    x = _b64url(private.public_key().public_bytes_raw())
    return _b64url(hashlib.sha256(f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'.encode()).digest())


def _tokens_of(data: bytes) -> tuple[TokenKey, ...]:
    found = []
    for jwk in orjson.loads(data)["keys"]:
        if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
            raise ValueError("not Ed25519")
        seed = base64.urlsafe_b64decode(jwk["d"] + "=" * (-len(jwk["d"]) % 4))
        found.append(TokenKey(kid=str(jwk["kid"]), private=Ed25519PrivateKey.from_private_bytes(seed)))
    if not found or len({key.kid for key in found}) != len(found):
        raise ValueError("no keys, or one kid twice")
    return tuple(found)


def _checkpoint_of(data: bytes) -> Ed25519PrivateKey:
    prefix, kind, name, key_id, material = data.decode().strip().split("+", 4)
    raw = base64.b64decode(material, validate=True)
    if (prefix, kind, raw[:1]) != ("PRIVATE", "KEY", bytes([ED25519])):
        raise ValueError("not a signer key")
    private = Ed25519PrivateKey.from_private_bytes(raw[1:])
    if Signer(name, private).key.key_id.hex() != key_id:
        raise ValueError("the key id does not fit the key")
    return private


def _sealing_of(data: bytes) -> tuple[str, dict[str, bytes]]:
    ring = orjson.loads(data)
    keys = {str(name): base64.b64decode(text, validate=True) for name, text in ring["keys"].items()}
    if ring["current"] not in keys or any(len(key) != 32 for key in keys.values()):
        raise ValueError("not a ring of AES-256 keys")
    return str(ring["current"]), keys


def _request_state_of(data: bytes) -> tuple[bytes, ...]:
    keys = tuple(base64.b64decode(text, validate=True) for text in orjson.loads(data)["keys"])
    if not keys or any(len(key) < 32 for key in keys):
        raise ValueError("too short")
    return keys


def _retired_of(data: bytes) -> tuple[RetiredKey, ...]:
    found = tuple(
        RetiredKey(
            base64.b64decode(item["public"], validate=True),
            {str(name): int(size) for name, size in item["sizes"].items()},
        )
        for item in orjson.loads(data)["keys"]
    )
    for item in found:
        item.key("default")  # refuses what is no key
    return found


def _parse(path: Path, parser: Callable[[bytes], T]) -> T:
    data = _read_private(path)
    try:
        return parser(data)
    except (ValueError, KeyError, TypeError, AttributeError, CharterError):
        # What exactly is wrong stays unsaid: parsers like to quote what they choke on.
        raise Misconfigured(
            f"{path}: not a key file of the expected form.",
            code="keys_damaged",
            next_step="Restore it from a backup; `charter init` makes a new one only where none is.",
        ) from None


def _read_private(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            _refuse_open_doors(path, "600", os.fstat(file.fileno()).st_mode)
            return file.read()
    except FileNotFoundError:
        raise Misconfigured(
            f"{path}: there is no such key file.", code="keys_missing", next_step="Run `charter init`."
        ) from None
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be read: {error.strerror}.", code="keys_unreadable") from None


def _refuse_open_doors(path: Path, wanted: str, mode: int | None = None) -> None:
    if os.name != "posix":
        return  # other systems keep access lists, which mode bits do not show
    mode = path.stat().st_mode if mode is None else mode
    if stat.S_IMODE(mode) & 0o077:
        raise Misconfigured(
            f"{path}: others may read it (mode {stat.S_IMODE(mode):o}).",
            code="keys_readable_by_others",
            next_step=f"Run: chmod {wanted} '{path}'. If others may have read it, make new keys.",
        )


def _write_once(path: Path, data: bytes) -> None:
    """Whole or not at all, 0600 from the start, durable; a file that appeared meanwhile stays."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
