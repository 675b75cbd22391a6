"""An identity provider's tokens: keys fetched with care, and agents that never pass for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from charter.errors import Unauthenticated
from charter.model.principal import Principal
from charter.server import jwks as fetching
from charter.server.auth import TokenVerifier
from charter.server.jwks import JwksKeys, parse_jwks
from charter.server.keys import Keys, create_keys
from charter.server.settings import Settings, load_settings
from charter.server.tokens import issue_token

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0
URL, IDP = "https://idp.example/keys", "https://idp.example"
AUDIENCE = "http://127.0.0.1:8420/mcp"
EC_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk(kid: str, **more: Any) -> dict[str, Any]:
    return {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": kid, "use": "sig", **more}


class Provider:
    """A JWKS endpoint that counts, and that can fail in each way."""

    def __init__(self, *keys: dict[str, Any]) -> None:
        self.keys, self.calls, self.now = list(keys), 0, 0.0
        self.answer: Callable[[], httpx2.Response] = lambda: httpx2.Response(200, json={"keys": self.keys})

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.calls += 1
        return self.answer()

    def source(self) -> JwksKeys:
        return JwksKeys(URL, clock=lambda: self.now, transport=httpx2.MockTransport(self))


def configured(**auth: str) -> Settings:
    environ = {"CHARTER_AUTH_ISSUER": IDP, "CHARTER_AUTH_JWKS_URL": URL}
    environ |= {f"CHARTER_AUTH_{name.upper()}": value for name, value in auth.items()}
    return load_settings(environ=environ, cwd=Path("/"))


def token(claims: dict[str, Any] | None = None, *, kid: str = "k1", alg: str = "ES256", key: Any = EC_KEY) -> str:
    usual = {
        "iss": IDP,
        "aud": AUDIENCE,
        "sub": "ann",
        "azp": "vscode",
        "iat": NOW,
        "exp": NOW + 600,
        "roles": ["editor"],
    }
    headers = {"typ": "at+jwt", "kid": kid}
    return jwt.encode({**usual, **(claims or {})}, key, algorithm=alg, headers=headers)


async def principal(text: str, settings: Settings | None = None, *keys: dict[str, Any]) -> Principal:
    provider = Provider(*(keys or (jwk("k1"),)))
    verifier = TokenVerifier(settings or configured(), None, jwks=provider.source(), now=lambda: NOW)
    return (await verifier.verify(text)).principal


async def why(text: str, settings: Settings | None = None, *keys: dict[str, Any]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await principal(text, settings, *keys)
    return caught.value.error_code


async def test_an_unknown_client_is_an_agent_acting_for_the_subject() -> None:
    """The default must be the safe one: the tokens that MCP clients hold name the person as `sub`."""
    assert await principal(token()) == Principal(
        id="vscode", kind="agent", roles=("agent",), acts_for="ann", acts_for_roles=("editor",)
    )


async def test_only_a_configured_client_speaks_for_a_person_or_a_service() -> None:
    settings = configured(human_clients="console", service_clients="billing")
    assert await principal(token({"azp": "console"}), settings) == Principal(id="ann", kind="human", roles=("editor",))
    billing = token({"azp": "billing", "sub": "billing"})
    assert (await principal(billing, settings)).kind == "service"
    delegated = token({"azp": "console", "act": {"sub": "bot"}})
    assert await principal(delegated, settings) == Principal(
        id="bot", kind="agent", roles=("agent",), acts_for="ann", acts_for_roles=("editor",)
    )


async def test_a_client_with_nobody_behind_it_is_an_agent_alone() -> None:
    found = await principal(token({"sub": "bot", "client_id": "bot"}))
    assert found == Principal(id="bot", kind="agent", roles=("agent", "editor"))


async def test_a_charter_claim_of_a_provider_means_nothing() -> None:
    found = await principal(token({"charter": {"kind": "human", "tenant": "other", "roles": ["admin"]}}))
    assert (found.kind, found.tenant) == ("agent", "default")


async def test_groups_become_roles_as_the_map_says_and_no_others_count() -> None:
    settings = configured(
        claims_roles="realm_access.roles",
        claims_role_map='{"grp-fin": "finance-approver", "grp-x": "charter"}',
        claims_tenant="https://example.org/tenant",
    )
    claims = {"realm_access": {"roles": ["grp-fin", "grp-x", "admin"]}, "https://example.org/tenant": "acme"}
    found = await principal(token(claims), settings)
    assert (found.acts_for_roles, found.tenant) == (("finance-approver",), "acme")
    assert await why(token({}), settings) == "token_tenant"


async def test_roles_may_be_words_in_a_text() -> None:
    assert (await principal(token({"roles": "a b charter"}))).acts_for_roles == ("a", "b")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://other.example"}, "token_issuer"),
        ({"aud": "another-api"}, "token_audience"),
        ({"azp": None}, "token_subject"),
        ({"sub": "charter:engine"}, "token_subject"),
        ({"act": {}}, "token_subject"),
        ({"roles": [{}]}, "token_roles"),
        ({"roles": 7}, "token_roles"),
        ({"exp": NOW - 60}, "token_expired"),
    ],
)
async def test_claims_that_do_not_fit_are_refused(claims: dict[str, Any], code: str) -> None:
    assert await why(token(claims)) == code


async def test_the_key_fixes_the_algorithm() -> None:
    rsa_jwk = {**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "k1", "alg": "RS256"}
    assert (await principal(token(alg="RS256", key=RSA_KEY), None, rsa_jwk)).id == "vscode"
    assert await why(token(alg="PS256", key=RSA_KEY), None, rsa_jwk) == "token_signature"
    assert await why(token(), None, rsa_jwk) == "token_signature"
    assert await why(token(), configured(algorithms="EdDSA"), jwk("k1")) == "token_algorithm"


async def test_a_provider_cannot_sign_in_the_name_of_charter_nor_charter_in_its(tmp_path: Path) -> None:
    keys: Keys = create_keys(tmp_path)
    provider = Provider(jwk("k1"))
    verifier = TokenVerifier(configured(), keys, jwks=provider.source(), now=lambda: NOW)
    ours = {"iss": "http://127.0.0.1:8420", "client_id": "ann", "charter": {"kind": "human", "tenant": "default"}}
    assert await verifier.verify_token(token(ours)) is None
    forged = issue_token(keys, subject="ann", kind="human", audience=AUDIENCE, issuer=IDP, now=lambda: NOW)
    assert await verifier.verify_token(forged) is None


def test_only_public_signature_keys_with_a_name_are_taken() -> None:
    nameless = {key: value for key, value in jwk("x").items() if key != "kid"}
    secret = {"kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256"}
    private = {**ECAlgorithm.to_jwk(EC_KEY, as_dict=True), "kid": "private"}
    table = {"keys": [secret, nameless, private, jwk("enc", use="enc"), {"kty": "EC", "kid": "bad"}, 7, jwk("good")]}
    assert list(parse_jwks(orjson.dumps(table))) == ["good"]


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": {}}', b"<html>"])
def test_what_is_no_key_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is the contract
        parse_jwks(data)


async def test_made_up_key_names_cost_one_request_a_pause() -> None:
    provider = Provider(jwk("k1"))
    source = provider.source()
    for number in range(50):
        assert await source.get(f"made-up-{number}") is None
    assert provider.calls == 1
    provider.now += fetching.PAUSE_SECONDS
    await source.get("made-up")
    assert provider.calls == 2


async def test_a_rotated_key_is_found_and_a_withdrawn_one_is_dropped() -> None:
    provider = Provider(jwk("k1"))
    source = provider.source()
    assert await source.get("k1") is not None
    provider.keys = [jwk("k2")]
    provider.now += fetching.PAUSE_SECONDS
    assert await source.get("k2") is not None
    assert await source.get("k1") is None


def _raise(error: Exception) -> httpx2.Response:
    raise error


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx2.Response(500),
        lambda: httpx2.Response(302, headers={"location": "http://169.254.169.254/"}),
        lambda: httpx2.Response(200, content=b"not json"),
        lambda: httpx2.Response(200, content=b" " * (fetching.MAX_BYTES + 1)),
        lambda: _raise(httpx2.ConnectError("down")),
        lambda: _raise(httpx2.ReadTimeout("slow")),
    ],
)
async def test_when_the_provider_fails_known_keys_go_on_for_a_day(answer: Callable[[], httpx2.Response]) -> None:
    provider = Provider(jwk("k1"))
    source = provider.source()
    assert await source.get("k1") is not None
    provider.answer = answer
    provider.now += fetching.FRESH_SECONDS + 1
    assert await source.get("k1") is not None
    assert provider.calls == 2
    provider.now += fetching.STALE_SECONDS
    assert await source.get("k1") is None


async def test_a_provider_that_never_answered_means_no_token_verifies() -> None:
    provider = Provider()
    provider.answer = lambda: httpx2.Response(503)
    verifier = TokenVerifier(configured(), None, jwks=provider.source(), now=lambda: NOW)
    assert await verifier.verify_token(token()) is None
