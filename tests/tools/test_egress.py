"""The guard on what goes out: by the address that is connected to, on every hop, whatever the name or spelling."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from charter.model.hosts import pattern_problem
from charter.tools.egress import Egress, GuardedClient
from charter.tools.failures import CallError
from tests.web import Asked, Says, Site, site

pytestmark = pytest.mark.anyio

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def web() -> Iterator[Site]:
    with site(lambda asked: Says(body={"path": asked.path})) as found:
        yield found


def client(*hosts: str, private: Any = LOOPBACK, **more: Any) -> GuardedClient:
    return GuardedClient(Egress(hosts=hosts or ("http://*:*",), private=private), **more)


def names(**known: Sequence[str]) -> Any:
    """A resolver at the edge: it knows these names and no others, and counts how often it is asked."""
    asked: list[str] = []

    async def resolve(host: str, _port: int) -> Sequence[str]:
        asked.append(host)
        found = known.get(host.partition(".")[0])
        if found is None:
            raise OSError("no such name")
        return [found[min(len(asked) - 1, len(found) - 1)]] if host.startswith("flip") else found

    resolve.asked = asked  # type: ignore[attr-defined]
    return resolve


async def refused(sending: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await sending
    return caught.value


async def test_an_allowed_host_is_asked_and_its_answer_comes_back(web: Site) -> None:
    answer = await client().send("POST", f"{web.url}/x?y=1", headers={"X-One": "1"}, body=b"{}")
    assert (answer.status, answer.body) == (200, b'{"path":"/x?y=1"}')
    assert answer.headers["content-type"] == "application/json"
    asked = web.asked[0]
    assert (asked.method, asked.body, asked.headers["x-one"]) == ("POST", b"{}", "1")
    assert asked.headers["host"] == f"127.0.0.1:{web.port}"
    assert asked.headers["accept-encoding"] == "identity"


async def test_without_a_list_nothing_goes_anywhere(web: Site) -> None:
    error = await refused(GuardedClient(Egress(private=LOOPBACK)).send("GET", web.url))
    assert (error.certainty, error.code) == ("not_run", "egress_refused")
    assert web.asked == []


@pytest.mark.parametrize(
    ("pattern", "url", "goes"),
    [
        ("api.example.com", "https://api.example.com/x", True),
        ("api.example.com", "https://API.example.com.:443/x", True),
        ("api.example.com", "http://api.example.com/x", False),
        ("api.example.com", "https://api.example.com:8443/x", False),
        ("api.example.com:8443", "https://api.example.com:8443/x", True),
        ("api.example.com", "https://api.example.com.evil.test/x", False),
        ("api.example.com", "https://evil.test/api.example.com", False),
        ("api.example.com", "https://evil.test#api.example.com", False),
        ("*.example.com", "https://a.b.example.com/x", True),
        ("*.example.com", "https://example.com/x", False),
        ("*.example.com", "https://badexample.com/x", False),
        ("http://[::1]:80", "http://[::1]/x", True),
        ("bücher.example", "https://xn--bcher-kva.example/", False),
        ("xn--bcher-kva.example", "https://bücher.example/", True),
        ("*", "https://anything.test/x", True),
        ("*", "ftp://anything.test/x", False),
        ("*", "file:///etc/passwd", False),
        ("*", "//anything.test/x", False),
        ("*", "https://user:pass@anything.test/x", False),
        ("*", "https://", False),
        ("*", "https://[::1", False),
    ],
)
async def test_the_list_of_hosts_names_scheme_host_and_port(pattern: str, url: str, goes: bool) -> None:
    rules = Egress(hosts=(pattern,))
    if goes:
        rules.check(url)
    else:
        with pytest.raises(CallError):
            rules.check(url)


@pytest.mark.parametrize("pattern", ["", "a/b", "a*b.test", "*.*.test", "a.test:0", "a.test:x", "u@a.test"])
async def test_an_entry_that_could_never_cover_anything_is_named(pattern: str) -> None:
    assert pattern_problem(pattern)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
        "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1", "192.0.0.8", "198.18.0.1",
    ],
)  # fmt: skip
async def test_no_name_leads_to_an_address_that_is_not_public(address: str) -> None:
    resolve = names(inside=["93.184.216.34", address])
    error = await refused(client(private=(), resolve=resolve).send("GET", "http://inside.test/"))
    assert (error.certainty, error.code) == ("not_run", "egress_refused")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "[::ffff:7f00:1]", "localhost", "127.0.0.1"]
)
async def test_odd_spellings_of_an_address_are_what_they_mean(web: Site, host: str) -> None:
    error = await refused(client(private=()).send("GET", f"http://{host}:{web.port}/"))
    assert error.code in ("egress_refused", "http_unreachable")  # the latter where the system reads it as a name
    assert web.asked == []


async def test_a_name_that_changes_its_address_is_connected_to_the_one_that_was_checked(web: Site) -> None:
    """DNS rebinding: what the second look-up would say is never asked."""
    resolve = names(flip=["127.0.0.1", "169.254.169.254"])
    answer = await client(resolve=resolve).send("GET", f"http://flip.test:{web.port}/")
    assert answer.status == 200
    assert resolve.asked == ["flip.test"]
    assert web.asked[0].headers["host"] == f"flip.test:{web.port}"


async def test_each_redirect_is_checked_like_a_first_request(web: Site) -> None:
    with site() as first:
        for location in (
            f"http://inside.test:{web.port}/",
            "http://elsewhere.test/",
            "file:///etc/passwd",
            "http://a@b.test",
        ):
            first.answers = lambda _, location=location: Says(302, headers={"location": location})  # type: ignore[misc]
            rules = client(
                "http://first.test:*", "http://inside.test:*", resolve=names(first=["127.0.0.1"], inside=["10.0.0.1"])
            )
            error = await refused(rules.send("GET", f"http://first.test:{first.port}/", follow=True))
            assert (error.certainty, error.code) == ("not_run", "egress_refused")
    assert web.asked == []


async def test_a_redirect_elsewhere_does_not_take_the_credentials_along(web: Site) -> None:
    def leads(asked: Asked) -> Says:
        there = "/here" if asked.path == "/start" else f"http://other.test:{web.port}/there"
        return Says(307, headers={"location": there})

    with site(leads) as first:
        rules = client(resolve=names(first=["127.0.0.1"], other=["127.0.0.1"]))
        headers = {"Authorization": "Bearer x", "X-Key": "y", "Accept": "text/plain"}
        answer = await rules.send("GET", f"http://first.test:{first.port}/start", headers=headers, follow=True)
        assert [asked.headers.get("x-key") for asked in first.asked] == ["y", "y"]
    assert (answer.redirects, answer.url) == (2, f"http://other.test:{web.port}/there")
    assert not {"authorization", "x-key"} & web.asked[0].headers.keys()
    assert web.asked[0].headers["accept"] == "text/plain"


async def test_what_changes_something_is_never_sent_again_by_a_redirect(web: Site) -> None:
    with site(lambda _: Says(308, headers={"location": web.url})) as first:
        answer = await client().send("POST", first.url, body=b"x", follow=True)
    assert (answer.status, web.asked) == (308, [])


async def test_redirects_end() -> None:
    with site(lambda _: Says(302, headers={"location": "/"})) as first:
        error = await refused(client().send("GET", first.url, follow=True))
        assert (error.code, len(first.asked)) == ("too_many_redirects", 6)


async def test_an_answer_is_read_no_further_than_the_limit() -> None:
    for says in (
        Says(body=b"x" * 2000),
        Says(raw=b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2000),
        Says(raw=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (b"400\r\n" + b"x" * 1024 + b"\r\n") * 3),
    ):
        with site(lambda _, says=says: says) as big:  # type: ignore[misc]
            error = await refused(client(max_bytes=1000).send("GET", big.url))
            assert (error.certainty, error.code) == ("answered", "result_too_large")


async def test_a_compressed_answer_is_not_unpacked() -> None:
    with site(lambda _: Says(body=b"x", headers={"content-encoding": "gzip"})) as bomb:
        assert (await refused(client().send("GET", bomb.url))).code == "compressed_answer"


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx", b"nonsense\r\n\r\n"])
async def test_what_breaks_after_it_was_sent_may_have_run(raw: bytes) -> None:
    with site(lambda _: Says(raw=raw)) as broken:
        error = await refused(client().send("POST", broken.url, body=b"x"))
        assert (error.certainty, error.code) == ("unknown", "http_lost")


async def test_what_was_never_sent_has_not_run(web: Site) -> None:
    web.close()
    error = await refused(client().send("POST", web.url, body=b"x"))
    assert (error.certainty, error.code) == ("not_run", "http_unreachable")
    error = await refused(client(resolve=names()).send("POST", "http://unknown.test/"))
    assert (error.certainty, error.code) == ("not_run", "http_unreachable")


async def test_a_time_out_says_whether_anything_was_sent() -> None:
    stop = anyio.Event()

    async def never(_host: str, _port: int) -> Sequence[str]:
        await stop.wait()
        return []

    error = await refused(client(resolve=never).send("GET", "http://slow.test/", seconds=0.05))
    assert (error.certainty, error.code) == ("not_run", "http_unreachable")
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    error = await refused(client().send("GET", f"http://127.0.0.1:{port}/", seconds=0.3))
    assert (error.certainty, error.code) == ("unknown", "http_timeout")
    await listener.aclose()


@pytest.mark.parametrize("headers", [{"X-Bad": "a\r\nX-Smuggled: b"}, {"X Bad": "a"}, {"X-Bad": "€"}, {"": "x"}])
async def test_a_header_cannot_smuggle_another(web: Site, headers: dict[str, str]) -> None:
    error = await refused(client().send("GET", web.url, headers=headers))
    assert (error.certainty, error.code) == ("not_run", "bad_request")


async def test_host_and_length_are_not_the_callers_to_say(web: Site) -> None:
    await client().send("POST", web.url, headers={"Host": "evil.test", "Content-Length": "0"}, body=b"abc")
    assert (web.asked[0].body, web.asked[0].headers["host"]) == (b"abc", f"127.0.0.1:{web.port}")


async def test_no_message_holds_a_path_a_query_or_a_header(web: Site) -> None:
    web.answers = lambda _: Says(raw=b"")
    for url in (f"{web.url}/hush?hush=1", "http://hush@x.test/hush", "http://127.0.0.1:1/hush"):
        error = await refused(client().send("GET", url, headers={"X": "hush"}))
        assert "hush" not in error.message


# -- TLS: the name is what the certificate must be for, also where the address was chosen by the guard


def certificate(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side and the client's side of a certificate for one name."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start.replace(year=2120))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "pair.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


async def test_tls_goes_by_the_name(tmp_path: Path) -> None:
    server, trust = certificate("api.test", tmp_path)
    with site(lambda _: Says(body=b"hello"), tls=server) as web:
        resolve = names(api=["127.0.0.1"], other=["127.0.0.1"])
        rules = client("*:*", tls=trust, resolve=resolve)
        assert (await rules.send("GET", f"https://api.test:{web.port}/")).body == b"hello"
        error = await refused(rules.send("GET", f"https://other.test:{web.port}/"))
        assert (error.certainty, error.code) == ("not_run", "http_unreachable")
        strangers = client("*:*", resolve=resolve)
        assert (await refused(strangers.send("GET", f"https://api.test:{web.port}/"))).certainty == "not_run"
