"""Whether a standing grant counts for a call: only where its giver could have approved that very call, in its own run."""

from __future__ import annotations

from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.approval import ApprovalRequest, Separation
from charter.model.policy import Decision, Facts
from charter.model.principal import Principal
from charter.workflows import quorum
from charter.workflows.approval_state import ApprovalState
from charter.workflows.approvals import answer_of, refusal_of
from charter.workflows.facts import amounts_of, decide_facts
from charter.workflows.state import State


def as_approval(state: State, call: Facts, decision: Decision, given: ev.GrantGiven, now: str) -> Facts | None:
    """What the policy is asked: may the giver, through the channel of the grant, approve this call? None where the state
    itself says no, or where their yes would not count.

    ``call``, ``decision``: of the call without the grant, for which people would be asked.
    """
    giver = Principal(id=given.given_by, kind="human", tenant=state.tenant, roles=given.roles)
    approval = ApprovalState(request=_request(state, call, decision, now), status="pending")
    yes = cmd.DecideApproval(approval_id=approval.request.approval_id, decision="approve", channel=given.channel)
    if refusal_of(state, giver, yes, approval) is not None:
        return None
    answer = answer_of(giver, yes, approval, "approved")
    if not all(quorum.fits(item, answer) for item in approval.request.requirements):
        return None
    return decide_facts(state, giver, approval, given.channel, "approve")


def _request(state: State, call: Facts, decision: Decision, now: str) -> ApprovalRequest:
    """The request that people would be shown, as far as it matters to who may answer it."""
    return ApprovalRequest(
        approval_id="",
        workflow_id=state.workflow_id,
        step_id=call.step_id or "",
        agent_invocation_id=call.agent_invocation_id,
        tool=call.resource_id,
        risk=call.tool.risk if call.tool is not None else "high",
        digest="",
        reason="",
        asked_because=decision.reason,
        policy_set_hash=decision.policy_set_hash,
        requirements=quorum.requirements_of(decision),
        requested_by=call.principal.id,
        requested_by_kind=call.principal.kind,
        owner=state.owner,
        requested_at=now,
        expires_at=now,
        separation=_separation(state) if call.agent_invocation_id is None else "none",
        amounts=amounts_of(call.input or {}),
    )


def _separation(state: State) -> Separation:
    """The template's rule, which its steps' requests carry; where there is none yet, nothing is to be kept apart from."""
    for item in state.approvals.values():
        if item.request.agent_invocation_id is None:
            return item.request.separation
    return state.passed[0].under.separation if state.passed else "none"
