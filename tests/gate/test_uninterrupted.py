"""What is carried through ends, and the caller who left meanwhile is told so: whichever way it ends."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from charter.errors import Conflict
from charter.gate.uninterrupted import uninterrupted

pytestmark = pytest.mark.anyio


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("scoped", [False, True], ids=["a task is cancelled", "a scope is cancelled"])
@pytest.mark.parametrize("fails", [False, True], ids=["the work succeeds", "the work fails"])
async def test_who_left_meanwhile_is_told_at_the_end_of_the_work_and_not_before(scoped: bool, fails: bool) -> None:
    work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    scope = anyio.CancelScope()
    seen: list[object] = []

    async def caller() -> None:
        with scope:
            try:
                result, left = await uninterrupted(work)
                seen.append(result)
                if left is not None:
                    raise left
            except asyncio.CancelledError:
                seen.append("left")
                raise
            seen.append("stayed")

    task = asyncio.create_task(caller())
    await turns()
    scope.cancel() if scoped else task.cancel()
    await turns()
    assert seen == []
    assert not work.cancelled()
    if fails:
        work.set_exception(Conflict("The stream moved."))
    else:
        work.set_result(7)
    await asyncio.wait([task])
    assert seen == (["left"] if fails else [7, "left"])
    assert task.cancelled() is not scoped


async def test_an_error_is_raised_where_nobody_left() -> None:
    async def fails() -> None:
        raise Conflict("The stream moved.")

    with pytest.raises(Conflict):
        await uninterrupted(fails())


async def test_what_is_carried_already_makes_no_other_task() -> None:
    made: list[object] = []

    async def inner() -> int:
        made.append(asyncio.current_task())
        return 7

    async def outer() -> int:
        made.append(asyncio.current_task())
        return (await uninterrupted(inner()))[0]

    assert await uninterrupted(outer()) == (7, None)
    assert made[0] is made[1]
    assert made[0] is not asyncio.current_task()
