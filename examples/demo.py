"""The main job as a story: ``make demo`` (with ``ARGS=--yes`` a second person answers).

A real MCP client speaks streamable HTTP with a real ``charter serve``, which governs a real upstream: the bundled
casebook, over a folder of Markdown notes. Where there is a terminal you are the person who is asked; elsewhere a second
person with a credential of their own answers from the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

STARTED_WITHIN_SECONDS = 60.0
BOLD, DIM, GREEN, RED, YELLOW, PLAIN = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[33m", "\033[0m"


class Story:
    """Prints what happens so that a person can follow it."""

    def __init__(self, colour: bool) -> None:
        self._colour = colour
        self._chapter = 0

    def _in(self, colour: str, text: str) -> str:
        return f"{colour}{text}{PLAIN}" if self._colour else text

    def chapter(self, title: str) -> None:
        self._chapter += 1
        print(f"\n{self._in(BOLD, f'{self._chapter}. {title}')}", flush=True)

    def agent(self, text: str) -> None:
        print(f"   agent    {text}")

    def charter(self, text: str, mood: str = "") -> None:
        colour = {"good": GREEN, "bad": RED, "wait": YELLOW}.get(mood, "")
        first, *rest = text.strip().splitlines() or [""]
        print(f"   charter  {self._in(colour, first) if colour else first}")
        for line in rest:
            print(f"            {line}")

    def note(self, text: str) -> None:
        print(f"   {self._in(DIM, text)}", flush=True)


def charter(folder: Path, *args: str, token: str | None = None) -> str:
    """Run a ``charter`` command in the folder and answer with what it printed."""
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **({"CHARTER_TOKEN": token} if token else {})}
    done = subprocess.run(
        [sys.executable, "-m", "charter.cli", *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"charter {' '.join(args)} failed ({done.returncode}):\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A free port that nobody else is given before the server takes it: it is bound here, and not listened on."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


@asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[str]:
    """``charter serve`` for as long as the block lasts; answers its URL."""
    log = (folder / "serve.log").open("wb")
    command = [sys.executable, "-m", "charter.cli", "serve"]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log)
    try:
        async with httpx2.AsyncClient(trust_env=False) as http:
            for _ in range(int(STARTED_WITHIN_SECONDS / 0.1)):
                with contextlib.suppress(httpx2.HTTPError):
                    if (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200:
                        break
                if process.returncode is not None:
                    raise SystemExit(f"charter serve ended:\n{(folder / 'serve.log').read_text()}")
                await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 15)
        log.close()


def text_of(result: types.CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, types.TextContent))


def data_of(result: types.CallToolResult) -> dict[str, Any]:
    return result.structured_content or {}


class Person:
    """You, at the terminal: answers what the client is asked to ask."""

    def __init__(self, story: Story) -> None:
        self._story = story

    async def asked(self, _context: Any, params: Any) -> types.ElicitResult:
        print()
        for line in str(params.message).splitlines():
            print(f"   | {line}")
        answer = await asyncio.to_thread(input, "   you      approve this call? [y/N] ")
        approve = answer.strip().lower() in ("y", "yes")
        decision = "approve" if approve else "reject"
        return types.ElicitResult(action="accept", content={"decision": decision, "comment": "from the demo"})


@asynccontextmanager
async def connected(url: str, token: str, person: Person | None) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, elicitation_callback=person.asked if person else None) as client:
            yield client


async def play(story: Story, folder: Path, url: str, ask_here: bool) -> str:
    """The scenario; answers the workflow's id."""
    story.chapter("Credentials")
    story.note("charter token issue: making a credential …")
    agent_token = charter(folder, "token", "issue", "--agent", "scribe", "--acts-for", "you")
    story.note("An agent called scribe, acting for you. Its token names this server and nobody else.")
    async with connected(url, agent_token, Person(story) if ask_here else None) as client:
        await _outside(story, client)
        started = await _start(story, client)
        ids = {"workflow_id": started["workflow_id"], "agent_invocation_id": started["agent_invocation_id"]}
        await _read(story, client, ids)
        proposal_id = await _write(story, client, ids, folder, ask_here)
        await _replay(story, client, ids, proposal_id)
        await _finish(story, client, ids)
    return str(ids["workflow_id"])


async def _outside(story: Story, client: Client) -> None:
    story.chapter("A call outside any workflow")
    story.agent("casebook__read_note welcome, with no workflow")
    result = await client.call_tool("invoke_tool", {"tool": "casebook__read_note", "arguments": {"name": "welcome"}})
    story.charter(text_of(result), "bad" if result.is_error else "good")


async def _start(story: Story, client: Client) -> dict[str, Any]:
    story.chapter("A workflow starts")
    story.agent("start_workflow governed-session, because: file a summary of case 12")
    result = await client.call_tool(
        "start_workflow", {"template": "governed-session", "purpose": "File a summary of case 12", "case_id": "case-12"}
    )
    started = data_of(result)
    story.charter(f"{started['workflow_id']}; invocation {started['agent_invocation_id']}", "good")
    return started


