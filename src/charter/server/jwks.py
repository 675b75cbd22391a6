"""An identity provider's signing keys, fetched from its JWK set (RFC 7517) and kept.

Fetched when first needed, again after five minutes, and when a token names a key that is not known, but never
more often than the pause says: a flood of made-up ``kid`` values costs one request. When the provider does
not answer, the keys that are known go on for a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio
import httpx2
import jwt
import orjson

from charter.server.keys import VerifyKey

_log = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024
MAX_KEYS = 64
FRESH_SECONDS = 300.0
STALE_SECONDS = 86_400.0
PAUSE_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0


class JwksKeys:
    """Looks keys up by ``kid``.

    ``clock`` gives seconds that only grow; ``transport`` is for tests and proxies.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._url, self._clock, self._transport = url, clock, transport
        self._keys: dict[str, VerifyKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._lock = anyio.Lock()

    async def get(self, kid: str) -> VerifyKey | None:
        """The key, or None when the provider has none of that name, or has not answered for a day."""
        found = self._keys.get(kid)
        fresh = self._age(self._fetched_at) < FRESH_SECONDS
        if found is not None and (fresh or self._lock.locked()):
            return found
        async with self._lock:
            if (kid not in self._keys or not fresh) and self._age(self._tried_at) >= PAUSE_SECONDS:
                await self._refresh()
        return self._keys.get(kid) if self._age(self._fetched_at) < STALE_SECONDS else None

    async def look(self) -> int:
        """How many keys the provider has now that can be used.

        Raises ``httpx2.HTTPError``, ``httpx2.InvalidURL`` or ``TimeoutError`` when it does not answer, ``ValueError`` when
        what it answers is no JWK set.
        """
        return len(parse_jwks(await self._fetch()))

    def _age(self, since: float | None) -> float:
        return float("inf") if since is None else self._clock() - since

    async def _refresh(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = parse_jwks(await self._fetch())
            self._fetched_at = self._clock()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, TimeoutError) as error:
            _log.warning("The JWK set was not fetched (%s); known keys stay in use.", type(error).__name__)

    async def _fetch(self) -> bytes:
        body = bytearray()
        with anyio.fail_after(TIMEOUT_SECONDS * 2):
            async with (
                httpx2.AsyncClient(
                    timeout=TIMEOUT_SECONDS,
                    trust_env=False,
                    follow_redirects=False,
                    transport=self._transport,
                ) as client,
                client.stream("GET", self._url, headers={"accept": "application/json"}) as response,
            ):
                if response.status_code != 200:
                    raise ValueError(f"status {response.status_code}")
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise ValueError("too big")
        return bytes(body)


def parse_jwks(data: bytes) -> dict[str, VerifyKey]:
    """Public signature keys by ``kid``. Others are passed over: symmetric, for encryption, nameless, unknown.

    Raises ``ValueError`` for what is no JWK set, and for one without any usable key.
    """
    table = orjson.loads(data)
    if not isinstance(table, dict) or not isinstance(table.get("keys"), list):
        raise ValueError("not a JWK set")
    keys: dict[str, VerifyKey] = {}
    for jwk in table["keys"][:MAX_KEYS]:
        if not isinstance(jwk, dict) or jwk.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if not isinstance(jwk.get("kid"), str) or jwk.get("use", "sig") != "sig" or "d" in jwk:
            continue
        try:
            parsed = jwt.PyJWK.from_dict(jwk)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        keys.setdefault(jwk["kid"], VerifyKey(key=parsed.key, algorithm=parsed.algorithm_name))
    if not keys:
        raise ValueError("no usable key")
    return keys
