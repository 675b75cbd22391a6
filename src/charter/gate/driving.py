"""Carrying a run on through its steps' own calls: how one ended and the intent of the next are one commit.

Each stays a command of its own, decided on the state that the one before it left, so the record reads as if each had been
committed alone. A crash before the commit finds none of it, and the first of them is done again; a crash after it finds an
intent whose process is gone, as ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from charter.errors import CharterError
from charter.gate.parts import CallContext
from charter.model import commands as cmd
from charter.model.ids import Mint
from charter.model.principal import Principal, service
from charter.workflows import decide as rules
from charter.workflows.draft import Draft
from charter.workflows.state import State

if TYPE_CHECKING:
    from charter.gate.gate import Gate


class Carrier(Protocol):
    """Who runs in the background what a start has begun: the driver of this process, while it drives."""

    async def room(self) -> bool:
        """True when the calls of one run more may begin now; then ``carry`` or ``no_need`` follows."""
        ...

    def carry(self, begun: Sequence[Draft]) -> None:
        """Run these calls, whose intents are durable, and what follows them. Returns at once."""
        ...

    def no_need(self) -> None:
        """Nothing was begun."""
        ...


class Driving:
    """Begins steps' calls, and runs what was begun, for one gate. ``carrier``: None while nobody drives here."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.carrier: Carrier | None = None

    async def draft(self, state: State, principal: Principal, command: cmd.RunStep, now: str, mint: Mint) -> Draft:
        """What follows from running a step. One whose call cannot even be prepared has failed, and the run goes on."""
        given = await self._gate.given(state, principal, now, mint)
        try:
            call = await self._gate.effects.step_call(state, principal, command, now)
        except CharterError as error:
            return rules.unprepared(state, command, given, error)
        return rules.decide(state, command, replace(given, call=call))

    async def begin(self, draft: Draft) -> list[Draft]:
        """What begins each call that is ready after this draft, one upon the other. Steps that start runs are not among it.

        Never raises: the engine comes for what could not be begun by a command of its own, which tells what is wrong.
        """
        begun: list[Draft] = []
        state, claimed, tried = draft.state, _claims(draft), set[str]()
        principal = service("engine", state.tenant)
        while not self._gate.under_way.stopping and (step_id := _next(state, tried)) is not None:
            tried.add(step_id)
            command = cmd.RunStep(workflow_id=state.workflow_id, step_id=step_id)
            try:
                one = await self.draft(state, principal, command, *self._gate.moment())
            except Exception:  # noqa: S112 - see above; what has happened goes on record whatever is wrong with the next
                continue
            if one.events and claimed.isdisjoint(mine := _claims(one)):
                begun.append(one)
                state, claimed = one.state, claimed | mine
        return begun

    async def commit_and_carry(self, draft: Draft, before: State, principal: Principal, ctx: CallContext) -> bool:
        """Commit the draft, where somebody drives here with the intents of what is ready after it; as ``Gate.commit``."""
        carrier = self.carrier if rules.runnable_steps(draft.state) else None
        if carrier is None or not await carrier.room():
            return await self._gate.commit(draft, before, principal, ctx)
        begun: list[Draft] = []
        try:
            draft.then = await self.begin(draft)
            committed = await self._gate.commit_all(draft, before, principal, ctx)
            begun = [each for each in draft.then if each.effect is not None] if committed else []
            return committed
        finally:
            if begun:
                carrier.carry(begun)
            else:
                carrier.no_need()

    async def run(self, begun: Sequence[Draft], ctx: CallContext, *beside: Coroutine[Any, Any, None]) -> None:
        """Run the calls that these drafts have begun, side by side, and all that follows them; ``beside`` meanwhile."""
        calls = [self._carry_on(each, ctx) for each in begun if each.effect is not None]
        work = [*calls, *beside]
        if len(work) == 1:
            await work[0]
            return
        for outcome in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome

    async def _carry_on(self, draft: Draft, ctx: CallContext) -> None:
        while True:
            principal = draft.given.principal
            step_id = draft.effect.step_id if draft.effect is not None else ""
            command = cmd.RunStep(workflow_id=draft.state.workflow_id, step_id=step_id)
            with self._gate.seen(principal, command):
                _, then = await self._gate.effects.run_on(draft, ctx, self.begin)
            begun = [each for each in then if each.effect is not None]
            if len(begun) != 1:
                break
            draft = begun[0]
        if begun:
            await self.run(begun, ctx)


def _next(state: State, tried: set[str]) -> str | None:
    for step_id in rules.runnable_steps(state):
        if step_id not in tried and state.steps[step_id].step_type != "workflow":
            return step_id
    return None


def _claims(draft: Draft) -> set[tuple[str, str]]:
    return {(scope, key) for scope, key, _ in draft.claims}