async def _read(story: Story, client: Client, ids: dict[str, Any]) -> None:
    story.chapter("A read is permitted outright")
    story.agent("casebook__read_note welcome")
    result = await client.call_tool("casebook__read_note", {**ids, "name": "welcome"})
    story.charter(text_of(result)[:300], "bad" if result.is_error else "good")


async def _write(story: Story, client: Client, ids: dict[str, Any], folder: Path, ask_here: bool) -> str:
    story.chapter("A write needs a person")
    arguments = {"name": "case-12/summary", "text": "# Case 12\n\nThe customer was right. Refund approved.\n"}
    story.agent("propose_action casebook__write_note case-12/summary")
    proposed = data_of(
        await client.call_tool(
            "propose_action",
            {
                **ids,
                "tool": "casebook__write_note",
                "arguments": arguments,
                "reason": "The case is closed; file the outcome.",
            },
        )
    )
    story.charter(f"{proposed['decision']}: {proposed['reason']}", "wait")
    story.agent("request_approval")
    asked = data_of(await client.call_tool("request_approval", {**ids, "proposal_id": proposed["proposal_id"]}))
    if asked.get("approval_status") == "pending":
        _second_person(story, folder, str(asked["approval_id"]), ask_here)
    else:
        story.charter(f"your answer is on record: {asked.get('approval_status')}", "good")
    story.agent("invoke_tool with the proposal")
    result = await client.call_tool("invoke_tool", {**ids, "proposal_id": proposed["proposal_id"]})
    story.charter(text_of(result), "bad" if result.is_error else "good")
    written = folder / "casebook" / "case-12" / "summary.md"
    story.note(f"On disk: {written.read_text().splitlines()[0]!r}" if written.exists() else "Nothing was written.")
    return str(proposed["proposal_id"])


def _second_person(story: Story, folder: Path, approval_id: str, ask_here: bool) -> None:
    why = "the answer given here was not enough" if ask_here else "there is no terminal to ask you on"
    story.note(f"{why}: ann, another person with a credential of her own, decides on the command line")
    story.note("charter token issue: making a credential for ann …")
    token = charter(folder, "token", "issue", "--human", "ann", "--role", "approver")
    story.note(f"ann runs: charter approvals approve {approval_id}, which shows the exact call first")
    story.charter(charter(folder, "approvals", "approve", approval_id, "--yes", token=token), "good")


async def _replay(story: Story, client: Client, ids: dict[str, Any], proposal_id: str) -> None:
    story.chapter("The same approval again")
    story.agent("invoke_tool with the same proposal")
    result = await client.call_tool("invoke_tool", {**ids, "proposal_id": proposal_id})
    story.charter(text_of(result), "bad" if result.is_error else "good")


async def _finish(story: Story, client: Client, ids: dict[str, Any]) -> None:
    story.chapter("The step is done")
    result = await client.call_tool("complete_step", {**ids, "output": {"summary": "Case 12 is filed."}})
    workflow = data_of(result).get("workflow", {})
    story.charter(f"the workflow is {workflow.get('status', 'unknown')}", "bad" if result.is_error else "good")


def audit(story: Story, folder: Path, workflow_id: str) -> None:
    story.chapter("What did it do, who allowed it, can you prove it?")
    story.note(f"charter audit trace {workflow_id}: reading what happened …")
    print("   " + charter(folder, "audit", "trace", workflow_id).replace("\n", "\n   "))
    story.note("charter audit checkpoint: signing what the log holds now …")
    charter(folder, "audit", "checkpoint")
    story.note("charter audit verify: checking every event, proof and signature …")
    story.charter(charter(folder, "audit", "verify"), "good")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--yes", action="store_true", help="do not ask; a second person's credential answers")
    parser.add_argument("--folder", type=Path, help="where to put everything (default: a new temporary folder)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON, for tests")
    args = parser.parse_args()
    story = Story(colour=sys.stdout.isatty())
    folder = (args.folder or Path(tempfile.mkdtemp(prefix="charter-demo-"))).resolve()
    ask_here = sys.stdin.isatty() and sys.stdout.isatty() and not args.yes
    print("Workflows decide. Agents propose. Humans approve. Tools execute. Audit remembers everything.")
    story.note(f"charter init {folder}: keys, policies and an upstream …")
    charter(Path.cwd(), "init", str(folder))
    # The port is part of the server's URL, and the URL is the audience of every token: all commands must know it.
    os.environ.pop("CHARTER_TOKEN", None)
    with reserved_port() as port:
        os.environ["CHARTER_SERVER_PORT"] = str(port)
        story.note("charter serve: starting …")
        async with serving(folder, port) as url:
            story.note(f"charter serve: {url}")
            workflow_id = await play(story, folder, url, ask_here)
            story.note("Stopping the server …")
    audit(story, folder, workflow_id)
    database = folder / ".charter" / "charter.sqlite"
    print(f"\nThe database is {database}; look further with: cd {folder} && {_command()} audit log")
    if args.json:
        print(json.dumps({"workflow_id": workflow_id, "folder": str(folder), "database": str(database)}))


def _command() -> str:
    found = Path(sys.executable).parent / "charter"
    return str(found) if found.exists() else shutil.which("charter") or f"{sys.executable} -m charter.cli"


if __name__ == "__main__":
    asyncio.run(main())
