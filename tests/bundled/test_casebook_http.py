"""The casebook over streamable HTTP, as a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from mcp import Client

from tests.ports import free_port

pytestmark = pytest.mark.anyio


async def test_it_serves_http(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "charter.bundled.casebook", "--folder", str(tmp_path), "--http", str(port)]
    process = subprocess.Popen(command)  # noqa: ASYNC220 - starting does not wait
    try:
        with anyio.fail_after(30):
            while True:
                try:
                    await (await anyio.connect_tcp("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await anyio.sleep(0.05)
        async with Client(f"http://127.0.0.1:{port}/mcp") as client:
            result = await client.call_tool("write_note", {"name": "a", "text": "x"})
            assert not result.is_error
    finally:
        process.terminate()
        process.wait()
    assert (tmp_path / "a.md").read_text() == "x"
