"""The part of the trace validator that follows tool calls: decisions, grants and effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from charter.audit.trace_approvals import Approvals, Run, Say
from charter.model import events as ev
from charter.model.policy import Facts
from charter.model.principal import person_key


@dataclass(slots=True)
class _Effect:
    invoke: ev.ToolInvoke
    status: str = "running"
    retry: bool = False
    letter: bool = False


@dataclass(slots=True)
class _Grant:
    given: ev.GrantGiven
    left: int
    revoked: bool = False


class Calls:
    """Follows the calls of one run."""

    def __init__(self, run: Run, say: Say) -> None:
        self._run, self._say = run, say
        self._permits: dict[str, bool] = {}  # digest: the last decision permits, and no call has used it
        self._proposals: dict[str, str] = {}  # id: digest
        self._ran: dict[str, str] = {}  # proposal: effect
        self._approvals = Approvals(run, say, self._proposals)
        self._effects: dict[str, _Effect] = {}
        self._grants: dict[str, _Grant] = {}
        self._asked: dict[str, Facts] = {}  # digest: what the policy was last told of this call

    def see(self, type_: str, data: Any) -> None:
        """Read one event of a type that this class follows; others are of no concern."""
        handler = _HANDLERS.get(type_)
        if handler is not None:
            handler(self, data)
        else:
            self._approvals.see(type_, data)

    # -- what comes before a call

    def on_proposal(self, data: ev.ProposalMade) -> None:
        if data.proposal_id in self._proposals:
            self._say("proposal_used_once", f"{data.proposal_id} is made a second time.")
        self._proposals[data.proposal_id] = data.digest

    def on_policy(self, data: ev.PolicyDecision) -> None:
        if data.digest is not None:
            self._permits[data.digest] = data.verdict == "permit" and data.action == "tool.invoke"
            if data.facts is not None:
                self._asked[data.digest] = data.facts

    def on_grant(self, data: ev.GrantGiven) -> None:
        self._grants[data.grant_id] = _Grant(data, data.bounds.uses)

    def on_revoked(self, data: ev.GrantRevoked) -> None:
        grant = self._grants.get(data.grant_id)
        if grant is None:
            self._say("grant_within_bounds", f"{data.grant_id} is revoked and was never given.")
        else:
            grant.revoked = True

    # -- calls

    def on_invoke(self, data: ev.ToolInvoke) -> None:
        known = self._effects.get(data.effect_id)
        if known is not None:
            self._again(known, data)
            return
        self._effects[data.effect_id] = _Effect(data)
        if data.attempt != 1:
            self._say("effect_attempts", f"{data.effect_id} begins with attempt {data.attempt}.")
        self._check_context(data)
        if not self._permits.pop(data.digest, False):
            self._say("permit_before_call", f"No decision permits this call of {data.tool}.")
        self._check_proposal(data)
        for approval_id in data.approval_ids:
            self._approvals.use(approval_id, data)
        if data.grant_id is not None:
            self._use_grant(data.grant_id, data)
        if data.under_grant is not None and data.agent_invocation_id is None:
            self._approvals.pass_by_grant(data, data.under_grant)

    def _again(self, effect: _Effect, data: ev.ToolInvoke) -> None:
        last = effect.invoke
        if data.attempt != last.attempt + 1:
            self._say("effect_attempts", f"{data.effect_id} goes from attempt {last.attempt} to {data.attempt}.")
        same = ("tool", "digest", "proposal_id", "idempotency_key", "definition_hash", "step_id", "agent_invocation_id")
        if any(getattr(last, name) != getattr(data, name) for name in same):
            self._say("effect_attempts", f"{data.effect_id} is another call than its first attempt.")
        recovered = effect.status == "running" and last.idempotent
        if not (recovered or (effect.status == "in_doubt" and effect.retry)):
            self._say("effect_attempts", f"{data.effect_id} runs again, and nobody said that it may.")
        effect.invoke, effect.status, effect.retry = data, "running", False

    def _check_context(self, data: ev.ToolInvoke) -> None:
        run = self._run
        if run.steps.get(data.step_id) != "opened":
            self._say("call_within_step", f"Step {data.step_id} is not open.")
        if data.agent_invocation_id is None:
            calling = run.step_types.get(data.step_id) in ("action", "external", "notification")
            if not calling and data.step_id not in run.polled:
                self._say("call_within_step", f"No agent was invoked for {data.tool}, and its step calls no tool.")
            return
        invocation = run.invocations.get(data.agent_invocation_id)
        if invocation is None or not invocation.open or invocation.step_id != data.step_id:
            self._say("invocation_granted_first", f"{data.agent_invocation_id} is not open in step {data.step_id}.")
        elif not invocation.allows(data.tool):
            self._say("invocation_granted_first", f"{data.agent_invocation_id} does not allow {data.tool}.")
        elif run.time >= invocation.expires_at:
            self._say("invocation_granted_first", f"{data.agent_invocation_id} expired at {invocation.expires_at}.")

    def _check_proposal(self, data: ev.ToolInvoke) -> None:
        if data.proposal_id in self._ran:
            self._say("proposal_used_once", f"{data.proposal_id} runs again, as {data.effect_id}.")
        if self._proposals.get(data.proposal_id, data.digest) != data.digest:
            self._say("proposal_used_once", f"The call is not what {data.proposal_id} proposed.")
        self._ran[data.proposal_id] = data.effect_id

    def _use_grant(self, grant_id: str, data: ev.ToolInvoke) -> None:
        grant = self._grants.get(grant_id)
        self._check_giver(grant, data)
        if grant is None:
            return  # given for the case, in another workflow's record
        bounds = grant.given.bounds
        grant.left -= 1
        if grant.revoked or grant.left < 0 or self._run.time >= bounds.expires_at or bounds.tool != data.tool:
            self._say("grant_within_bounds", f"{grant_id} does not cover this call of {data.tool}.")

    def _check_giver(self, grant: _Grant | None, data: ev.ToolInvoke) -> None:
        asked = self._asked.get(data.digest)
        if asked is None:
            return  # told of as a call without a decision
        told, under = asked.grant_given_by, data.under_grant
        giver = grant.given.given_by if grant is not None else told
        if giver is None:
            return  # a case's grant, on a record of before this was written down
        said = {told, under.given_by if under is not None else None} - {None}
        if said - {giver} or person_key(giver) == person_key(asked.principal.id):
            self._say(
                "grant_by_another_person", f"{giver} gave {data.grant_id}, and {asked.principal.id} calls under it."
            )

    # -- what comes after a call

    def _ended(self, effect_id: str, from_: tuple[str, ...], to: str, attempt: int | None = None) -> _Effect | None:
        effect = self._effects.get(effect_id)
        if effect is None:
            self._say("result_once", f"{effect_id} ends and was never begun.")
            return None
        if effect.status not in from_ or (attempt is not None and attempt != effect.invoke.attempt):
            self._say("result_once", f"Attempt {attempt or effect.invoke.attempt} of {effect_id} is not {from_[0]}.")
        effect.status = to
        return effect

    def on_result(self, data: ev.ToolResult) -> None:
        effect = self._ended(data.effect_id, ("running", "in_doubt"), "ended", data.attempt)
        if data.status == "succeeded" and not data.is_error:
            self._ran_for_its_step(effect)

    def on_doubt(self, data: ev.EffectInDoubt) -> None:
        self._ended(data.effect_id, ("running",), "in_doubt", data.attempt)

    def on_dead_letter(self, data: ev.EffectDeadLettered) -> None:
        effect = self._ended(data.effect_id, ("running",), "dead_lettered", data.attempt)
        if effect is not None:
            effect.letter = True

    def is_letter(self, effect_id: str) -> bool:
        """A message that was given up once."""
        return effect_id in self._effects and self._effects[effect_id].letter

    def on_resolved(self, data: ev.EffectResolved) -> None:
        retry = data.resolution == "retry"
        effect = self._ended(data.effect_id, ("in_doubt", "dead_lettered"), "in_doubt" if retry else "ended")
        if effect is not None:
            effect.retry = retry
        if data.resolution == "ran":
            self._ran_for_its_step(effect)

    def _ran_for_its_step(self, effect: _Effect | None) -> None:
        if effect is not None and effect.invoke.agent_invocation_id is None:
            self._run.called[effect.invoke.step_id] = "succeeded"


_HANDLERS: dict[str, Callable[[Calls, Any], None]] = {
    "PROPOSAL_MADE": Calls.on_proposal,
    "POLICY_DECISION": Calls.on_policy,
    "GRANT_GIVEN": Calls.on_grant,
    "GRANT_REVOKED": Calls.on_revoked,
    "TOOL_INVOKE": Calls.on_invoke,
    "TOOL_RESULT": Calls.on_result,
    "EFFECT_IN_DOUBT": Calls.on_doubt,
    "EFFECT_DEAD_LETTERED": Calls.on_dead_letter,
    "EFFECT_RESOLVED": Calls.on_resolved,
}
