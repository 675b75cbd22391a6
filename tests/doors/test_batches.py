"""``invoke_tool`` with several proposals, as an agent meets it on both protocol eras."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from mcp import Client

from charter.model import commands as cmd
from tests.doors.calls import ERAS, call, code, start, text
from tests.support import AGENT, CAROL, Harness, Person

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ERAS)]


async def proposed(client: Client, ids: dict[str, str], tool: str, **arguments: Any) -> str:
    result = await call(client, "propose_action", **ids, tool=tool, arguments=arguments, reason="y")
    assert not result.is_error, text(result)
    return str(result.structured_content["proposal_id"])


async def approved(charter: Harness, client: Client, ids: dict[str, str], **arguments: Any) -> str:
    proposal_id = await proposed(client, ids, "casebook__write_note", **arguments)
    asked = await call(client, "request_approval", **ids, proposal_id=proposal_id)
    decide = cmd.DecideApproval(approval_id=asked.structured_content["approval_id"], decision="approve", channel="cli")
    await charter.gate.handle(CAROL, decide)
    return proposal_id


async def test_a_batch_is_answered_in_its_order_by_the_listed_schema(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        [tool] = [tool for tool in (await client.list_tools()).tools if tool.name == "invoke_tool"]
        ids = await start(client)
        members = [await approved(charter, client, ids, name=name, text=name) for name in ("a", "b")]
        members.append(await proposed(client, ids, "casebook__list_notes"))
        result = await call(client, "invoke_tool", **ids, proposal_ids=members)
    assert not result.is_error, text(result)
    found = result.structured_content
    jsonschema.validate(found, tool.output_schema or {})
    assert (found["succeeded"], found["failed"]) == (3, 0)
    assert [item["proposal_id"] for item in found["results"]] == members
    assert [item["status"] for item in found["results"]] == ["succeeded"] * 3
    assert "3 of 3" in text(result)
    assert all(f"[{index}]" in text(result) for index in range(3))
    assert {path.stem for path in charter.notes.glob("*.md")} == {"a", "b"}


async def test_one_that_is_not_approved_keeps_all_from_running(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        members = [await approved(charter, client, ids, name="a", text="x")]
        members.append(await proposed(client, ids, "casebook__write_note", name="b", text="x"))
        result = await call(client, "invoke_tool", **ids, proposal_ids=members)
        assert code(result) == "batch_not_ready"
        [member] = result.structured_content["detail"]["members"]
        assert (member["index"], member["code"]) == (1, "approval_required")
        assert "request_approval" in member["next_step"]
        assert members[1] in text(result)
    assert list(charter.notes.glob("*.md")) == []


async def test_partial_failure_is_an_error_that_says_what_ran(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        members = [
            await proposed(client, ids, "every__add", parts=[1, 2]),
            await proposed(client, ids, "every__refuse"),
            await proposed(client, ids, "every__huge", size=300_000),
        ]
        result = await call(client, "invoke_tool", **ids, proposal_ids=members)
        assert code(result) == "batch_partly_failed"
        first, second, third = result.structured_content["results"]
        assert (first["structured"]["total"], second["is_error"]) == (3, True)
        assert "The ledger is closed." in text(result)
        assert third["result_ref"].startswith("charter://workflows/")
        again = await call(client, "invoke_tool", **ids, proposal_ids=members[:1])
        assert code(again) == "batch_not_ready"


async def test_a_tool_that_asks_back_within_a_batch_hears_that_nobody_answers(charter: Harness, era: str) -> None:
    person = Person([{"colour": "turquoise"}])
    async with charter.client_as(AGENT, era, person) as client:
        ids = await start(client)
        members = [await proposed(client, ids, tool) for tool in ("every__ask", "casebook__list_notes")]
        result = await call(client, "invoke_tool", **ids, proposal_ids=members)
        asked, listed = result.structured_content["results"]
        assert listed["status"] == "succeeded"
        assert asked["status"] == "succeeded"
        assert "turquoise" not in text(result)
        assert "cancel" in asked["note"]
    assert person.seen == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"proposal_ids": []},
        {"proposal_ids": "prop_1"},
        {"proposal_ids": ["prop_1", "prop_1"]},
        {"proposal_ids": [f"prop_{number}" for number in range(21)]},
        {"proposal_ids": [7]},
        {"proposal_ids": ["prop_1\n"]},
        {"proposal_ids": ["prop_1"], "proposal_id": "prop_1"},
        {"proposal_ids": ["prop_1"], "tool": "casebook__list_notes", "arguments": {}},
        {"proposal_ids": ["prop_1"], "reason": "because"},
    ],
)
async def test_bad_input_changes_nothing(charter: Harness, era: str, wrong: dict[str, Any]) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        before = await charter.types(ids["workflow_id"])
        assert code(await call(client, "invoke_tool", **ids, **wrong)) == "invalid_input"
        assert await charter.types(ids["workflow_id"]) == before


@pytest.mark.guarantee("G1")
async def test_a_batch_without_its_ids_is_denied_on_record(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        assert code(await call(client, "invoke_tool", proposal_ids=["prop_1"])) == "workflow_required"
    assert len(await charter.events("tenant:default")) == 1


async def test_a_wrong_list_is_refused_in_plain_words(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        wrong: list[tuple[list[str], str]] = [([], "At least 1 is required"), (["prop_a"] * 21, "At most 20 are taken")]
        for given, words in (*wrong, (["prop_a", "prop_a"], "a proposal stands here twice")):
            refused = await call(client, "invoke_tool", **ids, proposal_ids=given)
            assert code(refused) == "invalid_input"
            assert refused.structured_content["message"].startswith(f"proposal_ids: {words}")
