"""The lane of plain calls beside the SDK's own transport: the same answers, the same refusals, the same ends."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import anyio
import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from charter.errors import InvalidInput
from charter.model.commands import CompleteStep, StartWorkflow
from charter.server import call_lane
from charter.server.auth import TokenVerifier
from charter.server.http import bearer_backend
from charter.server.keys import Keys
from charter.server.tokens import issue_token
from tests.doors.calls import start
from tests.doors.test_http import Served, keys, served
from tests.support import AGENT, Harness

pytestmark = pytest.mark.anyio
__all__ = ["keys", "served"]

VERSION = "2026-07-28"
LANE = "application/json, text/event-stream"
TRANSPORT = "*/*"
"""The lane takes only what names both types; the SDK's transport takes this just as well."""
PREFIX = "io.modelcontextprotocol/"
META = {
    f"{PREFIX}protocolVersion": VERSION,
    f"{PREFIX}clientInfo": {"name": "test", "version": "1"},
    f"{PREFIX}clientCapabilities": {"elicitation": {"form": {}}},
}


class Taken:
    """How many calls the lane took."""

    def __init__(self) -> None:
        self.calls = 0


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    found, kernel = Taken(), vars(call_lane)["serve_one"]

    def counting(*args: Any, **kwargs: Any) -> Any:
        found.calls += 1
        return kernel(*args, **kwargs)

    monkeypatch.setattr(call_lane, "serve_one", counting)
    return found


def message(name: str, arguments: Any = None, **change: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": arguments if arguments is not None else {}, "_meta": META}
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params} | change


def headers_of(served: Served, accept: str, **more: str) -> dict[str, str]:
    base = {
        "accept": accept,
        "authorization": f"Bearer {served.token()}",
        "content-type": "application/json",
        "mcp-protocol-version": VERSION,
        "mcp-method": "tools/call",
    }
    return base | {key.replace("_", "-"): value for key, value in more.items()}


async def post(served: Served, accept: str, body: Any, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30, trust_env=False) as http:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if isinstance(body, dict) and isinstance(body.get("params"), dict) and "mcp_name" not in headers:
            headers["mcp_name"] = str(body["params"].get("name"))
        return await http.post(served.url, content=content, headers=headers_of(served, accept, **headers))


_IDS = re.compile(r"(wf|inv|prop|appr|evt|eff|cmd|res|sealed)_[0-9a-f-]+|\d{4}-\d\d-\d\dT[0-9:.]+Z")


def seen(response: httpx2.Response) -> tuple[int, str, Any]:
    """Status, type and body, without ids and times."""
    kind = response.headers.get("content-type", "")
    text = _IDS.sub("*", response.text)
    return response.status_code, kind, json.loads(text) if "json" in kind else text


async def both(served: Served, body: Any, **headers: str) -> tuple[int, str, Any]:
    """The same request both ways; they must agree."""
    lane = seen(await post(served, LANE, body, **headers))
    assert lane == seen(await post(served, TRANSPORT, body, **headers))
    return lane


@pytest.fixture
async def ids(served: Served) -> dict[str, str]:
    async with served.client("auto") as client:
        return await start(client)


