"""``GET /signals``: what leaves, as server-sent events. ``Last-Event-ID`` (or ``?after=``) goes on after that event."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import orjson
from mcp.server.auth.provider import AccessToken
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from charter.errors import CharterError, InvalidInput
from charter.gate.outgoing import Outgoing, Outlet
from charter.model.principal import Principal
from charter.model.signal import cloud_event
from charter.server.http import request_principal
from charter.server.settings_model import Settings
from charter.server.signals_http import SIGNALS_PATH
from charter.workflows.outgoing import wanted

KEEP_ALIVE_SECONDS = 15.0
_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}


def stream_route(outlet: Outlet, settings: Settings) -> Route:
    """The route. Who may read the record (``audit.read``) may listen, until its token ends."""

    async def listen(request: Request) -> Response:
        caller = request_principal(request, settings)
        types = tuple(part for part in request.query_params.get("types", "").split(",") if part)
        after = _place(request)
        _, head = await outlet.read(caller, None)  # denied here, while there is a status to say it with
        place = min(after + 1, head) if after is not None else head
        body = _events(outlet, caller, place, types, _ends(request))
        return StreamingResponse(body, media_type="text/event-stream", headers=_HEADERS)

    return Route(SIGNALS_PATH, listen, methods=["GET"])


def _place(request: Request) -> int | None:
    text = request.headers.get("last-event-id") or request.query_params.get("after")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15) and text != "-1":
        raise InvalidInput(
            "Last-Event-ID is the number that an event of this stream had.",
            code="bad_event_id",
            next_step="Send the id of the last event that you have seen, or none; after=-1 begins at the beginning.",
        )
    return int(text)


def _ends(request: Request) -> float | None:
    token = getattr(request.scope.get("user"), "access_token", None)
    return token.expires_at if isinstance(token, AccessToken) else None


async def _events(
    outlet: Outlet, caller: Principal, place: int, types: tuple[str, ...], ends: float | None
) -> AsyncIterator[bytes]:
    """Until the listener goes, its token ends, or it may not listen any more: asked anew for every page."""
    yield b"retry: 2000\n\n"
    token, quiet = -1, time.monotonic()
    while ends is None or time.time() < ends:
        try:
            found, place = await outlet.read(caller, place)
            wake = token if found else await outlet.more(token)
        except CharterError:
            return  # the listener comes again, and is told then
        token = wake
        for item in found:
            if wanted(item.signal.type, types):
                yield event_text(item)
                quiet = time.monotonic()
        if time.monotonic() - quiet > KEEP_ALIVE_SECONDS:
            yield b": quiet\n\n"
            quiet = time.monotonic()


def event_text(item: Outgoing) -> bytes:
    """One event: its id is the number in the log, its data one line of JSON."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        item.seq,
        item.signal.type.encode(),
        orjson.dumps(cloud_event(item.signal)),
    )
