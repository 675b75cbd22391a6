"""What an upstream answers comes through the governed road unharmed (issue 2, section 2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import ResourceLink

from charter.gate import Limits
from charter.server.mcp import DoorSettings
from charter.server.mcp.catalog import own_tools
from charter.server.mcp.listing import PAGE
from tests.doors.calls import ERAS, call, code, start, text
from tests.support import AGENT, LONELY, Harness, Person, Upstreams, running_charter, shipped_and
from tests.tools.support import calls, until

pytestmark = pytest.mark.anyio
OWN = list(own_tools([], "governed-session"))
both_eras = pytest.mark.parametrize("era", ERAS)


@both_eras
async def test_content_types_come_through_on_both_roads(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        by_name = await call(client, "every__media", **ids)
        by_verb = await call(client, "invoke_tool", **ids, tool="every__media", arguments={})
    kinds = ["text", "image", "audio", "resource", "resource_link"]
    assert [block.type for block in by_name.content] == kinds
    assert [block.type for block in by_verb.content] == ["text", *kinds]
    assert by_verb.content[1:] == by_name.content
    assert by_name.structured_content is None


@both_eras
async def test_structured_content_comes_through_and_fits_the_listed_schema(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        await client.list_tools()  # from now on the client checks what comes back against the output schema
        ids = await start(client)
        by_name = await call(client, "every__add", **ids, parts=[1, 2])
        by_verb = await call(client, "invoke_tool", **ids, tool="every__add", arguments={"parts": [1, 2]})
    assert by_name.structured_content == {"total": 3, "parts": [1, 2]}
    assert by_verb.structured_content["structured"] == {"total": 3, "parts": [1, 2]}


@both_eras
async def test_a_tools_own_error_stays_the_tools_own_error(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        by_name = await call(client, "every__refuse", **ids)
        by_verb = await call(client, "invoke_tool", **ids, tool="every__refuse", arguments={})
    assert by_name.is_error
    assert "The ledger is closed." in text(by_name)
    assert by_verb.is_error
    assert by_verb.structured_content["status"] == "succeeded"
    assert "The ledger is closed." in text(by_verb)


@both_eras
async def test_a_call_that_the_upstream_refused_says_that_it_did_not_run(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        result = await call(client, "every__protocol_error", **ids, code=-32602)
    assert code(result) == "upstream_refused"
    assert result.structured_content["status"] == "failed"
    assert result.structured_content["effect_id"].startswith("eff_")


async def test_progress_passes_through(charter: Harness) -> None:
    """In a session, over the wire format: in-memory 2026-07-28 has no progress tokens; ``test_http`` shows that era."""
    seen: list[tuple[float, float | None, str | None]] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with charter.client_as(AGENT, "legacy") as client:
        ids = await start(client)
        arguments = {**ids, "seconds": 0.1, "steps": 3}
        await client.call_tool("every__slow", arguments, progress_callback=told)
    assert seen == [(float(step), 3.0, f"step {step}") for step in range(3)]


@both_eras
async def test_cancelling_reaches_the_upstream_and_is_on_record(charter: Harness, era: str) -> None:
    state = charter.notes.parent
    before = len(calls(state))
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        async with anyio.create_task_group() as tasks:

            async def slow() -> None:
                await call(client, "every__slow", **ids, seconds=30)

            tasks.start_soon(slow)
            await until(lambda: len(calls(state)) > before)
            tasks.cancel_scope.cancel()
        await until(lambda: any(line.get("event") == "cancelled" for line in calls(state)[before:]))
        with anyio.fail_after(60):
            while "TOOL_RESULT" not in await charter.types(ids["workflow_id"]):  # noqa: ASYNC110 - it waits for a task
                await anyio.sleep(0.02)
    (result,) = [e["data"] for e in await charter.events(ids["workflow_id"]) if e["type"] == "TOOL_RESULT"]
    assert (result["status"], result["error_code"]) == ("failed", "cancelled")


@both_eras
async def test_an_oversized_result_is_stored_and_referenced(tmp_path: Path, shared: Upstreams, era: str) -> None:
    async with (
        running_charter(tmp_path, shared=shared, limits=Limits(result_bytes=2000)) as charter,
        charter.client_as(AGENT, era) as client,
    ):
        await client.list_tools()
        ids = await start(client)
        by_verb = await call(client, "invoke_tool", **ids, tool="every__huge", arguments={"size": 5000})
        by_name = await call(client, "every__huge", **ids, size=5000)
        assert by_verb.structured_content["status"] == "succeeded"
        assert by_name.structured_content["charter"]["result_uri"]
        for result in (by_verb, by_name):
            assert len(text(result)) < 1500
            (link,) = [block for block in result.content if isinstance(block, ResourceLink)]
            (stored,) = (await client.read_resource(link.uri)).contents
            assert "x" * 5000 in str(stored)


# -- an upstream that asks something back


@both_eras
async def test_what_an_upstream_asks_reaches_the_person_and_the_answer_the_upstream(charter: Harness, era: str) -> None:
    person = Person([{"colour": "green"}])
    async with charter.client_as(AGENT, era, person) as client:
        ids = await start(client)
        by_name = await call(client, "every__ask", **ids)
        by_verb = await call(client, "invoke_tool", **ids, tool="every__ask", arguments={})
    assert text(by_name) == "chose green"
    assert "chose green" in text(by_verb)
    assert [form.message for form in person.seen] == ["Which colour?"] * 2
    types = await charter.types(ids["workflow_id"])
    assert (types.count("TOOL_INVOKE"), types.count("TOOL_RESULT")) == (2, 2)


@both_eras
async def test_a_caller_that_cannot_be_asked_answers_cancel_and_is_told(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        result = await call(client, "every__ask", **ids)
    assert "no answer" in text(result)
    assert "Which colour?" in text(result)
    assert "cancel" in text(result)
    assert (await charter.types(ids["workflow_id"])).count("TOOL_RESULT") == 1


async def test_only_the_caller_itself_can_answer_what_its_call_was_asked(charter: Harness) -> None:
    """The sealed state of one principal opens nothing for another, and its answer is taken once."""

    mallory = AGENT.model_copy(update={"id": "mallory"})
    async with (
        charter.client_as(AGENT, person=Person([{"colour": "red"}])) as client,
        charter.client_as(mallory, person=Person(["cancel"])) as other,
    ):
        ids = await start(client)

        async def send(by: Client, state: str | None) -> Any:
            answer: Any = {"action": "accept", "content": {"colour": "red"}}
            return await by.session.call_tool(
                "every__ask",
                dict(ids),
                input_responses=dict.fromkeys(keys, answer) if state else None,
                request_state=state,
                allow_input_required=True,
            )

        keys: list[str] = []
        asked = await send(client, None)
        keys += asked.input_requests
        for by, state in ((other, asked.request_state), (client, "v1.forged")):
            with pytest.raises(MCPError, match="requestState"):
                await send(by, state)
        assert text(await send(client, asked.request_state)) == "chose red"
        assert code(await send(client, asked.request_state)) == "not_waiting"
    assert (await charter.types(ids["workflow_id"])).count("TOOL_INVOKE") == 1


# -- listing


@both_eras
async def test_the_listing_of_governed_tools_can_be_turned_off_and_the_road_stays(charter: Harness, era: str) -> None:
    charter.settings = DoorSettings(list_governed_tools=False, request_state_keys=charter.state_keys)
    async with charter.client_as(AGENT, era) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == OWN
        ids = await start(client)
        result = await call(client, "invoke_tool", **ids, tool="every__add", arguments={"parts": [1]})
    assert result.structured_content["structured"]["total"] == 1


@both_eras
async def test_the_listing_is_in_a_stable_order(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        first = [tool.name for tool in (await client.list_tools()).tools]
    async with charter.client_as(AGENT, era) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == first
    assert first[len(OWN) :] == sorted(first[len(OWN) :])
    assert "casebook__read_note" in first


async def test_a_long_listing_comes_in_pages(tmp_path: Path, shared: Upstreams) -> None:
    async with running_charter(tmp_path, shared=shared) as charter:
        tool = charter.gate.parts.tools.all()[0]
        many = tuple(tool.model_copy(update={"name": f"many__t{n:05}"}) for n in range(PAGE + 5))
        charter.gate.parts.tools.all = lambda: many  # type: ignore[method-assign]
        async with charter.client_as(AGENT) as client:
            first = await client.list_tools()
            assert len(first.tools) == PAGE
            second = await client.list_tools(cursor=first.next_cursor)
            assert second.next_cursor is None
            assert len(first.tools) + len(second.tools) == len(many) + len(OWN)
            with pytest.raises(Exception, match="cursor"):
                await client.list_tools(cursor="bm9uc2Vuc2U=")


NOT_FOR_AGENT_2 = """
@id("not-for-agent-2")
@reason("Not for this agent.")
forbid (principal == Charter::Agent::"agent-2", action in Charter::Action::"tool.invoke", resource)
when { resource.risk == "high" };
"""


@both_eras
async def test_tools_that_a_principal_could_never_use_are_neither_listed_nor_described(
    tmp_path: Path, shared: Upstreams, era: str
) -> None:
    policies = shipped_and(authorise=NOT_FOR_AGENT_2)
    async with running_charter(tmp_path, shared=shared, policies=policies) as charter:
        seen: dict[str, set[str]] = {}
        for principal in (AGENT, LONELY):
            async with charter.client_as(principal, era) as client:
                listed = {tool.name for tool in (await client.list_tools()).tools}
                described = await call(client, "describe_tools", **await start(client))
                seen[principal.id] = {tool["name"] for tool in described.structured_content["tools"]}
                assert seen[principal.id] <= listed
                assert ("casebook__delete_note" in listed) is (principal is AGENT)
    assert seen["agent-1"] - seen["agent-2"] == {"casebook__delete_note", "casebook__send_notice"}
