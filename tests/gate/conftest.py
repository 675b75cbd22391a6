"""The gate with everything real: a store on disk, the shipped policies, and one counting upstream for the whole run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

from charter.engine.embedded import EmbeddedEngine
from charter.engine.port import Driver
from charter.manifests.tool_files import UpstreamManifest
from charter.server.evaluator import PolicySets
from charter.tools.runner import Runner
from tests.guarantees.upstream import Counting, Governed, connected, counting_manifest, counting_process
from tests.guarantees.world import Clock, Desk, desk_on


@pytest.fixture(scope="session")
def shared_upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    with counting_process(tmp_path_factory.mktemp("upstream")) as counting:
        yield counting


@pytest.fixture(scope="session")
async def manifest(shared_upstream: Counting, anyio_backend: str) -> UpstreamManifest:
    return await counting_manifest(shared_upstream)


@pytest.fixture(scope="session")
async def tools(manifest: UpstreamManifest) -> AsyncIterator[tuple[Governed, Runner]]:
    async with connected(manifest) as found:
        yield found


@pytest.fixture(scope="session")
def shipped(tools: tuple[Governed, Runner]) -> PolicySets:
    """The shipped policies for these tools; immutable, so one is enough."""
    return PolicySets(None, None, tools[0].all())


@pytest.fixture
def upstream(shared_upstream: Counting) -> Counting:
    """The upstream, which was never called."""
    shared_upstream.forget()
    return shared_upstream


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Open(Protocol):
    """Opens one more desk on the test's file; ``tools`` and ``runner`` may be others than the shared ones."""

    async def __call__(self, **more: Any) -> Desk: ...


@pytest.fixture
def driver() -> Driver:
    """Who drives the desks' gates."""
    return EmbeddedEngine


@pytest.fixture
async def opened(
    tmp_path: Path,
    clock: Clock,
    tools: tuple[Governed, Runner],
    upstream: Counting,
    shipped: PolicySets,
    driver: Driver,
) -> AsyncIterator[Open]:
    async with AsyncExitStack() as stack:

        async def open_desk(**more: Any) -> Desk:
            governed, runner = more.pop("tools", tools[0]), more.pop("runner", tools[1])
            more.setdefault("policies", shipped)
            more.setdefault("driver", driver)
            entered: AbstractAsyncContextManager[Desk] = desk_on(
                tmp_path / "charter.sqlite", governed, runner, clock, **more
            )
            return await stack.enter_async_context(entered)

        yield open_desk


@pytest.fixture
async def desk(opened: Open) -> Desk:
    return await opened()
