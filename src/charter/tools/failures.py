"""How a call to an upstream can fail, told apart by the one question that matters: may the tool have run?"""

from __future__ import annotations

from typing import Any, Final, Literal

Certainty = Literal["not_run", "answered", "unknown"]

# Codes that Charter itself puts in the place of an HTTP failure, from the range that MCP leaves to implementations.
NOT_SENT: Final = -32010
LOST: Final = -32011
TOO_LARGE: Final = -32012
REFUSED_BY_HTTP: Final = -32013

# JSON-RPC and MCP errors by which a server says that it did not take the call up.
_NOT_TAKEN_UP: Final = {
    -32700: "upstream_refused",  # parse error
    -32600: "upstream_refused",  # invalid request, also: the session is gone
    -32601: "upstream_refused",  # no such method
    -32602: "upstream_refused",  # invalid parameters, no such tool
    -32020: "upstream_refused",  # header mismatch
    -32021: "upstream_refused",  # a client capability is missing
    -32022: "upstream_refused",  # protocol version
    -32042: "upstream_refused",  # must be asked by URL first
    NOT_SENT: "upstream_unavailable",
    REFUSED_BY_HTTP: "upstream_refused",
}
# Codes that stand for a lost connection or a time-out, here or at a gateway behind the upstream.
_UNKNOWN: Final = {-32000: "upstream_lost", -32001: "upstream_timeout", LOST: "upstream_lost"}


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


def from_rpc(rpc_code: int, message: str, data: Any = None) -> CallError:
    """What a JSON-RPC error means for the question whether the tool ran."""
    if rpc_code == TOO_LARGE or "byte limit" in message:
        return CallError("answered", "result_too_large", "The upstream's result is larger than Charter takes.")
    if code := _NOT_TAKEN_UP.get(rpc_code):
        return CallError("not_run", code, message, rpc_code=rpc_code, data=data)
    if code := _UNKNOWN.get(rpc_code):
        return CallError("unknown", code, message, rpc_code=rpc_code, data=data)
    return CallError("answered", "upstream_error", message, rpc_code=rpc_code, data=data)
