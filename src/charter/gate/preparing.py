"""Getting a call ready for a decision: found, validated, redacted, matched with its proposal, and evaluated."""

from __future__ import annotations

from typing import Any

import orjson

from charter.errors import InvalidInput, NotFound, Refused
from charter.gate.grants import NOTHING_AHEAD, Ahead, Use, find_use
from charter.gate.hiding import unknown_tool
from charter.gate.parts import Parts
from charter.gate.spans import POLICY, Attr
from charter.manifests.arguments import check_arguments
from charter.manifests.built_in import fitted
from charter.manifests.redaction import redact, shown_fields
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.base import JsonObject
from charter.model.digests import call_digest
from charter.model.outbound import SERVER
from charter.model.policy import Decision, Facts
from charter.model.principal import Principal
from charter.model.tool import ToolManifest
from charter.workflows.draft import Call
from charter.workflows.facts import call_facts
from charter.workflows.quorum import requirements_of, roles_asked
from charter.workflows.standing import as_approval
from charter.workflows.state import ProposalState, State


class Preparer:
    """Prepares calls; reads sealed arguments where a proposal has them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def evaluate(self, facts: Facts) -> Decision:
        """The policy's answer, on a span and in the metrics."""
        tracing = self._parts.tracing
        with tracing.inner_span(POLICY) as span:
            decision = self._parts.evaluator.evaluate(facts)
            tracing.decided(decision, action=facts.action, span=span)
        tracing.annotate({Attr.VERDICT: decision.verdict, Attr.CODE: decision.code})
        return decision

    def manifest(self, name: str) -> ToolManifest:
        """The tool of this name. Raises ``NotFound`` (``unknown_tool``)."""
        found = self._parts.tools.find(name)
        if found is None:
            raise unknown_tool(name)
        return found

    def _fitted(self, name: str, arguments: JsonObject) -> ToolManifest:
        """The manifest of a call whose arguments were checked when it was proposed."""
        manifest = self.manifest(name)
        return fitted(manifest, arguments) if manifest.server == SERVER else manifest

    async def secret(self, tenant: str, ref: str) -> Any:
        """Sealed JSON. Raises ``NotFound`` (``erased``) when it was deleted."""
        sealed = await self._parts.store.unseal(tenant, ref)
        if sealed is None:
            raise NotFound("The sealed content was erased.", code="erased", next_step="Propose the call again.")
        return orjson.loads(self._parts.sealer.open(tenant, sealed))

    async def real_call(self, tenant: str, proposal: ProposalState) -> tuple[JsonObject, str]:
        """A proposal's real arguments and its salt."""
        made = proposal.made
        if made.sealed_ref is None:
            return made.arguments, made.salt or ""
        content = await self.secret(tenant, made.sealed_ref)
        return content["arguments"], content["salt"]

    async def proposal_of(self, state: State, proposal_id: str, invocation_id: str | None) -> ProposalState:
        """The proposal, if it is this invocation's. Raises ``NotFound`` (``unknown_proposal``)."""
        proposal = state.proposals.get(proposal_id)
        if proposal is None or proposal.made.agent_invocation_id != invocation_id:
            raise NotFound(
                f"This invocation has no open proposal {proposal_id!r}; it may have run already.",
                code="unknown_proposal",
                next_step="Call propose_action to make a proposal.",
            )
        return proposal

    async def for_proposal(
        self, state: State, principal: Principal, command: Any, now: str, ahead: Ahead = NOTHING_AHEAD
    ) -> Call:
        """The call of ``command.proposal_id``; the command may repeat tool and arguments, which must then agree.

        ``ahead``: decide as if this had gone before.
        """
        proposal = await self.proposal_of(state, command.proposal_id, command.agent_invocation_id)
        arguments, salt = await self.real_call(state.tenant, proposal)
        manifest = self._fitted(proposal.made.tool, arguments)
        if isinstance(command, cmd.InvokeTool) and (command.tool or command.arguments is not None):
            digest = self._digest(state, proposal, command.arguments or {}, salt)
            check_same_call(proposal, command, digest)
        if manifest.definition_hash != proposal.made.definition_hash:
            raise Refused(
                f"The definition of {manifest.name} has changed since this was proposed; approvals do not carry over.",
                code="definition_changed",
                next_step="Call propose_action again; people will see the call under the new definition.",
            )
        invocation_id = command.agent_invocation_id
        return await self._call(state, principal, manifest, arguments, now, proposal, invocation_id, ahead=ahead)

    def _digest(self, state: State, proposal: ProposalState, arguments: JsonObject, salt: str) -> str:
        made = proposal.made
        return call_digest(
            tenant=state.tenant,
            workflow_id=state.workflow_id,
            agent_invocation_id=made.agent_invocation_id,
            tool=made.tool,
            definition_hash=made.definition_hash,
            arguments=arguments,
            salt=salt,
        )

    async def for_arguments(
        self,
        state: State,
        principal: Principal,
        tool: str,
        arguments: JsonObject,
        now: str,
        *,
        invocation_id: str | None,
        step_id: str | None = None,
        match: bool = True,
    ) -> Call:
        """A call by tool and arguments; the open proposal of the same call, if there is one, goes with it."""
        manifest = self.manifest(tool)
        checked = check_arguments(manifest, arguments)
        if manifest.server == SERVER:
            manifest = fitted(manifest, checked)
        proposal = None
        if match and (found := await self._matching(state, manifest, checked, invocation_id, step_id)):
            proposal, checked = found  # equal is not the same to the byte (1.0 and 1): what runs is what people saw
        return await self._call(state, principal, manifest, checked, now, proposal, invocation_id, step_id)

    async def _matching(
        self,
        state: State,
        manifest: ToolManifest,
        arguments: JsonObject,
        invocation_id: str | None,
        step_id: str | None,
    ) -> tuple[ProposalState, JsonObject] | None:
        for proposal in reversed(state.proposals.values()):
            made = proposal.made
            if made.tool != manifest.name or made.agent_invocation_id != invocation_id:
                continue
            if proposal.effect_id or proposal.replaced_by or made.definition_hash != manifest.definition_hash:
                continue
            if step_id is not None and made.step_id != step_id:
                continue
            try:
                proposed, salt = await self.real_call(state.tenant, proposal)
            except NotFound:
                continue  # its arguments were erased: nothing can be matched with it any more
            if self._digest(state, proposal, arguments, salt) == made.digest:
                return proposal, proposed
        return None

    async def _call(
        self,
        state: State,
        principal: Principal,
        manifest: ToolManifest,
        arguments: JsonObject,
        now: str,
        proposal: ProposalState | None,
        invocation_id: str | None,
        step_id: str | None = None,
        ahead: Ahead = NOTHING_AHEAD,
    ) -> Call:
        redacted, sensitive = redact(manifest, arguments)
        invocation = state.invocations.get(invocation_id or "")
        step = step_id or (invocation.step_id if invocation else None)
        approval = state.approvals.get(proposal.approval_id or "") if proposal else None
        facts = call_facts(
            state,
            principal,
            manifest,
            now=now,
            quarantined=self._parts.tools.quarantine(manifest.name) is not None,
            step_id=step,
            agent_invocation_id=invocation_id,
            arguments=arguments,
            approval=approval,
            grant_id=None,
        )
        if ahead.calls:
            facts = facts.model_copy(update={"calls_used": facts.calls_used + ahead.calls})
        decision = asked = self.evaluate(facts)
        use = None
        if decision.verdict == "require_approval":
            # A grant is looked for only where people would be asked, so that what needs nobody does not use it up.
            use, facts, decision = await self._under_a_grant(state, facts, decision, now, ahead)
        decision = self._with_quarantine(manifest, decision)
        use = use if decision.verdict == "permit" else None
        return Call(
            manifest=manifest,
            arguments=arguments,
            redacted=redacted,
            sensitive=sensitive,
            step_id=step or "",
            agent_invocation_id=invocation_id,
            facts=facts,
            decision=decision,
            proposal_id=proposal.made.proposal_id if proposal else None,
            grant_id=use.grant_id if use else None,
            grant_claim=use.claim if use and not state.dry_run else None,
            grant_given_by=use.given_by if use else None,
            grant_for=tuple(sorted(roles_asked(requirements_of(asked)))) if use else (),
            shown=shown_fields(manifest, arguments) if decision.verdict == "require_approval" else (),
            shadow=self._parts.evaluator.shadow(facts, decision),
        )

    async def _under_a_grant(
        self, state: State, facts: Facts, decision: Decision, now: str, ahead: Ahead
    ) -> tuple[Use | None, Facts, Decision]:
        """The call once more, under the standing grant that covers it, where there is one that counts for it."""

        def counts(given: ev.GrantGiven) -> bool:
            return self.grant_counts(state, facts, decision, given, now)

        use = await find_use(
            self._parts.store, state, facts.resource_id, facts.input or {}, now, counts=counts, ahead=ahead
        )
        if use is None:
            return None, facts, decision
        granted = facts.model_copy(update={"grant_id": use.grant_id, "grant_given_by": use.given_by})
        return use, granted, self.evaluate(granted)

    def grant_counts(self, state: State, call: Facts, decision: Decision, given: ev.GrantGiven, now: str) -> bool:
        """True when who gave a grant could have approved this very call: never their own, and only where they may decide."""
        asked = as_approval(state, call, decision, given, now)
        return asked is not None and self._parts.evaluator.evaluate(asked).verdict == "permit"

    def _with_quarantine(self, manifest: ToolManifest, decision: Decision) -> Decision:
        """A quarantined tool's denial shows what changed."""
        found = self._parts.tools.quarantine(manifest.name)
        if found is None or decision.verdict != "deny":
            return decision
        return decision.model_copy(
            update={
                "reason": f"{decision.reason}\n{found.diff}",
                "next_step": f"Ask the operator to read the difference and run `charter tools pin {manifest.name}`.",
            }
        )


def check_same_call(proposal: ProposalState, command: cmd.InvokeTool, digest: str) -> None:
    """A proposal and a call that are given together must agree. Raises ``InvalidInput`` (``proposal_mismatch``)."""
    if command.tool is not None and command.tool != proposal.made.tool:
        raise InvalidInput(
            f"Proposal {proposal.made.proposal_id} is for {proposal.made.tool}, not {command.tool}.",
            code="proposal_mismatch",
            next_step="Send the proposal_id alone, or propose the other call.",
        )
    if command.arguments is not None and digest != proposal.made.digest:
        raise InvalidInput(
            f"The arguments are not those of proposal {proposal.made.proposal_id}; an approval holds for one exact call.",
            code="proposal_mismatch",
            next_step="Send the proposal_id alone to run what was proposed, or propose the changed call.",
        )
