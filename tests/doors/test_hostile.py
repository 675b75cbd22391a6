"""Hostile input at the MCP door: refused with a clear error, and nothing changes (issue 2, section 9; guarantee 10)."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import InputRequiredResult

from charter.errors import Unauthenticated
from charter.server.mcp import DoorSettings, build_mcp_server
from tests.doors.calls import ERAS, call, code, start, text
from tests.doors.test_approvals import MEDIUM, decisions, new_workflow, pending, propose
from tests.support import AGENT, CAROL, Harness, Person, confirms

pytestmark = pytest.mark.anyio
both_eras = pytest.mark.parametrize("era", ERAS)
YES: Any = {"answer": {"action": "accept", "content": {"decision": "approve"}}}


def deep(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"a": value}
    return value


MALFORMED: list[tuple[str, dict[str, Any], str]] = [
    ("start_workflow", {}, "purpose"),
    ("start_workflow", {"purpose": "x", "kind": "start_workflow"}, "kind"),
    ("start_workflow", {"purpose": "x" * 501}, "purpose"),
    ("start_workflow", {"purpose": {"$ne": None}}, "purpose"),
    ("start_workflow", {"purpose": "x", "input": []}, "input"),
    ("start_workflow", {"purpose": "x", "tenant": "other"}, "tenant"),
    ("get_workflow", {}, "workflow_id"),
    ("get_workflow", {"workflow_id": ["wf"]}, "workflow_id"),
    ("describe_tools", {"workflow_id": "w", "agent_invocation_id": None}, "agent_invocation_id"),
    ("request_approval", {"workflow_id": "w", "agent_invocation_id": "i"}, "proposal_id"),
    ("propose_action", {"workflow_id": "w", "agent_invocation_id": "i", "tool": 1, "arguments": "{}"}, "tool"),
    ("invoke_tool", {"workflow_id": "w", "agent_invocation_id": "i", "arguments": [1]}, "arguments"),
    ("invoke_tool", {"workflow_id": "w", "agent_invocation_id": "i", "principal": {"kind": "human"}}, "principal"),
    ("cancel_workflow", {"workflow_id": "w", "reason": 1}, "reason"),
    *(
        ("start_workflow", {"purpose": "x"} | {name: text}, name)
        for name in ("purpose", "case_id", "idempotency_key")
        for text in ("red \x1b[31m", "two\nlines", "reversed \u202e", "hid\u200bden", "nul\x00")
    ),
    *(
        (tool, {"workflow_id": "w", "agent_invocation_id": "i", "proposal_id": "p"} | {name: text}, name)
        for tool, names in (
            ("request_approval", ("workflow_id", "agent_invocation_id", "proposal_id")),
            ("invoke_tool", ("workflow_id", "proposal_id")),
        )
        for name in names
        for text in ("wf_\x1b[2J", "x" * 201, "wf_\u0430")
    ),
    ("get_workflow", {"workflow_id": "w" * 100_000}, "workflow_id"),
    ("get_workflow", {"workflow_id": "wf_\x1b[2J"}, "workflow_id"),
    ("cancel_workflow", {"workflow_id": "w" * 100_000}, "workflow_id"),
]


@pytest.mark.guarantee("G10")
@both_eras
@pytest.mark.parametrize(("tool", "arguments", "field"), MALFORMED)
async def test_malformed_arguments_are_refused_naming_the_field(
    charter: Harness, era: str, tool: str, arguments: dict[str, Any], field: str
) -> None:
    async with charter.client_as(AGENT, era) as client:
        result = await client.call_tool(tool, arguments)
    assert code(result) == "invalid_input"
    assert field in result.structured_content["detail"]["fields"]
    assert len(text(result)) < 600, "what came in is not sent back"
    assert text(result).replace("\n", "").isprintable()
    assert await charter.store.tenants() == []


@pytest.mark.guarantee("G10")
@both_eras
@pytest.mark.parametrize("value", [deep(100), "x" * 2_000_000, [0] * 600_000], ids=["deep", "long", "wide"])
async def test_giant_and_deep_arguments_are_refused(charter: Harness, era: str, value: Any) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        before = await charter.types(ids["workflow_id"])
        by_name = await call(client, "every__echo", **ids, value=value)
        by_verb = await call(client, "invoke_tool", **ids, tool="every__echo", arguments={"value": value})
    assert code(by_name) == code(by_verb) == "invalid_arguments"
    assert len(text(by_name)) < 1000
    assert await charter.types(ids["workflow_id"]) == before


async def test_text_that_is_no_text_is_refused(charter: Harness) -> None:
    """A lone surrogate cannot stand in JSON that others read; in memory it gets as far as the door."""
    async with charter.client_as(AGENT) as client:
        ids = await start(client)
        assert code(await call(client, "every__echo", **ids, value="\ud800")) == "invalid_arguments"
        assert code(await call(client, "get_workflow", workflow_id="\ud800")) in ("invalid_input", "unstorable")
        named = await client.call_tool("get_workflow", {"\ud800": 1})
        assert code(named) == "invalid_input"


@both_eras
async def test_an_unknown_tool_is_an_error_that_a_model_can_read(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        for name in ("nobody__knows", "approve", "decide_approval", "record_outcome", "x" * 10_000):
            result = await client.call_tool(name, {})
            assert code(result) == "unknown_tool"
            assert len(text(result)) < 500


@both_eras
async def test_an_agent_cannot_bring_an_answer_that_nobody_was_asked_for(charter: Harness, era: str) -> None:
    person = Person(["decline"])
    async with charter.client_as(AGENT, era, person) as client:
        ids = await start(client)
        proposal_id = await propose(client, ids)
        arguments = {**ids, "proposal_id": proposal_id}
        await client.call_tool("request_approval", arguments)
        try:
            result = await client.session.call_tool(
                "request_approval", arguments, input_responses=YES, allow_input_required=True
            )
        except MCPError:
            assert era == "legacy"
            return
        assert not isinstance(result, InputRequiredResult)
        assert result.structured_content["approval_status"] == "pending"
    assert await decisions(charter, ids) == []


async def first_round(client: Client, arguments: dict[str, str]) -> str:
    """The sealed state of the question that request_approval puts."""
    asked = await client.session.call_tool("request_approval", dict(arguments), allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    assert asked.request_state is not None
    return asked.request_state


async def second_round(client: Client, arguments: dict[str, str], state: str, tool: str = "request_approval") -> Any:
    return await client.session.call_tool(
        tool, dict(arguments), input_responses=YES, request_state=state, allow_input_required=True
    )


@pytest.mark.guarantee("G10")
async def test_tampered_echoed_and_borrowed_state_is_refused(charter: Harness) -> None:
    mallory = AGENT.model_copy(update={"acts_for": "mallory"})
    async with (
        charter.client_as(AGENT, person=Person(["cancel"])) as client,
        charter.client_as(mallory, person=Person(["cancel"])) as other,
    ):
        ids = await start(client)
        arguments = {**ids, "proposal_id": await propose(client, ids)}
        state = await first_round(client, arguments)
        second = await propose(client, ids, (MEDIUM[0], {"name": "other", "text": "other"}))
        attempts = [
            (client, arguments, state[:-3] + ("abc" if not state.endswith("abc") else "xyz"), "request_approval"),
            (client, arguments, "v1." + "A" * 80, "request_approval"),
            (client, arguments, '{"kind":"approval","memo":{}}', "request_approval"),
            (client, {**arguments, "proposal_id": second}, state, "request_approval"),
            (client, arguments, state, "get_workflow"),
            (other, arguments, state, "request_approval"),
        ]
        for by, sent, used, tool in attempts:
            with pytest.raises(MCPError, match="requestState"):
                await second_round(by, sent, used, tool)
        assert await decisions(charter, ids) == []
        done = await second_round(client, arguments, state)
        assert done.structured_content["approval_status"] == "approved"
        again = await second_round(client, arguments, state)
        assert again.structured_content["approval_status"] == "approved"
    assert len(await decisions(charter, ids)) == 1


async def test_state_of_one_prompt_confirms_no_other_and_only_once(charter: Harness) -> None:
    ids = await new_workflow(charter)
    approval_id, _ = await pending(charter, ids)
    confirmed: Any = {"answer": {"action": "accept", "content": {"decision_1": "approve"}}}
    async with charter.client_as(CAROL, person=Person(["cancel"])) as client:
        asked = await client.session.get_prompt("approve", {"approval_id": approval_id}, allow_input_required=True)
        assert isinstance(asked, InputRequiredResult)

        async def confirm(prompt: str, wanted: str) -> Any:
            return await client.session.get_prompt(
                prompt,
                {"approval_id": wanted},
                input_responses=confirmed,
                request_state=asked.request_state,
                allow_input_required=True,
            )

        for prompt, wanted in (("reject", approval_id), ("approve", f"{approval_id},{approval_id}")):
            with pytest.raises(MCPError, match="requestState"):
                await confirm(prompt, wanted)
        await confirm("approve", approval_id)
        with pytest.raises(MCPError) as refused:
            await confirm("approve", approval_id)
        assert refused.value.error.data["code"] == "already_decided"
    assert len(await decisions(charter, ids)) == 1


async def test_state_sealed_with_another_key_is_refused_and_with_a_shared_one_taken_by_another_worker(
    charter: Harness,
) -> None:
    foreign = build_mcp_server(charter.gate, charter.queries, principal_of=lambda _: AGENT, settings=DoorSettings())
    async with (
        charter.client_as(AGENT, person=Person(["cancel"])) as one,
        charter.client_as(AGENT, person=Person(["cancel"])) as two,
        charter.client_as(AGENT, person=Person(["cancel"]), server=foreign) as stranger,
    ):
        ids = await start(one)
        arguments = {**ids, "proposal_id": await propose(one, ids)}
        state = await first_round(one, arguments)
        with pytest.raises(MCPError, match="requestState"):
            await second_round(stranger, arguments, state)
        assert (await second_round(two, arguments, state)).structured_content["approval_status"] == "approved"


@both_eras
async def test_who_shows_no_credential_gets_nothing(charter: Harness, era: str) -> None:
    def nobody(_: Any) -> Any:
        raise Unauthenticated("The request carries no verified credential.")

    server = build_mcp_server(charter.gate, charter.queries, principal_of=nobody)
    async with charter.client_as(AGENT, era, confirms("approve"), server=server) as client:
        assert code(await client.call_tool("start_workflow", {"purpose": "x"})) == "unauthenticated"
        for request in (client.list_tools, client.list_resources):
            with pytest.raises(MCPError) as refused:
                await request()
            assert refused.value.error.data["code"] == "unauthenticated"
        with pytest.raises(MCPError):
            await client.get_prompt("pending_approvals")
        with pytest.raises(MCPError):
            await client.read_resource("charter://approvals/pending")


@pytest.mark.guarantee("G8")
@pytest.mark.guarantee("G10")
@both_eras
async def test_what_nobody_foresaw_is_an_error_with_a_reference_and_without_its_text(
    charter: Harness, era: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> Any:
        raise RuntimeError("".join(("hunter", "2")))

    monkeypatch.setattr(charter.queries, "workflow", broken)
    async with charter.client_as(AGENT, era) as client:
        with caplog.at_level(logging.ERROR):
            result = await call(client, "get_workflow", workflow_id="wf_1")
    assert code(result) == "internal_error"
    assert result.structured_content["detail"]["reference"] in caplog.text
    assert "hunter2" not in text(result) + caplog.text
