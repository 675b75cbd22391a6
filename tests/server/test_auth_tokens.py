"""Bearer tokens: who they make of the caller, and all the ways in which they are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from mcp.server.auth.provider import AccessToken

from charter.errors import InvalidInput, Unauthenticated
from charter.model.principal import Principal
from charter.server.auth import TokenVerifier, current_principal, stdio_principal
from charter.server.keys import Keys, create_keys
from charter.server.revoked import RevokedTokens
from charter.server.settings import Settings, load_settings
from charter.server.tokens import issue_token

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
AUDIENCE, ISSUER = "http://127.0.0.1:8420/mcp", "http://127.0.0.1:8420"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def verifier(keys: Keys, clock: Clock) -> TokenVerifier:
    return TokenVerifier(defaults(), keys, now=clock)


def defaults() -> Settings:
    return load_settings(environ={}, cwd=Path("/"))


def issued(keys: Keys, **changes: Any) -> str:
    wanted: dict[str, Any] = {
        "subject": "ide-agent",
        "kind": "agent",
        "roles": ("agent",),
        "acts_for": "ann",
        "acts_for_roles": ("editor",),
        "audience": AUDIENCE,
        "issuer": ISSUER,
        "now": lambda: NOW,
    }
    return issue_token(keys, **(wanted | changes))


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def signed(keys: Keys, claims: dict[str, Any], **header: Any) -> str:
    """A token with these claims under the real key: what a buggy or hostile issuer with the key could make."""
    own = {"typ": "at+jwt", "kid": keys.tokens[0].kid, **header}
    return jwt.encode(claims, keys.tokens[0].private, algorithm="EdDSA", headers=own)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def why(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(token)
    assert await verifier.verify_token(token) is None
    return caught.value.error_code


async def test_an_agent_that_acts_for_a_person_is_laid_out_as_rfc_8693_says(
    keys: Keys, verifier: TokenVerifier
) -> None:
    token = issued(keys, tenant="acme")
    claims = claims_of(token)
    assert jwt.get_unverified_header(token) == {"alg": "EdDSA", "typ": "at+jwt", "kid": keys.tokens[0].kid}
    assert (claims["sub"], claims["act"], claims["client_id"]) == ("ann", {"sub": "ide-agent"}, "ide-agent")
    verified = await verifier.verify(token)
    assert verifier.principal(verified) == Principal(
        id="ide-agent", kind="agent", tenant="acme", roles=("agent",), acts_for="ann", acts_for_roles=("editor",)
    )
    assert (verified.subject, verified.client_id, verified.resource) == ("ann", "acme/agent/ide-agent", AUDIENCE)
    assert token not in repr(verified)


@pytest.mark.parametrize("kind", ["human", "agent", "service"])
async def test_a_caller_on_its_own_is_the_subject(keys: Keys, verifier: TokenVerifier, kind: str) -> None:
    token = issued(keys, subject="ann", kind=kind, roles=("a", "b"), acts_for=None, acts_for_roles=())
    assert "act" not in claims_of(token)
    assert (await verifier.verify(token)).principal == Principal(id="ann", kind=kind, roles=("a", "b"))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "human"},
        {"kind": "service"},
        {"acts_for": None},
        {"subject": "charter:engine"},
        {"acts_for": "Charter:engine"},
        {"subject": "two words"},
        {"subject": "ann\u202e"},
        {"subject": ""},
        {"roles": ("charter",)},
        {"acts_for_roles": ("charter",)},
        {"ttl": 0},
        {"tenant": "../other"},
    ],
)
def test_what_would_not_verify_is_not_issued(keys: Keys, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        issued(keys, **changes)


async def test_a_token_for_another_server_or_from_another_issuer_is_refused(
    keys: Keys, verifier: TokenVerifier
) -> None:
    assert await why(verifier, issued(keys, audience="http://127.0.0.1:9999/mcp")) == "token_audience"
    assert await why(verifier, issued(keys, audience=AUDIENCE + "/")) == "token_audience"
    assert await why(verifier, issued(keys, issuer="https://evil.example")) == "token_issuer"


async def test_a_token_holds_from_its_issue_to_its_expiry_with_a_little_leeway(
    keys: Keys, verifier: TokenVerifier, clock: Clock
) -> None:
    token = issued(keys, ttl=60)
    for moment in (-10, 0, 59, 69):
        clock.now = NOW + moment
        assert await verifier.verify_token(token) is not None
    clock.now = NOW + 70
    assert await why(verifier, token) == "token_expired"
    clock.now = NOW - 11
    assert await why(verifier, token) == "token_not_yet"


async def test_a_life_longer_than_configured_is_refused(keys: Keys, verifier: TokenVerifier) -> None:
    assert await why(verifier, issued(keys, ttl=8 * 86_400)) == "token_lives_too_long"


async def test_the_cache_checks_expiry_and_revocation_again(keys: Keys, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "revoked"
    verifier = TokenVerifier(defaults(), keys, now=clock, revoked=RevokedTokens(path, now=clock))
    token = issued(keys)
    first = await verifier.verify(token)
    assert await verifier.verify(token) is first
    # Another process takes it back: the file is all that they share.
    RevokedTokens(path, now=clock).add(str(first.jti), NOW + 3600)
    assert await why(verifier, token) == "token_revoked"
    assert path.stat().st_mode & 0o077 == 0
    other = issued(keys)
    await verifier.verify(other)
    clock.now = NOW + 9 * 3600
    assert await why(verifier, other) == "token_expired"


async def test_the_cache_is_bounded(keys: Keys, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("charter.server.tokens.MAX_CACHED", 3)
    for _ in range(6):
        await verifier.verify(issued(keys))
    assert len(verifier._cache) == 3


async def test_forged_signatures_are_refused(keys: Keys, verifier: TokenVerifier) -> None:
    good = issued(keys)
    head, body, signature = good.split(".")
    claims = claims_of(good)
    kid = keys.tokens[0].kid
    stranger = Ed25519PrivateKey.generate()
    public = keys.tokens[0].public
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def confused(secret: bytes, alg: str = "HS256") -> str:
        header = b64(json.dumps({"alg": alg, "typ": "at+jwt", "kid": kid}).encode())
        mac = hmac.new(secret, f"{header}.{body}".encode(), hashlib.sha256).digest()
        return f"{header}.{body}.{b64(mac)}"

    none = b64(json.dumps({"alg": "none", "typ": "at+jwt", "kid": kid}).encode())
    other = claims_of(issued(keys, subject="admin", kind="human", acts_for=None, acts_for_roles=()))
    for forged in (
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        confused(pem),
        confused(public.public_bytes_raw()),
        confused(b"", "none"),
        jwt.encode(claims, stranger, algorithm="EdDSA", headers={"typ": "at+jwt", "kid": kid}),
        f"{head}.{b64(json.dumps(other).encode())}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        f"{head}.{body}.",
    ):
        assert await why(verifier, forged) == "token_signature"


async def test_the_header_must_name_type_and_a_known_key_and_nothing_critical(
    keys: Keys, verifier: TokenVerifier
) -> None:
    claims = claims_of(issued(keys))
    assert await why(verifier, signed(keys, claims, typ="JWT")) == "token_type"
    assert await why(verifier, signed(keys, claims, typ=None)) == "token_type"
    assert await why(verifier, signed(keys, claims, kid="another")) == "token_key"
    header = b64(json.dumps({"alg": "EdDSA", "typ": "at+jwt", "kid": keys.tokens[0].kid, "crit": ["x"]}).encode())
    assert await why(verifier, header + "." + signed(keys, claims).split(".", 1)[1]) in ("token_key", "token_malformed")
    assert await verifier.verify_token(signed(keys, claims, typ="application/AT+JWT")) is not None


@pytest.mark.parametrize(
    "token", ["", "x", "..", "a.b.c", "é.é.é", "A" * 20_000, "{}.{}.{}", "null.null.null", "\x00.\x00.\x00"]
)
async def test_what_is_no_token_is_refused(verifier: TokenVerifier, token: str) -> None:
    assert await why(verifier, token) == "token_malformed"


@pytest.mark.parametrize(
    "change",
    [
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": True},
        {"exp": "soon"},
        {"exp": None},
        {"iat": NOW + 3600},
        {"iat": -(2.0**60)},
        {"iat": []},
        {"nbf": NOW + 3600},
        {"nbf": {}},
        {"aud": []},
        {"aud": None},
        {"aud": {"x": AUDIENCE}},
        {"sub": 7},
        {"sub": "charter:engine"},
        {"sub": "a b"},
        {"act": {}},
        {"act": "ide-agent"},
        {"act": {"sub": "ide-agent", "act": {"sub": "another"}}},
        {"act": {"sub": "another"}},
        {"act": None},
        {"client_id": "another"},
        {"charter": None},
        {"charter": {"kind": "human", "tenant": "default", "roles": []}},
        {"charter": {"kind": "admin", "tenant": "default", "roles": []}},
        {"charter": {"kind": "agent", "tenant": "", "roles": []}},
        {"charter": {"kind": "agent", "roles": []}},
        {"charter": {"kind": "agent", "tenant": "default", "roles": [1]}},
        {"charter": {"kind": "agent", "tenant": "default", "roles": {"a": 1}}},
        {"jti": 5},
    ],
)
async def test_signed_claims_of_the_wrong_shape_are_refused(
    keys: Keys, verifier: TokenVerifier, change: dict[str, Any]
) -> None:
    await why(verifier, signed(keys, claims_of(issued(keys)) | change))


async def test_a_required_claim_that_is_missing_is_refused(keys: Keys, verifier: TokenVerifier) -> None:
    claims = claims_of(issued(keys))
    for name in ("iss", "aud", "sub", "iat", "exp", "client_id", "charter"):
        await why(verifier, signed(keys, {key: value for key, value in claims.items() if key != name}))


async def test_the_reserved_role_never_comes_from_a_token(keys: Keys, verifier: TokenVerifier) -> None:
    claims = claims_of(issued(keys))
    claims["charter"]["roles"] = ["agent", "charter"]
    assert (await verifier.verify(signed(keys, claims))).principal.roles == ("agent",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
CLAIMS = st.sampled_from(
    ["iss", "aud", "sub", "client_id", "iat", "nbf", "exp", "jti", "act", "charter", "scope", "other"]
)


@hypothesis_settings(max_examples=300, deadline=None)
@given(changes=st.dictionaries(CLAIMS, JSON, max_size=4))
def test_random_claims_under_the_real_key_never_crash_and_never_gain_a_principal(
    keys: Keys, changes: dict[str, Any]
) -> None:
    """Whatever is signed: either a clean refusal, or exactly the caller that the claims name."""
    claims = claims_of(issued(keys)) | changes
    try:
        token = signed(keys, claims)
    except (TypeError, ValueError, UnicodeError):
        return
    verified = anyio.run(TokenVerifier(defaults(), keys, now=Clock()).verify_token, token)
    if verified is not None:
        assert verified.principal.id == claims["client_id"]
        assert verified.principal.kind == claims["charter"]["kind"]
        assert verified.principal.kind == "agent" or "act" not in claims or claims["act"] is None
        assert claims["iss"] == ISSUER
        assert AUDIENCE in claims["aud"]


@hypothesis_settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_token_changed_anywhere_is_refused(keys: Keys, data: st.DataObject) -> None:
    token = issued(keys)
    place = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from("ABCDwxyz0189-_."))
    changed = token[:place] + letter + token[place + 1 :]
    verified = anyio.run(TokenVerifier(defaults(), keys, now=Clock()).verify_token, changed)
    # The last letter of each part has bits that base64 does not use; then the token says the very same.
    assert verified is None or claims_of(changed) == claims_of(token)


def test_only_verified_tokens_have_a_principal(keys: Keys, verifier: TokenVerifier) -> None:
    made_up = AccessToken(token="x", client_id="admin", scopes=[], claims={"charter": {"kind": "human"}})
    with pytest.raises(Unauthenticated):
        verifier.principal(made_up)


def test_outside_a_request_there_is_only_the_fallback() -> None:
    with pytest.raises(Unauthenticated):
        current_principal()
    configured = load_settings(
        environ={"CHARTER_STDIO_ACTS_FOR": "ann", "CHARTER_STDIO_ACTS_FOR_ROLES": "editor"}, cwd=Path("/")
    )
    local = stdio_principal(configured)
    assert current_principal(local) == Principal(
        id="local-agent", kind="agent", roles=("agent",), acts_for="ann", acts_for_roles=("editor",)
    )


async def test_without_local_keys_no_token_of_ours_verifies(keys: Keys, clock: Clock) -> None:
    off = load_settings(environ={"CHARTER_AUTH_LOCAL_KEYS": "false"}, cwd=Path("/"))
    assert await why(TokenVerifier(off, keys, now=clock), issued(keys)) == "token_key"
