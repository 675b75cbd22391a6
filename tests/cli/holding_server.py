"""An upstream whose tool holds its call until a file says go: ``python -m tests.cli.holding_server FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations


def build(folder: Path) -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("holding", version="1", log_level="CRITICAL")

    @server.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False))
    async def hold(name: str) -> str:
        """Begin, wait for NAME.go, end."""
        (folder / f"{name}.begun").touch()
        while not (folder / f"{name}.go").exists():  # noqa: ASYNC110 - a file
            await anyio.sleep(0.02)
        return f"{name} was held"

    return server


if __name__ == "__main__":
    build(Path(sys.argv[1])).run()
