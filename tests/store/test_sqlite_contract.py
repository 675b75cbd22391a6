"""The SQLite store passes the suite that every store must pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from charter.store.port import Store
from charter.store.sqlite import SqliteStore
from tests.store.contract import Another, LedgerContract, LogContract
from tests.store.contract_lists import ListsContract, TimeContract

pytestmark = pytest.mark.anyio


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
