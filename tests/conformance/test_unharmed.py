"""What the everything server answers arrives through a real ``charter serve`` exactly as it was sent.

Each call is made twice over streamable HTTP, directly and through Charter, and the raw results are compared as JSON text.
``every`` is the server as Charter reaches it by 2026-07-28, ``old`` as it reaches it by the handshake revisions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import mcp_types as types
import orjson
import pytest
from mcp import Client, MCPError
from mcp.client.session import ClientRequestContext
from pydantic import RootModel

from tests.conformance.serving import Served

pytestmark = [
    pytest.mark.anyio,
    # Sampling and roots are deprecated, and still there.
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]
both_eras = pytest.mark.parametrize("era", ["auto", "legacy"])
both_upstreams = pytest.mark.parametrize("upstream", ["every", "old"])

TOOLS: dict[str, dict[str, Any]] = {
    "test_simple_text": {},
    "test_image_content": {},
    "test_audio_content": {},
    "test_embedded_resource": {},
    "test_multiple_content_types": {},
    "test_everything_else": {},
    "test_structured_output": {"city": "Zürich"},
    "test_structured_error": {},
    "test_error_handling": {},
    "test_tool_with_progress": {},
    "test_x_mcp_header": {"region": "eu-1"},
}
ASKING: dict[str, dict[str, Any]] = {
    "test_elicitation": {"message": "What do you say?"},
    "test_elicitation_sep1034_defaults": {},
    "test_elicitation_sep1330_enums": {},
    "test_sampling": {"prompt": "Say something"},
}
# These are made for 2026-07-28: directly, a client of the older revisions gets an error from them.
ROUNDS = (
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
)
ASKING |= {name: {} for name in ROUNDS}


class Raw(RootModel[dict[str, Any]]):
    """A result as it came."""


class Call(types.Request[dict[str, Any], Literal["tools/call"]]):
    method: Literal["tools/call"] = "tools/call"


@dataclass
class Someone:
    """Answers whatever is asked at a client, and remembers the questions."""

    asked: list[Any] = field(default_factory=list)

    async def form(self, context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        self.asked.append((params.message, params.requested_schema))
        return types.ElicitResult(action="accept", content={name: _value(name) for name in _fields(params)})

    async def model(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult:
        self.asked.append(params.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"meta"}))
        said = types.TextContent(type="text", text="Paris ☃")
        return types.CreateMessageResult(role="assistant", content=said, model="m", stop_reason="endTurn")

    async def roots(self, context: ClientRequestContext) -> types.ListRootsResult:
        self.asked.append("roots")
        return types.ListRootsResult(roots=[types.Root(uri="file:///here", name="here")])

    def client(self, url: str, era: str) -> Client:
        return Client(
            url,
            mode=era,
            elicitation_callback=self.form,
            sampling_callback=self.model,
            list_roots_callback=self.roots,
        )


def _fields(params: types.ElicitRequestFormParams) -> list[str]:
    return list(params.requested_schema["properties"])


def _value(name: str) -> Any:
    known: dict[str, Any] = {
        "ok": True,
        "age": 7,
        "score": 1.5,
        "verified": False,
        "untitledSingle": "option2",
        "titledSingle": "value2",
        "legacyEnum": "opt2",
        "untitledMulti": ["option1", "option3"],
        "titledMulti": ["value3"],
    }
    return known.get(name, f"some {name}")


@dataclass
class Governed:
    """A client of Charter in a workflow."""

    client: Client
    ids: dict[str, str]

    async def call(self, name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
        return await raw(self.client, name, {**self.ids, **arguments}, **more)


@asynccontextmanager
async def governed(served: Served, era: str, client: Client | None = None) -> AsyncIterator[Governed]:
    async with client or Client(served.url, mode=era) as connected:
        started = await connected.call_tool("start_workflow", {"purpose": "Compare"})
        ids = {name: started.structured_content[name] for name in ("workflow_id", "agent_invocation_id")}
        await connected.list_tools()  # the client learns which arguments travel as headers
        yield Governed(connected, ids)


@asynccontextmanager
async def directly(url: str, era: str) -> AsyncIterator[Client]:
    async with Client(url, mode=era) as client:
        await client.list_tools()
        yield client


async def raw(client: Client, name: str, arguments: dict[str, Any], **more: Any) -> dict[str, Any]:
    result = await client.session.send_request(Call(params={"name": name, "arguments": arguments}), Raw, **more)
    return result.root


def text(result: dict[str, Any]) -> bytes:
    """The parts that are the tool's own, as JSON text in the order in which they came."""
    meta = result.get("_meta") or {}
    own = {key: value for key, value in meta.items() if not key.startswith(("io.modelcontextprotocol/", "io.charter/"))}
    parts = [result["content"], result.get("structuredContent"), result.get("isError", False), own]
    return orjson.dumps(parts)


