"""A tool that is kept for other roles is, to who does not hold them, as unknown as one that nobody has."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client

from tests.doors.calls import ERAS, call, code, start
from tests.support import AGENT, Harness

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ERAS)]

HIDDEN, NOBODYS = "every__environment", "every__environments"
BOOKKEEPER = AGENT.model_copy(update={"id": "books-1", "roles": ("agent", "bookkeeper")})


async def answers(client: Client, name: str, ids: dict[str, str]) -> list[dict[str, Any]]:
    """What is answered to all that can be asked about a tool, with its own name made the same."""
    nowhere = {"workflow_id": "wf_x", "agent_invocation_id": "inv_x"}
    found = []
    for each in (ids, {}, nowhere, {**ids, "agent_invocation_id": "inv_x"}):
        for arguments in ({}, {"more": 1}, {"arguments": 3}):
            reason = {"arguments": arguments, "reason": "To see."}
            found.append(await call(client, "propose_action", **each, tool=name, **reason))
            found.append(await call(client, "invoke_tool", **each, tool=name, **reason))
            found.append(await call(client, name, **each, **arguments))
            found.append(await call(client, name, **each, **arguments, proposal_id="prop_x"))
    assert {code(item) for item in found} == {"unknown_tool"}
    found.append(await call(client, "describe_tools", **ids, names=[name]))
    told = await call(client, "agent_actions", workflow_id=ids["workflow_id"], names=[name])
    assert name not in str(told.structured_content)
    return [without_name(item.model_dump(mode="json"), name) for item in found]


def without_name(value: Any, name: str) -> dict[str, Any]:
    return {"said": str(value).replace(name, "NAME")}


async def test_a_tool_for_other_roles_is_answered_like_one_that_there_is_not(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        assert HIDDEN not in {tool.name for tool in (await client.list_tools()).tools}
        ids = await start(client)
        assert await answers(client, HIDDEN, ids) == await answers(client, NOBODYS, ids)
        told = await call(client, "agent_actions", workflow_id=ids["workflow_id"])
        assert HIDDEN not in str(told.structured_content)
    decided = [item["data"] for item in await charter.events(ids["workflow_id"]) if item["type"] == "POLICY_DECISION"]
    assert "tool_role_required" in {item["code"] for item in decided}, "the record keeps the reason"


async def test_who_holds_the_role_meets_the_tool_as_it_is(charter: Harness, era: str) -> None:
    async with charter.client_as(BOOKKEEPER, era) as client:
        assert HIDDEN in {tool.name for tool in (await client.list_tools()).tools}
        ids = await start(client)
        assert not (await call(client, HIDDEN, **ids)).is_error
        assert code(await call(client, HIDDEN)) == "workflow_required"
