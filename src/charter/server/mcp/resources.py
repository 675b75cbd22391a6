"""Resources: runs, their records, stored results and what waits for a decision, as JSON. Reading asks the policy each time."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson
from mcp_types import PaginatedRequestParams, ReadResourceRequestParams

from charter.errors import CharterError, NotFound
from charter.model.base import Json, JsonObject
from charter.model.principal import Principal
from charter.server.mcp import results
from charter.server.mcp.asking import Context
from charter.server.mcp.parts import Door, person_behind
from charter.store.port import Filter, Page

MIME: Final = "application/json"
PENDING: Final = "charter://approvals/pending"
AUDIT_PAGE: Final = 500
LISTED: Final = 50
_ID: Final = r"([A-Za-z]+_[0-9a-f-]{36})"
_WORKFLOW: Final = re.compile(rf"charter://workflows/{_ID}")
_AUDIT: Final = re.compile(rf"charter://workflows/{_ID}/audit(?:\?after=([0-9]{{1,12}}))?")
_RESULT: Final = re.compile(rf"charter://workflows/{_ID}/results/{_ID}")

TEMPLATES: Final = (
    ("charter://workflows/{workflow_id}", "workflow", "Where a workflow is, what it waits for, what you may do in it."),
    (
        "charter://workflows/{workflow_id}/audit{?after}",
        "audit",
        f"A workflow's events as recorded, in order, {AUDIT_PAGE} at a time after the number `after`.",
    ),
    (
        "charter://workflows/{workflow_id}/results/{effect_id}",
        "result",
        "The stored result of a tool call that was too large to send.",
    ),
)


def workflow_uri(workflow_id: str) -> str:
    """The resource of a run."""
    return f"charter://workflows/{workflow_id}"


class Resources:
    """Lists and reads resources."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def list(self, ctx: Context, _params: PaginatedRequestParams | None) -> JsonObject:
        """``resources/list``: what waits, and the caller's newest runs."""
        try:
            principal = self._door.principal_of(ctx)
            rows, _ = await self._door.queries.workflows(principal, Filter(), Page(limit=LISTED))
        except CharterError as error:
            results.raise_rpc(error)
        pending = _listed(PENDING, "pending approvals", "Requests that wait for people to decide.")
        runs = [
            _listed(workflow_uri(row.workflow_id), row.workflow_id, f"{row.template}, {row.status}, {row.started_at}")
            for row in rows
        ]
        return {"resources": [pending, *runs], "resultType": "complete"}

    async def templates(self, _ctx: Context, _params: PaginatedRequestParams | None) -> JsonObject:
        """``resources/templates/list``."""
        listed = [
            {"uriTemplate": uri, "name": name, "description": text, "mimeType": MIME} for uri, name, text in TEMPLATES
        ]
        return {"resourceTemplates": listed, "resultType": "complete"}

    async def read(self, ctx: Context, params: ReadResourceRequestParams) -> JsonObject:
        """``resources/read``: one JSON text. Errors are JSON-RPC errors whose data has code, message and next_step."""
        try:
            value = await self.value(self._door.principal_of(ctx), params.uri)
        except CharterError as error:
            results.raise_rpc(error, uri=params.uri)
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
        contents = [{"uri": params.uri, "mimeType": MIME, "text": text}]
        return {"contents": contents, "resultType": "complete"}

    async def value(self, principal: Principal, uri: str) -> Json:
        """What a resource holds for this caller. Raises ``NotFound`` and ``Denied``."""
        queries = self._door.queries
        if uri == PENDING:
            return await self._pending(principal)
        if found := _WORKFLOW.fullmatch(uri):
            return (await queries.workflow(principal, found[1])).model_dump(mode="json", exclude_none=True)
        if found := _AUDIT.fullmatch(uri):
            return await self._audit(principal, found[1], int(found[2] or 0))
        if found := _RESULT.fullmatch(uri):
            return await queries.result(principal, found[1], found[2])
        raise NotFound(f"There is no resource {uri[:200]!r}.", code="unknown_resource", next_step=_FORMS)

    async def _pending(self, principal: Principal) -> JsonObject:
        rows, more = await self._door.queries.approvals(principal, Filter(status="pending"), Page(limit=100))
        return {"approvals": [orjson.loads(row.request) for row in rows], "more": more is not None}

    async def _audit(self, principal: Principal, workflow_id: str, after: int) -> JsonObject:
        """The record is the owner's to read: an agent that acts for them reads it as they would."""
        reader = person_behind(principal) or principal
        events = await self._door.queries.events(reader, workflow_id, after, AUDIT_PAGE)
        page: dict[str, Any] = {"workflow_id": workflow_id, "after": after, "events": events}
        if len(events) == AUDIT_PAGE:
            page["next"] = f"{workflow_uri(workflow_id)}/audit?after={after + AUDIT_PAGE}"
        return page


_FORMS: Final = f"There are {PENDING}, " + ", ".join(uri for uri, _, _ in TEMPLATES) + "."


def _listed(uri: str, name: str, description: str) -> JsonObject:
    return {"uri": uri, "name": name, "description": description, "mimeType": MIME}
