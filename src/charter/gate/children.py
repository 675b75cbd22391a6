"""Children: started for their parent's step, cancelled when nobody waits for them, and reported when they have ended.

Each of these is two commits on two records. The parent's says what is wanted before it is done and what was done after it; a
process that dies in between leaves a run that is due, and the same is done again, which changes nothing that was done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from charter.errors import CharterError, InvalidInput, NotFound, Unavailable
from charter.gate.parts import CallContext
from charter.model import commands as cmd
from charter.model.ids import Mint
from charter.model.principal import Principal
from charter.model.template import ChildStep
from charter.workflows import children as rules_of
from charter.workflows import decide as rules
from charter.workflows.children import CLAIM, MAX_DEPTH, Lineage
from charter.workflows.draft import Draft
from charter.workflows.state import State
from charter.workflows.steps import step_named

if TYPE_CHECKING:
    from charter.gate.gate import Gate


class Children:
    """Deals with children for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def start(self, principal: Principal, state: State, step_id: str, ctx: CallContext) -> None:
        """Start the child that an open step has announced, and put on the parent's record that it is there."""
        child_id = rules_of.planned(state, step_id)
        if child_id is None:
            return
        command_id = self._gate.moment()[1].new("command")
        told: cmd.Command
        try:
            template = await self._started(state, step_id, child_id, command_id, ctx)
            told = cmd.ConfirmChild(workflow_id=state.workflow_id, child_workflow_id=child_id, template=template)
        except Unavailable:
            raise  # the step stays ready, and the engine comes again
        except CharterError as error:
            told = cmd.EndChild(
                workflow_id=state.workflow_id,
                child_workflow_id=child_id,
                status="never_started",
                code=error.error_code,
                reason=error.message,
            )
        await self._record(principal, state.workflow_id, told, ctx, command_id=command_id)

    async def _started(self, state: State, step_id: str, child_id: str, command_id: str, ctx: CallContext) -> str:
        template = await self._gate.templates.of(state.tenant, state.template_hash)
        step = step_named(template, step_id)
        if not isinstance(step, ChildStep):
            raise NotFound(f"Step {step_id!r} starts no workflow.")
        if state.depth >= MAX_DEPTH:
            raise InvalidInput(f"There are {MAX_DEPTH} workflows above this one already.", code="too_deep")
        start = cmd.StartWorkflow(
            template=step.template,
            input=await self._gate.withholding.child_input(state, step),
            purpose=state.purpose,
            case_id=state.case_id,
            dry_run=state.dry_run,
        )
        lineage = Lineage(state.workflow_id, step_id, state.depth + 1)
        found = await self._gate.starts.start(
            rules_of.starter(state),
            start,
            ctx,
            claims=((CLAIM, child_id),),
            command_id=command_id,
            child=(child_id, lineage),
        )
        return str(found.template)

    async def settle(self, principal: Principal, state: State, ctx: CallContext) -> None:
        """Cancel the children that nobody waits for, and tell the parent how this run ended."""
        for child_id in rules_of.strays(state):
            await self._stop(principal, state.workflow_id, child_id, ctx)
        if rules_of.reports(state):
            parent_id = state.parent_workflow_id or ""
            await self._record(principal, parent_id, _end_of(state, parent_id), ctx)
            await self._record(principal, state.workflow_id, cmd.NoteParentTold(workflow_id=state.workflow_id), ctx)

    async def _stop(self, principal: Principal, parent_id: str, child_id: str, ctx: CallContext) -> None:
        child = await self._gate.states.fresh(principal.tenant, child_id)
        if child is None:
            never = cmd.EndChild(workflow_id=parent_id, child_workflow_id=child_id, status="never_started")
            await self._record(principal, parent_id, never, ctx)
            return
        if child.live:
            reason = f"Workflow {parent_id}, which started it, does not wait for it any more."
            await self._gate.handle(principal, cmd.CancelWorkflow(workflow_id=child_id, reason=reason), ctx)
            child = await self._gate.states.fresh(principal.tenant, child_id) or child
        await self._record(principal, parent_id, _end_of(child, parent_id), ctx)

    async def _record(
        self,
        principal: Principal,
        workflow_id: str,
        command: Any,
        ctx: CallContext,
        *,
        command_id: str | None = None,
    ) -> None:
        async def make(state: State, now: str, mint: Mint) -> Draft:
            given = await self._gate.given(state, principal, now, mint)
            if await self._was_started_after_all(state, command):
                return Draft(state=state, given=given)  # the engine comes again, and sees it
            draft = rules.decide(state, command, given)
            draft.command_id = command_id
            return draft

        await self._gate.transact(principal, workflow_id, make, ctx)

    async def _was_started_after_all(self, state: State, command: Any) -> bool:
        if not isinstance(command, cmd.EndChild) or command.status != "never_started":
            return False
        return await self._gate.states.fresh(state.tenant, command.child_workflow_id) is not None


def _end_of(child: State, parent_id: str) -> cmd.EndChild:
    status = child.status if not child.live else "cancelled"  # what it still does is on its own record
    return cmd.EndChild.model_validate(
        {
            "workflow_id": parent_id,
            "child_workflow_id": child.workflow_id,
            "status": status,
            "output": child.output if status == "completed" else None,
            "reason": child.reason,
        }
    )
