"""The HTTP door's walls: who may connect, with what, and how it is served. What is behind them is
translation.

Every request passes, in this order: the Host and Origin check (DNS rebinding), the bearer check on ``/mcp``
(RFC 6750, with RFC 9728 metadata), the body limit, the MCP transport. ``/healthz`` is open. Anonymous mode
exists on loopback addresses only (``Settings`` refuses it elsewhere); its caller is ``[stdio]``'s principal.
"""

from __future__ import annotations

import importlib.util
import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import anyio
import uvicorn
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.server.auth.settings import AuthSettings
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from charter.errors import CharterError, Misconfigured, Unauthenticated
from charter.model.principal import Principal
from charter.server.auth import TokenVerifier, VerifiedToken, stdio_principal
from charter.server.call_lane import CallLane
from charter.server.http_connection import HttpConnection
from charter.server.json_rpc import MessageCheck
from charter.server.problems import TOKEN_REFUSED, ProblemBodies, on_charter_error, on_crash, on_http_exception, problem
from charter.server.settings_model import MCP_PATH, Settings, is_loopback

_log = logging.getLogger(__name__)

HEALTH_PATH = "/healthz"
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def build_http_app(
    mcp_server: Server[Any],
    *,
    settings: Settings,
    verifier: TokenVerifier | None,
    extra_routes: Sequence[Route] = (),
    degraded: Callable[[], str | None] = lambda: None,
) -> Starlette:
    """The ASGI app around an MCP server. Its lifespan is the server's.

    ``extra_routes`` are behind the Host and Origin check, but each must ask for its caller itself:
    ``request_principal``. ``verifier`` may be None in anonymous mode only. ``degraded``: the code of what is wrong with a
    server that goes on serving all the same, told by ``/healthz`` to everybody.
    """
    if verifier is None and not settings.server.anonymous:
        raise Misconfigured(
            "Serving HTTP needs a token verifier.",
            code="http_without_auth",
            next_step="Run `charter init` for keys, or set server.anonymous = true on a loopback address.",
        )
    checked, limit = None if settings.server.anonymous else verifier, settings.server.request_limit_bytes
    app = mcp_server.streamable_http_app(
        streamable_http_path=MCP_PATH,
        max_request_body_size=limit,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        host=settings.server.host,
        auth=_auth_settings(settings) if checked else None,
        token_verifier=checked,
        custom_starlette_routes=[Route(HEALTH_PATH, _health(degraded), methods=["GET"]), *extra_routes],
    )
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(CharterError, on_charter_error)
    app.add_exception_handler(Exception, on_crash)
    # Innermost: what has no token is refused for that alone, unread.
    app.user_middleware.append(Middleware(MessageCheck, authenticated=checked is not None, limit_bytes=limit))
    app.add_middleware(ProblemBodies)
    app.add_middleware(
        CallLane,
        server=mcp_server,
        backend=bearer_backend(checked) if checked else None,
        limit_bytes=limit,
    )
    app.add_middleware(HostAndOrigin, settings=settings)
    return app


def bearer_backend(verifier: TokenVerifier) -> BearerAuthBackend:
    """The bearer check that the SDK's app makes itself, without its look at the audience: ``verifier`` passes no other."""
    return BearerAuthBackend(verifier)


def fallback_principal(settings: Settings, *, stdio: bool = False) -> Principal | None:
    """Whom ``auth.current_principal`` takes for a caller without a token: none over HTTP, unless anonymous."""
    return stdio_principal(settings) if stdio or settings.server.anonymous else None


def request_principal(request: Request, settings: Settings) -> Principal:
    """Who sent this request, for routes beside ``/mcp``. Raises ``Unauthenticated``.

    From here on a refusal of the route's says in ``WWW-Authenticate`` that it is a token that decides, and who issues one.
    """
    if not settings.server.anonymous:
        request.state.bearer_of = str(build_resource_metadata_url(AnyHttpUrl(settings.resource)))
    token = getattr(request.scope.get("user"), "access_token", None)
    if isinstance(token, VerifiedToken):
        return token.principal
    fallback = fallback_principal(settings)
    if fallback is None:
        raise TOKEN_REFUSED.get() or Unauthenticated("This needs a bearer token.")
    return fallback


def _auth_settings(settings: Settings) -> AuthSettings:
    # Validated from text, so that a URL without a path keeps its form: issuers are compared letter by letter.
    return AuthSettings.model_validate(
        {
            "issuer_url": settings.auth.issuer or settings.local_issuer,
            "resource_server_url": settings.resource,
            "validate_token_resource": True,
        }
    )


def _health(degraded: Callable[[], str | None]) -> Callable[[Request], Awaitable[Response]]:
    async def health(request: Request) -> Response:
        code = degraded()
        return JSONResponse({"status": "ok"} if code is None else {"status": "degraded", "code": code})

    return health


