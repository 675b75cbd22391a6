"""How a call to an upstream can fail, told apart by the one question that matters: may the tool have run?"""

from __future__ import annotations

import secrets
from typing import Any, Final, Literal

from mcp_types import CONNECTION_CLOSED, REQUEST_TIMEOUT

from charter.model.base import JsonObject

Certainty = Literal["not_run", "answered", "unknown"]

# Codes that Charter itself puts in the place of a failure, from the range that MCP leaves to implementations. An upstream
# may use them for something else: only beside ``_MARK`` are they Charter's.
NOT_SENT: Final = -32010
LOST: Final = -32011
TOO_LARGE: Final = -32012
REFUSED_BY_HTTP: Final = -32013
UNREADABLE: Final = -32014

_OWN: Final[dict[int, tuple[Certainty, str]]] = {
    NOT_SENT: ("not_run", "upstream_unavailable"),
    LOST: ("unknown", "upstream_lost"),
    TOO_LARGE: ("answered", "result_too_large"),
    REFUSED_BY_HTTP: ("not_run", "upstream_refused"),
    UNREADABLE: ("answered", "upstream_bad_result"),
}
_MARK: Final = {"io.charter/own": secrets.token_hex(16)}
"""Data of a JSON-RPC error that Charter's own transports put in the place of an answer; nobody else can know it."""

# JSON-RPC and MCP errors by which a server says that it did not take the call up.
_NOT_TAKEN_UP: Final = frozenset(
    {
        -32700,  # parse error
        -32600,  # invalid request, also: the session is gone
        -32601,  # no such method
        -32602,  # invalid parameters, no such tool
        -32020,  # header mismatch
        -32021,  # a client capability is missing
        -32022,  # protocol version
        -32042,  # must be asked by URL first
    }
)
# What the SDK puts in the place of an answer. The code alone does not tell: -32000 is every server's to use as well.
_SDKS_OWN: Final[tuple[tuple[int, str, int], ...]] = (
    (CONNECTION_CLOSED, "Connection closed", LOST),
    (CONNECTION_CLOSED, "SSE stream ", LOST),
    (-32700, "Failed to parse ", UNREADABLE),
    (-32600, "Unexpected content type", LOST),
    (-32600, "server answered a request with 202", LOST),
)


class CallError(Exception):
    """A call without a result. ``code`` is Charter's stable code; ``rpc_code`` what the upstream sent, if it did.

    ``not_run``: it certainly did not run. ``answered``: the upstream took it up and answered with an error. ``unknown``:
    nobody here can say.
    """

    def __init__(
        self, certainty: Certainty, code: str, message: str, *, rpc_code: int | None = None, data: Any = None
    ) -> None:
        super().__init__(message)
        self.certainty: Certainty = certainty
        self.code, self.message, self.rpc_code, self.data = code, message, rpc_code, data


def own(code: int, message: str) -> CallError:
    """What Charter itself found, by one of the codes above."""
    certainty, stable = _OWN[code]
    return CallError(certainty, stable, message)


def own_error(code: int, message: str) -> JsonObject:
    """The same as the ``error`` of a JSON-RPC message, for a transport below the SDK; ``from_rpc`` knows it again."""
    return {"code": code, "message": message, "data": _MARK}


def from_rpc(rpc_code: int, message: str, data: Any = None) -> CallError:
    """What a JSON-RPC error means for the question whether the tool ran."""
    if data == _MARK:
        return own(rpc_code, message)
    if "byte limit" in message and message.startswith("SSE stream failed"):
        return own(TOO_LARGE, "The upstream's result is larger than Charter takes.")
    for code, beginning, meaning in _SDKS_OWN:
        if rpc_code == code and message.startswith(beginning):
            return own(meaning, _SAID[meaning])
    if rpc_code in _NOT_TAKEN_UP:
        return CallError("not_run", "upstream_refused", message, rpc_code=rpc_code, data=data)
    if rpc_code == REQUEST_TIMEOUT:  # at a gateway behind the upstream; Charter keeps the time of its own calls
        return CallError("unknown", "upstream_timeout", message, rpc_code=rpc_code, data=data)
    return CallError("answered", "upstream_error", message, rpc_code=rpc_code, data=data)


_SAID: Final = {
    LOST: "The connection to the upstream ended before an answer.",
    UNREADABLE: "The upstream's answer is not JSON-RPC.",
}
