"""Starting runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from charter.errors import Conflict, Refused, Unavailable
from charter.gate.parts import TRIES, CallContext
from charter.model import commands as cmd
from charter.model import signal_events as sev
from charter.model.policy import Facts
from charter.model.principal import Principal
from charter.workflows import decide as rules
from charter.workflows.children import CLAIM, Lineage
from charter.workflows.draft import Given
from charter.workflows.state import State
from charter.workflows.views import context

if TYPE_CHECKING:
    from charter.gate.gate import Gate


class Starts:
    """Starts runs for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def start(
        self,
        principal: Principal,
        command: cmd.StartWorkflow,
        ctx: CallContext,
        *,
        claims: tuple[tuple[str, str], ...] = (),
        command_id: str | None = None,
        caused_by: sev.Cause | None = None,
        child: tuple[str, Lineage] | None = None,
    ) -> Any:
        """Start a run. ``claims`` (scope and key) are taken with it, and remember the run. A ``child`` has its id already."""
        template, template_hash = self._gate.parts.templates.latest(command.template)
        self._gate.templates.check_input(template, command.input)
        withheld = self._gate.withholding.of_start(template, template_hash, command.input)
        facts = Facts(
            principal=principal,
            action="workflow.start",
            resource_type="Template",
            resource_id=template.ref,
            tenant=principal.tenant,
            template=template.ref,
            purpose=command.purpose,
            case_id=command.case_id,
            dry_run=command.dry_run,
            signal_type=caused_by.signal_type if caused_by else None,
            signal_source=caused_by.signal_source if caused_by else None,
            schedule=caused_by.schedule if caused_by else None,
        )
        decision = self._gate.prepare.evaluate(facts)
        if decision.verdict != "permit":
            await self._gate.refuse_outside(principal, facts, decision, ctx)
        for _ in range(TRIES):
            known = await (self._child(principal, child[0]) if child else self._started_before(principal, command))
            if known is not None:
                return known
            now, mint = self._gate.moment()
            workflow_id, lineage = child or (mint.new("workflow"), None)
            state = State(workflow_id=workflow_id, tenant=principal.tenant)
            given = Given(now, mint, principal, self._gate.parts.instance, template, facts=facts, decision=decision)
            draft = rules.start(
                state,
                command,
                given,
                template_hash=template_hash,
                caused_by=caused_by,
                lineage=lineage,
                withheld=withheld,
            )
            draft.claims.extend((scope, key, state.workflow_id) for scope, key in claims)
            draft.command_id = command_id
            draft.claims.extend(await self._gate.templates.claim(principal.tenant, template, template_hash))
            with self._gate.withholding.at_hand(draft):
                committed = await self._gate.driving.commit_and_carry(draft, state, principal, ctx)
            if committed:
                self._gate.templates.remember(principal.tenant, template, template_hash)
                return context(draft.last, template, principal, now)
        raise Unavailable("The start could not be recorded.", code="busy")

    async def _child(self, principal: Principal, workflow_id: str) -> Any:
        """The child if it was started before. Raises ``Refused`` where its parent has said that it never will be."""
        state = await self._gate.states.fresh(principal.tenant, workflow_id)
        if state is not None:
            template = await self._gate.templates.of(principal.tenant, state.template_hash)
            return context(state, template, principal, self._gate.moment()[0])
        if await self._gate.parts.store.claimed(principal.tenant, CLAIM, workflow_id) is not None:
            raise Refused("The run that wanted this one goes on without it.", code="child_not_wanted")
        return None

    async def _started_before(self, principal: Principal, command: cmd.StartWorkflow) -> Any:
        if command.idempotency_key is None:
            return None
        key = f"{principal.id}|{command.idempotency_key}"
        workflow_id = await self._gate.parts.store.claimed(principal.tenant, "start", key)
        if workflow_id is None:
            return None
        state = await self._gate.states.fresh(principal.tenant, workflow_id)
        if state is None:
            return None
        same_template = command.template in (state.template, state.template.partition("@")[0])
        asked = (command.purpose, command.case_id, command.dry_run)
        same = same_template and (state.purpose, state.case_id, state.dry_run) == asked
        if not same or not await self._gate.withholding.same_input(state, command.input):
            raise Conflict(
                f"The idempotency key was used for another start ({workflow_id}).",
                code="idempotency_key_reused",
                next_step="Use a new idempotency_key for a new workflow.",
            )
        template = await self._gate.templates.of(principal.tenant, state.template_hash)
        return context(state, template, principal, self._gate.moment()[0])
