"""What the door answers: results and errors of tools as wire objects, the same codes and next steps on every road.

Plain dictionaries, not models: the SDK validates what it sends anyway, and upstream content must pass as it came.
"""

from __future__ import annotations

import logging
import secrets
import traceback
from collections.abc import Iterable
from typing import Any, Final, NoReturn

from mcp import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from charter.errors import CharterError, InvalidInput, NotFound
from charter.model.base import Json, JsonObject, in_words

_log = logging.getLogger(__name__)

RPC_CODES: Final = {
    "not_found": INVALID_PARAMS,
    "invalid_input": INVALID_PARAMS,
    "unauthenticated": -32005,
    "denied": -32003,
    "refused": -32004,
    "conflict": -32004,
    "unavailable": -32006,
}
"""JSON-RPC codes of errors outside tools, from the range that MCP leaves to implementations. ``data.code`` says more."""


def text_block(text: str) -> JsonObject:
    """A text content block."""
    return {"type": "text", "text": text}


def answer(
    text: str | None,
    structured: Json = None,
    *,
    is_error: bool = False,
    blocks: Iterable[JsonObject] = (),
    meta: JsonObject | None = None,
) -> JsonObject:
    """A ``tools/call`` result. ``text`` goes before ``blocks``."""
    content = [text_block(text), *blocks] if text is not None else list(blocks)
    result: JsonObject = {"resultType": "complete", "content": content, "isError": is_error}
    if structured is not None:
        result["structuredContent"] = structured
    if meta:
        result["_meta"] = meta
    return result


def failed(error: CharterError, **more: Json) -> JsonObject:
    """The error as a tool result: ``code``, ``message``, ``next_step``, ``detail`` and what else belongs to it.

    Some clients check the structured content of errors too: every listed output schema has a place for it (``schemas.ERROR``).
    """
    return answer(said(error), {**error.as_json(), **more}, is_error=True)


def said(error: CharterError) -> str:
    """The error in words: what is wrong, and what to do."""
    return f"{error.message} — Next: {error.next_step}"


def raise_rpc(error: CharterError, **more: Json) -> NoReturn:
    """Raise the error for what has no error results of its own: prompts, resources, completions, lists."""
    code = INVALID_PARAMS if isinstance(error, InvalidInput | NotFound) else RPC_CODES.get(error.code, INTERNAL_ERROR)
    raise MCPError(code=code, message=said(error), data={**error.as_json(), **more}) from None


def unexpected(error: Exception, doing: str) -> CharterError:
    """An error that nobody foresaw, with an id by which the operator finds it in the log; the caller sees nothing else.

    The log has the kind and the places, never the text: it may quote an argument.
    """
    reference = secrets.token_hex(6)
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s failed, reference %s: %s\n%s", doing, reference, type(error).__name__, where)
    return CharterError(
        f"Something went wrong inside Charter (reference {reference}).",
        next_step="Call get_workflow to see what is on record; tell the operator the reference.",
        detail={"reference": reference},
    )


def unknown_fields(given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse arguments that nobody named. Raises ``InvalidInput``."""
    extra = sorted(set(given) - set(known))
    if extra:
        raise InvalidInput(
            f"Unknown arguments: {', '.join(name[:80] for name in extra[:10])}.",
            next_step=f"Send only these: {', '.join(known)}.",
            detail={"fields": extra[:10]},
        )


def invalid(errors: Iterable[Any]) -> InvalidInput:
    """Pydantic's findings as one error that names the fields and repeats no value."""
    found = [
        (".".join(str(part) for part in item["loc"]) or "arguments", in_words(str(item["msg"]))) for item in errors
    ]
    return InvalidInput(
        "; ".join(f"{where[:80]}: {why}" for where, why in found[:5]) + ".",
        detail={"fields": [where[:80] for where, _ in found[:10]]},
    )
