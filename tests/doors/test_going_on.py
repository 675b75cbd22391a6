"""``advance_workflow``, as an agent meets it on both protocol eras."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import jsonschema
import pytest

from charter.model.template import Template
from tests.doors.calls import ERAS, call, code, start, text
from tests.support import AGENT, LONELY, SESSION, STRANGER, Harness, Upstreams, running_charter

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ERAS)]

LATER = Template.model_validate(
    {
        "name": "later",
        "version": "1",
        "steps": [
            {"id": "rest", "type": "wait", "seconds": 60},
            {"id": "work", "type": "agent", "instructions": "Go.", "allowed_tools": ["casebook__list_notes"]},
        ],
    }
)


@pytest.fixture
async def waiting(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Harness]:
    async with running_charter(tmp_path, shared=shared, templates=(SESSION, LATER)) as harness:
        yield harness


async def test_it_says_what_is_missing_and_then_what_it_did(waiting: Harness, era: str) -> None:
    async with waiting.client_as(AGENT, era) as client:
        [tool] = [tool for tool in (await client.list_tools()).tools if tool.name == "advance_workflow"]
        begun = await call(client, "start_workflow", template="later", purpose="Later")
        run = begun.structured_content["workflow_id"]
        early = await call(client, "advance_workflow", workflow_id=run)
        jsonschema.validate(early.structured_content, tool.output_schema or {})
        assert early.structured_content["moved"] == []
        assert early.structured_content["missing"][0]["what"] == "timer"
        assert "Nothing was due" in text(early)
        waiting.clock.ahead += 61_000
        late = await call(client, "advance_workflow", workflow_id=run)
        jsonschema.validate(late.structured_content, tool.output_schema or {})
        assert [item["what"] for item in late.structured_content["moved"]][:2] == ["WORKFLOW_STEP", "WORKFLOW_STEP"]
        assert "AGENT_INVOKE" in [item["what"] for item in late.structured_content["moved"]]
        where = await call(client, "get_workflow", workflow_id=run)
        assert where.structured_content["agent_invocation_id"]


async def test_who_may_not_and_what_is_not_there(waiting: Harness, era: str) -> None:
    async with waiting.client_as(AGENT, era) as client:
        ids = await start(client)
        assert code(await call(client, "advance_workflow", workflow_id="wf_nowhere")) == "unknown_workflow"
        assert code(await call(client, "advance_workflow")) == "invalid_input"
        assert code(await call(client, "advance_workflow", **ids)) == "invalid_input"
        assert not (await call(client, "advance_workflow", workflow_id=ids["workflow_id"])).is_error
    async with waiting.client_as(STRANGER, era) as client:
        assert code(await call(client, "advance_workflow", workflow_id=ids["workflow_id"])) == "unknown_workflow"
    async with waiting.client_as(LONELY, era) as client:
        assert (await call(client, "advance_workflow", workflow_id=ids["workflow_id"])).is_error
