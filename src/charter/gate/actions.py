"""Finding out what an agent may do in a run now. Nothing of it is put on record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charter.errors import CharterError, NotFound, Unavailable
from charter.gate.grants import Standing, standing_grants
from charter.gate.hiding import is_hidden
from charter.model import commands as cmd
from charter.model.actions import AgentActions, InvocationActions, Possible, PossibleProposal
from charter.model.policy import Action, Decision, Facts
from charter.model.principal import Principal
from charter.model.template import Template
from charter.model.tool import ToolManifest
from charter.workflows import actions
from charter.workflows import facts as facts_of
from charter.workflows.state import InvocationState, ProposalState, State
from charter.workflows.views import blocked_by, status_of

if TYPE_CHECKING:
    from charter.gate.gate import Gate

NEWEST = 50
"""So many of the proposals that have not run are told of."""
_VERBS: tuple[tuple[str, Action], ...] = (
    ("get_workflow", "workflow.read"),
    ("advance_workflow", "workflow.advance"),
    ("cancel_workflow", "workflow.cancel"),
)


class Actions:
    """What one agent may do in one run."""

    def __init__(self, gate: Gate, agent: Principal, tools: tuple[ToolManifest, ...]) -> None:
        """``tools``: those that are told of."""
        self._gate, self._agent, self._tools = gate, agent, tools
        self._grants: dict[str, list[Standing]] = {}

    async def of(self, state: State, invocation_id: str | None) -> AgentActions:
        """Everything, or for one grant alone. Raises ``NotFound`` (``no_invocation``) when the agent does not hold it."""
        now = self._gate.moment()[0]
        template = await self._gate.templates.of(state.tenant, state.template_hash)
        for item in await standing_grants(self._gate.parts.store, state):
            bounds = item.given.bounds
            if not item.revoked and item.uses_left > 0 and now < bounds.expires_at:
                self._grants.setdefault(bounds.tool, []).append(item)
        held = [
            item
            for key, item in state.invocations.items()
            if facts_of.invocation_live(state, key, self._agent, now) and invocation_id in (None, key)
        ]
        if invocation_id is not None and not held:
            raise NotFound(
                f"{self._agent.id} holds no open invocation {invocation_id!r} in this workflow.",
                code="no_invocation",
                next_step="Leave agent_invocation_id out, or call get_workflow to see the open ones.",
            )
        found = [await self._invocation(state, template, item, now) for item in held]
        return AgentActions(
            workflow_id=state.workflow_id,
            status=status_of(state),
            agent=self._agent.id,
            invocations=tuple(found) or (self._nothing(state, now),),
            verbs=tuple(self._on_the_run(state, name, action, now) for name, action in _VERBS),
            waits_for=blocked_by(state),
        )

    async def _invocation(
        self, state: State, template: Template, invocation: InvocationState, now: str
    ) -> InvocationActions:
        tools = tuple(self._tool(state, invocation, item, now) for item in self._tools)
        key = invocation.agent_invocation_id
        unrun = [
            item
            for item in state.proposals.values()
            if item.made.agent_invocation_id == key
            and item.effect_id is None
            and item.replaced_by is None
            and not is_hidden(self._gate.parts, self._agent, item.made.tool)
        ]
        proposals = tuple([await self._proposal(state, item, now) for item in unrun[-NEWEST:]])
        facts = facts_of.workflow_facts(state, self._agent, "step.complete")
        complete = self._decided(facts.model_copy(update={"agent_invocation_id": key, "invocation_live": True}))
        return InvocationActions(
            agent_invocation_id=key,
            step_id=invocation.step_id,
            calls_left=max(0, invocation.calls_budget - invocation.calls_used),
            expires_at=invocation.expires_at,
            verbs=actions.verbs(state, template, invocation, complete, tools, proposals),
            tools=tools,
            proposals=proposals,
        )

    def _nothing(self, state: State, now: str) -> InvocationActions:
        """No grant: each tool's no says so."""
        tools = tuple(self._tool(state, None, item, now) for item in self._tools)
        return InvocationActions(verbs=actions.without_invocation(), tools=tools)

    def _decided(self, facts: Facts) -> Decision:
        return self._gate.parts.evaluator.evaluate(facts)

    def _tool(self, state: State, invocation: InvocationState | None, manifest: ToolManifest, now: str) -> Possible:
        parts = self._gate.parts
        facts = facts_of.call_facts(
            state,
            self._agent,
            manifest,
            now=now,
            quarantined=parts.tools.quarantine(manifest.name) is not None,
            step_id=invocation.step_id if invocation else None,
            agent_invocation_id=invocation.agent_invocation_id if invocation else None,
            arguments={},
            approval=None,
            grant_id=None,
        ).model_copy(update={"input": None, "arguments_refused": None})
        unavailable = parts.unavailable(manifest.name)
        decision = self._decided(facts)
        grants = [
            (item.given.grant_id, item.uses_left)
            for item in self._grants.get(manifest.name, ())
            if decision.verdict == "require_approval"
            and self._gate.prepare.grant_counts(state, facts, decision, item.given, now)
        ]
        return actions.tool(state, invocation, manifest, facts, decision, unavailable, grants)

    async def _proposal(self, state: State, item: ProposalState, now: str) -> PossibleProposal:
        made = item.made
        one = cmd.RequestApproval(
            workflow_id=state.workflow_id,
            agent_invocation_id=made.agent_invocation_id,
            proposal_id=made.proposal_id,
        )
        try:
            call = await self._gate.prepare.for_proposal(state, self._agent, one, now)
        except Unavailable:
            raise
        except CharterError as problem:
            return actions.proposal(state, item, None, problem, now)
        return actions.proposal(state, item, call.decision, None, now)

    def _on_the_run(self, state: State, name: str, action: Action, now: str) -> Possible:
        decision = self._decided(facts_of.facts_of_worker(state, self._agent, action, now))
        return actions.on_the_run(state, name, decision)


def working_in(state: State, invocation_id: str | None, roles: tuple[str, ...]) -> Principal | None:
    """The agent to whom a grant of this run was given, as far as the record knows it; None where none is open.

    ``roles``: those that its credential is taken to have.
    """
    for key, item in state.invocations.items():
        if item.status != "open" or invocation_id not in (None, key):
            continue
        known = _seen(state, item.agent)
        if known is not None and not roles:
            return known
        name, held = (item.agent, roles)
        if item.agent.startswith("role:"):
            name, held = f"an agent with {item.agent}", (item.agent[5:], *roles)
        acts_for = state.owner if item.agent == state.started_by and state.owner != state.started_by else None
        return Principal(id=name, kind="agent", tenant=state.tenant, roles=held or ("agent",), acts_for=acts_for)
    return None


def _seen(state: State, agent: str) -> Principal | None:
    """The same as it proposed something last, with the roles that it had then."""
    made = (item.made.proposed_by for item in reversed(state.proposals.values()))
    return next((by for by in made if by.id == agent and by.kind == "agent"), None)
