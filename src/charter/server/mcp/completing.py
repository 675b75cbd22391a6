"""``completion/complete``: the ids of what waits, and the present arguments of a call to edit."""

from __future__ import annotations

from typing import Final

import orjson
from mcp_types import CompleteRequestParams, PromptReference

from charter.errors import CharterError
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.server.mcp import results
from charter.server.mcp.asking import Context
from charter.server.mcp.parts import Door, person_behind
from charter.server.mcp.prompts import PROMPTS
from charter.store.port import Filter, Page

MOST: Final = 100


class Completions:
    """Completes arguments of prompts and of resource templates, from what the caller may see."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def complete(self, ctx: Context, params: CompleteRequestParams) -> JsonObject:
        """``completion/complete``. What cannot be completed has no values; only a missing credential is an error."""
        try:
            principal = self._door.principal_of(ctx)
        except CharterError as error:
            results.raise_rpc(error)
        reader = person_behind(principal) or principal
        try:
            values = await self._values(reader, params)
        except (CharterError, UnicodeEncodeError):
            values = []
        completion = {"values": values[:MOST], "total": len(values), "hasMore": len(values) > MOST}
        return {"completion": completion, "resultType": "complete"}

    async def _values(self, reader: Principal, params: CompleteRequestParams) -> list[str]:
        name, typed = params.argument.name, params.argument.value
        if not isinstance(params.ref, PromptReference):
            return await self._workflows(reader, typed) if name == "workflow_id" else []
        if params.ref.name not in PROMPTS:
            return []
        if name == "approval_id":
            return await self._approvals(reader, typed, many=params.ref.name == "approve")
        known = (params.context.arguments if params.context else None) or {}
        if name == "arguments" and "approval_id" in known:
            view = await self._door.queries.approval(reader, known["approval_id"])
            return (
                [orjson.dumps(view.arguments or view.request.values or {}).decode()] if view.request.allow_edit else []
            )
        return []

    async def _approvals(self, reader: Principal, typed: str, *, many: bool) -> list[str]:
        """Pending ids that go on as typed; of several with commas, the last one is completed."""
        before, comma, last = typed.rpartition(",") if many else ("", "", typed)
        rows, _ = await self._door.queries.approvals(reader, Filter(status="pending"), Page(limit=MOST + 1))
        taken = {piece.strip() for piece in before.split(",")}
        ids = [row.approval_id for row in rows if row.approval_id not in taken]
        return [f"{before}{comma}{found}" for found in ids if found.startswith(last.strip())]

    async def _workflows(self, reader: Principal, typed: str) -> list[str]:
        rows, _ = await self._door.queries.workflows(reader, Filter(), Page(limit=MOST + 1))
        return [row.workflow_id for row in rows if row.workflow_id.startswith(typed)]
