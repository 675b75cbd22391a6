"""An upstream that counts: each call is one line of ``calls.jsonl`` with its idempotency key, written before it acts.

Run it as a process of its own, so that it outlives the Charter that is killed: ``python -m tests.guarantees.counting_server
FOLDER PORT``. A file ``changed`` in the folder gives ``read`` another description from the next listing on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations

Ctx = Context[Any, Any]
KEY = "io.charter/idempotency-key"
READS = ToolAnnotations(read_only_hint=True)
WRITES = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=True)
CHARGES = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=False)
SWEEPS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False)


class Book:
    """What was called, in the order in which it came."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "calls.jsonl"

    def note(self, ctx: Ctx, tool: str, **what: Any) -> int:
        """Write one call down; answers how often its key was seen before."""
        meta: Any = dict(ctx.request_context.meta or {})
        key = meta.get(KEY, "")
        before = [line["key"] for line in self.lines()].count(key)
        line = json.dumps({"tool": tool, "key": key, **what}).encode() + b"\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)  # one write: a line is whole or not there
        os.close(descriptor)
        return before

    def lines(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]


def build(folder: Path) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("counter", version="1", log_level="CRITICAL")
    book = Book(folder)

    @server.tool(annotations=READS)
    def read(what: str, ctx: Ctx) -> str:
        """Read something."""
        book.note(ctx, "read", what=what)
        return f"this is {what}"

    @server.tool(annotations=READS, structured_output=False)
    def huge(size: int, ctx: Ctx) -> str:
        """So many characters."""
        book.note(ctx, "huge")
        return "x" * size

    @server.tool(annotations=READS)
    def refuse() -> str:
        """Fail as tools do."""
        raise ToolError("The book is closed.")

    @server.tool(annotations=WRITES)
    async def write_idempotent(what: str, value: str, ctx: Ctx, lose: bool = False) -> str:
        """Write a value; with ``lose`` the first answer under a key never comes."""
        seen = book.note(ctx, "write_idempotent", what=what, value=value)
        if lose and not seen:
            await anyio.sleep(60)
        return f"{what} is {value}"

    @server.tool(annotations=CHARGES)
    def charge(account: str, cents: int, ctx: Ctx) -> str:
        """Take money. Twice is twice."""
        book.note(ctx, "charge", account=account, cents=cents)
        return f"charged {account} {cents}"

    @server.tool(annotations=SWEEPS)
    async def slow(seconds: float, ctx: Ctx) -> str:
        """Take so long, changing something."""
        book.note(ctx, "slow")
        await anyio.sleep(seconds)
        return "done"

    @server.tool(annotations=SWEEPS)
    def secret_echo(password: str, note: str, ctx: Ctx, fail: bool = False) -> str:
        """Use a secret, and say it loudly; with ``fail`` in a protocol error."""
        book.note(ctx, "secret_echo")
        if fail:
            raise MCPError(code=-31000, message=f"the password {password} is wrong", data={"password": password})
        return f"the password is {password}"

    return server


def main() -> None:
    import uvicorn

    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    app: Any = build(folder).streamable_http_app()
    uvicorn.run(app, port=port, http="h11", log_level="critical", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
