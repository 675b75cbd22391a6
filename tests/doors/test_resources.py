"""Resources and their change notifications (issue 2, section 2)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp_types import ResourceTemplateReference, ResourceUpdatedNotification, ToolListChangedNotification

from charter.model.commands import CancelWorkflow
from tests.doors.calls import ERAS, call, start
from tests.doors.test_approvals import pending
from tests.support import AGENT, CAROL, LONELY, STRANGER, Harness

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings(
        "ignore:resources/.*subscribe is removed"
    ),  # the older revisions are served all the same
]
both_eras = pytest.mark.parametrize("era", ERAS)
PENDING = "charter://approvals/pending"


async def read(client: Client, uri: str) -> Any:
    (content,) = (await client.read_resource(uri)).contents
    assert content.mime_type == "application/json"
    return json.loads(content.text)  # type: ignore[union-attr]


@both_eras
async def test_a_workflow_its_record_and_what_waits_are_resources(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        approval_id, _ = await pending(charter, ids)
        uri = f"charter://workflows/{ids['workflow_id']}"
        listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert listed == [PENDING, uri]
        assert (await read(client, uri))["workflow_id"] == ids["workflow_id"]
        record = await read(client, f"{uri}/audit")
        assert record["events"] == await charter.events(ids["workflow_id"])
        assert [e["type"] for e in (await read(client, f"{uri}/audit?after=2"))["events"]] == [
            e["type"] for e in record["events"][2:]
        ]
        assert [item["approval_id"] for item in (await read(client, PENDING))["approvals"]] == [approval_id]


@both_eras
async def test_the_templates_are_listed_and_completed(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
        templates = [item.uri_template for item in (await client.list_resource_templates()).resource_templates]
        assert len(templates) == 3
        reference = ResourceTemplateReference(type="ref/resource", uri=templates[0])
        found = await client.complete(reference, {"name": "workflow_id", "value": "wf_"})
        assert found.completion.values == [ids["workflow_id"]]


@pytest.mark.guarantee("G9")
@both_eras
async def test_what_is_not_yours_cannot_be_read(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        ids = await start(client)
    await pending(charter, ids)
    uri = f"charter://workflows/{ids['workflow_id']}"
    for principal in (LONELY, STRANGER):
        async with charter.client_as(principal, era) as client:
            assert [str(r.uri) for r in (await client.list_resources()).resources] == [PENDING]
            assert (await read(client, PENDING))["approvals"] == []
            for path in (uri, f"{uri}/audit", f"{uri}/results/eff_0192f0c1-0000-7000-8000-000000000000"):
                with pytest.raises(MCPError) as refused:
                    await client.read_resource(path)
                assert refused.value.error.data["code"] in ("unknown_workflow", "not_permitted")


@both_eras
@pytest.mark.parametrize(
    "uri", ["charter://workflows/../approvals/pending", "charter://workflows/wf_1", "file:///etc/passwd", "charter://"]
)
async def test_an_unknown_resource_says_which_there_are(charter: Harness, era: str, uri: str) -> None:
    async with charter.client_as(AGENT, era) as client:
        with pytest.raises(MCPError) as refused:
            await client.read_resource(uri)
    assert refused.value.error.code == -32602
    assert PENDING in refused.value.error.data["next_step"]


# -- notices


@asynccontextmanager
async def told(charter: Harness, era: str, *uris: str, principal: Any = AGENT) -> AsyncIterator[list[str]]:
    """What a subscribed client hears: URIs of changed resources, and ``tools``."""
    heard: list[str] = []

    async def on_message(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))
        elif isinstance(message, ToolListChangedNotification):
            heard.append("tools")

    server = charter.door_for(principal)
    async with charter.client_as(principal, era, server=server, message_handler=on_message) as client:
        if era == "legacy":
            for uri in uris:
                await client.subscribe_resource(uri)
            yield heard
            return
        listening = client.listen(tools_list_changed=True, resource_subscriptions=list(uris))
        async with anyio.create_task_group() as tasks, listening as events:

            async def collect() -> None:
                async for event in events:
                    heard.append(getattr(event, "uri", "tools"))

            tasks.start_soon(collect)
            yield heard
            tasks.cancel_scope.cancel()


async def hears(heard: list[str], what: str) -> None:
    with anyio.fail_after(60):
        while what not in heard:  # noqa: ASYNC110 - it waits for a notification
            await anyio.sleep(0.01)


@both_eras
async def test_a_subscriber_hears_of_changes_to_its_workflow_and_to_what_waits(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT) as client:
        ids = await start(client)
        other = await start(client)
    uri = f"charter://workflows/{ids['workflow_id']}"
    async with told(charter, era, uri, f"{uri}/audit", PENDING) as heard:
        await charter.gate.handle(AGENT, CancelWorkflow(workflow_id=other["workflow_id"]))
        await pending(charter, ids)
        for what in (uri, f"{uri}/audit", PENDING):
            await hears(heard, what)
        assert not any(other["workflow_id"] in item for item in heard)


@pytest.mark.guarantee("G9")
@both_eras
async def test_nobody_hears_of_another_tenant_or_of_what_they_may_not_read(charter: Harness, era: str) -> None:
    async with charter.client_as(AGENT) as client:
        ids = await start(client)
    uri = f"charter://workflows/{ids['workflow_id']}"
    if era == "legacy":
        async with charter.client_as(STRANGER, era) as client:
            with pytest.raises(MCPError):
                await client.subscribe_resource(uri)
    subscriptions = (PENDING,) if era == "legacy" else (PENDING, uri)
    async with told(charter, era, *subscriptions, principal=STRANGER) as heard:
        await pending(charter, ids)
        async with charter.client_as(STRANGER) as client:
            theirs = await start(client)
            await call(client, "cancel_workflow", workflow_id=theirs["workflow_id"])
        await anyio.sleep(0.1)
        assert heard == []
    async with told(charter, "auto", uri, principal=LONELY) as heard:
        await charter.gate.handle(
            CAROL.model_copy(update={"roles": ("operator",)}), CancelWorkflow(workflow_id=ids["workflow_id"])
        )
        await anyio.sleep(0.1)
        assert heard == []


@both_eras
async def test_clients_hear_that_the_tools_changed(charter: Harness, era: str) -> None:
    server = charter.door_for(AGENT)
    heard: list[str] = []

    async def on_message(message: Any) -> None:
        if isinstance(message, ToolListChangedNotification):
            heard.append("tools")

    async with charter.client_as(AGENT, era, server=server, message_handler=on_message) as client:
        assert client.server_capabilities.tools is not None
        assert client.server_capabilities.tools.list_changed
        if era == "legacy":
            await client.list_tools()
            server.notices.tools_changed()
            await hears(heard, "tools")
            return
        async with client.listen(tools_list_changed=True) as events:
            server.notices.tools_changed()
            async for _ in events:
                break


async def test_a_client_that_left_is_forgotten(charter: Harness) -> None:
    server = charter.door_for(AGENT)
    async with charter.client_as(AGENT, "legacy", server=server) as client:
        await client.list_tools()
        assert server.notices.wanted()
    assert not server.notices.wanted()


async def test_an_unsubscribed_client_hears_no_more(charter: Harness) -> None:
    heard: list[str] = []

    async def on_message(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.append(str(message.params.uri))

    async with charter.client_as(AGENT, "legacy", message_handler=on_message) as client:
        ids = await start(client)
        await client.subscribe_resource(PENDING)
        await client.unsubscribe_resource(PENDING)
        await pending(charter, ids)
        await anyio.sleep(0.1)
    assert heard == []
