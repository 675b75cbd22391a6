"""A child process that misbehaves on its pipes ends its own call, at most its own connection, and nobody else's."""

from __future__ import annotations

import json
import logging
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import Unavailable
from charter.manifests.tool_files import StdioConnection, UpstreamManifest
from charter.model.effect import EffectOutcome
from charter.tools import child
from charter.tools.adding import discover, propose
from charter.tools.lines import KEPT, Endless, Lines, Overlong, answered
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from tests.tools.servers.hostile import TOOLS
from tests.tools.support import NOTHING, ROOT, effect, running, until

pytestmark = pytest.mark.anyio
LIMIT = 100_000
SERVER = str(ROOT / "tests/tools/servers/hostile.py")


def hostile(era: str = "auto", *more: str) -> StdioConnection:
    return StdioConnection(command=sys.executable, args=("-S", SERVER, era, *more))


def manifest(server: str, era: str = "auto", limit: int = LIMIT) -> UpstreamManifest:
    proposed, left_out = propose(server, hostile(era), TOOLS)
    assert left_out == ()
    return proposed.model_copy(update={"max_result_bytes": limit})


class Hostile:
    """One connected upstream of this kind."""

    def __init__(self, server: str, registry: Registry, runner: Runner) -> None:
        self.server, self.registry, self.runner = server, registry, runner

    async def call(self, name: str, **arguments: Any) -> EffectOutcome:
        return await self.runner.run(effect(self.registry.get(f"{self.server}__{name}").manifest, **arguments))

    @property
    def state(self) -> str:
        return next(status.state for status in self.registry.upstreams() if status.server == self.server)


@asynccontextmanager
async def connected(era: str = "auto", limit: int = LIMIT) -> AsyncIterator[Hostile]:
    async with running(manifest("bad", era, limit)) as (registry, runner):
        yield Hostile("bad", registry, runner)


@pytest.fixture(scope="module", params=["auto", "legacy"])
async def bad(request: pytest.FixtureRequest) -> AsyncIterator[Hostile]:
    async with connected(request.param) as found:
        yield found


async def still_there(bad: Hostile) -> None:
    outcome = await bad.call("echo", value="here")
    assert (outcome.status, outcome.is_error, outcome.content[0]["text"]) == ("succeeded", False, "here")
    assert bad.state == "ready"


async def back(bad: Hostile) -> None:
    """Until it answers again."""
    with anyio.fail_after(30):
        while (await bad.call("echo", value="back")).status != "succeeded":  # noqa: ASYNC110 - of another process
            await anyio.sleep(0.02)


@pytest.mark.parametrize("order", ["python", "typescript"])
async def test_an_answer_over_the_limit_is_an_answer_that_cannot_be_carried(bad: Hostile, order: str) -> None:
    outcome = await bad.call("flood", megabytes=1, order=order)
    assert (outcome.status, outcome.is_error, outcome.error_code) == ("succeeded", True, "result_too_large")
    assert outcome.error_message == "The upstream's answer is over 100,000 bytes."
    assert outcome.meta is None, "it is not what the upstream said"
    await still_there(bad)


@pytest.mark.parametrize("levels", [300, 5_000])
async def test_an_answer_too_deep_to_read_ends_its_call_at_once(bad: Hostile, levels: int) -> None:
    outcome = await bad.call("deep", levels=levels)
    assert (outcome.status, outcome.is_error, outcome.error_code) == ("succeeded", True, "upstream_bad_result")
    await still_there(bad)


async def test_an_answer_that_is_no_json_ends_its_call_at_once(bad: Hostile) -> None:
    outcome = await bad.call("torn")
    assert (outcome.status, outcome.is_error, outcome.error_code) == ("succeeded", True, "upstream_bad_result")
    await still_there(bad)


