"""Gives the scripted answers to whatever runs wait for, each as a command through the gate.

A run that waits for something that the script does not answer, or whose answer was refused, is left waiting and told of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypedDict

from charter.errors import CharterError
from charter.gate import Gate
from charter.model import commands as cmd
from charter.model.approval import Requirement
from charter.model.principal import Principal, service
from charter.model.reply import Blocker
from charter.model.signal import Signal
from charter.model.times import unix_ms_of
from charter.server.simulating.script import NEVER, Answer, Called, Review, Said, Script, Work, read
from charter.workflows.approval_state import ApprovalState
from charter.workflows.quorum import standing
from charter.workflows.records import InvocationState
from charter.workflows.state import State
from charter.workflows.views import blocked_by

OPERATOR = Principal(id="simulated-operator", kind="human", roles=("operator",))
SENDER = Principal(id="simulated-sender", kind="service", roles=("signals",))


class _Ids(TypedDict):
    """The two ids that each of an agent's verbs names."""

    workflow_id: str
    agent_invocation_id: str


@dataclass(slots=True)
class Round:
    """What one look at the runs came to. ``later``: the times (Unix ms) at which a scripted answer is due."""

    moved: bool = False
    later: list[int] = field(default_factory=list)
    waits_for: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Doing:
    """An agent at its work in one invocation."""

    work: Work
    by: Principal
    call: int = 0
    proposal_id: str | None = None