class HostAndOrigin:
    """Refuses requests that name another host (421) or come from a page of another origin (403).

    A browser on the operator's machine can be made to send requests to a loopback server; what it cannot
    forge is these two headers. ``/healthz`` does not ask for the host: probes use addresses.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._hosts, self._origins = allowed_hosts(settings), allowed_origins(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if scope["type"] == "http":
            refusal = self._refusal(Headers(scope=scope), scope["path"])
            if refusal is not None:
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, path: str) -> Response | None:
        host = headers.getlist("host")
        if path != HEALTH_PATH and (len(host) != 1 or not _matches(host[0].lower(), self._hosts)):
            _log.warning("A request for a host that is not this server was refused.")
            return problem(421)
        if any(not _matches(origin.lower(), self._origins) for origin in headers.getlist("origin")):
            _log.warning("A request from a foreign origin was refused.")
            return problem(403)
        return None


def allowed_hosts(settings: Settings) -> tuple[str, ...]:
    """Host headers that mean this server; ``:*`` at the end stands for any port."""
    public = urlsplit(settings.resource)
    names = [*(f"{name}:*" for name in _LOOPBACK_HOSTS), *_LOOPBACK_HOSTS, public.netloc.lower()]
    default_port = {"http": 80, "https": 443}[public.scheme]
    if public.port in (None, default_port):
        names += [str(public.hostname), f"{public.hostname}:{default_port}"]
    return (*names, *(name.lower() for name in settings.server.allowed_hosts))


def allowed_origins(settings: Settings) -> tuple[str, ...]:
    """Origin headers that are taken: the server's own, those configured, and loopback pages for a loopback
    server.
    """
    public = urlsplit(settings.resource)
    origins = [f"{public.scheme}://{public.netloc.lower()}"]
    if is_loopback(settings.server.host):
        origins += [f"http://{name}{port}" for name in _LOOPBACK_HOSTS for port in ("", ":*")]
    return (*origins, *(name.lower().rstrip("/") for name in settings.server.allowed_origins))


def _matches(value: str, patterns: Sequence[str]) -> bool:
    base, _, port = value.rpartition(":")
    return value in patterns or (port.isdigit() and f"{base}:*" in patterns)


def bind(settings: Settings) -> socket.socket:
    """The listening socket, so that ``port = 0`` is known before serving.

    Raises ``Misconfigured`` when it is taken.
    """
    host, port = settings.server.host.strip("[]"), settings.server.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
        # The protocol is named: asyncio sets TCP_NODELAY on accepted sockets only when it reads IPPROTO_TCP there,
        # and without it Nagle's algorithm and delayed ACKs stall answers for 40 ms.
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(settings, error) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise _cannot_listen(settings, error) from None
    listening.setblocking(False)
    return listening


def _cannot_listen(settings: Settings, error: OSError) -> Misconfigured:
    return Misconfigured(
        f"Cannot listen on {settings.server.host}:{settings.server.port}: {error.strerror}.",
        code="cannot_listen",
        next_step="Stop what uses the port, or set server.port (0 takes any free one).",
    )


def loop_options() -> dict[str, Any]:
    """Options of ``anyio.run`` for a server: uvloop, where there is one, saves a tenth of a call's processor time."""
    return {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


async def serve_http(
    app: ASGIApp,
    settings: Settings,
    *,
    listening: socket.socket | None = None,
    on_ready: Callable[[str], None] | None = None,
    stop: anyio.Event | None = None,
    drain: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. ``on_ready`` gets the URL of the MCP endpoint.

    Then no connection is accepted any more, ``drain`` is awaited (until a second signal), and what is still open has two
    seconds to end. Run it with ``loop_options``.
    """
    own = listening or bind(settings)
    server = _Server(
        uvicorn.Config(
            app,
            http=HttpConnection,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=2,
            timeout_keep_alive=65,
            access_log=False,
            log_config=None,
            log_level="info" if settings.server.log_level == "debug" else settings.server.log_level,  # as all libraries
            server_header=False,
            proxy_headers=False,
        ),
        drain,
    )
    try:
        if on_ready is not None:
            on_ready(settings.listening_on(own.getsockname()[1]).resource)
        async with anyio.create_task_group() as tasks:
            if stop is not None:
                tasks.start_soon(_stop_when, stop, server)
            await server.serve(sockets=[own])
            tasks.cancel_scope.cancel()
    finally:
        own.close()


class _Server(uvicorn.Server):
    """Ends on SIGINT and SIGTERM, and returns. Uvicorn's own raises the signal again, which would kill the
    process before the caller has closed its store.
    """

    def __init__(self, config: uvicorn.Config, drain: Callable[[], Awaitable[object]] | None) -> None:
        super().__init__(config)
        self._drain, self._hurried = drain, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal means: at once."""
        self._hurried = self.should_exit
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, let running calls end, then uvicorn's own end of the connections."""
        for server in self.servers:
            server.close()
        if self._drain is not None and not self._hurried:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._watch_for_hurry, tasks.cancel_scope)
                await self._drain()
                tasks.cancel_scope.cancel()
        await super().shutdown(sockets)

    async def _watch_for_hurry(self, drain: anyio.CancelScope) -> None:
        while not self._hurried:  # noqa: ASYNC110 - a signal's handler cannot set an event of the loop's
            await anyio.sleep(0.1)
        drain.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while serving; in threads other than the main one that is the host's business."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


async def _stop_when(stop: anyio.Event, server: uvicorn.Server) -> None:
    await stop.wait()
    server.should_exit = True
