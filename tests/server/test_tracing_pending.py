"""The gauge of pending approvals counts what waits in the store, whoever put it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.server.pending import PendingApprovals
from charter.store.sqlite import SqliteStore
from tests.store.making import a_batch, an_approval

pytestmark = pytest.mark.anyio

MANY = 1_005  # more than a page


async def test_it_counts_over_tenants_pages_and_processes(tmp_path: Path) -> None:
    here, elsewhere = SqliteStore(tmp_path / "charter.db"), SqliteStore(tmp_path / "charter.db")
    await here.open()
    await elsewhere.open()
    try:
        pending = PendingApprovals(here)
        await pending.refresh()
        assert pending.count == 0
        await here.append(a_batch(approvals=tuple(an_approval(f"appr_{n:04d}") for n in range(MANY))))
        await elsewhere.append(a_batch(tenant="other", approvals=(an_approval("appr_x"),)))
        await pending.refresh()
        assert pending.count == MANY + 1
        await elsewhere.append(a_batch(tenant="other", approvals=(an_approval("appr_x", status="approved"),)))
        await pending.refresh()
        assert pending.count == MANY
    finally:
        await elsewhere.close()
        await here.close()


async def test_it_does_not_count_again_when_nothing_was_committed(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "charter.db")
    await store.open()
    try:
        await store.append(a_batch(approvals=(an_approval("appr_1"),)))
        pending = PendingApprovals(store)
        await pending.refresh()
        pending.count = -1  # would be put right by counting
        await pending.refresh()
        assert pending.count == -1
    finally:
        await store.close()
