"""Requests to the outside, guarded: which hosts, and never an address that is not public unless it is allowed.

A name is resolved once, every address that it has is checked, and the connection is made to a checked address, so an answer
that changes between check and use (DNS rebinding) changes nothing; TLS and ``Host`` still go by the name. Each redirect is
a new request with the same checks. No proxies, cookies, compression or kept connections; answers are capped.
"""

from __future__ import annotations

import ipaddress
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urljoin

import anyio
import httpcore2
import httpx2

from charter.errors import Misconfigured
from charter.model.hosts import parts_of
from charter.tools.failures import CallError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name. Raises ``OSError`` when there are none."""

# At DEBUG it logs the headers of answers, which may repeat a secret.
logging.getLogger("httpcore2").setLevel(logging.INFO)

MAX_BYTES: Final = 1024 * 1024
MAX_REDIRECTS: Final = 5
CONNECT_SECONDS: Final = 10.0
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443}
_KEPT_ACROSS_ORIGINS: Final = frozenset({"accept", "user-agent", "accept-language"})
_OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade", "te"}
)
# What `is_global` lets pass although a private address may be behind it: NAT64 and 6to4 carry an IPv4 address inside.
_NEVER_PUBLIC: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "fec0::/10", "192.0.0.0/24")
)


@dataclass(frozen=True, slots=True)
class Egress:
    """Where requests may go. Empty ``hosts`` mean nowhere.

    ``hosts``: ``api.example.com`` (https on port 443), ``api.example.com:8443``, ``*.example.com`` (and what is below it, not
    itself), ``http://…`` for plain HTTP, ``:*`` for any port, ``*`` for every host. ``private``: networks that may be
    connected to although they are not public.
    """

    hosts: tuple[str, ...] = ()
    private: tuple[Network, ...] = ()

    def check(self, url: str) -> httpx2.URL:
        """The parsed URL. Raises ``CallError`` (``not_run``, ``egress_refused``)."""
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError, TypeError):
            raise _refused("it is no URL") from None
        if parsed.scheme not in _PORTS or not parsed.host:
            raise _refused("only absolute http and https URLs are requested")
        if parsed.userinfo:
            raise _refused("a URL must not carry a user name or password; send a header")
        if not any(_covers(pattern, parsed) for pattern in self.hosts):
            raise _refused(f"{origin(parsed)} is not on the list of hosts that requests may go to (`[egress] allow`)")
        return parsed

    def allows(self, address: Address) -> bool:
        """Whether a connection to this address may be made: it is public, or in a network that is allowed."""
        plain = unmapped(address)
        if any(plain.version == network.version and plain in network for network in self.private):
            return True
        if any(plain.version == network.version and plain in network for network in _NEVER_PUBLIC):
            return False
        return plain.is_global and not (plain.is_multicast or plain.is_reserved or plain.is_unspecified)


def unmapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped IPv6 address; any other as it is, without its zone."""
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def origin(url: httpx2.URL) -> str:
    """Scheme, host and, where it is not the usual one, port."""
    host = url.raw_host.decode("ascii")
    shown = f"[{host}]" if ":" in host else host
    return f"{url.scheme}://{shown}" + (f":{url.port}" if url.port is not None else "")


def _covers(pattern: str, url: httpx2.URL) -> bool:
    scheme, host, port = parts_of(pattern)
    if scheme != url.scheme:
        return False
    if port != "*" and (int(port) if port else _PORTS[scheme]) != (url.port or _PORTS[url.scheme]):
        return False
    wanted = url.raw_host.decode("ascii").rstrip(".").lower()
    return host in ("*", wanted) or (host.startswith("*.") and wanted.endswith(host[1:]))


def _refused(why: str) -> CallError:
    return CallError("not_run", "egress_refused", f"The request was not sent: {why}.")


async def resolve(host: str, port: int) -> Sequence[str]:
    """The system's answer. Odd spellings of addresses (``2130706433``, ``0x7f.1``) come back as what they mean."""
    found = await anyio.getaddrinfo(host, port, type=1)  # SOCK_STREAM
    return [str(entry[4][0]) for entry in found]


