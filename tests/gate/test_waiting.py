"""An upstream may ask its caller for input; a caller who never answers leaves no call running for ever."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import Refused
from charter.gate import NO_CONTEXT
from charter.model.effect import Effect, EffectOutcome
from charter.model.tool import ToolManifest
from tests.gate.conftest import Open
from tests.guarantees.world import AGENT, Clock

pytestmark = pytest.mark.anyio


class Asking:
    """An upstream that asks first and runs when it is answered."""

    def __init__(self) -> None:
        self.ran = 0

    async def run(self, effect: Effect, *, input_responses: Any = None, **_: Any) -> EffectOutcome:
        if input_responses is None:
            question = {"resultType": "input_required", "inputRequests": {"q": {}}}
            return EffectOutcome(status="succeeded", input_required=question)
        self.ran += 1
        return EffectOutcome(status="succeeded", content=({"type": "text", "text": effect.tool.name},))

    async def preview(self, manifest: ToolManifest, arguments: Any) -> str | None:
        return None


async def test_an_answered_question_lets_the_same_effect_end(opened: Open) -> None:
    runner = Asking()
    desk = await opened(runner=runner)
    work = await desk.session()
    asked = await work.invoke("counter__read", what="a")
    assert asked.status == "input_required"
    ended = await desk.gate.resume_call(AGENT, asked.effect_id, {"q": {}}, None, NO_CONTEXT)
    assert (ended.status, ended.effect_id, runner.ran) == ("succeeded", asked.effect_id, 1)
    await desk.check_record()


async def test_a_question_that_nobody_answers_ends_the_call(opened: Open, clock: Clock) -> None:
    runner = Asking()
    desk = await opened(runner=runner)
    work = await desk.session()
    asked = await work.invoke("counter__read", what="a")
    await desk.gate.give_up_waiting()
    assert [row.effect_id for row in await desk.effects("running")] == [asked.effect_id]
    clock.wait(601)
    await desk.gate.give_up_waiting()
    assert await desk.effects("running") == []
    with pytest.raises(Refused):
        await desk.gate.resume_call(AGENT, asked.effect_id, {"q": {}}, None, NO_CONTEXT)
    assert runner.ran == 0
    await desk.check_record()