async def test_a_plain_call_takes_the_lane_and_has_the_transport_s_answer(
    charter: Harness, served: Served, ids: dict[str, str], taken: Taken
) -> None:
    charter.notes.joinpath("case-1.md").write_text("Paid.")
    status, kind, body = await both(served, message("casebook__read_note", {**ids, "name": "case-1"}))
    assert (status, kind, taken.calls) == (200, "application/json", 1)
    assert body["id"] == 7
    assert body["result"]["structuredContent"]["text"] == "Paid."
    assert body["result"]["resultType"] == "complete"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("casebook__read_note", {"name": "case-1"}),  # outside any workflow
        ("casebook__no_such_tool", {}),
        ("get_workflow", {"workflow_id": "wf_none"}),
        ("invoke_tool", {"tool": "casebook__read_note", "arguments": {"name": 7}}),
        ("start_workflow", {"purpose": "x", "surplus": 1}),
        ("start_workflow", {"purpose": 3}),
    ],
)
async def test_what_a_handler_refuses_is_refused_alike(
    served: Served, taken: Taken, name: str, arguments: dict[str, Any]
) -> None:
    status, _, body = await both(served, message(name, arguments))
    assert (status, taken.calls) == (200, 1)
    assert body["result"]["isError"]


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"jsonrpc":"2.0","method":"tools/call","params":{}}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (message("x", id=None), {}, 400),
        (message("x", id=True), {}, 400),
        (message("x", jsonrpc="1.0"), {}, 400),
        (message("x", method="tools/list"), {}, 400),  # the header says another method
        (message("x", params={"name": "x"}), {}, 400),
        (message("x", params={"name": "x", "_meta": {}}), {}, 400),
        (message("x", params={"name": 3, "_meta": META}), {"mcp_name": "3"}, 400),
        (message("x", params={"name": "x", "arguments": [], "_meta": META}), {}, 400),
        (message("x", params={"name": "x", "_meta": META | {f"{PREFIX}clientCapabilities": 3}}), {}, 400),
        (message("x"), {"mcp_name": "y"}, 400),
        (message("x"), {"mcp_method": "tools/list"}, 400),
        (message("x"), {"mcp_protocol_version": "2026-07-29"}, 400),
        (message("x"), {"authorization": "Bearer forged"}, 401),
        (message("x"), {"authorization": ""}, 401),
        (message("x"), {"content_type": "text/plain"}, 400),
        (message("x", {"text": "a" * 20_000_000}), {}, 413),
    ],
)
async def test_what_is_out_of_the_ordinary_is_the_transport_s_affair(
    served: Served, taken: Taken, body: Any, headers: dict[str, str], status: int
) -> None:
    assert (await both(served, body, **headers))[0] == status
    assert taken.calls <= (1 if status == 400 else 0)


async def test_a_token_for_another_server_is_refused_on_either_way(served: Served, taken: Taken) -> None:
    settings = served.settings
    foreign = issue_token(
        served.keys, subject="agent-1", kind="agent", audience="https://other.example/mcp", issuer=settings.local_issuer
    )
    assert (await both(served, message("x"), authorization=f"Bearer {foreign}"))[0] == 401
    assert taken.calls == 0


async def test_large_integers_keep_their_digits(served: Served, ids: dict[str, str], taken: Taken) -> None:
    body = json.dumps(message("every__reflect", {**ids})).replace("{}", f'{{"value": {10**29 + 1}}}').encode()
    await both(served, body, mcp_name="every__reflect")
    assert taken.calls == 1


async def test_a_client_that_leaves_cancels_its_call(charter: Harness, served: Served, ids: dict[str, str]) -> None:
    body = json.dumps(message("every__slow", {**ids, "seconds": 600, "steps": 1})).encode()
    headers = headers_of(served, LANE, mcp_name="every__slow")
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(30, read=0.5), trust_env=False) as http:
        with pytest.raises(httpx2.ReadTimeout):
            await http.post(served.url, content=body, headers=headers)
    with anyio.fail_after(30):
        while "cancelled" not in str(await charter.events(ids["workflow_id"])):  # noqa: ASYNC110 - what is on record
            await anyio.sleep(0.05)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("ping_seconds", [0.01, 30])
async def test_a_call_that_the_end_of_the_server_cuts_off_is_told_not_to_be_repeated(
    charter: Harness, served: Served, keys: Keys, ids: dict[str, str], ping_seconds: float
) -> None:
    """The web server cancels what is still under way after its time, and would answer for it with a bare 500."""
    tasks: list[asyncio.Task[None]] = []

    async def unused(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the lane passed it on")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tasks.append(asyncio.ensure_future(lane(scope, receive, send)))
        await tasks[0]

    backend = bearer_backend(TokenVerifier(served.settings, keys))
    lane = call_lane.CallLane(
        unused, server=served.server, backend=backend, limit_bytes=10_000, ping_seconds=ping_seconds
    )
    body = json.dumps(message("every__slow", {**ids, "seconds": 600, "steps": 1})).encode()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=served.url, timeout=60) as http:
        headers = headers_of(served, LANE, mcp_name="every__slow")
        call = asyncio.ensure_future(http.post(served.url, content=body, headers=headers))
        with anyio.fail_after(30):
            while "TOOL_INVOKE" not in await charter.types(ids["workflow_id"]):  # noqa: ASYNC110 - what is on record
                await anyio.sleep(0.05)
        tasks[0].cancel()
        response = await call
    told = response.text.rpartition("data: ")[2] if ping_seconds < 1 else response.text
    answer = json.loads(told)
    assert response.status_code == (200 if ping_seconds < 1 else 503)
    assert (answer["id"], answer["error"]["data"]["code"]) == (7, "stopping")
    assert "Do not repeat" in answer["error"]["message"]


