"""The HTTP door's walls: nobody passes without a token for this server, from a page elsewhere, or with too much."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from charter.errors import Denied, Misconfigured
from charter.server.auth import TokenVerifier, current_principal
from charter.server.http import bind, build_http_app, fallback_principal, request_principal, serve_http
from charter.server.keys import Keys, create_keys
from charter.server.settings import Settings, load_settings
from charter.server.telemetry import current_trace_id
from charter.server.tokens import issue_token

pytestmark = pytest.mark.anyio

BASE = "http://127.0.0.1:8420"
MODERN = "2026-07-28"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return create_keys(tmp_path_factory.mktemp("keys"))


def configured(**server: str) -> Settings:
    environ = {f"CHARTER_SERVER_{name.upper()}": value for name, value in server.items()}
    return load_settings(environ=environ, cwd=Path("/"))


def token(keys: Keys, **changes: Any) -> str:
    wanted: dict[str, Any] = {"subject": "bot", "kind": "agent", "audience": f"{BASE}/mcp", "issuer": BASE}
    return issue_token(keys, **(wanted | changes))


def who_am_i(settings: Settings) -> Server[Any]:
    """A server whose one tool tells who called and in which trace."""

    async def list_tools(ctx: ServerRequestContext[Any], params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="whoami", input_schema={"type": "object"})])

    async def call_tool(ctx: ServerRequestContext[Any], params: CallToolRequestParams) -> CallToolResult:
        caller = current_principal(fallback_principal(settings))
        text = f"{caller.kind} {caller.id} {current_trace_id()}"
        return CallToolResult(content=[TextContent(type="text", text=text)])

    return Server("who", on_list_tools=list_tools, on_call_tool=call_tool)


@asynccontextmanager
async def door(settings: Settings, keys: Keys | None, *routes: Route) -> AsyncIterator[httpx2.AsyncClient]:
    verifier = TokenVerifier(settings, keys) if keys else None
    app = build_http_app(who_am_i(settings), settings=settings, verifier=verifier, extra_routes=routes)
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


def call(bearer: str | None = None, *, meta: dict[str, Any] | None = None, **headers: str) -> dict[str, Any]:
    """A tools/call of the modern era, as keyword arguments for ``client.post``."""
    known = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "whoami",
        **({"authorization": f"Bearer {bearer}"} if bearer else {}),
    }
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        **(meta or {}),
    }
    params = {"name": "whoami", "arguments": {}, "_meta": envelope}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return {
        "url": "/mcp",
        "json": body,
        "headers": {**known, **{name.replace("_", "-"): value for name, value in headers.items()}},
    }


def problem(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["next_step"]
    return body


async def test_a_valid_token_passes_and_makes_the_principal(keys: Keys) -> None:
    async with door(configured(), keys) as client:
        response = await client.post(**call(token(keys)))
    assert response.status_code == 200, response.text
    assert response.json()["result"]["content"][0]["text"].startswith("agent bot")


async def test_the_clients_trace_context_in_meta_is_continued(keys: Keys) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    meta = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    async with door(configured(), keys) as client:
        response = await client.post(**call(token(keys), meta=meta))
    assert response.json()["result"]["content"][0]["text"] == f"agent bot {trace_id}"


async def test_without_a_token_the_answer_says_where_to_get_one(keys: Keys) -> None:
    async with door(configured(), keys) as client:
        response = await client.post(**call())
        assert problem(response, 401)["code"] == "unauthenticated"
        challenge = response.headers["www-authenticate"]
        url = f"{BASE}/.well-known/oauth-protected-resource/mcp"
        assert f'resource_metadata="{url}"' in challenge
        metadata = (await client.get(url)).json()
    assert metadata["resource"] == f"{BASE}/mcp"
    assert metadata["authorization_servers"] == [f"{BASE}"]


@pytest.mark.parametrize(
    "change", [{"issuer": "https://evil.example"}, {"now": lambda: 9_000_000_000.0}, {"ttl": 365 * 86_400}]
)
async def test_a_token_that_is_not_for_here_and_now_is_refused_without_saying_why(
    keys: Keys, change: dict[str, Any]
) -> None:
    async with door(configured(), keys) as client:
        refused = await client.post(**call(token(keys, **change)))
    assert problem(refused, 401)["code"] == "unauthenticated"
    assert 'error_description="The bearer token is not valid for this server."' in refused.headers["www-authenticate"]


async def test_the_sender_of_a_token_is_told_what_helps_no_forger(keys: Keys, tmp_path: Path) -> None:
    """RFC 6750, section 3: the error and a description; and section 3.1: none where there was no token."""
    good = token(keys)
    sent = {
        "token_expired": ([token(keys, now=lambda: 1_000_000_000.0)], "has expired"),
        "token_audience": ([token(keys, audience="http://127.0.0.1:9999/mcp")], f"must be {BASE}/mcp"),
        # Not signed by a known key: what such a token claims is not looked at, so nothing is said of it.
        "token_key": (
            [
                token(create_keys(tmp_path), audience="http://127.0.0.1:9999/mcp", now=lambda: 1_000_000_000.0),
                good[:-6] + "AAAAAA",
                token(keys, now=lambda: 1_000_000_000.0)[:-6] + "AAAAAA",
            ],
            "not signed by a key",
        ),
    }
    async with door(configured(), keys) as client:
        for code, (tokens, words) in sent.items():
            for each in tokens:
                response = await client.post(**call(each))
                told = problem(response, 401)
                assert told["code"] == code
                assert words in told["detail"]
                challenge = response.headers["www-authenticate"]
                assert challenge.startswith(f'Bearer error="invalid_token", error_description="{told["detail"]}"')
                assert "resource_metadata=" in challenge
        without = await client.post(**call())
        assert problem(without, 401)["code"] == "unauthenticated"
        assert "error" not in without.headers["www-authenticate"]


async def test_a_forged_token_and_one_of_another_charter_are_refused(keys: Keys, tmp_path: Path) -> None:
    good = token(keys)
    async with door(configured(), keys) as client:
        for bad in (token(create_keys(tmp_path)), good[:-6] + "AAAAAA", good.rsplit(".", 1)[0] + ".", "x", "a.b.c"):
            problem(await client.post(**call(bad)), 401)
        problem(await client.post(**call(authorization=f"Basic {good}")), 401)
        problem(await client.get("/mcp"), 401)
        problem(await client.delete("/mcp"), 401)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1.evil.example", "null", "http://localhost:8420@evil.example", ""],
)
async def test_a_page_of_another_origin_is_refused(keys: Keys, origin: str) -> None:
    async with door(configured(), keys) as client:
        problem(await client.post(**call(token(keys), origin=origin)), 403)
        problem(await client.get("/healthz", headers={"origin": origin}), 403)


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8420", "http://localhost:6274", "http://[::1]:3000"])
async def test_pages_of_this_machine_may_use_a_loopback_server(keys: Keys, origin: str) -> None:
    async with door(configured(), keys) as client:
        assert (await client.post(**call(token(keys), origin=origin))).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8420", "localhost.evil.example", "evil:8420", ""]
)
async def test_a_foreign_host_header_is_refused(keys: Keys, host: str) -> None:
    """What a page that rebinds its own name to 127.0.0.1 sends."""
    async with door(configured(), keys) as client:
        problem(await client.post(**call(token(keys), host=host)), 421)
        assert (await client.get("/healthz", headers={"host": host})).status_code == 200


async def test_behind_a_public_url_that_host_counts_and_local_pages_do_not(keys: Keys) -> None:
    public = configured(host="0.0.0.0", public_url="https://charter.example.org/mcp")
    bearer = token(keys, audience="https://charter.example.org/mcp", issuer="https://charter.example.org")
    async with door(public, keys) as client:
        assert (await client.post(**call(bearer, host="charter.example.org"))).status_code == 200
        assert (await client.post(**call(bearer, host="charter.example.org:443"))).status_code == 200
        problem(await client.post(**call(bearer, host="charter.example.org:8443")), 421)
        problem(await client.post(**call(bearer, host="charter.example.org", origin="http://localhost:3000")), 403)


async def test_too_big_a_body_is_refused_whether_or_not_it_says_so(keys: Keys) -> None:
    headers = {**call(token(keys))["headers"], "content-type": "application/json"}

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 1000

    async with door(configured(request_limit_bytes="20000"), keys) as client:
        problem(await client.post("/mcp", content=b" " * 20_001, headers=headers), 413)
        problem(await client.post("/mcp", content=chunks(), headers=headers), 413)
        headers.pop("authorization")
        problem(await client.post("/mcp", content=b" " * 20_001, headers=headers), 401)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"jsonrpc": "1.0", "id": 1, "method": "tools/call"}',
        b'{"jsonrpc": "2.0", "id": {}, "method": "tools/call"}',
        b'{"jsonrpc": "2.0", "id": 1, "method": 7}',
        b"[" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"1" * 10_000,
    ],
)
@pytest.mark.parametrize("version", [MODERN, "2025-06-18"])
async def test_malformed_json_rpc_is_an_error_of_the_client_not_a_crash(keys: Keys, body: bytes, version: str) -> None:
    headers = {**call(token(keys))["headers"], "content-type": "application/json", "mcp-protocol-version": version}
    async with door(configured(), keys) as client:
        response = await client.post("/mcp", content=body, headers=headers)
        assert 400 <= response.status_code < 500
        assert "Traceback" not in response.text
        assert (await client.post(**call(token(keys)))).status_code == 200


async def test_other_refusals_are_problem_documents_too(keys: Keys) -> None:
    async with door(configured(), keys) as client:
        bearer = token(keys)
        problem(await client.get("/nothing"), 404)
        assert problem(await client.post("/healthz"), 405)["code"] == "method_not_allowed"
        problem(await client.post(**call(bearer, accept="text/html")), 406)
        problem(await client.post(**call(bearer, content_type="text/plain")), 400)


async def test_extra_routes_ask_for_their_caller_and_errors_of_theirs_are_problems(keys: Keys) -> None:
    settings = configured()

    async def me(request: Request) -> Response:
        return JSONResponse({"id": request_principal(request, settings).id})

    async def no(request: Request) -> Response:
        raise Denied("A policy says no.", detail={"policy": "p"})

    async def crash(request: Request) -> Response:
        raise RuntimeError("hunter2")

    routes = (Route("/me", me), Route("/no", no), Route("/crash", crash))
    async with door(settings, keys, *routes) as client:
        problem(await client.get("/me"), 401)
        assert "resource_metadata=" in (await client.get("/me")).headers["www-authenticate"]
        assert "www-authenticate" not in (await client.get("/no")).headers, "no route of bearer tokens"
        assert (await client.get("/me", headers=call(token(keys))["headers"])).json() == {"id": "bot"}
        denied = problem(await client.get("/no"), 403)
        assert (denied["code"], denied["detail"], denied["errors"]) == ("denied", "A policy says no.", {"policy": "p"})
        crashed = await client.get("/crash")
        assert problem(crashed, 500)["code"] == "internal_error"
        assert "hunter2" not in crashed.text


async def test_anonymous_mode_takes_the_configured_agent_and_no_token_changes_that(keys: Keys) -> None:
    async with door(configured(anonymous="true"), None) as client:
        assert (await client.post(**call())).json()["result"]["content"][0]["text"].startswith("agent local-agent")
        forged = await client.post(**call("forged"))
        assert forged.json()["result"]["content"][0]["text"].startswith("agent local-agent")
        problem(await client.post(**call(host="evil.example")), 421)


async def test_there_is_no_http_without_a_verifier_otherwise() -> None:
    with pytest.raises(Misconfigured):
        build_http_app(who_am_i(configured()), settings=configured(), verifier=None)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_real_client_of_either_era_is_served_over_a_real_socket(keys: Keys, mode: Any) -> None:
    settings = configured(port="0")
    listening = bind(settings)
    settings = settings.listening_on(listening.getsockname()[1])
    app = build_http_app(who_am_i(settings), settings=settings, verifier=TokenVerifier(settings, keys))
    bearer = token(keys, audience=settings.resource, issuer=settings.local_issuer)
    stop, urls = anyio.Event(), list[str]()

    async def serve() -> None:
        await serve_http(app, settings, listening=listening, on_ready=urls.append, stop=stop)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(serve)
        headers = {"authorization": f"Bearer {bearer}"}
        async with (
            httpx2.AsyncClient(headers=headers) as http_client,
            Client(streamable_http_client(settings.resource, http_client=http_client), mode=mode) as client,
        ):
            result = await client.call_tool("whoami", {})
        stop.set()
    assert urls == [settings.resource]
    assert isinstance(result.content[0], TextContent)
    assert result.content[0].text.startswith("agent bot")


async def test_a_session_of_one_caller_is_of_no_use_to_another(keys: Keys) -> None:
    """Handshake era: not even to the same name in another tenant, or of another kind."""
    headers = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {token(keys)}"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    async with door(configured(), keys) as client:
        opened = await client.post("/mcp", json=body, headers=headers)
        session = {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-06-18"}
        listing = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert (await client.post("/mcp", json=listing, headers=headers | session)).status_code == 200
        for other in (token(keys, tenant="acme"), token(keys, kind="service"), token(keys, subject="eve")):
            stolen = headers | session | {"authorization": f"Bearer {other}"}
            assert (await client.post("/mcp", json=listing, headers=stolen)).status_code == 404


def test_accepted_sockets_send_at_once() -> None:
    """No Nagle: asyncio sets TCP_NODELAY only on sockets that say they are TCP."""
    listening = bind(configured(port="0"))
    listening.setblocking(True)
    with listening, socket.create_connection(listening.getsockname()), listening.accept()[0] as accepted:
        assert accepted.proto == socket.IPPROTO_TCP
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with bind(configured(port="0")) as taken:
        with pytest.raises(Misconfigured) as caught:
            bind(configured(port=str(taken.getsockname()[1])))
        assert caught.value.error_code == "cannot_listen"


SERVE = """
import anyio
from mcp.server.lowlevel import Server
from charter.server.http import bind, build_http_app, serve_http
from charter.server.settings import load_settings

settings = load_settings(environ={"CHARTER_SERVER_ANONYMOUS": "true", "CHARTER_SERVER_PORT": "0"})
listening = bind(settings)
settings = settings.listening_on(listening.getsockname()[1])
app = build_http_app(Server("x"), settings=settings, verifier=None)
async def main():
    await serve_http(app, settings, listening=listening, on_ready=lambda url: print(url, flush=True))
anyio.run(main)
print("closed the store")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serving_and_lets_the_caller_clean_up(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        assert httpx2.get(url.replace("/mcp", "/healthz")).json() == {"status": "ok"}
        server.send_signal(number)
        assert server.stdout.read() == "closed the store\n"
    assert server.returncode == 0
