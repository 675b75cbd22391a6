"""The multi-round tools of SEP-2322 (2026-07-28 only): the result asks, the caller sends the call again with answers."""

from __future__ import annotations

import json
from typing import Any, Final

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    SamplingMessage,
    TextContent,
)

Ctx = Context[Any, Any]
Answer = str | InputRequiredResult


def form(message: str, **fields: str) -> ElicitRequest:
    """A form with these fields and their types, all required."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def sample(text: str) -> CreateMessageRequest:
    """A question to the client's model."""
    message = SamplingMessage(role="user", content=TextContent(type="text", text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=100))


NAME: Final = form("What is your name?", name="string")
CONFIRM: Final = form("Please confirm", ok="boolean")


def field(answers: Any, key: str, name: str) -> Any:
    """What a person wrote into a field of a form."""
    answer = (answers or {}).get(key)
    return (answer.content or {}).get(name) if isinstance(answer, ElicitResult) else None


def add_rounds(server: MCPServer[Any]) -> None:
    """Add them all."""
    _add_single(server)
    _add_several(server)
    _add_state(server)


def _add_single(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False)
    async def test_input_required_result_elicitation(ctx: Ctx) -> Answer:
        """One form."""
        if "user_name" in (ctx.input_responses or {}):
            return f"Hello, {field(ctx.input_responses, 'user_name', 'name') or 'stranger'}!"
        return InputRequiredResult(input_requests={"user_name": NAME})

    @server.tool(structured_output=False)
    async def test_input_required_result_sampling(ctx: Ctx) -> Answer:
        """One question to the model."""
        answer = (ctx.input_responses or {}).get("capital_question")
        if answer is None:
            return InputRequiredResult(input_requests={"capital_question": sample("What is the capital of France?")})
        said = answer.content if isinstance(answer, CreateMessageResult) else None
        return f"Model said: {said.text if isinstance(said, TextContent) else '?'}"

    @server.tool(structured_output=False)
    async def test_input_required_result_list_roots(ctx: Ctx) -> Answer:
        """The client's roots."""
        answer = (ctx.input_responses or {}).get("client_roots")
        if answer is None:
            return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})
        return f"Client exposed {len(answer.roots) if isinstance(answer, ListRootsResult) else 0} root(s)."


def _add_several(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False)
    async def test_input_required_result_multiple_inputs(ctx: Ctx) -> Answer:
        """A form, a question to the model and the roots at once."""
        if {"user_name", "greeting", "client_roots"} <= (ctx.input_responses or {}).keys():
            return "All inputs received."
        asked: dict[str, Any] = {
            "user_name": NAME,
            "greeting": sample("Generate a greeting"),
            "client_roots": ListRootsRequest(),
        }
        return InputRequiredResult(input_requests=asked, request_state="multiple-inputs")

    @server.tool(structured_output=False)
    async def test_input_required_result_capabilities(ctx: Ctx) -> Answer:
        """Asks only what the client says it can answer."""
        if ctx.input_responses:
            return "Answered."
        capabilities = ctx.client_capabilities
        asked: dict[str, Any] = {}
        if capabilities is None or capabilities.sampling is not None:
            asked["sample"] = sample("Say hello")
        if capabilities is None or capabilities.elicitation is not None:
            asked["ask"] = NAME
        return InputRequiredResult(input_requests=asked, request_state="capability-gated")


def _add_state(server: MCPServer[Any]) -> None:
    @server.tool(structured_output=False)
    async def test_input_required_result_request_state(ctx: Ctx) -> Answer:
        """Wants its state back."""
        if "confirm" in (ctx.input_responses or {}) and ctx.request_state == "request-state-nonce":
            return "state-ok: confirmation received"
        return InputRequiredResult(input_requests={"confirm": CONFIRM}, request_state="request-state-nonce")

    @server.tool(structured_output=False)
    async def test_input_required_result_tampered_state(ctx: Ctx) -> Answer:
        """Its state must not be changed under way."""
        if ctx.request_state is None:
            return InputRequiredResult(input_requests={"confirm": CONFIRM}, request_state="round-1")
        return f"state-ok: {ctx.request_state}"

    @server.tool(structured_output=False)
    async def test_input_required_result_multi_round(ctx: Ctx) -> Answer:
        """Asks twice, and remembers the first answer in its state."""
        state = json.loads(ctx.request_state) if ctx.request_state else {"round": 0}
        answers = ctx.input_responses or {}
        if state["round"] == 1 and "step1" in answers:
            asked = form("Step 2: What is your favorite color?", color="string")
            memo = json.dumps({"round": 2, "name": field(answers, "step1", "name")})
            return InputRequiredResult(input_requests={"step2": asked}, request_state=memo)
        if state["round"] == 2 and "step2" in answers:
            return f"{state['name']} likes {field(answers, 'step2', 'color')}."
        asked = form("Step 1: What is your name?", name="string")
        return InputRequiredResult(input_requests={"step1": asked}, request_state=json.dumps({"round": 1}))