async def test_a_long_silence_is_filled_with_pings(served: Served, keys: Keys, ids: dict[str, str]) -> None:
    async def unused(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("the lane passed it on")

    lane = call_lane.CallLane(
        unused,
        server=served.server,
        backend=bearer_backend(TokenVerifier(served.settings, keys)),
        limit_bytes=10_000,
        ping_seconds=0.01,
    )
    body = json.dumps(message("every__slow", {**ids, "seconds": 0.3, "steps": 2})).encode()
    transport = httpx2.ASGITransport(app=lane)
    async with httpx2.AsyncClient(transport=transport, base_url=served.url, timeout=30) as http:
        headers = headers_of(served, LANE, mcp_name="every__slow")
        response = await http.post(served.url, content=body, headers=headers)
    assert response.headers["content-type"] == "text/event-stream"
    frames = response.text.split("\r\n\r\n")
    assert frames[0] == ": ping"
    assert frames[-1] == ""
    answer = json.loads(frames[-2].removeprefix("event: message\r\ndata: "))
    assert answer["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize("turns", range(5))
async def test_an_answer_that_comes_just_as_the_pings_begin_is_whole(turns: int) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    answer = call_lane._Answer(send, 0)
    with answer.kept_alive():
        for _ in range(turns):
            await asyncio.sleep(0)
    await answer.finish(200, b"{}")
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert sent[0]["type"] == "http.response.start"
    streams = (b"content-type", b"text/event-stream") in sent[0]["headers"]
    assert sent[-1]["body"] == (b"event: message\r\ndata: {}\r\n\r\n" if streams else b"{}")
    assert not sent[-1].get("more_body")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    params=st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["get_workflow", "casebook__read_note", "x"]) | _JSON,
            "arguments": _JSON,
            "_meta": st.just(META) | _JSON,
            "requestState": _JSON,
            "inputResponses": _JSON,
            "surplus": _JSON,
        },
    ),
    envelope=st.fixed_dictionaries({}, optional={"id": _JSON, "jsonrpc": _JSON, "more": _JSON}),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_envelope_is_judged_alike(served: Served, params: dict[str, Any], envelope: dict[str, Any]) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params} | envelope
    name = params.get("name")
    await both(served, body, mcp_name=name if isinstance(name, str) and name.isascii() and name.isprintable() else "x")


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", "-1e400"])
async def test_a_number_that_is_none_is_refused(
    charter: Harness, served: Served, ids: dict[str, str], number: str
) -> None:
    before = await charter.types(ids["workflow_id"])
    begin = {"purpose": "x", "template": "governed-session", "input": {"amount": "HERE"}}
    finish = {**ids, "output": {"summary": "Done.", "amount": ["HERE"]}}
    use = {**ids, "tool": "casebook__read_note", "arguments": {"name": "case-1", "amount": "HERE"}}
    for name, arguments in (("start_workflow", begin), ("complete_step", finish), ("invoke_tool", use)):
        body = json.dumps(message(name, arguments)).replace('"HERE"', number).encode()
        status, _, answer = await both(served, body, mcp_name=name)
        assert (status == 400 and answer["error"]) or answer["result"]["isError"]
    assert await charter.types(ids["workflow_id"]) == before
    log = await charter.store.log("default", 0, 100)
    assert {event.stream for event in log} == {ids["workflow_id"]}


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
async def test_no_run_goes_by_a_number_that_its_record_cannot_have(
    charter: Harness, ids: dict[str, str], number: float
) -> None:
    """Whatever door let it in: pydantic writes null for it, and a replay would decide otherwise than was decided."""
    with pytest.raises(InvalidInput, match="not finite"):
        await charter.gate.handle(
            AGENT, StartWorkflow(template="governed-session", purpose="x", input={"amount": number})
        )
    workflow, invocation = ids["workflow_id"], ids["agent_invocation_id"]
    output = {"summary": "Done.", "amount": [number]}
    finish = CompleteStep(workflow_id=workflow, agent_invocation_id=invocation, output=output)
    with pytest.raises(InvalidInput, match="not finite"):
        await charter.gate.handle(AGENT, finish)
    log = await charter.store.log("default", 0, 100)
    assert {event.stream for event in log} == {ids["workflow_id"]}
    assert "STEP_COMPLETED" not in await charter.types(ids["workflow_id"])