@both_eras
@both_upstreams
async def test_results_are_the_same_to_the_letter_under_the_tools_own_name(
    served: Served, everything: str, era: str, upstream: str
) -> None:
    async with directly(everything, era) as client, governed(served, era) as charter:
        for tool, arguments in TOOLS.items():
            expected = await raw(client, tool, arguments)
            found = await charter.call(f"{upstream}__{tool}", arguments)
            assert text(found) == text(expected), tool


@both_eras
async def test_through_invoke_tool_charters_own_words_come_first_and_the_rest_is_the_same(
    served: Served, everything: str, era: str
) -> None:
    async with directly(everything, era) as client, governed(served, era) as charter:
        for tool, arguments in TOOLS.items():
            expected = await raw(client, tool, arguments)
            found = await charter.call("invoke_tool", {"tool": f"every__{tool}", "arguments": arguments})
            assert found["content"][0]["type"] == "text"
            structured = found["structuredContent"].get("structured")
            assert text({**found, "content": found["content"][1:], "structuredContent": structured}) == text(expected)


@both_eras
@both_upstreams
async def test_every_progress_report_arrives_in_order(served: Served, everything: str, era: str, upstream: str) -> None:
    seen: dict[str, list[Any]] = {"directly": [], "governed": []}

    def told(where: str) -> Any:
        async def report(done: float, total: float | None, message: str | None) -> None:
            seen[where].append((done, total, message))

        return report

    async with directly(everything, era) as client, governed(served, era) as charter:
        await client.call_tool("test_tool_with_progress", {}, progress_callback=told("directly"))
        name = f"{upstream}__test_tool_with_progress"
        await charter.client.call_tool(name, dict(charter.ids), progress_callback=told("governed"))
    assert [report[0] for report in seen["directly"]] == [0, 50, 100]
    assert seen["governed"] == seen["directly"]


@both_eras
@pytest.mark.parametrize("tool", ASKING)
async def test_questions_and_answers_pass_through_and_reach_older_clients_too(
    served: Served, everything: str, era: str, tool: str
) -> None:
    """Multi-round trips on 2026-07-28; before it, Charter asks the client in the middle of the call."""
    before, behind = Someone(), Someone()
    async with (
        before.client(everything, "auto") as client,
        governed(served, era, behind.client(served.url, era)) as charter,
    ):
        expected = await client.call_tool(tool, ASKING[tool])
        found = await charter.client.call_tool(f"every__{tool}", {**charter.ids, **ASKING[tool]})
    assert behind.asked == before.asked
    assert before.asked
    assert found.content == expected.content
    assert not found.is_error


async def test_an_upstream_asks_only_what_the_caller_can_answer(served: Served) -> None:
    someone = Someone()
    only_model = Client(served.url, sampling_callback=someone.model)
    async with governed(served, "auto", only_model) as charter:
        result = await charter.client.call_tool("every__test_input_required_result_capabilities", dict(charter.ids))
    assert not result.is_error
    assert len(someone.asked) == 1
    assert "messages" in someone.asked[0]


async def test_a_missing_capability_is_the_json_rpc_error_that_it_is_directly(served: Served, everything: str) -> None:
    async with directly(everything, "auto") as client, governed(served, "auto") as charter:
        with pytest.raises(MCPError) as expected:
            await raw(client, "test_missing_capability", {})
        with pytest.raises(MCPError) as found:
            await charter.call("every__test_missing_capability", {})
    assert found.value.error == expected.value.error
    assert found.value.error.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY


async def test_a_json_rpc_error_becomes_an_error_result_that_carries_it(served: Served, everything: str) -> None:
    async with directly(everything, "legacy") as client, governed(served, "legacy") as charter:
        with pytest.raises(MCPError) as expected:
            await raw(client, "test_missing_capability", {})
        found = await charter.call("every__test_missing_capability", {})
    error = expected.value.error
    assert found["isError"] is True
    assert found["structuredContent"]["code"] == "upstream_refused"
    carried = found["_meta"]["io.charter/upstream-error"]
    assert carried == {"code": error.code, "message": error.message, "data": error.data}


async def test_schemas_are_told_as_the_upstream_tells_them(served: Served, everything: str) -> None:
    async with directly(everything, "auto") as client, governed(served, "auto") as charter:
        offered = {tool.name: tool for tool in (await client.list_tools()).tools}
        described = await charter.client.call_tool("describe_tools", dict(charter.ids))
    views = {view["name"]: view for view in described.structured_content["tools"]}
    assert len(offered) > 20
    for name, tool in offered.items():
        view = views[f"every__{name}"]
        assert orjson.dumps(view["input_schema"], option=orjson.OPT_SORT_KEYS) == orjson.dumps(
            tool.input_schema, option=orjson.OPT_SORT_KEYS
        )
        assert view.get("output_schema") == tool.output_schema
