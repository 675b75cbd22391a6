"""The SQLite store passes the suite that every store must pass, whoever commits: its thread, or the event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from charter.store.port import Store
from charter.store.sqlite import SqliteStore, writer
from tests.store.contract import Another, LedgerContract, LogContract
from tests.store.contract_lists import ListsContract, TimeContract

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[0, 1e9], ids=["thread", "loop"], autouse=True)
def committing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit is too long for the event loop, or (after the first) none is."""
    monkeypatch.setattr(writer, "SHORT_SECONDS", request.param)


@pytest.fixture
async def another(tmp_path: Path) -> AsyncIterator[Another]:
    opened: list[Store] = []

    async def one_more() -> Store:
        store = SqliteStore(tmp_path / "charter.db")
        opened.append(store)
        await store.open()
        return store

    yield one_more
    for store in opened:
        await store.close()


@pytest.fixture
async def store(another: Another) -> Store:
    return await another()


class TestLog(LogContract): ...


class TestLedger(LedgerContract): ...


class TestLists(ListsContract): ...


class TestTime(TimeContract): ...
