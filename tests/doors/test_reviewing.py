"""Agents that may approve see two tools more, and people may hand a decision on in a prompt."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from charter.model.principal import Principal
from charter.model.template import Template
from tests.doors.calls import ERAS, call, code, text
from tests.doors.test_approvals import said
from tests.support import (
    AGENT,
    CAROL,
    PAT,
    SESSION,
    Harness,
    Upstreams,
    confirms,
    running_charter,
    shipped_and,
)

pytestmark = pytest.mark.anyio

REVIEWER = Principal(id="agent-9", kind="agent", roles=("agent-approver",), acts_for="rita")
DAVE = Principal(id="dave", kind="human")
GRANT = """
@id("small") permit (principal is Charter::Agent, action == Charter::Action::"approval.decide", resource)
when { context has step_id && context.step_id == "agree" && resource.hasTag("cents") && resource.getTag("cents") <= 100 };
@id("see") permit (principal is Charter::Agent, action == Charter::Action::"approval.read", resource)
when { principal.roles.contains("agent-approver") };
"""
REFUND = Template.model_validate(
    {
        "name": "refund",
        "version": "1",
        "steps": [
            {
                "id": "agree",
                "type": "approval",
                "question": "Pay?",
                "show": {"cents": "{{ trigger.cents }}"},
                "amounts": ["cents"],
            }
        ],
    }
)


@pytest.fixture
async def granting(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Harness]:
    policies = shipped_and(authorise=GRANT)
    async with running_charter(tmp_path, shared=shared, templates=(SESSION, REFUND), policies=policies) as harness:
        yield harness


async def refund(charter: Harness, cents: int) -> None:
    async with charter.client_as(AGENT) as client:
        result = await call(client, "start_workflow", template="refund", purpose="Pay", input={"cents": cents})
        assert not result.is_error, text(result)


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_that_may_decides_what_it_saw_and_says_why(granting: Harness, era: str) -> None:
    await refund(granting, 100)
    await refund(granting, 101)
    async with granting.client_as(REVIEWER, era) as client:
        listed = {tool.name for tool in (await client.list_tools()).tools}
        assert {"approvals_to_decide", "decide_approval"} <= listed
        found = await call(client, "approvals_to_decide")
        (waiting,) = found.structured_content["approvals"]
        request = waiting["request"]
        answer = {"approval_id": request["approval_id"], "digest": request["digest"], "decision": "approve"}
        assert code(await call(client, "decide_approval", **answer)) == "invalid_input"
        assert code(await call(client, "decide_approval", **answer, reasoning=" ")) == "reasoning_required"
        assert code(await call(client, "decide_approval", **{**answer, "decision": "edit"}, reasoning="x"))
        other = {**answer, "digest": "sha256:other"}
        assert code(await call(client, "decide_approval", **other, reasoning="Fine.")) == "digest_mismatch"
        done = await call(client, "decide_approval", **answer, reasoning="It is little.")
        assert done.structured_content["status"] == "approved", text(done)
        assert (await call(client, "approvals_to_decide")).structured_content["approvals"] == []


async def test_nobody_else_sees_or_can_call_them(granting: Harness, charter_as_shipped: Harness) -> None:
    for harness, caller in ((granting, AGENT), (granting, PAT), (charter_as_shipped, REVIEWER)):
        async with harness.client_as(caller) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
            assert not {"approvals_to_decide", "decide_approval"} & listed
            assert code(await call(client, "approvals_to_decide")) == "unknown_tool"


@pytest.fixture
async def charter_as_shipped(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Harness]:
    (tmp_path / "other").mkdir()
    async with running_charter(tmp_path / "other", shared=shared) as harness:
        yield harness


async def test_a_person_hands_a_decision_on_in_a_prompt(granting: Harness) -> None:
    await refund(granting, 5000)
    async with granting.client_as(CAROL, person=confirms("delegate")) as client:
        waiting = said(await client.get_prompt("pending_approvals"))
        approval_id = next(word for word in waiting.replace("\n", " ").split() if word.startswith("appr_"))
        told = said(await client.get_prompt("delegate", {"approval_id": approval_id, "to": "dave"}))
        assert "dave" in told
    async with granting.client_as(DAVE, person=confirms("approve")) as client:
        assert "approved" in said(await client.get_prompt("approve", {"approval_id": approval_id}))
