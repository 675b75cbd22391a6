"""The upstream that the crash proofs of a file share: a process of its own, which counts what reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from charter.manifests.tool_files import UpstreamManifest
from tests.guarantees.upstream import Counting, counting_manifest, counting_process


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counting]:
    with counting_process(tmp_path_factory.mktemp("upstream")) as counting:
        yield counting


@pytest.fixture(scope="module")
async def manifest(upstream: Counting, anyio_backend: str) -> UpstreamManifest:
    return await counting_manifest(upstream)
