"""One Charter with the casebook and the everything server for all tests of this folder, and Node with its packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.conformance import node
from tests.conformance.serving import Project, Served, new_project, process

EVERYTHING = [sys.executable, "-m", "tests.conformance.everything_server"]


@pytest.fixture(scope="session")
def everything() -> Iterator[str]:
    """The URL of the everything server."""
    with process(EVERYTHING, ready="Everything at ") as (line, _):
        yield line.removeprefix("Everything at ")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, everything: str) -> Project:
    """A project as ``charter init`` makes it, with the everything server governed in both protocol eras."""
    made = new_project(tmp_path_factory.mktemp("conformance") / "project")
    made.govern(everything, {"every": "auto", "old": "legacy"})
    return made


@pytest.fixture(scope="session")
def served(project: Project) -> Iterator[Served]:
    """``charter serve`` in anonymous loopback mode: the suite cannot send a token."""
    with project.serving("--anonymous") as found:
        yield found


@pytest.fixture(scope="session")
def adapted(served: Served) -> Iterator[str]:
    """The same Charter behind the adapter that knows the suite's tool names."""
    command = [sys.executable, "-m", "tests.conformance.naming", served.url]
    with process(command, ready="Adapter at ") as (line, _):
        yield line.removeprefix("Adapter at ")


@pytest.fixture(scope="session")
def npm() -> node.Node:
    """Node and the packages. Not having them is a failure, unless the environment says that it is known."""
    if node.skipped():
        pytest.skip(f"{node.SKIP}=1")
    try:
        return node.ready()
    except node.NodeMissing as error:
        pytest.fail(f"{error}\nSet {node.SKIP}=1 where the npm registry or Node 22 cannot be had.", pytrace=False)
