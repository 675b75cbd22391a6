"""``POST /signals``: CloudEvents from outside. A door: each becomes one ``SendSignal`` through the gate."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from charter.errors import CharterError, Unavailable
from charter.gate import Gate
from charter.model.base import JsonObject
from charter.model.commands import SendSignal
from charter.model.next_steps import said_at
from charter.model.principal import Principal
from charter.model.signal import Signal
from charter.model.times import rfc3339
from charter.server import cloud_events
from charter.server.http import request_principal
from charter.server.settings_model import Settings

SIGNALS_PATH = "/signals"


def ingestion_route(gate: Gate, settings: Settings) -> Route:
    """The route. Its caller is the bearer token's principal; the policy decides on each signal (``signal.send``)."""

    async def take(request: Request) -> Response:
        caller = request_principal(request, settings)
        body = await _body(request, settings.server.request_limit_bytes)
        headers = {name.lower(): value for name, value in request.headers.items()}
        now = rfc3339(gate.parts.clock())
        found = cloud_events.read(request.headers.get("content-type", ""), headers, body, now)
        if found is None:
            raise HTTPException(415)
        if isinstance(found, Signal):
            return _json(await _send(gate, caller, found))
        results = [await _tried(gate, caller, signal) for signal in found]
        failed = any("error" in result for result in results)
        return _json({"results": results}, 207 if failed else 200)

    return Route(SIGNALS_PATH, take, methods=["POST"])


async def _send(gate: Gate, caller: Principal, signal: Signal) -> JsonObject:
    sent = await gate.handle(caller, SendSignal(signal=signal))
    return {"id": signal.id, "source": signal.source, **sent.model_dump(mode="json")}


async def _tried(gate: Gate, caller: Principal, signal: Signal) -> JsonObject:
    """One of a batch: what refuses it hinders no other. A store that does not answer stops the batch: all is sent again."""
    try:
        return await _send(gate, caller, signal)
    except Unavailable:
        raise
    except CharterError as error:
        told = {**error.as_json(), "next_step": said_at("http", error.next_step)}
        return {"id": signal.id, "source": signal.source, "error": told}


async def _body(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise HTTPException(413)
        parts.append(part)
    return b"".join(parts)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json")
