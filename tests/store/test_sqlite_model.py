"""Random batches, by several stores on one file, against a simple model in memory."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.audit.envelope import leaf_bytes
from charter.errors import CharterError
from charter.store.port import AlreadyClaimed, Appended, Batch, Claim, VersionConflict, WorkflowRow
from charter.store.sqlite import SqliteStore
from tests.store.making import a_workflow, an_event, whole_log

pytestmark = pytest.mark.anyio

STREAMS, TENANTS, KEYS = ["wf_1", "wf_2", "wf_3"], ["acme", "bolt"], ["k1", "k2", "k3"]


@dataclass
class Model:
    """What the port's text says, with dictionaries."""

    leaves: dict[str, list[bytes]] = field(default_factory=lambda: {tenant: [] for tenant in TENANTS})
    versions: dict[tuple[str, str], int] = field(default_factory=dict)
    claims: dict[tuple[str, str], str] = field(default_factory=dict)
    workflows: dict[tuple[str, str], WorkflowRow] = field(default_factory=dict)

    def append(self, batch: Batch) -> Appended | type[CharterError]:
        version = self.versions.get((batch.tenant, batch.stream), 0)
        if batch.expected_version not in (None, version):
            return VersionConflict
        keys = [claim.key for claim in batch.claims]
        if len(set(keys)) < len(keys) or any((batch.tenant, key) in self.claims for key in keys):
            return AlreadyClaimed
        leaves = self.leaves[batch.tenant]
        first = len(leaves)
        for event in batch.events:
            version += 1
            leaves.append(leaf_bytes(batch.tenant, batch.stream, len(leaves), version, event))
        self.versions[batch.tenant, batch.stream] = version
        self.claims |= {(batch.tenant, claim.key): claim.value for claim in batch.claims}
        if batch.workflow:
            self.workflows[batch.tenant, batch.workflow.workflow_id] = batch.workflow
        return Appended(first, version)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    stream = draw(st.sampled_from(STREAMS))
    status = draw(st.none() | st.sampled_from(["running", "completed"]))
    data = st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers(-9, 9) | st.booleans(), max_size=3)
    return Batch(
        draw(st.sampled_from(TENANTS)),
        stream,
        draw(st.none() | st.integers(0, 3)),
        tuple(an_event(**{"d": d}) for d in draw(st.lists(data, min_size=1, max_size=3))),
        workflow=None if status is None else a_workflow(stream, status=status),
        claims=tuple(Claim("scope", key, "v") for key in draw(st.lists(st.sampled_from(KEYS), max_size=2))),
    )


@settings(max_examples=25, deadline=None)
@given(groups=st.lists(st.tuples(st.integers(0, 1), st.lists(batches(), min_size=1, max_size=5)), max_size=6))
async def test_random_batches_end_as_the_model_says(groups: list[tuple[int, list[Batch]]]) -> None:
    model = Model()
    with tempfile.TemporaryDirectory() as folder:
        stores = [SqliteStore(Path(folder) / "charter.db", synchronous="NORMAL") for _ in range(2)]
        for store in stores:
            await store.open()
        for who, group in groups:
            answers = await asyncio.gather(*(stores[who].append(batch) for batch in group), return_exceptions=True)
            for answer, expected in zip(answers, map(model.append, group), strict=True):
                assert (answer if isinstance(answer, Appended) else type(answer)) == expected
        for store in stores:
            for tenant in TENANTS:
                assert [event.leaf for event in await whole_log(store, tenant)] == model.leaves[tenant]
            for (tenant, workflow_id), row in model.workflows.items():
                assert await store.workflow(tenant, workflow_id) == row
            await store.close()
