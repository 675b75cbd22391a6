"""A store that does not answer for a moment ends none of the loops that serve it: they go on when it answers again."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from charter.engine.checkpoints import Checkpointer
from charter.engine.outbox import Outbox
from charter.errors import Unavailable
from charter.gate.outgoing import Outlet
from charter.store.port import Store
from tests.engine.test_outbox import SAY, Listener, eventually
from tests.gate.conftest import Open
from tests.guarantees.world import signer_of

pytestmark = [pytest.mark.anyio, pytest.mark.guarantee("G6")]


class Sick:
    """One question to which the store does not answer the first time."""

    def __init__(self, store: Store, question: str, failures: int = 1) -> None:
        self._ask, self.failures = getattr(store, question), failures
        setattr(store, question, self.ask)

    async def ask(self, *arguments: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise Unavailable("busy")
        return await self._ask(*arguments)


@pytest.mark.parametrize("question", ["tenants", "head", "checkpoints"])
async def test_checkpoints_go_on(opened: Open, question: str) -> None:
    desk = await opened()
    await desk.start()
    checkpointer = Checkpointer(desk.store, signer_of, every_events=1, every_seconds=0.01)
    sick = Sick(desk.store, question)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(checkpointer.run)
        await eventually(partial(_signed, desk.store, sick))
        tasks.cancel_scope.cancel()


async def _signed(store: Store, sick: Sick) -> bool:
    return not sick.failures and bool(await store.checkpoints("default"))


@pytest.mark.parametrize("question", ["tenants", "place", "head", "move_place"])
async def test_what_leaves_leaves(opened: Open, question: str) -> None:
    desk, listener = await opened(templates=(SAY,)), Listener()
    outlet = Outlet(desk.gate)
    outbox = Outbox(desk.gate, outlet, everywhere=(listener,))
    await outbox.prepare()
    sick = Sick(desk.store, question)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outbox.run)
        await desk.start("say", input={"no": 7})
        await desk.engine.settle()
        await listener.until(lambda: "workflow.run.completed" in listener.types)
        tasks.cancel_scope.cancel()
    assert sick.failures == 0
    assert listener.types[0] == "workflow.run.started"
