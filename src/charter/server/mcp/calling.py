"""``tools/call`` and ``tools/list``: a request becomes a typed command, its reply a result. No rule is made here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from mcp import MCPError
from mcp_types import CallToolRequestParams, PaginatedRequestParams
from pydantic import BaseModel, ValidationError

from charter.errors import CharterError, InvalidInput
from charter.gate.hiding import unknown_tool
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.principal import Principal
from charter.model.reply import WorkflowContext
from charter.model.tool import ToolManifest
from charter.server.mcp import batching, results, wording
from charter.server.mcp.approving import Approving
from charter.server.mcp.asking import Context, is_modern
from charter.server.mcp.listing import page_of
from charter.server.mcp.outcomes import ToolCalls
from charter.server.mcp.parts import Door, call_context
from charter.server.mcp.reviewing import Reviewing
from charter.server.mcp.schemas import IDS

CommandT = TypeVar("CommandT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One tool call: who sent it, and what."""

    ctx: Context
    principal: Principal
    arguments: JsonObject


class Tools:
    """Lists and calls tools."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._calls = ToolCalls(door)
        self._approving = Approving(door)
        self._reviewing = Reviewing(door)
        self._verbs: dict[str, Callable[[Incoming], Awaitable[JsonObject]]] = {
            "start_workflow": self._start,
            "propose_action": self._propose,
            "request_approval": self._request,
            "invoke_tool": self._invoke,
            "get_workflow": self._get,
            "describe_tools": self._describe,
            "complete_step": self._complete,
            "cancel_workflow": self._cancel,
            "advance_workflow": self._advance,
            "agent_actions": self._actions,
        }

    async def page(self, ctx: Context, params: PaginatedRequestParams | None) -> JsonObject:
        """``tools/list``: in a stable order, and only what the policy could ever permit this principal."""
        try:
            tools = [tool.wire for tool in self._door.own.values()] + self._reviewing_of(ctx) + self._governed(ctx)
            start, end, after = page_of([tool["name"] for tool in tools], params.cursor if params else None)
        except CharterError as error:
            results.raise_rpc(error)
        page: JsonObject = {"tools": tools[start:end], "resultType": "complete"}
        return {**page, "nextCursor": after} if after is not None else page

    def _reviewing_of(self, ctx: Context) -> list[JsonObject]:
        may = self._reviewing.may(self._door.principal_of(ctx))
        return [tool.wire for tool in self._reviewing.tools.values()] if may else []

    def _governed(self, ctx: Context) -> list[JsonObject]:
        if not self._door.settings.list_governed_tools:
            return []
        visible = self._door.queries.visible(self._door.principal_of(ctx))
        listed = [self._door.governed.of(manifest) for manifest in sorted(visible, key=lambda tool: tool.name)]
        return [item.modern if is_modern(ctx) else item.legacy for item in listed]

    def header_schema(self, name: str) -> JsonObject | None:
        """The listed schema of a governed tool that wants arguments repeated in HTTP headers; None for all others.

        The transport asks this for each call, before anything else, so it must be cheap. Of a tool that is hidden from the
        caller it must not tell by a refusal that there is one.
        """
        manifest = None if name in self._verbs else self._door.gate.parts.tools.find(name)
        schema = self._door.governed.of(manifest).header_schema if manifest is not None else None
        if schema is None or self._door.queries.hidden(self._door.principal_of(None), name):
            return None
        return schema

    async def call(self, ctx: Context, params: CallToolRequestParams) -> JsonObject:
        """``tools/call``. What goes wrong is an error result; cancellation passes through to the upstream.

        One exception: 2026-07-28 wants a JSON-RPC error where the client lacks a capability that the call takes.
        """
        try:
            incoming = Incoming(ctx, self._door.principal_of(ctx), params.arguments or {})
            verb = self._verbs.get(params.name)
            if verb is None:
                if params.name in self._reviewing.tools and self._reviewing.may(incoming.principal):
                    return await self._reviewing.call(ctx, incoming.principal, params.name, incoming.arguments)
                return await self._own_name(incoming, params.name)
            results.unknown_fields(incoming.arguments, self._door.own[params.name].takes)
            return await verb(incoming)
        except CharterError as error:
            return results.failed(error)
        except UnicodeEncodeError:
            return results.failed(InvalidInput("The arguments hold text that is not valid Unicode."))
        except MCPError:
            raise
        except Exception as error:
            return results.failed(results.unexpected(error, f"tools/call {params.name[:120]!r}"))

    async def _handle(self, incoming: Incoming, command: cmd.Command) -> Any:
        return await self._door.gate.handle(incoming.principal, command, call_context(incoming.ctx))

    # -- Charter's own tools

    async def _start(self, incoming: Incoming) -> JsonObject:
        arguments = {"template": self._door.settings.default_template, **incoming.arguments}
        reply: WorkflowContext = await self._handle(incoming, command_of(cmd.StartWorkflow, arguments))
        return _where(reply)

    async def _propose(self, incoming: Incoming) -> JsonObject:
        reply = await self._handle(incoming, command_of(cmd.ProposeAction, with_ids(incoming.arguments)))
        return results.answer(wording.proposal(reply), dumped(reply))

    async def _request(self, incoming: Incoming) -> JsonObject:
        command = command_of(cmd.RequestApproval, with_ids(incoming.arguments))
        return await self._approving.request(incoming.ctx, incoming.principal, command)

    async def _invoke(self, incoming: Incoming) -> JsonObject:
        if "proposal_ids" in incoming.arguments:
            return await self._batch(incoming)
        command = command_of(cmd.InvokeTool, with_ids(incoming.arguments))
        return await self._calls.invoke(incoming.ctx, incoming.principal, command, listed=None)

    async def _batch(self, incoming: Incoming) -> JsonObject:
        batching.demand_alone(incoming.arguments)
        return batching.render(await self._handle(incoming, command_of(cmd.InvokeBatch, with_ids(incoming.arguments))))

    async def _get(self, incoming: Incoming) -> JsonObject:
        workflow_id = text_of(incoming.arguments, "workflow_id")
        return _where(await self._door.queries.workflow(incoming.principal, workflow_id))

    async def _describe(self, incoming: Incoming) -> JsonObject:
        ids = [text_of(incoming.arguments, name) for name in ("workflow_id", "agent_invocation_id")]
        names = names_of(incoming.arguments)
        found = await self._door.queries.tools(incoming.principal, *ids)
        views = [view for view in found if names is None or view.name in names]
        return results.answer(wording.tools(views), {"tools": [dumped(view) for view in views]})

    async def _complete(self, incoming: Incoming) -> JsonObject:
        reply = await self._handle(incoming, command_of(cmd.CompleteStep, with_ids(incoming.arguments)))
        text = f"Step {reply.step_id!r}: {reply.status}. {wording.workflow(reply.workflow)}"
        return results.answer(text, dumped(reply))

    async def _cancel(self, incoming: Incoming) -> JsonObject:
        reply = await self._handle(incoming, command_of(cmd.CancelWorkflow, incoming.arguments))
        return results.answer(wording.workflow(reply), dumped(reply))

    async def _advance(self, incoming: Incoming) -> JsonObject:
        reply = await self._handle(incoming, command_of(cmd.AdvanceWorkflow, incoming.arguments))
        return results.answer(wording.advanced(reply), dumped(reply))

    async def _actions(self, incoming: Incoming) -> JsonObject:
        given = incoming.arguments
        invocation_id = text_of(given, "agent_invocation_id") if "agent_invocation_id" in given else None
        reply = await self._door.queries.actions(
            incoming.principal, text_of(given, "workflow_id"), invocation_id, names=names_of(given)
        )
        return results.answer(wording.actions(reply), dumped(reply))

    # -- governed tools under their own names: the same command, the same road

    async def _own_name(self, incoming: Incoming, name: str) -> JsonObject:
        manifest = self._door.gate.parts.tools.find(name)
        if manifest is None:
            raise unknown_tool(name)
        try:
            return await self._governed_call(incoming, manifest)
        except (CharterError, UnicodeEncodeError):
            if self._door.queries.hidden(incoming.principal, name):  # its schema too says that there is such a tool
                raise unknown_tool(name) from None
            raise

    async def _governed_call(self, incoming: Incoming, manifest: ToolManifest) -> JsonObject:
        listed = self._door.governed.of(manifest)
        given = incoming.arguments
        if listed.wrapped:
            results.unknown_fields(given, (*IDS, "arguments"))
        arguments = {key: given[key] for key in IDS if key in given} | {"tool": manifest.name}
        own = listed.own_arguments(given)
        if own or "proposal_id" not in given:  # a proposal alone runs what was proposed
            arguments["arguments"] = own
        command = command_of(cmd.InvokeTool, with_ids(arguments))
        return await self._calls.invoke(incoming.ctx, incoming.principal, command, listed=listed)


def with_ids(arguments: JsonObject) -> JsonObject:
    """A call without its ids is no bad input: the policy is asked, says no with the reason, and that is on record."""
    return {"workflow_id": None, "agent_invocation_id": None, **arguments}


def command_of(model: type[CommandT], arguments: JsonObject) -> CommandT:
    """The command. Raises ``InvalidInput`` naming the fields, without their values."""
    try:
        return model.model_validate(arguments)
    except ValidationError as error:
        raise results.invalid(error.errors(include_url=False, include_context=False, include_input=False)) from None


def text_of(arguments: JsonObject, name: str) -> str:
    """A required id."""
    value = arguments.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"{name}: a text is required.", detail={"fields": [name]})
    if len(value) > 200 or not (value.isascii() and value.isprintable()):
        raise InvalidInput(f"{name}: this is no id.", detail={"fields": [name]})
    return value


def names_of(arguments: JsonObject) -> list[Any] | None:
    """The tools that are asked about; None for all of them."""
    names = arguments.get("names")
    if names is not None and not isinstance(names, list):
        raise InvalidInput("names: a list of tool names is required.", detail={"fields": ["names"]})
    return names


def _where(reply: WorkflowContext) -> JsonObject:
    ids = {"agent_invocation_id": reply.invocations[0].agent_invocation_id} if reply.invocations else {}
    return results.answer(wording.workflow(reply), {**dumped(reply), **ids})


def dumped(model: BaseModel) -> JsonObject:
    """A reply as JSON; what is null is left out."""
    found: JsonObject = model.model_dump(mode="json", exclude_none=True)
    return found
