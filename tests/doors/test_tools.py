"""The protocol as an agent meets it (issue 2, section 2), on both protocol eras."""

from __future__ import annotations

import pytest

from tests.doors.calls import ERAS, call, code, start, text
from tests.support import AGENT, STRANGER, Harness

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ERAS)]

OWN = (
    "start_workflow",
    "propose_action",
    "request_approval",
    "invoke_tool",
    "get_workflow",
    "describe_tools",
    "complete_step",
    "cancel_workflow",
    "advance_workflow",
    "agent_actions",
)


async def test_each_tool_has_description_input_schema_output_schema_annotations(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tuple(tools)[: len(OWN)] == OWN
    for name in OWN:
        tool = tools[name]
        assert len(tool.description or "") > 150
        assert tool.title
        assert tool.input_schema["additionalProperties"] is False
        assert all("description" in item for item in tool.input_schema["properties"].values())
        assert tool.output_schema
        assert tool.output_schema["type"] == "object"
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (name in ("get_workflow", "describe_tools", "agent_actions"))


async def test_start_workflow_answers_with_ids_step_and_tools(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        result = await call(client, "start_workflow", template="governed-session", purpose="Look", case_id="c-1")
    found = result.structured_content
    assert found["workflow_id"] in text(result)
    assert found["agent_invocation_id"] in text(result)
    assert (found["current_step"], found["allowed_tools"], found["case_id"]) == ("work", ["*"], "c-1")


async def test_a_start_with_the_same_idempotency_key_is_the_same_workflow(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        first = await start(client, idempotency_key="k")
        assert await start(client, idempotency_key="k") == first
        assert await start(client) != first


async def test_a_whole_story(charter: Harness, era: str) -> None:
    """An agent that reads nothing but the answers gets from the start to the end."""
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        described = await call(client, "describe_tools", **ids)
        by_name = {tool["name"]: tool for tool in described.structured_content["tools"]}
        assert by_name["casebook__list_notes"]["approval"] == "not_needed"
        assert by_name["casebook__write_note"]["approval"] == "needed"
        ran = await call(client, "invoke_tool", **ids, tool="casebook__list_notes", arguments={})
        assert ran.structured_content["status"] == "succeeded"
        assert ran.structured_content["structured"] == {"notes": []}
        where = await call(client, "get_workflow", workflow_id=ids["workflow_id"])
        assert where.structured_content["agent_invocation_id"] == ids["agent_invocation_id"]
        done = await call(client, "complete_step", **ids, output={"notes": 0}, summary="Looked.")
        assert done.structured_content["workflow"]["status"] == "completed"
    assert (await charter.types(ids["workflow_id"]))[-1] == "WORKFLOW_COMPLETED"


async def test_describe_tools_can_be_narrowed_to_names(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        result = await call(client, "describe_tools", **ids, names=["casebook__read_note"])
    assert [tool["name"] for tool in result.structured_content["tools"]] == ["casebook__read_note"]
    assert '"name"' in text(result)


async def test_propose_action_says_permitted_or_needs_approval_or_denied(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        read = await call(client, "propose_action", **ids, tool="casebook__list_notes", arguments={}, reason="To see.")
        assert read.structured_content["decision"] == "permit"
        arguments = {"name": "a", "text": "x"}
        write = await call(
            client, "propose_action", **ids, tool="casebook__write_note", arguments=arguments, reason="y"
        )
        assert write.structured_content["decision"] == "require_approval"
        assert write.structured_content["requirements"][0]["approvers"] == 1
        assert "request_approval" in write.structured_content["next_step"]
        bad = await call(
            client, "propose_action", **ids, tool="casebook__write_note", arguments={"name": 3}, reason="y"
        )
        assert code(bad) == "invalid_arguments"
        unknown = await call(client, "propose_action", **ids, tool="nobody__knows", arguments={}, reason="y")
        assert code(unknown) == "unknown_tool"


@pytest.mark.guarantee("G1")
async def test_a_call_outside_any_workflow_is_denied_with_the_reason_and_on_record(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        result = await call(client, "invoke_tool", tool="casebook__list_notes", arguments={})
        assert code(result) == "workflow_required"
        assert "start_workflow" in text(result)
        own = await call(client, "casebook__list_notes")
        assert code(own) == "workflow_required"
        nowhere = await call(client, "casebook__list_notes", workflow_id="wf_x", agent_invocation_id="inv_x")
        assert nowhere.is_error
    assert len(await charter.events("tenant:default")) == 3


async def test_a_governed_tool_is_called_under_its_own_name_like_any_other(charter: Harness, era: str) -> None:
    charter.notes.joinpath("a.md").write_text("hello")
    async with charter.client_as(AGENT, era) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        schema = tools["casebook__read_note"].input_schema
        assert set(schema["properties"]) == {"workflow_id", "agent_invocation_id", "proposal_id", "name"}
        assert schema["required"] == ["workflow_id", "agent_invocation_id", "name"]
        ids = await start(client)
        result = await call(client, "casebook__read_note", **ids, name="a")
    assert result.structured_content == {"name": "a", "text": "hello"}
    assert result.meta is not None
    assert result.meta["io.charter/workflow_id"] == ids["workflow_id"]
    assert result.meta["io.charter/effect_id"].startswith("eff_")


async def test_missing_approval_is_an_error_that_holds_the_proposal_on_both_roads(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        arguments = {"name": "a", "text": "x"}
        by_verb = await call(client, "invoke_tool", **ids, tool="casebook__write_note", arguments=arguments)
        by_name = await call(client, "casebook__write_note", **ids, **arguments)
    for result in (by_verb, by_name):
        assert code(result) == "approval_required"
        assert result.structured_content["status"] == "pending_approval"
        assert result.structured_content["proposal"]["tool"] == "casebook__write_note"
        assert result.structured_content["proposal_id"] in text(result)
    assert by_verb.structured_content["proposal_id"] == by_name.structured_content["proposal_id"]
    assert not charter.notes.joinpath("a.md").exists()


@pytest.mark.guarantee("G9")
async def test_an_agent_sees_nothing_of_another_tenant(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
    async with charter.client_as(STRANGER, era) as client:
        assert code(await call(client, "get_workflow", workflow_id=ids["workflow_id"])) == "unknown_workflow"
        assert (await call(client, "casebook__list_notes", **ids)).is_error


async def test_cancelling_ends_the_workflow(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        result = await call(client, "cancel_workflow", workflow_id=ids["workflow_id"], reason="Not needed.")
        assert result.structured_content["status"] == "cancelled"
        assert (await call(client, "casebook__list_notes", **ids)).is_error


async def test_a_dry_run_executes_nothing_and_says_so(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        await client.list_tools()
        ids = await start(client, dry_run=True)
        by_verb = await call(client, "invoke_tool", **ids, tool="casebook__list_notes", arguments={})
        assert by_verb.structured_content["status"] == "dry_run"
        by_name = await call(client, "casebook__list_notes", **ids)
        assert by_name.structured_content["charter"]["status"] == "dry_run"
        asked = await call(
            client, "invoke_tool", **ids, tool="casebook__write_note", arguments={"name": "a", "text": "x"}
        )
        assert asked.structured_content["status"] == "pending_approval", "people are asked as they would be"
    assert not charter.notes.joinpath("a.md").exists()


async def test_the_instructions_teach_the_protocol(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        assert client.instructions is not None
        for name in ("start_workflow", "describe_tools", "request_approval", "invoke_tool", "complete_step"):
            assert name in client.instructions
