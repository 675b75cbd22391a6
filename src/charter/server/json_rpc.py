"""What is no JSON-RPC message of MCP's is refused here, before the SDK reads it: shortly, and with what to do.

The SDK reads leniently (of a name given twice the last one counts) and answers with its libraries' own words. JSON-RPC 2.0
codes: -32700 for what is no JSON, -32602 for ``params``, -32600 for the rest. ``data`` has the form of Charter's errors.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp_types import INVALID_PARAMS, INVALID_REQUEST, PARSE_ERROR
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from charter.errors import CharterError, InvalidInput
from charter.model.base import JsonObject
from charter.model.json_text import read_json
from charter.model.plain_text import one_line
from charter.server.settings_model import MCP_PATH

MAX_ID: Final = 2**53 - 1
"""Beyond it not every client reads back the number that it sent."""
_NEXT: Final = 'Send one JSON-RPC 2.0 object: {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}.'


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a message is not taken, and to which request that is the answer (None: nobody can tell)."""

    code: int
    error: CharterError
    request_id: str | int | None = None

    def message(self) -> JsonObject:
        """The JSON-RPC answer."""
        data = self.error.as_json()
        said = f"{self.error.message} — Next: {self.error.next_step}"
        return {
            "jsonrpc": "2.0",
            "id": self.request_id,
            "error": {"code": self.code, "message": said, "data": data},
        }


def refusal_of(body: str | bytes, *, answers: bool = True) -> Refusal | None:
    """Why this is no message that a client may send; None for one that the SDK may read.

    ``answers``: whether the client may be answering requests of the server's, as before 2026-07-28.
    """
    try:
        message = read_json(body)
    except InvalidInput as error:
        if error.error_code == "json_invalid":
            return Refusal(PARSE_ERROR, error)
        return Refusal(INVALID_REQUEST, error, _id_of(body, error))
    if isinstance(message, list):
        return _refused("Batches of messages are not taken.", "Send each message in a request of its own.")
    if not isinstance(message, dict):
        return _refused("A JSON-RPC message is a JSON object.")
    return _of_object(message, answers=answers)


def _id_of(body: str | bytes, error: InvalidInput) -> str | int | None:
    """The id of what is JSON and yet not taken, if there is no doubt about it."""
    if error.detail.get("name") == "id":
        return None
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:  # its own limit of depth
        return None
    found = message.get("id") if isinstance(message, dict) else None
    return found if is_request_id(found) else None


def is_request_id(value: Any) -> bool:
    """A text, or an integer that every client reads back as it was."""
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) <= MAX_ID
    return isinstance(value, str)


def _of_object(message: JsonObject, *, answers: bool) -> Refusal | None:
    found = _of_envelope(message) or (_of_call(message) if "method" in message else _of_answer(message, taken=answers))
    if found is None or not is_request_id(message.get("id")):
        return found
    return Refusal(found.code, found.error, message["id"])


def _of_envelope(message: JsonObject) -> Refusal | None:
    if message.get("jsonrpc") != "2.0":
        return _refused('"jsonrpc" must be "2.0".')
    if "id" in message and not is_request_id(message["id"]):
        return _refused(
            '"id" must be a text, or an integer of at most 2^53 - 1.',
            "Give each request an id; a notification has none.",
        )
    return None


def _of_call(message: JsonObject) -> Refusal | None:
    method, params = message["method"], message.get("params")
    if not isinstance(method, str):
        return _refused('"method" must be a text.')
    if "result" in message or "error" in message:
        return _refused("A message is either a request or an answer.")
    if method.startswith("notifications/") == ("id" in message):
        said = one_line(method)
        if "id" in message:
            return _refused(f"{said!r} is a notification, and has an id.", "Send it without one: nothing answers it.")
        return _refused(f"{said!r} is a request, and has no id.", "Give it an id, by which its answer is known.")
    if params is not None and not isinstance(params, dict):
        return _refused('"params" must be an object.', "Name the parameters; MCP takes none by place.", INVALID_PARAMS)
    return None


def _of_answer(message: JsonObject, *, taken: bool) -> Refusal | None:
    if "result" not in message and "error" not in message:
        return _refused('"method" is missing.')
    if not taken:
        return _refused(
            "On this revision the server asks nothing that is answered by a message.",
            "Send the request again, with its inputResponses.",
        )
    if ("result" in message) == ("error" in message) or "id" not in message:
        return _refused('An answer has its request\'s "id", and either "result" or "error".')
    told = message.get("result", message.get("error"))
    if not isinstance(told, dict):
        return _refused('"result" and "error" must be objects.')
    if "error" in message and not (_is_integer(told.get("code")) and isinstance(told.get("message"), str)):
        return _refused('"error" must have an integer "code" and a text "message".')
    return None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refused(what: str, next_step: str = _NEXT, code: int = INVALID_REQUEST) -> Refusal:
    return Refusal(code, InvalidInput(what, code="jsonrpc_invalid", next_step=next_step))


class MessageCheck:
    """ASGI middleware behind the bearer check and in front of the SDK's transport: refuses at ``/mcp`` what is no message.

    ``authenticated``: whether the transport demands a token; who has none is refused by it, before anything is read.
    """

    def __init__(self, app: ASGIApp, *, authenticated: bool, limit_bytes: int) -> None:
        self._app, self._authenticated, self._limit = app, authenticated, limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then pass on."""
        if not self._concerns(scope):
            await self._app(scope, receive, send)
            return
        messages = await body_messages(receive, self._limit)
        body = b"".join(message.get("body", b"") for message in messages)
        version = Headers(scope=scope).get("mcp-protocol-version")
        whole = len(body) <= self._limit and messages[-1]["type"] == "http.request"
        answers = version is None or version in HANDSHAKE_PROTOCOL_VERSIONS
        refusal = refusal_of(body, answers=answers) if whole else None
        if refusal is None:
            await self._app(scope, again(messages, receive), send)
            return
        await _bad_request(orjson.dumps(refusal.message()), send)

    def _concerns(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != MCP_PATH:
            return False
        if self._authenticated and not isinstance(scope.get("user"), AuthenticatedUser):
            return False
        media = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
        return media == "application/json"


async def _bad_request(body: bytes, send: Send) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def body_messages(receive: Receive, limit: int) -> list[Message]:
    """The messages of the body, up to its end, to more than ``limit`` bytes, or to the client's leaving."""
    messages = [await receive()]
    size = len(messages[0].get("body", b""))
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False) and size <= limit:
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
    return messages


def again(messages: list[Message], receive: Receive) -> Callable[[], Awaitable[Message]]:
    """A ``receive`` that gives once more what was read."""
    left = iter(messages)

    async def replay() -> Message:
        for message in left:
            return message
        return await receive()

    return replay
