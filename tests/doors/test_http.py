"""The MCP door behind the HTTP door: real tokens, real sockets, both protocol eras."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ResourceUpdatedNotification

from charter.model.commands import CancelWorkflow
from charter.server.auth import TokenVerifier, current_principal
from charter.server.http import bind, build_http_app, serve_http
from charter.server.keys import Keys, create_keys
from charter.server.mcp import CharterServer, DoorSettings, build_mcp_server
from charter.server.settings import Settings, load_settings
from charter.server.tokens import issue_token
from tests.doors.calls import ERAS, call, code, start, text
from tests.doors.test_approvals import ask, propose
from tests.support import AGENT, Harness, Person, says

pytestmark = pytest.mark.anyio
both_eras = pytest.mark.parametrize("era", ERAS)


class Served:
    """A door on a socket, and tokens for it."""

    def __init__(self, url: str, settings: Settings, keys: Keys, server: CharterServer) -> None:
        self.url, self.settings, self.keys, self.server = url, settings, keys, server

    def token(self, subject: str = "agent-1", **claims: Any) -> str:
        wanted: dict[str, Any] = {"kind": "agent", "roles": ("agent",), "acts_for": "pat"} | claims
        return issue_token(
            self.keys, subject=subject, audience=self.settings.audience, issuer=self.settings.local_issuer, **wanted
        )

    @asynccontextmanager
    async def client(self, era: str, person: Person | None = None, **more: Any) -> AsyncIterator[Client]:
        headers = {"authorization": f"Bearer {more.pop('token', None) or self.token()}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
            transport = streamable_http_client(self.url, http_client=http)
            callback = person.answer if person else None
            async with Client(transport, mode=era, elicitation_callback=callback, **more) as client:
                yield client


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return create_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
async def served(charter: Harness, keys: Keys) -> AsyncIterator[Served]:
    configured = load_settings(environ={"CHARTER_SERVER_PORT": "0"}, cwd=Path("/"))
    listening = bind(configured)
    settings = configured.listening_on(listening.getsockname()[1])
    door = DoorSettings(request_state_keys=charter.state_keys)
    server = build_mcp_server(charter.gate, charter.queries, principal_of=lambda _: current_principal(), settings=door)
    app = build_http_app(server, settings=settings, verifier=TokenVerifier(settings, keys))
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await serve_http(app, settings, listening=listening, stop=stop)

        tasks.start_soon(run)
        yield Served(settings.resource, settings, keys, server)
        stop.set()


@both_eras
async def test_a_whole_story_over_http(charter: Harness, served: Served, era: str) -> None:
    async with served.client(era, says("approve")) as client:
        await client.list_tools()
        ids = await start(client)
        proposal_id = await propose(client, ids)
        assert (await ask(client, ids, proposal_id)).structured_content["approval_status"] == "approved"
        ran = await call(client, "casebook__write_note", **ids, proposal_id=proposal_id, name="case-1", text="Paid.")
        assert ran.structured_content == {"name": "case-1", "created": True, "characters": 5}
        assert code(await call(client, "invoke_tool", **ids, proposal_id=proposal_id)) == "already_used"
    assert charter.notes.joinpath("case-1.md").read_text() == "Paid."


@both_eras
async def test_the_token_says_who_calls_and_never_an_argument(charter: Harness, served: Served, era: str) -> None:
    async with served.client(era) as client:
        ids = await start(client)
    async with served.client(era, token=served.token("agent-9", acts_for="quinn")) as client:
        result = await call(client, "casebook__list_notes", **ids)
        assert code(result) == "invocation_not_live"
    events = await charter.events(ids["workflow_id"])
    assert events[0]["actor"] == {"kind": "agent", "id": "agent-1", "acts_for": "pat"}


@both_eras
async def test_progress_passes_through_over_http(served: Served, era: str) -> None:
    seen: list[float] = []

    async def told(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with served.client(era) as client:
        ids = await start(client)
        arguments = {**ids, "seconds": 0.1, "steps": 3}
        result = await client.call_tool("every__slow", arguments, progress_callback=told)
    assert text(result) == "done"
    assert seen == [0.0, 1.0, 2.0]


async def test_a_change_is_heard_over_http_by_who_listens(charter: Harness, served: Served) -> None:
    async with served.client("auto") as client:
        ids = await start(client)
        uri = f"charter://workflows/{ids['workflow_id']}"
        async with client.listen(resource_subscriptions=[uri]) as events:
            await charter.gate.handle(AGENT, CancelWorkflow(workflow_id=ids["workflow_id"]))
            with anyio.fail_after(60):
                async for event in events:
                    assert getattr(event, "uri", None) == uri
                    break


@pytest.mark.filterwarnings("ignore:resources/.*subscribe is removed")
async def test_a_change_is_heard_over_http_in_an_older_session(charter: Harness, served: Served) -> None:
    heard = anyio.Event()

    async def on_message(message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard.set()

    async with served.client("legacy", message_handler=on_message) as client:
        ids = await start(client)
        await client.subscribe_resource(f"charter://workflows/{ids['workflow_id']}")
        with anyio.fail_after(60):
            while not heard.is_set():
                served.server.notices.watch("default", ids["workflow_id"], ())
                await anyio.sleep(0.05)


@both_eras
async def test_a_tool_that_wants_its_argument_in_a_header_gets_it_checked(served: Served, era: str) -> None:
    async with served.client(era) as client:
        await client.list_tools()
        ids = await start(client)
        result = await call(client, "every__region", **ids, region="eu")
    assert not result.is_error, text(result)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_numbers_that_are_none_are_refused(charter: Harness, served: Served, number: str) -> None:
    async with served.client("auto") as client:
        ids = await start(client)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "every__echo", "arguments": {**ids, "value": "NUMBER"}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = {
        "authorization": f"Bearer {served.token()}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "every__echo",
    }
    before = await charter.types(ids["workflow_id"])
    async with httpx2.AsyncClient(trust_env=False) as http:
        answer = await http.post(served.url, content=body.replace('"NUMBER"', number), headers=headers)
    assert '"isError":true' in answer.text.replace(" ", "") or answer.status_code == 400
    assert await charter.types(ids["workflow_id"]) == before
