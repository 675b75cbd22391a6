"""What the doors' tests do over and over."""

from __future__ import annotations

from typing import Any

from mcp import Client
from mcp_types import CallToolResult, TextContent

ERAS = ("auto", "legacy")


async def start(client: Client, **more: Any) -> dict[str, str]:
    """A new workflow's two ids."""
    result = await client.call_tool("start_workflow", {"purpose": "Keep the casebook", **more})
    assert not result.is_error, text(result)
    return {name: result.structured_content[name] for name in ("workflow_id", "agent_invocation_id")}


async def call(client: Client, called: str, /, **arguments: Any) -> CallToolResult:
    return await client.call_tool(called, arguments)


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def code(result: CallToolResult) -> str:
    """The code of an error result; that it has message and next step is checked on the way."""
    assert result.is_error, text(result)
    found = result.structured_content
    assert found["message"]
    assert found["next_step"]
    assert found["next_step"] in text(result)
    return str(found["code"])
