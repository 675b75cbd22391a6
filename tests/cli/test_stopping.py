"""A server that is told to stop: running calls end well, no new one is taken, and the last events are signed for."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client, MCPError

from charter.manifests.tool_files import StdioConnection, UpstreamManifest, render
from charter.tools.adding import discover, propose
from charter.tools.connecting import Sources
from tests import forked
from tests.cli.support import PYTHON, Project, environment
from tests.cli.test_first_minutes import call

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
HELD = {
    "name": "held",
    "version": "1",
    "steps": [{"id": "hold", "type": "action", "tool": "holding__hold", "arguments": {"name": "step"}}],
}
ASK_NOBODY = """
@id("ask-nobody") @obligation("require_approval") @approvers("1") @within("PT24H") @reason("Never.")
permit (principal, action in Charter::Action::"tool.invoke", resource)
when { false } unless { context.approved.contains("any:1") };
"""


@pytest.fixture(scope="module")
async def held_tools(
    tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> Callable[[Path], UpstreamManifest]:
    """What ``charter upstream add`` proposes for the holding server, whatever its folder."""

    def connection(folder: Path) -> StdioConnection:
        program, *args = forked.command("tests.cli.holding_server", str(folder))
        return StdioConnection(command=program, args=tuple(args), cwd=str(ROOT))

    folder = tmp_path_factory.mktemp("holding")
    offered = (await discover("holding", connection(folder), Sources({}))).tools
    return lambda folder: propose("holding", connection(folder), offered)[0]


@pytest.fixture
def holding(project: Project, held_tools: Callable[[Path], UpstreamManifest]) -> Project:
    """A project whose only upstream holds its calls, under policies that ask nobody."""
    (project.folder / "tools" / "casebook.tools.yaml").unlink()
    (project.folder / "tools" / "holding.tools.yaml").write_text(render(held_tools(project.folder)))
    (project.folder / "templates" / "held.json").write_text(json.dumps(HELD))
    (project.folder / "policies" / "obligations.cedar").write_text(ASK_NOBODY)
    return project


def drain_seconds(project: Project, seconds: int) -> None:
    config = project.folder / "charter.toml"
    config.write_text(re.sub(r"(?m)^#?drain_seconds = \d+", f"drain_seconds = {seconds}", config.read_text()))


async def begun(project: Project, *names: str) -> None:
    """Until these calls are at the upstream."""
    with anyio.fail_after(60):
        while not all((project.folder / f"{name}.begun").exists() for name in names):  # noqa: ASYNC110 - a file
            await anyio.sleep(0.02)


async def no_longer_listening(project: Project) -> None:
    with anyio.fail_after(60):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", project.port)) != 0:
                    return
            await anyio.sleep(0.02)


async def ended(process: subprocess.Popen[str]) -> None:
    assert await anyio.to_thread.run_sync(process.wait, 60) == 0


async def session(client: Client) -> dict[str, Any]:
    started = await call(client, "start_workflow", purpose="Hold")
    return {key: started[key] for key in ("workflow_id", "agent_invocation_id")}


@asynccontextmanager
async def hanging_call(client: Client, results: list[Any]) -> AsyncIterator[None]:
    """``holding__hold`` called as ``call``, and under way while the block lasts; what became of it is in ``results``."""
    ids = await session(client)

    async def hold() -> None:
        try:
            results.append(await call(client, "invoke_tool", **ids, tool="holding__hold", arguments={"name": "call"}))
        except MCPError as error:
            results.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(hold)
        yield


def signed_to_the_end(project: Project) -> bool:
    """Whether the last signed checkpoint covers every event."""
    report = project.here("audit", "verify", "--json").json
    assert report["ok"], report
    return bool(report["covered"] == report["events"])


async def test_running_calls_of_agents_and_of_steps_end_and_the_record_is_signed_to_its_end(holding: Project) -> None:
    results: list[Any] = []
    with holding.serving() as process:
        async with holding.client(holding.token("--agent", "ide", "--acts-for", "ann")) as client:
            run = (await call(client, "start_workflow", template="held", purpose="Hold a step"))["workflow_id"]
            async with hanging_call(client, results):
                await begun(holding, "call", "step")
                process.send_signal(signal.SIGTERM)
                await no_longer_listening(holding)
                assert process.poll() is None
                for name in ("call", "step"):
                    (holding.folder / f"{name}.go").touch()
        await ended(process)
    assert results[0]["status"] == "succeeded"
    assert await anyio.to_thread.run_sync(lambda: holding.here("effects", "list", "--json").json["items"]) == []
    events = await anyio.to_thread.run_sync(lambda: holding.here("audit", "log", "--json").json["items"])
    step_results = [e for e in events if e["type"] == "TOOL_RESULT" and e["stream"] == run]
    assert [event["data"]["status"] for event in step_results] == ["succeeded"]
    assert await anyio.to_thread.run_sync(signed_to_the_end, holding)


async def test_a_second_signal_ends_the_wait_and_leaves_the_call_in_doubt(holding: Project) -> None:
    drain_seconds(holding, 3600)
    results: list[Any] = []
    with holding.serving() as process:
        token = holding.token("--agent", "ide", "--acts-for", "ann")
        async with holding.client(token) as client, hanging_call(client, results):
            await begun(holding, "call")
            process.send_signal(signal.SIGTERM)
            await no_longer_listening(holding)  # the first signal has been taken
            process.send_signal(signal.SIGTERM)
            await ended(process)
    left = await anyio.to_thread.run_sync(lambda: holding.here("effects", "list", "--json").json["items"])
    assert [effect["status"] for effect in left] == ["in_doubt"]
    assert await anyio.to_thread.run_sync(signed_to_the_end, holding)


async def test_over_standard_input_and_output_the_running_call_is_answered(holding: Project) -> None:
    """A client may close its end at once after its last request."""
    process = await anyio.open_process(
        [PYTHON, "-m", "charter.cli", "serve", "--stdio"], cwd=holding.folder, env=environment({})
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    lines, said = _Lines(process.stdout), _Lines(process.stderr)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }

    async def ask(number: int, name: str, /, **arguments: Any) -> None:
        params = {"name": name, "arguments": arguments, "_meta": meta}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        assert process.stdin is not None
        await process.stdin.send(json.dumps(message).encode() + b"\n")

    with anyio.fail_after(90):
        await ask(1, "start_workflow", purpose="Hold")
        started = (await lines.answer(1))["structuredContent"]
        ids = {key: started[key] for key in ("workflow_id", "agent_invocation_id")}
        await ask(2, "invoke_tool", **ids, tool="holding__hold", arguments={"name": "call"})
        await begun(holding, "call")
        await process.stdin.aclose()
        await said.until(b"Charter is stopping")
        (holding.folder / "call.go").touch()
        assert (await lines.answer(2))["structuredContent"]["status"] == "succeeded"
        assert await process.wait() == 0
    await process.aclose()
    assert await anyio.to_thread.run_sync(signed_to_the_end, holding)


class _Lines:
    """The lines of a stream."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._rest = stream, b""

    async def next(self) -> bytes:
        while b"\n" not in self._rest:
            self._rest += await self._stream.receive()
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    async def until(self, start: bytes) -> None:
        while not (await self.next()).startswith(start):
            pass

    async def answer(self, number: int) -> Any:
        """The result of this request."""
        while (message := json.loads(await self.next())).get("id") != number:
            pass
        return message["result"]
