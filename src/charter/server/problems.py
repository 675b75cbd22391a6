"""RFC 9457 problem documents: how every error looks over HTTP that is not a JSON-RPC answer."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final

import orjson
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charter.errors import CharterError, Unauthenticated
from charter.model.next_steps import said_at

MEDIA_TYPE = "application/problem+json"

_KNOWN: Mapping[int, tuple[str, str]] = {
    400: ("bad_request", "Send a well-formed MCP request as application/json."),
    401: (
        "unauthenticated",
        "Send a valid bearer token; the metadata that WWW-Authenticate names says who issues them.",
    ),
    403: ("forbidden", "Use a credential or an Origin that this server allows."),
    404: ("not_found", "The MCP endpoint is /mcp."),
    405: ("method_not_allowed", "Use a method that the Allow header names."),
    406: ("not_acceptable", "Accept application/json and text/event-stream."),
    413: ("too_large", "Send less in one request; the limit is server.request_limit_bytes."),
    415: ("unsupported_media_type", "Send application/json, or a CloudEvents media type to /signals."),
    421: ("wrong_host", "Use the server's own name; the operator adds others to server.allowed_hosts."),
}


TOKEN_REFUSED: Final[ContextVar[Unauthenticated | None]] = ContextVar("token_refused", default=None)
"""Why this request's bearer token was refused, in words for its sender."""


def problem(status: int, *, error: CharterError | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """A problem document for a status, or for one of Charter's errors."""
    code, next_step = _KNOWN.get(status, ("internal_error" if status >= 500 else "refused", "Try again later."))
    body: dict[str, object] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if error is None:
        body |= {"code": code, "detail": HTTPStatus(status).description or body["title"], "next_step": next_step}
    else:
        told = error.as_json()
        body |= {"code": told["code"], "detail": told["message"], "next_step": said_at("http", error.next_step)}
        body |= {"errors": told["detail"]} if "detail" in told else {}
    return Response(orjson.dumps(body), status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (404, 405)."""
    assert isinstance(error, HTTPException)
    return problem(error.status_code, headers=error.headers)


async def on_charter_error(request: Request, error: Exception) -> Response:
    """An error of Charter's that left a route."""
    assert isinstance(error, CharterError)
    return problem(error.status, error=error, headers=_who_may(request, error))


def _who_may(request: Request, error: CharterError) -> dict[str, str]:
    """RFC 6750, section 3, on a route that has asked for a bearer token (``request_principal``), where one would help."""
    metadata: str | None = getattr(request.state, "bearer_of", None)
    if metadata is None or error.status not in (401, 403):
        return {}
    issuers = f'resource_metadata="{metadata}"'
    if error.status == 403:
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope", {issuers}'}
    with_token = _is_bearer(request.headers.get("authorization", ""))
    why = error if isinstance(error, Unauthenticated) else None
    return {"WWW-Authenticate": _challenge(issuers, why, with_token=with_token)}


async def on_crash(request: Request, error: Exception) -> Response:
    """Anything else: the log has the traceback, the client nothing of it."""
    return problem(500)


class ProblemBodies:
    """Turns plain-text refusals of the MCP SDK's transport and bearer check into problem documents.

    JSON-RPC errors pass as they are; ``WWW-Authenticate`` and ``Allow`` are kept.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and watch the answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        replaced = False
        TOKEN_REFUSED.set(None)
        authorization = Headers(scope=scope).get("authorization", "")

        async def watch(message: Message) -> None:
            nonlocal replaced
            if (
                message["type"] == "http.response.start"
                and (answer := _replacement(message, with_token=_is_bearer(authorization))) is not None
            ):
                replaced = True
                await answer(scope, receive, send)
            elif not replaced:
                await send(message)

        await self._app(scope, receive, watch)


def _replacement(start: Message, *, with_token: bool) -> Response | None:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in start.get("headers", [])}
    media = headers.get("content-type", "").partition(";")[0].strip()
    bearer = "www-authenticate" in headers
    if start["status"] < 400 or media == MEDIA_TYPE or (media == "application/json" and not bearer):
        return None
    kept = {name: headers[name] for name in ("www-authenticate", "allow", "retry-after") if name in headers}
    if start["status"] != 401 or not bearer:
        return problem(start["status"], headers=kept)
    why = TOKEN_REFUSED.get() if with_token else None
    kept["www-authenticate"] = _challenge(headers["www-authenticate"], why, with_token=with_token)
    return problem(401, error=why, headers=kept)


def _is_bearer(authorization: str) -> bool:
    return authorization.lower().startswith("bearer ")


def _challenge(made: str, why: Unauthenticated | None, *, with_token: bool) -> str:
    """``WWW-Authenticate`` with what was wrong (RFC 6750, section 3); a request without a token gets no error (3.1)."""
    _, found, metadata = made.partition("resource_metadata=")
    said = [f"resource_metadata={metadata}"] if found else []
    if with_token:
        text = why.message if why is not None else "The bearer token is not valid for this server."
        said = ['error="invalid_token"', f'error_description="{text}"', *said]
    return f"Bearer {', '.join(said)}" if said else "Bearer"