async def test_what_is_no_message_is_passed_over_and_never_quoted(
    bad: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        outcome = await bad.call("stray", bytes=3 * LIMIT)
    assert outcome.content[0]["text"] == "after"
    assert "hunter2" not in caplog.text


async def test_huge_messages_that_are_no_answers_end_no_call(bad: Hostile) -> None:
    outcome = await bad.call("notice", bytes=3 * LIMIT)
    assert outcome.content[0]["text"] == "after"


async def test_standard_error_never_blocks_the_child_and_only_its_end_is_kept(bad: Hostile) -> None:
    outcome = await bad.call("noise", megabytes=3)
    assert outcome.content[0]["text"] == "after"
    await until(lambda: bad.registry.upstreams()[0].stderr.endswith("the end of it"))
    assert len(bad.registry.upstreams()[0].stderr) <= child.STDERR_KEPT


@pytest.mark.parametrize("code", [-32000, -32010, -32011, -32012])
async def test_an_upstreams_own_error_is_its_own_whatever_its_number(bad: Hostile, code: int) -> None:
    outcome = await bad.call("code", code=code)
    assert (outcome.status, outcome.is_error, outcome.error_code) == ("succeeded", True, "upstream_error")
    assert outcome.meta == {"io.charter/upstream-error": {"code": code, "message": "mine", "data": None}}


async def test_a_call_that_cannot_be_written_was_not_sent(bad: Hostile) -> None:
    nested: Any = 1
    for _ in range(400):
        nested = [nested]
    outcome = await bad.call("echo", value=nested)
    assert (outcome.status, outcome.error_code) == ("failed", "upstream_unavailable")
    await still_there(bad)


async def test_a_line_without_an_end_costs_its_own_connection_and_no_other_call() -> None:
    """The other upstream answers while the line comes, and after the child was given up and started again."""
    async with running(manifest("bad"), manifest("good")) as (registry, runner):
        bad, good = Hostile("bad", registry, runner), Hostile("good", registry, runner)
        ended: list[EffectOutcome] = []

        async def endless() -> None:
            ended.append(await bad.call("endless"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(endless)
            while not ended:
                await still_there(good)
        assert (ended[0].status, ended[0].error_code) == ("unknown", "upstream_lost")
        await back(bad)
        await still_there(good)


async def test_a_child_whose_offspring_holds_its_pipes_is_seen_to_have_gone_and_leaves_nobody(tmp_path: Path) -> None:
    async with connected() as bad:
        outcome = await bad.call("orphan", file=str(tmp_path / "pids"))
        assert (outcome.status, outcome.error_code) == ("unknown", "upstream_lost")
        await back(bad)
    for pid in (tmp_path / "pids").read_text().split():
        await until(lambda pid=pid: gone(int(pid)))  # type: ignore[misc]


async def test_a_child_that_neither_reads_nor_hears_is_ended_on_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "EXIT_SECONDS", 0.2)
    monkeypatch.setattr(child, "TERM_SECONDS", 0.2)
    async with connected() as bad:
        pid = int((await bad.call("deaf")).content[0]["text"])
        assert not gone(pid)
    assert gone(pid)


def gone(pid: int) -> bool:
    """Whether the process has ended (one that nobody has reaped yet counts as ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_a_killed_child_is_told_with_what_it_said() -> None:
    connection = StdioConnection(command=sys.executable, args=("-c", "print('x' * 99); raise SystemExit('no licence')"))
    with pytest.raises(Unavailable, match="no licence"):
        await discover("x", connection, NOTHING)


NESTED: Any = {"type": "string"}
for _ in range(300):
    NESTED = {"type": "object", "properties": {"a": NESTED}}


@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_definitions_that_cannot_be_used_are_refused_one_by_one_with_reason_and_mend(
    era: str, tmp_path: Path
) -> None:
    listed = tmp_path / "tools.json"
    tools: list[Any] = [
        {"name": "good", "inputSchema": {"type": "object"}},
        {"name": "nested", "inputSchema": NESTED},
        {"name": "typeless", "inputSchema": {"type": "string"}},
        {"name": 7, "inputSchema": {"type": "object"}},
        "no tool",
        {"name": "far", "inputSchema": {"type": "object", "$ref": "https://example.org/schema"}},
        {"name": "also-good", "inputSchema": {"type": "object"}},
    ]
    listed.write_text(json.dumps(tools))
    found = await discover("bad", hostile(era, str(listed)), NOTHING)
    proposed, left_out = propose("bad", hostile(era, str(listed)), found.tools)
    assert [tool.upstream_name for tool in proposed.tools] == ["good", "also-good"]
    names = [line.partition(": ")[0] for line in (*found.refused, *left_out)]
    assert names == ["nested", "typeless", "(tool 4)", "(tool 5)", "far"]
    assert found.refused[0] == (
        "nested: its definition is nested deeper than 64 levels. Ask the server's maker for a flatter schema."
    )
    assert "inputSchema.type: Input should be 'object'" in found.refused[1]
    async with running(proposed) as (registry, runner):
        await still_there_as("good", registry, runner)
        assert registry.upstreams()[0].refused == tuple(sorted(found.refused))


async def still_there_as(name: str, registry: Registry, runner: Runner) -> None:
    assert registry.get(f"bad__{name}").callable


async def test_a_pinned_tool_whose_new_definition_cannot_be_used_takes_no_other_with_it(tmp_path: Path) -> None:
    listed = tmp_path / "tools.json"
    tools: list[Any] = [{"name": name, "inputSchema": {"type": "object"}} for name in ("one", "two")]
    listed.write_text(json.dumps(tools))
    proposed, _ = propose("bad", hostile("auto", str(listed)), tools)
    tools[0]["inputSchema"] = NESTED
    listed.write_text(json.dumps(tools))
    async with running(proposed) as (registry, runner):
        assert registry.get("bad__two").callable
        outcome = await runner.run(effect(registry.get("bad__one").manifest))
        assert (outcome.status, outcome.error_code) == ("failed", "upstream_unavailable")
        assert "nested deeper than 64 levels" in (outcome.error_message or "")


@given(st.lists(st.binary(max_size=30)), st.integers(1, 7))
def test_lines_are_what_was_written_whatever_the_pieces(lines: list[bytes], size: int) -> None:
    lines = [line.replace(b"\n", b"") for line in lines]
    data = b"".join(line + b"\n" for line in lines)
    reader = Lines(30)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    assert [line for piece in pieces for line in reader.feed(piece)] == lines


@given(st.integers(1, 400), st.integers(1, 50))
def test_a_line_over_the_limit_is_told_at_once_and_at_its_end(length: int, size: int) -> None:
    data = bytes(index % 9 + 48 for index in range(length))
    reader = Lines(100)
    found = [item for start in range(0, length, size) for item in reader.feed(data[start : start + size])]
    assert found == ([] if length <= 100 else [Overlong(data[: found[0].head.__len__()])])  # type: ignore[union-attr]
    expected = [data] if length <= 100 else [Overlong(data[: len(found[0].head)], data)]  # type: ignore[union-attr]
    assert [*reader.feed(b"\nnext\n")] == [*expected, b"next"]


def test_a_long_line_costs_no_more_memory_than_the_limit() -> None:
    reader, chunk = Lines(1_000_000, patience=100), b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(1_000):
            list(reader.feed(chunk))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()
    with pytest.raises(Endless):
        list(reader.feed(b"x" * 40_000_000))


PADDING = b'"' + b"x" * 2 * KEPT + b'"'


@pytest.mark.parametrize(
    ("message", "id_"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"a":%s}}', 7),
        (b'{"id" : "7" , "jsonrpc": "2.0", "error": {"a":%s}}', "7"),
        (b'{"result":{"a":%s},"jsonrpc":"2.0","id":7}\r', 7),
        (b'{"jsonrpc":"2.0","result":{"a":%s},"id":7,"jsonrpc":"2.0"}', 7),
        (b'{"jsonrpc":"2.0","result":{"a":%s,"id":8}}', None),
        (b'{"result":{"a":%s,"b":",\\"id\\":8}"},"x":1}', None),
        (b'{"jsonrpc":"2.0","id":7,"method":"x","params":%s}', None),
        (b'{"method":"x","params":%s,"jsonrpc":"2.0","id":7}', None),
        (b'{"params":%s,"method":"x","jsonrpc":"2.0","id":7}', None),
        (b"%s", None),
    ],
)
def test_whose_answer_a_long_line_was_is_told_by_its_ends(message: bytes, id_: Any) -> None:
    line = message.replace(b"%s", PADDING)
    assert answered(line[:KEPT], line[-KEPT:]) == id_
