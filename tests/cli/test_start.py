"""What a command loads before it answers: the start of a process is most of what a quick command costs."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.cli.support import PYTHON, Project, environment

SERVING = (
    "mcp",
    "mcp_types",
    "opentelemetry.sdk",
    "uvicorn",
    "starlette",
    "sse_starlette",
    "httpx2",
    "h11",
    "httptools",
)
"""What only a process needs that serves, calls tools or exports."""
DECIDING = ("cedarpy", "cel_expr_python")
RECORD = ("opentelemetry", "jsonschema_rs")

LOADED = """
import json, sys
from charter.cli.failing import run_command
from charter.cli.root import app
code = run_command(app, sys.argv[1:])
sys.stderr.write(json.dumps([code, sorted(sys.modules)]))
"""


@pytest.mark.parametrize(
    ("command", "unwanted"),
    [
        (("--help",), (*SERVING, *DECIDING, *RECORD, "cryptography")),
        (("token", "issue", "--agent", "ide"), (*SERVING, *DECIDING, *RECORD)),
        (("policy", "check"), (*SERVING, *RECORD, "cel_expr_python")),
        (("audit", "verify"), (*SERVING, "cedarpy")),
        (("approvals", "list"), SERVING),
    ],
    ids=lambda value: value[0] if value[0] not in SERVING else "",
)
def test_a_command_loads_what_it_needs_and_no_server(
    project: Project, command: tuple[str, ...], unwanted: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [PYTHON, "-c", LOADED, *command],
        cwd=project.folder,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    code, loaded = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert [name for name in unwanted if name in loaded] == []