class Answering:
    """Plays all the people, agents and other systems of a simulation."""

    def __init__(self, gate: Gate, script: Script, starter: Principal) -> None:
        self._gate, self._script, self._starter = gate, script, starter
        self._used: dict[str, int] = {}
        self._given: dict[str, Any] = {}
        self._tried: set[str] = set()
        self._doing: dict[str, _Doing] = {}
        self._sent = 0
        self.refused: dict[str, str] = {}

    def unused(self) -> list[str]:
        """The parts of the script that nothing asked for."""
        parts = (name for name in type(self._script).model_fields if name != "start")
        named = [f"{part}.{key}" for part in parts for key in getattr(self._script, part)]
        return [name for name in named if name not in self._used]

    async def look(self, state: State) -> Round:
        """Answer what this run waits for and is due."""
        done = Round()
        for waiting, answer in self._waits(state):
            await answer(done, waiting)
            if done.moved:  # what was read of the run is old
                return done
        return done

    def _waits(self, state: State) -> Iterator[tuple[str, Callable[[Round, str], Awaitable[None]]]]:
        for blocker in blocked_by(state):
            about = f"{state.template}: {blocker.detail}"
            if blocker.what == "approval":
                approval = state.approvals[blocker.approval_id or ""]
                yield about, partial(self._approval, state, approval)
            elif blocker.what in ("signal", "callback", "review", "effect_in_doubt"):
                yield about, partial(self._outside, state, blocker)
            elif blocker.what == "operator":
                yield about, self._nobody
        for invocation in state.invocations.values():
            if invocation.status == "open":
                about = f"{state.template}: Agent {invocation.agent} works on step {invocation.step_id!r}."
                yield about, partial(self._agent, state, invocation)

    async def _nobody(self, done: Round, waiting: str) -> None:
        done.waits_for.append(waiting)

    # -- the script

    def _next(self, part: str, names: tuple[str, ...], wait: str) -> Any:
        """What the script says to this wait: the same until it was given; None when it says nothing (more)."""
        if wait in self._given:
            return self._given[wait]
        entries = getattr(self._script, part)
        name = next((name for name in names if name in entries), None)
        if name is None:
            return None
        key, entry = f"{part}.{name}", entries[name]
        count = self._used.get(key, 0)
        self._used[key] = count + 1
        if isinstance(entry, tuple):
            entry = entry[count] if count < len(entry) else None
        elif wait in self.refused or (part != "approvals" and wait in self._tried):
            entry = None  # the same once more would come to the same
        self._tried.add(wait)
        if entry is not None:
            self._given[wait] = entry
        return entry

    def _due(self, entry: Any, since: str, done: Round, wait: str, waiting: str) -> bool:
        """Whether the entry is to be given now; notes when it will be, or that there is none."""
        if entry is None:
            why = self.refused.get(wait)
            done.waits_for.append(f"{waiting} The scripted answer was refused: {why}" if why else waiting)
            return False
        if entry == NEVER:
            return False
        due = unix_ms_of(since) + getattr(entry, "after_seconds", 0) * 1000
        if self._gate.parts.clock() < due:
            done.later.append(due)
            return False
        return True

    async def _send(self, by: Principal, command: Any, done: Round, wait: str) -> Any:
        """The gate's answer; None, and the reason kept, where it refuses. The run may have moved either way."""
        self._given.pop(wait, None)
        done.moved = True
        try:
            reply = await self._gate.handle(by, command)
        except CharterError as error:
            self.refused[wait] = f"{error.error_code}: {error.message}"
            return None
        self.refused.pop(wait, None)
        return reply

    # -- people

    async def _approval(self, state: State, approval: ApprovalState, done: Round, waiting: str) -> None:
        request, wait = approval.request, approval.request.approval_id
        names = tuple(name for name in (request.step_id, request.tool) if name)
        entry = self._next("approvals", names, wait)
        if not self._due(entry, request.requested_at, done, wait, waiting):
            return
        answers = entry if isinstance(entry, Answer) else None
        if answers is None:
            answers = _anybody(approval, entry)
        by = Principal(id=answers.by, kind=answers.kind, tenant=state.tenant, roles=answers.roles)
        command = cmd.DecideApproval(
            approval_id=wait,
            decision=answers.decision,
            channel=answers.channel,
            comment=answers.comment,
            edited_arguments=answers.edited_arguments,
        )
        await self._send(by, command, done, wait)

    # -- agents

    async def _agent(self, state: State, invocation: InvocationState, done: Round, waiting: str) -> None:
        wait = invocation.agent_invocation_id
        doing = self._doing.get(wait)
        if doing is None:
            entry = self._next("agents", (invocation.step_id,), wait)
            if not self._due(entry, invocation.since, done, wait, waiting):
                return
            doing = self._doing[wait] = _Doing(entry, self._who(state, invocation, entry))
        ids: _Ids = {"workflow_id": state.workflow_id, "agent_invocation_id": wait}
        if doing.proposal_id is not None:
            await self._asked_for(state, doing, ids, done, wait)
        elif doing.call < len(doing.work.calls):
            await self._call(doing, ids, done, wait)
        else:
            del self._doing[wait]
            await self._send(doing.by, cmd.CompleteStep(**ids, output=doing.work.handed_over), done, wait)

    def _who(self, state: State, invocation: InvocationState, work: Work) -> Principal:
        if work.by is None and invocation.agent == self._starter.id:
            return self._starter
        named, role = invocation.agent, invocation.agent.removeprefix("role:")
        roles = work.roles or (("agent", role) if role != named else ("agent",))
        by = work.by or ("simulated-agent" if named == "*" or role != named else named)
        return Principal(id=by, kind="agent", tenant=state.tenant, roles=roles)

    async def _call(self, doing: _Doing, ids: _Ids, done: Round, wait: str) -> None:
        call = doing.work.calls[doing.call]
        command = cmd.InvokeTool(**ids, tool=call.tool, arguments=call.arguments, reason=call.reason)
        reply = await self._send(doing.by, command, done, f"{wait}/{doing.call}")
        doing.call += 1
        if reply is not None and reply.status == "pending_approval":
            doing.proposal_id = reply.proposal_id

    async def _asked_for(self, state: State, doing: _Doing, ids: _Ids, done: Round, wait: str) -> None:
        """Its call needs people: ask them, and run it once they have agreed."""
        proposal = state.proposals[doing.proposal_id or ""]
        asked = f"{wait}/{doing.proposal_id}"
        if proposal.approval_id is None:
            command = cmd.RequestApproval(**ids, proposal_id=doing.proposal_id or "")
            if await self._send(doing.by, command, done, asked) is None:
                doing.proposal_id = None
            return
        approval = state.approvals[proposal.approval_id]
        if approval.status in ("pending", "more_info"):
            return
        replaced = approval.decisions[-1].replacement_proposal_id if approval.decisions else None
        if approval.status == "approved":
            await self._send(doing.by, cmd.InvokeTool(**ids, proposal_id=doing.proposal_id), done, asked)
        doing.proposal_id = replaced if approval.status == "edited" else None
        done.moved = True

    # -- other systems, and operators

    async def _outside(self, state: State, blocker: Blocker, done: Round, waiting: str) -> None:
        step_id = blocker.step_id or ""
        names: tuple[str, ...] = (step_id,)
        if blocker.what == "signal":
            part, names = "signals", (blocker.who,)
        elif blocker.what == "callback":
            part = "callbacks"
        else:
            part = "reviews"
        if blocker.effect_id is not None:
            invoked = state.effects[blocker.effect_id].invoke
            names = (invoked.step_id, invoked.tool)
        wait = f"{state.workflow_id}/{blocker.what}/{blocker.effect_id or step_id}/{blocker.since}"
        entry = self._next(part, names, wait)
        if self._due(entry, blocker.since, done, wait, waiting):
            by, command = self._word(state, blocker, entry)
            await self._send(by, command, done, wait)

    def _word(self, state: State, blocker: Blocker, entry: Any) -> tuple[Principal, Any]:
        workflow_id, step_id = state.workflow_id, blocker.step_id or ""
        self._sent += 1
        if isinstance(entry, Said):
            name = f"simulated-{self._sent}"
            signal = Signal(id=name, source=entry.source, type=blocker.who, subject=entry.subject, data=entry.data)
            return _at(SENDER, state), cmd.SendSignal(signal=signal)
        if isinstance(entry, Called):
            name = f"simulated-{self._sent}"
            command = cmd.DeliverCallback(workflow_id=workflow_id, step_id=step_id, message_id=name, body=entry.body)
            return service("callbacks", state.tenant), command
        review: Review = entry
        if blocker.effect_id is not None:
            said = {"effect_id": blocker.effect_id, "resolution": review.resolution, "output": review.output}
            return _at(OPERATOR, state), _checked(cmd.ResolveEffect, workflow_id=workflow_id, **said)
        said = {"step_id": step_id, "resolution": review.resolution, "output": review.output}
        return _at(OPERATOR, state), _checked(cmd.ReviewStep, workflow_id=workflow_id, **said)


def _at(principal: Principal, state: State) -> Principal:
    return principal.model_copy(update={"tenant": state.tenant})


def _anybody(approval: ApprovalState, decision: Any) -> Answer:
    """The next person whom the request asks for, made up where it names none."""
    stands = standing(approval)
    needed = next(iter((*stands.left, *stands.instead)), Requirement())
    answered = {item.decided_by for item in approval.decisions}
    made_up = [f"simulated-{needed.role or 'approver'}-{number + 1}" for number in range(len(answered) + 1)]
    by = next(name for name in (*needed.people, *made_up) if name not in answered)
    channel = needed.channels[0] if needed.channels and "console" not in needed.channels else "console"
    return Answer(decision=decision, by=by, roles=(needed.role or "approver",), channel=channel)


def _checked(model: Any, **values: Any) -> Any:
    """The command. Raises ``InvalidInput`` for a resolution that is none for it."""
    return read(model, values, "reviews")
