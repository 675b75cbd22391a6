"""Serving: it says where it listens, ends well on a signal, and refuses what would be unsafe."""

from __future__ import annotations

import gc
import signal
import socket
import subprocess
from typing import Any

import anyio
import httpx2
import pytest

from charter.cli import serving
from charter.server.settings_model import Settings
from tests import forked
from tests.cli.support import PYTHON, Project, environment, until
from tests.cli.test_first_minutes import call

pytestmark = pytest.mark.anyio


def test_a_port_that_is_taken_is_said_at_once(project: Project) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", project.port))
        taken.listen()
        done = project.charter("serve")
    assert done.code == 2
    assert f"Cannot listen on 127.0.0.1:{project.port}" in done.err


def test_no_anonymous_mode_for_others_to_reach(project: Project) -> None:
    done = project.charter("serve", "--anonymous", "--host", "0.0.0.0")
    assert done.code == 2
    assert "loopback" in done.err


async def test_anonymous_on_loopback_is_the_agent_of_the_configuration(project: Project) -> None:
    from mcp import Client

    with project.serving("--anonymous"):
        async with Client(project.url) as client:
            started = await call(client, "start_workflow", purpose="Look")
    [run] = project.charter("workflows", "list", "--json").json["items"]
    assert (run["workflow_id"], run["owner"]) == (started["workflow_id"], "ann")


async def test_a_tool_file_broken_while_serving_is_logged_and_the_last_good_one_goes_on(project: Project) -> None:
    """Logged once, whole lines on standard error; ``/healthz`` tells it while it lasts."""
    from mcp import Client

    [path] = (project.folder / "tools").glob("*.tools.yaml")
    good, health = path.read_text(), project.url.replace("/mcp", "/healthz")

    async def until_health(wanted: dict[str, str]) -> None:
        with anyio.fail_after(30):
            while httpx2.get(health).json() != wanted:  # noqa: ASYNC110 - it waits for another process
                await anyio.sleep(0.1)

    with project.serving("--anonymous") as process:
        path.write_text(good.replace("\n    risk: ", "\n    riks: ", 1))
        await until_health({"status": "degraded", "code": "bad_tool_file"})
        async with Client(project.url) as client:
            started = await call(client, "start_workflow", purpose="Look")
            assert started["allowed_tools"], "the last good file is in force"
        path.write_text(good)
        await until_health({"status": "ok"})
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = [line for line in process.stderr if "the old ones stay in force" in line]
    assert len(said) == 1
    assert f"{path.name}:" in said[0]


def test_another_port_by_option_is_told_with_the_token_to_use(project: Project) -> None:
    """A token names the server's URL; with --port the URL is another than the configured one."""
    process = subprocess.Popen(
        forked.command("charter.cli", "serve", "--port", "0"),
        cwd=project.folder,
        env=environment({}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        url = until(process, "Charter serves MCP at").split()[-1]
        until(process, f"--audience {url}")
        token = project.token("--agent", "ide", "--audience", url)
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accept = {"accept": "application/json, text/event-stream"}
        refused = httpx2.post(
            url, json=body, headers={**accept, "authorization": f"Bearer {project.token('--agent', 'i')}"}
        )
        assert refused.status_code == 401
        taken = httpx2.post(url, json=body, headers={**accept, "authorization": f"Bearer {token}"})
        assert taken.status_code != 401
    finally:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Charter has stopped" in err


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_at_debug_too_nothing_sensitive_of_a_call_is_logged(project: Project, mode: str) -> None:
    """The SDK's transport for older clients answers by server-sent events, whose library would log each of them."""
    secret = "the safe opens with 7-31-5"
    config, tools = project.folder / "charter.toml", project.folder / "tools" / "casebook.tools.yaml"
    config.write_text(config.read_text().replace('#log_level = "warning"', 'log_level = "debug"'))
    mark = "  - tool: read_note\n"
    assert mark in tools.read_text()
    tools.write_text(tools.read_text().replace(mark, f'{mark}    sensitive_results: [""]\n'))
    (project.folder / "casebook" / "plan.md").write_text(secret)
    token = project.token("--agent", "ide", "--acts-for", "ann")
    with project.serving() as process:
        async with project.client(token, mode) as client:
            started = await call(client, "start_workflow", purpose="Look")
            ids = {name: started[name] for name in ("workflow_id", "agent_invocation_id")}
            answer = await client.call_tool("casebook__read_note", {"name": "plan", **ids})
            assert secret in answer.model_dump_json()
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read()
    assert " INFO " in said, "it is logged"
    assert secret not in said
    assert " DEBUG " not in said.replace(" DEBUG charter.", "")


@pytest.mark.parametrize("end", ["signal", "close"])
def test_serving_standard_input_ends_with_the_client_or_a_signal(project: Project, end: str) -> None:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = forked.command("charter.cli", "serve", "--stdio")
    with subprocess.Popen(command, cwd=project.folder, env=environment({}), text=True, **pipes) as process:
        until(process, "standard input and output")
        if end == "signal":
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
            out, err = process.communicate(timeout=30)
        else:  # what is no message is answered before the end
            twins = '{"jsonrpc": "2.0", "id": 7, "method": "ping", "params": {"a": 1, "a": 2}}'
            out, err = process.communicate(twins + "\n", timeout=30)  # closes its standard input
    assert process.returncode == 0
    assert ("json_duplicate_key" in out) == (end == "close")
    assert out.count("\n") == (end == "close")
    assert "everything acknowledged is on disk" in err


@pytest.mark.parametrize("client", ["claude", "vscode", "cursor", "codex", "gemini"])
def test_the_entry_for_each_client_names_this_charter_and_holds_no_token(project: Project, client: str) -> None:
    stdio = project.ok("mcp-config", "--client", client)
    assert PYTHON in stdio.out
    assert str(project.folder / "charter.toml") in stdio.out
    http = project.ok("mcp-config", "--client", client, "--http")
    assert project.url in http.out
    assert "Put this into" in http.out
    assert project.here("mcp-config", "--client", "emacs").code == 2
    assert project.here("mcp-config", "--client", client, "--http", "--stdio").code == 2


def test_collections_of_garbage_pass_over_what_is_loaded_when_it_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "note", lambda _: None)
    kept = [{"n": n} for n in range(1000)]
    before = gc.get_freeze_count()
    serving._ready(Settings(), "http://127.0.0.1:8420/mcp")
    try:
        assert gc.get_freeze_count() - before > len(kept)
        assert not any(kept[0] is found for found in gc.get_objects())
    finally:
        gc.unfreeze()
