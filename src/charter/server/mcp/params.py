"""``params`` that do not have a method's shape: the SDK says no more than that they are invalid; here the fields are named."""

from __future__ import annotations

from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from pydantic import ValidationError

from charter.errors import InvalidInput
from charter.model.plain_text import one_line
from charter.server.mcp.results import raise_rpc

_MOST: Final = 5


async def fields_named(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """MCP middleware, the innermost: names the fields of a request that could not be read, never their values."""
    try:
        return await call_next(ctx)
    except ValidationError as error:
        raise_rpc(_named(ctx.method, error))


def _named(method: str, error: ValidationError) -> InvalidInput:
    places = [item["loc"] for item in error.errors(include_url=False, include_context=False, include_input=False)]
    # Behind these two parts stand also the names of types and of unions' members.
    found = dict.fromkeys(".".join(one_line(str(part)) for part in place[:2]) or "params" for place in places)
    fields = list(found)[:_MOST]
    return InvalidInput(
        f"The parameters of {one_line(method)!r} do not have its form: {', '.join(fields)}.",
        next_step="Correct these parameters; the MCP specification has the form of this method's.",
        detail={"fields": fields},
    )
