"""``POST /callbacks/…``: other systems say how it went. A door: what is signed as it must be becomes one command.

Each step has a secret of its own, derived from Charter's keys and never stored: it goes out with the request that asks to be
called back, and what it signs is good for this step alone. Signatures are those of Standard Webhooks (``tools.webhooks``).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from charter.errors import InvalidInput, Unauthenticated
from charter.gate import Gate
from charter.model.base import Json
from charter.model.canonical import canonical
from charter.model.commands import DeliverCallback
from charter.model.effect import Effect
from charter.model.json_text import read_json
from charter.model.principal import service
from charter.server.problems import problem
from charter.server.settings_model import Settings
from charter.tools.outbound import CallbackAccess
from charter.tools.webhooks import secret_text, verify

CALLBACKS_PATH = "/callbacks"
MAX_BYTES = 128 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class CallbackKeys:
    """The secrets of callbacks. ``ring``: Charter's sealing keys; the current one makes them, all verify."""

    def __init__(self, ring: Mapping[str, bytes], current: str) -> None:
        masters = {key_id: hmac.digest(key, b"charter callbacks v1", hashlib.sha256) for key_id, key in ring.items()}
        self._current = masters.pop(current)
        self._older = tuple(masters.values())

    def of(self, tenant: str, workflow_id: str, step_id: str) -> tuple[bytes, ...]:
        """The keys of one step, the one that is given out first."""
        name = canonical([tenant, workflow_id, step_id])
        return tuple(hmac.digest(master, name, hashlib.sha256) for master in (self._current, *self._older))


def access_of(keys: CallbackKeys, settings: Settings, effect: Effect) -> CallbackAccess:
    """Where, and with which secret, the step of this effect is called back."""
    parts = urlsplit(settings.resource)
    url = f"{parts.scheme}://{parts.netloc}{CALLBACKS_PATH}/{effect.tenant}/{effect.workflow_id}/{effect.step_id}"
    return CallbackAccess(url, secret_text(keys.of(effect.tenant, effect.workflow_id, effect.step_id)[0]))


def callback_route(gate: Gate, keys: CallbackKeys) -> Route:
    """The route. Whoever holds the step's secret may call; nobody else learns whether there is such a step."""

    async def take(request: Request) -> Response:
        names = [request.path_params[name] for name in ("tenant", "workflow_id", "step_id")]
        body = await _body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            if not all(_NAME.fullmatch(name) for name in names):
                raise Unauthenticated("There is no such callback.", code="bad_signature")
            message_id = verify(keys.of(*names), headers, body, gate.parts.clock() // 1000)
        except Unauthenticated as error:
            return problem(401, error=error)
        tenant, workflow_id, step_id = names
        command = DeliverCallback(
            workflow_id=workflow_id, step_id=step_id, message_id=message_id, body=_content(headers, body)
        )
        await gate.handle(service("callbacks", tenant), command)
        return Response(orjson.dumps({"status": "received"}), status_code=202, media_type="application/json")

    return Route(f"{CALLBACKS_PATH}/{{tenant}}/{{workflow_id}}/{{step_id}}", take, methods=["POST"])


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            raise HTTPException(413)
        parts.append(part)
    return b"".join(parts)


def _content(headers: Mapping[str, str], body: bytes) -> Json:
    """JSON where it is said to be and is; else text. Raises ``InvalidInput`` for JSON that may be read in two ways."""
    kind = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    text = body.decode("utf-8", "replace")
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return read_json(body)
        except InvalidInput as error:
            if error.error_code != "json_invalid":
                raise
    return text
