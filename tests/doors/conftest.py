"""The doors' tests share two upstream processes; each test has a Charter and a database of its own."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from charter.manifests.tool_files import StdioConnection
from charter.model.tool import ToolManifest
from tests.support import ROOT, Harness, Upstreams, manifest_of, running_charter, upstreams


def harmless(tool: ToolManifest) -> ToolManifest:
    """Everything runs without asking, so that the road itself can be looked at; ``environment`` is kept for bookkeepers."""
    change = {"risk": "low", "side_effects": "none", "sensitive_arguments": (), "sensitive_results": ()}
    roles = {"roles": ("bookkeeper",)} if tool.upstream_name == "environment" else {}
    return tool.model_copy(update={**change, **roles})


@pytest.fixture(scope="session")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Upstreams]:
    folder: Path = tmp_path_factory.mktemp("upstreams")
    args = ("-m", "tests.tools.servers.everything", "--state", str(folder))
    connection = StdioConnection(command=sys.executable, args=args, cwd=str(ROOT))
    every = await manifest_of("every", connection, harmless)
    async with upstreams(folder, every) as found:
        yield found


@pytest.fixture
async def charter(tmp_path: Path, shared: Upstreams) -> AsyncIterator[Harness]:
    for note in shared.notes.rglob("*.md"):
        note.unlink()
    async with running_charter(tmp_path, shared=shared) as harness:
        yield harness
