"""A tool that is kept for other roles is, to who does not hold them, as unknown as one that nobody has."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import Client

from tests.doors.calls import ERAS, call, code, start
from tests.doors.test_call_lane import LANE, TRANSPORT, message, post
from tests.doors.test_http import Served, keys, served
from tests.support import AGENT, Harness

__all__ = ["keys", "served"]

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


async def test_not_even_by_the_headers_that_its_arguments_are_repeated_in(
    charter: Harness, served: Served, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    """2026-07-28 has some arguments repeated in headers; a call without them is refused before any tool is looked for."""
    names = {"every__region": "every__regions"}
    kept = charter.gate.parts.tools.find("every__region")
    assert kept is not None
    only = kept.model_copy(update={"roles": ("bookkeeper",)})
    find = charter.gate.parts.tools.find
    monkeypatch.setattr(charter.gate.parts.tools, "find", lambda name: only if name == kept.name else find(name))
    for accept in (LANE, TRANSPORT):
        for arguments in ({}, {"region": "eu"}):
            for headers in ({}, {"mcp_param_region": "us"}, {"mcp_param_region": "eu"}):
                told = []
                for name in (kept.name, names[kept.name]):
                    response = await post(served, accept, message(name, arguments), **headers)
                    told.append((response.status_code, without_name(response.json(), name), len(response.headers)))
                assert told[0] == told[1], (accept, arguments, headers)
                assert "unknown_tool" in told[0][1]["said"]
