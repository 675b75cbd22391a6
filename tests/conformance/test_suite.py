"""The official MCP conformance suite against a real ``charter serve``, in both protocol eras.

``expected/*.yaml`` name every check that fails, each with its reason, in the suite's own baseline format. The lists hold
both ways: a check that fails and is not named fails the test, and so does one that is named and passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
import yaml

from tests.conformance.node import Node
from tests.conformance.serving import Served

pytestmark = [pytest.mark.node, pytest.mark.slow]

VERSIONS = ("2025-11-25", "2026-07-28")
SUITE = "@modelcontextprotocol/conformance/dist/index.js"
EXPECTED = Path(__file__).parent / "expected"
BAD = ("FAILURE", "WARNING")
LEAST_SCENARIOS = {"2025-11-25": 33, "2026-07-28": 40}


@pytest.mark.parametrize("version", VERSIONS)
def test_charter_serve_passes_every_scenario_that_needs_no_fixture(
    version: str, npm: Node, served: Served, tmp_path: Path
) -> None:
    assert run(npm, served.url, version, tmp_path) == named(f"charter-{version}")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_fixture_tools_pass_through_the_governed_road(
    version: str, npm: Node, adapted: str, tmp_path: Path
) -> None:
    assert run(npm, adapted, version, tmp_path) == named(f"governed-{version}")


def test_every_expected_failure_has_its_reason() -> None:
    files = sorted(EXPECTED.glob("*.yaml"))
    assert len(files) == 2 * len(VERSIONS)
    for file in files:
        for line in file.read_text().splitlines():
            if line.startswith("  - "):
                assert len(line.partition("  # ")[2]) > 10, f"{file.name}: {line}"


def named(name: str) -> set[str]:
    """The checks that an expected-failures file names."""
    found = yaml.safe_load((EXPECTED / f"{name}.yaml").read_text())["server"]
    assert len(found) == len(set(found))
    return set(found)


def run(npm: Node, url: str, version: str, folder: Path) -> set[str]:
    """Run all scenarios of a revision; the checks that failed, as ``scenario:check``."""
    done = npm.run(
        SUITE, "server", "--url", url, "--suite", "all", "--spec-version", version, "-o", str(folder), timeout=240
    )
    results = dict(_results(folder))
    assert len(results) >= LEAST_SCENARIOS[version], done.stdout[-3000:] + done.stderr[-3000:]
    return {f"{scenario}:{check}" for scenario, checks in results.items() for check in checks}


def _results(folder: Path) -> Iterator[tuple[str, set[str]]]:
    """Each scenario's failed checks. A folder is named ``server-SCENARIO-TIME``."""
    for file in sorted(folder.glob("server-*/checks.json")):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT[\d-]+Z$", "", file.parent.name.removeprefix("server-"))
        yield scenario, {check["id"] for check in orjson.loads(file.read_bytes()) if check["status"] in BAD}