class _Dialer(httpcore2.AsyncNetworkBackend):
    """Connects to addresses that were checked, and to nothing else."""

    def __init__(self, rules: Egress, resolve: Resolve) -> None:
        self._rules, self._resolve = rules, resolve
        self._inner = cast(httpcore2.AsyncNetworkBackend, httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        error: Exception = httpcore2.ConnectError("it has no address")
        for address in await self._checked(host, port):
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as failure:
                error = failure
        raise error

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's own signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise _refused("no Unix sockets")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def _checked(self, host: str, port: int) -> list[str]:
        """The host's addresses; refused when any of them is not allowed, so that none is found out by trying."""
        try:
            found = [ipaddress.ip_address(text) for text in await self._resolve(host, port)]
        except (OSError, UnicodeError, ValueError):
            raise httpcore2.ConnectError("the name does not resolve") from None
        if not all(self._rules.allows(address) for address in found):
            raise _refused(f"{host} has an address that is not public (`[egress] private` allows networks)")
        return list(dict.fromkeys(str(unmapped(address)) for address in found))


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. Header names are in lower case; ``url`` is where the last redirect led."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    redirects: int = 0


@dataclass(slots=True)
class GuardedClient:
    """Sends requests under rules. Cheap to make and to keep; holds no connection between requests.

    ``tls``: how certificates are verified; the usual authorities where None. ``resolve`` is the system's resolver.
    """

    rules: Egress
    tls: ssl.SSLContext | None = None
    max_bytes: int = MAX_BYTES
    resolve: Resolve = field(default=resolve)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        seconds: float = 30.0,
        follow: bool = False,
    ) -> Answer:
        """One request and its answer, whatever its status. ``follow`` follows redirects of GET, HEAD and OPTIONS: to another
        origin without the caller's headers. ``seconds`` is for all of it.

        Raises ``CallError``: ``not_run`` (``egress_refused``, ``http_unreachable``, ``bad_request``), ``unknown``
        (``http_lost``, ``http_timeout``), ``answered`` (``result_too_large``, ``too_many_redirects``,
        ``compressed_answer``). No message holds a path, a query, a header or a body: they may carry secrets.
        """
        sent = _Sent()
        try:
            with anyio.fail_after(seconds):
                return await self._follow(method, url, dict(headers or {}), body, sent, follow)
        except TimeoutError:
            raise _late(sent, seconds) from None

    async def _follow(
        self, method: str, url: str, headers: dict[str, str], body: bytes, sent: _Sent, follow: bool
    ) -> Answer:
        follow = follow and method in SAFE
        target = self.rules.check(url)
        for hops in range(MAX_REDIRECTS + 1):
            status, received, content = await self._once(method, target, headers, body, sent)
            location = received.get("location")
            if not follow or status not in REDIRECTS or location is None:
                return Answer(status, received, content, str(target), hops)
            there = self.rules.check(urljoin(str(target), location))
            if origin(there) != origin(target):
                headers = {name: value for name, value in headers.items() if name.lower() in _KEPT_ACROSS_ORIGINS}
            target = there
        raise CallError("answered", "too_many_redirects", f"It was redirected more than {MAX_REDIRECTS} times.")

    async def _once(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], body: bytes, sent: _Sent
    ) -> tuple[int, dict[str, str], bytes]:
        request = _request(method, url, headers, body, sent)
        pool = httpcore2.AsyncConnectionPool(
            ssl_context=self.tls or _usual_authorities(),
            max_keepalive_connections=0,
            network_backend=_Dialer(self.rules, self.resolve),
        )
        try:
            async with pool:
                response = await pool.handle_async_request(request)
                try:
                    received = _headers(response)
                    return response.status, received, await self._body(response, received)
                finally:
                    await response.aclose()
        except (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.PoolTimeout) as error:
            raise CallError(
                "not_run", "http_unreachable", f"{origin(url)} cannot be reached ({_kind(error)})."
            ) from None
        except httpcore2.LocalProtocolError:
            raise CallError("not_run", "bad_request", "The request's headers are not valid HTTP.") from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
            raise _broke(sent, url, error) from None

    async def _body(self, response: httpcore2.Response, headers: Mapping[str, str]) -> bytes:
        if headers.get("content-encoding", "identity") != "identity":
            raise CallError("answered", "compressed_answer", "The answer is compressed although none was asked for.")
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_stream():
            size += len(part)
            if size > self.max_bytes:
                raise CallError("answered", "result_too_large", f"The answer is over {self.max_bytes:,} bytes.")
            parts.append(part)
        return b"".join(parts)


def authorities(ca_file: Path | None) -> ssl.SSLContext | None:
    """TLS that trusts the authorities of a PEM file; None for the usual ones. Raises ``Misconfigured`` (``bad_ca_file``)."""
    if ca_file is None:
        return None
    try:
        return ssl.create_default_context(cafile=str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"{ca_file.name} holds no certificates that can be read: {type(error).__name__}.",
            code="bad_ca_file",
            next_step="Correct egress.ca_file: a PEM file of certificate authorities.",
        ) from None


@lru_cache(maxsize=1)
def _usual_authorities() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)


class _Sent:
    """Whether any of a request has left: what failed before then has certainly not run."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False

    async def trace(self, event: str, _info: Mapping[str, Any]) -> None:
        if event.endswith("send_request_headers.started"):
            self.begun = True


def _request(method: str, url: httpx2.URL, headers: Mapping[str, str], body: bytes, sent: _Sent) -> httpcore2.Request:
    given = [(name, value) for name, value in headers.items() if name.lower() not in _OURS]
    if body or method not in SAFE:
        given.append(("content-length", str(len(body))))
    try:
        raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in given]
    except UnicodeEncodeError:
        raise CallError("not_run", "bad_request", "A header holds a character that HTTP does not carry.") from None
    return httpcore2.Request(
        method=method,
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=[(b"host", url.netloc), (b"accept-encoding", b"identity"), *raw],
        content=body,
        extensions={"trace": sent.trace, "timeout": {"connect": CONNECT_SECONDS}},
    )


def _headers(response: httpcore2.Response) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw_name, raw_value in response.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def _kind(error: Exception) -> str:
    return str(error) if isinstance(error, httpcore2.ConnectError) and "resolve" in str(error) else type(error).__name__


def _broke(sent: _Sent, url: httpx2.URL, error: Exception) -> CallError:
    if not sent.begun:
        return CallError("not_run", "http_unreachable", f"{origin(url)} cannot be reached ({type(error).__name__}).")
    return CallError("unknown", "http_lost", f"The connection to {origin(url)} broke ({type(error).__name__}).")


def _late(sent: _Sent, seconds: float) -> CallError:
    if not sent.begun:
        return CallError("not_run", "http_unreachable", f"No connection was made within {seconds:g} s.")
    return CallError("unknown", "http_timeout", f"No answer came within {seconds:g} s.")
