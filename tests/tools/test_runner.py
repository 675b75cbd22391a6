"""The only place where a tool runs: every ending has its status, and nothing of a result is lost on the way."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from charter.manifests.tool_files import Era, HttpConnection, Reference, StdioConnection, UpstreamManifest
from charter.model.effect import EffectOutcome
from charter.model.tool import DryRun, ToolManifest
from charter.tools.connecting import Sources
from charter.tools.registry import Registry
from charter.tools.runner import IDEMPOTENCY_KEY, Runner
from tests.ports import free_port
from tests.tools.servers.everything import PNG, WAV
from tests.tools.support import calls, effect, http, http_process, manifest_of, running, stdio, until

pytestmark = pytest.mark.anyio

WAYS = ["stdio-auto", "stdio-legacy", "http-auto", "http-legacy"]


class World:
    """One upstream, connected, and the runner in front of it."""

    def __init__(self, state: Path, manifest: UpstreamManifest, registry: Registry, runner: Runner) -> None:
        self.state, self.manifest, self.registry, self.runner = state, manifest, registry, runner

    def tool(self, which: str, **changes: Any) -> ToolManifest:
        tool = self.manifest.tool(f"every__{which}")
        assert tool is not None
        return tool.model_copy(update=changes)


@asynccontextmanager
async def connected(way: str, state: Path) -> AsyncIterator[World]:
    transport, _, name = way.partition("-")
    era: Era = "legacy" if name == "legacy" else "auto"
    if transport == "stdio":
        manifest = await manifest_of(stdio(state, era))
        async with running(manifest) as (registry, runner):
            yield World(state, manifest, registry, runner)
        return
    port = free_port()
    with http_process(state, port):
        manifest = await manifest_of(http(port, era))
        async with running(manifest) as (registry, runner):
            yield World(state, manifest, registry, runner)


@pytest.fixture(scope="module", params=WAYS)
async def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with connected(request.param, tmp_path_factory.mktemp("state")) as world:
        yield world


@pytest.fixture
def world(shared: World) -> World:
    (shared.state / "calls.jsonl").unlink(missing_ok=True)
    return shared


async def test_every_kind_of_content_comes_through_unharmed(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("media")))
    assert (outcome.status, outcome.is_error) == ("succeeded", False)
    assert outcome.content == (
        {"type": "text", "text": "text"},
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        {"type": "audio", "data": WAV, "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "test://a", "mimeType": "text/plain", "text": "in"}},
        {"type": "resource_link", "uri": "test://b", "name": "b"},
    )


async def test_structured_content_comes_beside_its_text(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("add"), parts=[1, 2]))
    assert outcome.structured == {"total": 3, "parts": [1, 2]}
    assert json.loads(outcome.content[0]["text"]) == outcome.structured
    assert outcome.duration_us > 0


@pytest.mark.parametrize("value", [None, {"a": None, "b": [1, None, {}]}, "ünï\u2028", 1.5, [], ""])
async def test_arguments_arrive_as_they_were_sent(world: World, value: Any) -> None:
    outcome = await world.runner.run(effect(world.tool("echo"), value=value))
    assert json.loads(outcome.content[0]["text"]) == value


async def test_the_upstream_sees_the_idempotency_key_and_the_trace_but_no_client_token(world: World) -> None:
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "authorization": "Bearer client"}
    await world.runner.run(effect(world.tool("echo"), value=1), trace=trace)
    call = calls(world.state)[-1]
    assert call["meta"][IDEMPOTENCY_KEY] == "key-1"
    assert call["meta"]["traceparent"] == trace["traceparent"]
    assert "authorization" not in json.dumps(call).lower()
    assert len(calls(world.state)) == 1


async def test_an_argument_that_a_gateway_routes_by_travels_as_a_header(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("region"), region="eu-1"))
    assert outcome.content[0]["text"] == "eu-1", outcome
    headers = calls(world.state)[-1]["headers"]
    if headers.get("mcp-protocol-version") == "2026-07-28":
        assert headers["mcp-param-region"] == "eu-1"


async def test_a_tool_that_fails_has_answered(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("refuse")))
    assert (outcome.status, outcome.is_error, outcome.error_code) == ("succeeded", True, None)
    assert "The ledger is closed." in outcome.content[0]["text"]


@pytest.mark.parametrize(
    ("rpc_code", "status", "code"),
    [
        (-32602, "failed", "upstream_refused"),
        (-32601, "failed", "upstream_refused"),
        (-32603, "succeeded", "upstream_error"),
        (-32050, "succeeded", "upstream_error"),
        (-32000, "succeeded", "upstream_error"),
        (-32010, "succeeded", "upstream_error"),
        (-32011, "succeeded", "upstream_error"),
    ],
)
async def test_a_protocol_error_tells_whether_the_tool_ran(world: World, rpc_code: int, status: str, code: str) -> None:
    outcome = await world.runner.run(effect(world.tool("protocol_error"), code=rpc_code))
    assert (outcome.status, outcome.is_error, outcome.error_code) == (status, True, code)
    assert outcome.meta is not None
    assert outcome.meta["io.charter/upstream-error"]["code"] == rpc_code
    assert outcome.meta["io.charter/upstream-error"]["data"] == {"why": "test"}


async def test_progress_passes_through_and_ends_with_the_result(world: World) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        seen.append((done, total, message))

    outcome = await world.runner.run(effect(world.tool("slow"), seconds=0.2, steps=4), progress=progress)
    assert outcome.status == "succeeded"
    assert seen[:2] == [(0.0, 4.0, "step 0"), (1.0, 4.0, "step 1")]
    after = len(seen)
    await anyio.sleep(0.05)
    assert len(seen) == after


def slow_was(state: Path, event: str) -> bool:
    return any(call["tool"] == "slow" and call.get("event") == event for call in calls(state))


async def test_a_time_out_is_unknown_and_stops_the_upstream(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("slow", timeout_seconds=1), seconds=30))
    assert (outcome.status, outcome.error_code) == ("unknown", "upstream_timeout")
    await until(lambda: slow_was(world.state, "cancelled"))
    assert (await world.runner.run(effect(world.tool("echo"), value=1))).status == "succeeded"


async def test_cancelling_the_caller_stops_the_upstream_and_passes_through(world: World) -> None:
    ended: list[str] = []

    async def caller() -> None:
        try:
            await world.runner.run(effect(world.tool("slow"), seconds=30))
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(caller)
        await until(lambda: slow_was(world.state, "started"))
        tasks.cancel_scope.cancel()
    assert ended == ["CancelledError"]
    await until(lambda: slow_was(world.state, "cancelled"))
    assert (await world.runner.run(effect(world.tool("echo"), value=1))).status == "succeeded"


async def test_a_question_comes_back_and_its_answer_goes_in(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("ask")))
    if outcome.input_required is None:  # the handshake era asks within the call; nobody is there to answer
        assert "cancel" in outcome.content[0]["text"]
        return
    (key,) = outcome.input_required["inputRequests"]
    outcome = await world.runner.run(
        effect(world.tool("ask")),
        input_responses={key: {"action": "accept", "content": {"colour": "blue"}}},
        request_state=outcome.input_required["requestState"],
    )
    assert outcome.content[0]["text"] == "chose blue"


@pytest.mark.parametrize("way", WAYS)
async def test_an_upstream_that_dies_in_a_call_leaves_it_unknown(way: str, tmp_path: Path) -> None:
    async with connected(way, tmp_path) as world:
        outcome = await world.runner.run(effect(world.tool("die")))
    assert (outcome.status, outcome.error_code) == ("unknown", "upstream_lost")
    assert [call["tool"] for call in calls(tmp_path)] == ["die"]


async def test_a_dry_run_calls_nothing(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("echo"), value=1).model_copy(update={"dry_run": True}))
    assert (outcome.status, outcome.meta) == ("succeeded", {"io.charter/dry-run": True})
    assert calls(world.state) == []


async def test_many_calls_at_once_each_get_their_own_answer(world: World) -> None:
    answers: dict[int, str] = {}

    async def one(number: int) -> None:
        outcome = await world.runner.run(effect(world.tool("echo"), value=number))
        answers[number] = outcome.content[0]["text"]

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(one, number)
    assert answers == {number: str(number) for number in range(50)}
    assert len(calls(world.state)) == 50


async def test_a_call_decided_under_another_pin_does_not_run(world: World) -> None:
    outcome = await world.runner.run(effect(world.tool("echo", definition_hash="sha256:other"), value=1))
    assert (outcome.status, outcome.error_code) == ("failed", "tool_changed")
    outcome = await world.runner.run(effect(world.tool("echo", name="every__none"), value=1))
    assert (outcome.status, outcome.error_code) == ("failed", "unknown_tool")
    assert calls(world.state) == []


async def test_a_result_over_the_cap_is_an_answer_that_cannot_be_carried(tmp_path: Path) -> None:
    port = free_port()
    with http_process(tmp_path, port):
        manifest = await manifest_of(http(port), max_result_bytes=20_000)
        async with running(manifest) as (_, runner):
            tool = manifest.tool("every__huge")
            assert tool is not None
            outcome = await runner.run(effect(tool, size=100_000))
            assert (outcome.status, outcome.is_error, outcome.error_code) == ("succeeded", True, "result_too_large")
            assert (await runner.run(effect(tool, size=100))).is_error is False


async def test_calls_beyond_the_limit_wait_and_then_give_up_without_being_sent(tmp_path: Path) -> None:
    manifest = await manifest_of(stdio(tmp_path), concurrency=1)
    async with running(manifest) as (_, runner), anyio.create_task_group() as tasks:
        slow, echo = manifest.tool("every__slow"), manifest.tool("every__echo")
        assert slow is not None
        assert echo is not None
        tasks.start_soon(runner.run, effect(slow, seconds=30))
        await until(lambda: slow_was(tmp_path, "started"))
        outcome = await runner.run(effect(echo.model_copy(update={"timeout_seconds": 1}), value=1))
        assert (outcome.status, outcome.error_code) == ("failed", "upstream_busy")
        tasks.cancel_scope.cancel()
    assert all(call["tool"] != "echo" for call in calls(tmp_path))


async def test_a_call_that_waited_for_a_free_place_is_looked_at_again_before_it_leaves(tmp_path: Path) -> None:
    """Its tool was pinned anew while it waited: what was decided is no longer what would run."""
    manifest = await manifest_of(stdio(tmp_path), concurrency=1)
    now = [manifest]
    registry = Registry(lambda: now, Sources({}))
    runner = Runner(registry)
    slow, echo = manifest.tool("every__slow"), manifest.tool("every__echo")
    assert slow is not None
    assert echo is not None
    ended: list[EffectOutcome] = []

    async def waiting() -> None:
        ended.append(await runner.run(effect(echo, value=1)))

    async with registry.running(), anyio.create_task_group() as tasks:
        assert await registry.wait_ready(20) == ()
        first = anyio.CancelScope()
        tasks.start_soon(_in_scope, first, runner.run, effect(slow, seconds=30))
        await until(lambda: slow_was(tmp_path, "started"))
        tasks.start_soon(waiting)
        await until(lambda: registry.get("every__echo").upstream.waiting == 1)
        repinned = echo.model_copy(update={"definition_hash": "sha256:" + "0" * 64})
        now[0] = manifest.model_copy(update={"tools": (slow, repinned)})
        registry.reload()
        first.cancel()
        await until(lambda: bool(ended))
        tasks.cancel_scope.cancel()
    assert (ended[0].status, ended[0].error_code) == ("failed", "tool_changed")
    assert all(call["tool"] != "echo" for call in calls(tmp_path))


async def _in_scope(scope: anyio.CancelScope, function: Any, *arguments: Any) -> None:
    with scope:
        await function(*arguments)


async def test_a_child_sees_only_what_its_manifest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHARTER_SECRET", "not for children")
    connection = stdio(tmp_path).model_copy(update={"env": {"CRM_TOKEN": Reference(env="MY_CRM")}})
    manifest = (await manifest_of(stdio(tmp_path))).model_copy(update={"connection": connection})
    async with running(manifest, sources=Sources({"MY_CRM": "s3cr3t", "OTHER": "x"})) as (_, runner):
        tool = manifest.tool("every__environment")
        assert tool is not None
        seen = (await runner.run(effect(tool))).structured
    assert seen["CRM_TOKEN"] == "s3cr3t"
    assert {"CHARTER_SECRET", "MY_CRM", "OTHER"}.isdisjoint(seen)


async def test_an_http_upstream_gets_charters_own_credential(tmp_path: Path) -> None:
    port = free_port()
    with http_process(tmp_path, port):
        manifest = await manifest_of(http(port))
        connection = HttpConnection(
            url=http(port).url, headers={"Authorization": Reference(secret="crm", prefix="Bearer ")}
        )
        manifest = manifest.model_copy(update={"connection": connection})
        async with running(manifest, sources=Sources({}, {"crm": "own"})) as (_, runner):
            tool = manifest.tool("every__echo")
            assert tool is not None
            await runner.run(effect(tool, value=1))
    assert calls(tmp_path)[-1]["headers"]["authorization"] == "Bearer own"


async def test_previews_come_from_a_tool_without_side_effects(tmp_path: Path) -> None:
    command = ("-m", "charter.bundled.casebook", "--folder", str(tmp_path))
    manifest = await manifest_of(StdioConnection(command=sys.executable, args=command), server="casebook")
    write = manifest.tool("casebook__write_note")
    assert write is not None
    assert write.dry_run == DryRun(tool="preview_write_note")
    async with running(manifest) as (_, runner):
        (tmp_path / "a.md").write_text("old\n")
        preview = await runner.preview(write, {"name": "a", "text": "new\n"})
        assert preview is not None
        assert "│ -old" in preview
        assert "│ +new" in preview
        assert (tmp_path / "a.md").read_text() == "old\n"
        same = await runner.preview(write, {"name": "a", "text": "old\n"})
        assert same == "(The preview is empty: nothing would change.)"
        secret = write.model_copy(update={"sensitive_arguments": ("/text",)})
        withheld = await runner.preview(secret, {"name": "a", "text": "s3cr3t"})
        assert withheld is not None
        assert "sensitive" in withheld
        unsafe = write.model_copy(update={"dry_run": DryRun(tool="delete_note")})
        assert await runner.preview(unsafe, {"name": "a"}) == "(No preview: the preview tool is not available.)"
        assert (tmp_path / "a.md").exists()
        assert await runner.preview(write.model_copy(update={"dry_run": None}), {}) is None


async def test_a_call_right_after_the_start_waits_for_its_upstreams_first_connection(tmp_path: Path) -> None:
    manifest = await manifest_of(stdio(tmp_path))
    tool = manifest.tool("every__add")
    assert tool is not None
    registry = Registry(lambda: (manifest,), Sources({}))
    async with registry.running():
        outcome = await Runner(registry).run(effect(tool, parts=[1, 2]))
    assert (outcome.status, outcome.structured) == ("succeeded", {"total": 3, "parts": [1, 2]})
