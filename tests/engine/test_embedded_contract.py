"""The embedded engine passes the suite that every engine must pass."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from charter.engine.embedded import EmbeddedEngine
from charter.engine.port import Driver
from tests.engine.contract import StepsContract, TimesContract
from tests.engine.contract_processes import ProcessesContract
from tests.engine.driven import CHAIN
from tests.gate.conftest import Open

pytestmark = pytest.mark.anyio


@pytest.fixture
def driver() -> Driver:
    return EmbeddedEngine


class TestSteps(StepsContract):
    pass


class TestTimes(TimesContract):
    pass


class TestProcesses(ProcessesContract):
    pass


async def test_a_mistake_of_charters_own_is_logged_without_its_words(
    opened: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = await opened(templates=(CHAIN,))
    run = await desk.start("chain", input={"what": "acme"})

    words = "bad argument: hunter2"

    async def broken(*_: Any) -> int:
        raise ValueError(words)

    monkeypatch.setattr(desk.store, "version", broken)
    with caplog.at_level(logging.DEBUG):
        await desk.engine.settle()
    assert f"workflow {run.workflow_id} could not be driven: ValueError" in caplog.text
    assert "embedded.py" in caplog.text, "the place"
    assert "hunter2" not in caplog.text
