"""Signals over HTTP: real tokens, real sockets, one road through the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import orjson
import pytest

from charter.gate.outgoing import Outlet
from charter.model.template import Template
from charter.server.auth import TokenVerifier, current_principal
from charter.server.http import bind, build_http_app, serve_http
from charter.server.keys import Keys, create_keys
from charter.server.mcp import DoorSettings, build_mcp_server
from charter.server.settings import Settings, load_settings
from charter.server.signals_http import ingestion_route
from charter.server.signals_stream import stream_route
from charter.server.tokens import issue_token
from charter.store.port import Filter, Page
from tests.support import Harness, Upstreams, running_charter

pytestmark = pytest.mark.anyio
THANKS = Template.model_validate(
    {
        "name": "thanks",
        "version": "1",
        "on_signal": [{"type": "invoice.paid"}],
        "steps": [{"id": "work", "type": "agent"}],
    }
)
PAID: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1",
    "source": "/billing",
    "type": "invoice.paid",
    "data": {"no": 7},
}
EVENT, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


class Door:
    def __init__(self, http: httpx2.AsyncClient, url: str, settings: Settings, keys: Keys, charter: Harness) -> None:
        self.http, self.url, self.settings, self.keys, self.charter = http, url, settings, keys, charter

    @property
    def issuers(self) -> str:
        """Where RFC 9728 metadata says who issues tokens."""
        return (
            f'resource_metadata="{self.settings.resource.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")}"'
        )

    def token(self, *roles: str, kind: Any = "service") -> str:
        audience, issuer = self.settings.audience, self.settings.local_issuer
        return issue_token(self.keys, subject="relay", kind=kind, roles=roles, audience=audience, issuer=issuer)

    async def post(self, body: Any, media: str = EVENT, token: str | None = None, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        bearer = {"authorization": f"Bearer {token or self.token('signals')}"}
        return await self.http.post(self.url, content=content, headers={"content-type": media, **bearer, **headers})

    async def listen(self, count: int, query: str = "", *roles: str, **headers: str) -> list[dict[str, str]]:
        """The next events of the stream."""
        found: list[dict[str, str]] = []
        bearer = {"authorization": f"Bearer {self.token(*(roles or ('auditor',)))}"}
        with anyio.fail_after(30):
            async with self.http.stream("GET", self.url + query, headers={**bearer, **headers}) as answer:
                assert answer.headers["content-type"].startswith("text/event-stream")
                lines = answer.aiter_lines()
                async for line in lines:
                    name, _, value = line.partition(": ")
                    if name == "id":
                        found.append({})
                    if name in ("id", "event", "data"):
                        found[-1][name] = value
                    if not line and len(found) == count:
                        break
        return found

    async def runs(self) -> int:
        return len((await self.charter.store.workflows("default", Filter(), Page()))[0])


@pytest.fixture
async def door(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Door]:
    keys = create_keys(tmp_path / "keys")
    configured = load_settings(
        environ={"CHARTER_SERVER_PORT": "0", "CHARTER_SERVER_REQUEST_LIMIT_BYTES": "200000"}, cwd=Path("/")
    )
    listening = bind(configured)
    settings = configured.listening_on(listening.getsockname()[1])
    stop = anyio.Event()
    async with running_charter(tmp_path, shared=shared, templates=(THANKS,)) as charter:
        served = DoorSettings(request_state_keys=charter.state_keys)
        server = build_mcp_server(
            charter.gate, charter.queries, principal_of=lambda _: current_principal(), settings=served
        )
        routes = [ingestion_route(charter.gate, settings), stream_route(Outlet(charter.gate), settings)]
        app = build_http_app(server, settings=settings, verifier=TokenVerifier(settings, keys), extra_routes=routes)
        async with anyio.create_task_group() as tasks, httpx2.AsyncClient(timeout=30, trust_env=False) as http:

            async def run() -> None:
                await serve_http(app, settings, listening=listening, stop=stop)

            tasks.start_soon(run)
            yield Door(http, settings.resource.replace("/mcp", "/signals"), settings, keys, charter)
            stop.set()


async def test_an_event_starts_what_asks_for_it_and_the_same_again_nothing(door: Door) -> None:
    answer = await door.post(PAID)
    assert answer.status_code == 200
    (started,) = answer.json()["started"]
    first = (await door.charter.events(started))[0]
    assert first["data"]["caused_by"] == {
        "signal_type": "invoice.paid",
        "signal_source": "/billing",
        "signal_id": "1",
        "depth": 1,
    }
    again = await door.post(PAID)
    assert (again.status_code, again.json()["status"]) == (200, "duplicate")
    assert await door.runs() == 1


async def test_binary_mode_is_the_same_signal(door: Door) -> None:
    names = {f"ce-{name}": PAID[name] for name in ("specversion", "id", "source", "type")}
    answer = await door.post(PAID["data"], "application/json", **names)
    assert answer.json()["status"] == "received"
    assert (await door.post(PAID)).json()["status"] == "duplicate"


async def test_of_a_batch_each_has_its_own_answer(door: Door) -> None:
    events = [PAID, {**PAID, "id": "2", "type": "workflow.run.completed"}, {**PAID, "id": "3"}, PAID]
    answer = await door.post(events, BATCH)
    assert answer.status_code == 207
    results = answer.json()["results"]
    assert [result.get("status") or result["error"]["code"] for result in results] == [
        "received",
        "signal_reserved",
        "received",
        "duplicate",
    ]
    assert await door.runs() == 2


@pytest.mark.guarantee("G10")
async def test_one_bad_event_in_a_batch_changes_nothing(door: Door) -> None:
    answer = await door.post([PAID, {**PAID, "id": "2", "specversion": "0.3"}], BATCH)
    assert (answer.status_code, answer.json()["code"]) == (422, "cloudevent_invalid")
    assert "event 1" in answer.json()["detail"]
    assert await door.runs() == 0
    assert await door.charter.store.version("default", "tenant:default") == 0


@pytest.mark.guarantee("G2")
async def test_the_policy_decides_and_the_denial_is_on_record(door: Door) -> None:
    for token in (door.token(), door.token("operator", kind="agent")):
        answer = await door.post(PAID, token=token)
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
        assert answer.headers["www-authenticate"] == f'Bearer error="insufficient_scope", {door.issuers}'
        assert answer.json()["next_step"] == "Ask the operator for a policy that permits it to this credential."
    assert await door.charter.types("tenant:default") == ["POLICY_DECISION"] * 2
    assert await door.runs() == 0


async def test_without_a_token_nothing_is_read(door: Door) -> None:
    """RFC 6750, section 3: the answer says what was wrong with a token, and nothing of the kind where there was none."""
    old = issue_token(
        door.keys, subject="r", kind="service", audience="elsewhere", issuer=door.settings.local_issuer, roles=()
    )
    said = 'error="invalid_token", error_description="'
    for token, code, begin in (
        (None, "unauthenticated", ""),
        ("x.y.z", "unauthenticated", said),
        (old, "token_audience", f"{said}The bearer token is not for this server"),
    ):
        headers = {"content-type": EVENT} | ({"authorization": f"Bearer {token}"} if token else {})
        for answer in (
            await door.http.post(door.url, content=b"{}", headers=headers),
            await door.http.get(door.url, headers=headers),
        ):
            assert (answer.status_code, answer.json()["code"]) == (401, code)
            challenge = answer.headers["www-authenticate"]
            assert challenge.startswith(f"Bearer {begin or door.issuers}")
            assert challenge.endswith(door.issuers)
    metadata = await door.http.get(door.issuers.partition('"')[2].rstrip('"'))
    assert metadata.json()["resource"] == door.settings.resource


@pytest.mark.guarantee("G10")
async def test_sizes_and_media_types(door: Door) -> None:
    assert (await door.post(PAID, "application/json")).status_code == 415
    large = await door.post({**PAID, "data": {"text": "x" * 70_000}})
    assert (large.status_code, large.json()["code"]) == (422, "signal_too_large")
    assert (await door.post(b"[" * 300_000)).status_code == 413
    deep = b'{"specversion":"1.0","id":"1","source":"s","type":"t","data":' + b"[" * 90 + b"]" * 90 + b"}"
    assert (await door.post(deep)).status_code == 422
    assert await door.charter.store.version("default", "tenant:default") == 0


async def test_the_stream_goes_on_after_the_last_event_that_was_seen(door: Door) -> None:
    await door.post(PAID)
    first, second = both = await door.listen(2, "?after=-1")
    assert [each["event"] for each in both] == ["workflow.run.started", "workflow.step.opened"]
    event = orjson.loads(first["data"])
    assert event["source"] == f"urn:charter:default:{event['subject']}"
    async with anyio.create_task_group() as tasks:
        later: list[dict[str, str]] = []

        async def follow() -> None:
            later.extend(await door.listen(3, "", **{"last-event-id": first["id"]}))

        tasks.start_soon(follow)
        await door.post({**PAID, "id": "2"})
    assert later[0] == second
    assert int(later[2]["id"]) > int(second["id"])
    only = await door.listen(2, "?after=-1&types=workflow.run.*")
    assert {each["event"] for each in only} == {"workflow.run.started"}


async def test_who_may_not_read_the_record_may_not_listen(door: Door) -> None:
    for roles, status in (((), 403), (("signals",), 403)):
        bearer = {"authorization": f"Bearer {door.token(*roles)}"}
        assert (await door.http.get(door.url, headers=bearer)).status_code == status
    assert (await door.http.get(door.url)).status_code == 401
    bearer = {"authorization": f"Bearer {door.token('auditor')}", "last-event-id": "x"}
    answer = await door.http.get(door.url, headers=bearer)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_event_id")
