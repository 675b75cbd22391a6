"""``agent_actions``, as an agent meets it on both protocol eras."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest

from tests.doors.calls import ERAS, call, code, start, text
from tests.support import AGENT, STRANGER, Harness, Upstreams, running_charter, shipped_and

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ERAS)]

TYPED = """
@id("long-notes") @obligation("require_approval") @approvers("2") @reason("Long names need two.")
permit (principal, action == Charter::Action::"tool.invoke:casebook__read_note", resource)
when { context.input.name like "*-long" } unless { context.approved.contains("any:2") };
"""


@pytest.fixture
async def typed(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Harness]:
    async with running_charter(tmp_path, shared=shared, policies=shipped_and(obligations=TYPED)) as harness:
        yield harness


async def test_it_is_told_by_the_listed_schema_and_in_words(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        [tool] = [tool for tool in (await client.list_tools()).tools if tool.name == "agent_actions"]
        ids = await start(client)
        result = await call(client, "agent_actions", **ids, names=["casebook__write_note", "casebook__list_notes"])
        jsonschema.validate(result.structured_content, tool.output_schema or {})
        [grant] = result.structured_content["invocations"]
        assert {item["name"]: item["may"] for item in grant["tools"]} == {
            "casebook__list_notes": "yes",
            "casebook__write_note": "needs_approval",
        }
        assert "casebook__write_note: needs approval from 1 person (approval_required)" in text(result)
        whole = await call(client, "agent_actions", workflow_id=ids["workflow_id"])
        assert len(whole.structured_content["invocations"][0]["tools"]) > 5


async def test_where_the_policies_look_at_the_arguments_it_depends(typed: Harness, era: str) -> None:
    async with typed.client_as(AGENT, era) as client:
        ids = await start(client)
        result = await call(client, "agent_actions", **ids, names=["casebook__read_note"])
        [item] = result.structured_content["invocations"][0]["tools"]
        assert (item["may"], item["code"]) == ("depends", "arguments")
        assert "propose_action" in item["next_step"]


async def test_bad_input_and_strangers(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        for wrong in ({"names": "all"}, {"agent_invocation_id": ""}, {"agent_invocation_id": None}, {"more": 1}):
            assert code(await call(client, "agent_actions", **{**ids, **wrong})) == "invalid_input"
        assert code(await call(client, "agent_actions")) == "invalid_input"
        nothing = {**ids, "agent_invocation_id": "inv_nothing"}
        assert code(await call(client, "agent_actions", **nothing)) == "no_invocation"
    async with charter.client_as(STRANGER, era) as client:
        assert code(await call(client, "agent_actions", workflow_id=ids["workflow_id"])) == "unknown_workflow"
