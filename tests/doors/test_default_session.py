"""The default template played as its own words say: nothing that it tells a model to do may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from charter.manifests.templates import bundled_templates, load_template
from charter.model.base import JsonObject
from charter.model.template import Template
from tests.doors.calls import ERAS, call, code, start, text
from tests.support import AGENT, Harness, Upstreams, running_charter

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("era", ERAS)]

WANTS_MORE = Template.model_validate(
    {
        "name": "wants-more",
        "version": "1",
        "steps": [
            {
                "id": "work",
                "type": "agent",
                "instructions": "Work.",
                "allowed_tools": ["*"],
                "output_schema": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
            }
        ],
    }
)

MISFITS: tuple[JsonObject, ...] = (
    {},
    {"output": None},
    {"output": 3},
    {"output": {}},
    {"output": {"summary": 1}, "summary": "x"},
)


@pytest.fixture
async def session(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Harness]:
    """A Charter with the template that a new installation starts by default."""
    text = bundled_templates()["governed-session"]
    found = load_template(text, "governed-session.yaml")
    async with running_charter(tmp_path, shared=shared, templates=(found, WANTS_MORE)) as harness:
        yield harness


async def test_the_default_session_goes_as_its_instructions_say(session: Harness, era: str) -> None:
    async with session.client_as(AGENT, era) as client:
        started = await call(client, "start_workflow", purpose="Tidy up", input={"goal": "See what there is."})
        told = started.structured_content
        ids = {name: told[name] for name in ("workflow_id", "agent_invocation_id")}
        assert "call complete_step with a summary" in told["invocations"][0]["instructions"]
        described = await call(client, "describe_tools", **ids)
        assert "casebook__list_notes" in text(described)
        assert not (await call(client, "casebook__list_notes", **ids)).is_error
        write = await call(client, "casebook__write_note", **ids, name="a", text="x")
        assert code(write) == "approval_required"
        asked = await call(client, "request_approval", **ids, proposal_id=write.structured_content["proposal_id"])
        assert asked.structured_content["approval_status"] == "pending"
        done = await call(client, "complete_step", **ids, summary="Looked; the note waits for a person.")
        assert not done.is_error, text(done)
    found = done.structured_content["workflow"]
    assert found["status"] == "completed"
    assert found["output"] == {"summary": "Looked; the note waits for a person."}


async def test_an_output_that_does_not_fit_says_where_its_schema_stands(session: Harness, era: str) -> None:
    async with session.client_as(AGENT, era) as client:
        ids = await start(client)
        for arguments in MISFITS:
            refused = await call(client, "complete_step", **ids, **arguments)
            assert code(refused) == "invalid_arguments"
            assert "get_workflow" in refused.structured_content["next_step"]
            assert "describe_tools" not in text(refused)
            assert refused.structured_content["detail"]["problems"]
        where = await call(client, "get_workflow", workflow_id=ids["workflow_id"])
        assert where.structured_content["invocations"][0]["output_schema"]["required"] == ["summary"]
        done = await call(client, "complete_step", **ids, output={"summary": "this"}, summary="not this")
    assert done.structured_content["workflow"]["output"] == {"summary": "this"}


async def test_a_summary_is_no_output_where_the_schema_wants_something_else(session: Harness, era: str) -> None:
    async with session.client_as(AGENT, era) as client:
        ids = await start(client, template="wants-more")
        refused = await call(client, "complete_step", **ids, summary="done")
        assert code(refused) == "invalid_arguments"
        assert "is missing" in refused.structured_content["message"]
        assert "text" in refused.structured_content["detail"]["problems"][0]["message"]
        done = await call(client, "complete_step", **ids, output={"text": "t"}, summary="done")
    assert done.structured_content["workflow"]["status"] == "completed"
