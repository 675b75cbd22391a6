"""What a workflow is, folded from its events. Immutable: :func:`apply` answers with a new state.

It keeps what is live. A tool call that was permitted outright leaves no trace here once it has ended, so a run of
a million calls costs as much a call as a run of ten; the log has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from charter.errors import IntegrityError
from charter.model import events as ev
from charter.model.outbound import SERVER
from charter.model.phase import GateChecked, PhaseWentBack
from charter.workflows import machine
from charter.workflows.approval_state import ApprovalState
from charter.workflows.records import (
    ChildState,
    EffectState,
    GateState,
    GrantPass,
    GrantState,
    InvocationState,
    ProposalState,
    StepState,
)
from charter.workflows.run_state import State, changed

__all__ = [
    "ApprovalState",
    "ChildState",
    "EffectState",
    "GateState",
    "GrantPass",
    "GrantState",
    "InvocationState",
    "ProposalState",
    "State",
    "StepState",
    "changed",
]

SHAPE = 6
"""Raised with every change of the state or of its fold: a snapshot of an older shape is left, and the log folded again."""


def _started(state: State, data: ev.WorkflowStarted, time: str) -> State:
    return changed(
        state,
        status=machine.WORKFLOW[(state.status, "WORKFLOW_STARTED")],
        template=data.template,
        template_hash=data.template_hash,
        input=data.input,
        purpose=data.purpose,
        case_id=data.case_id,
        owner=data.owner,
        started_by=data.started_by,
        started_by_kind=data.started_by_kind,
        started_at=time,
        dry_run=data.dry_run,
        started_by_roles=data.started_by_roles,
        owner_roles=data.owner_roles,
        parent_workflow_id=data.parent_workflow_id,
        parent_step_id=data.parent_step_id,
        depth=data.depth,
        withheld=data.withheld,
        sealed_ref=data.sealed_ref,
        input_digest=data.input_digest,
    )


_KEEPS = ("completed", "review")
"""What was handed in stays the output; it is not written a second time."""


def _step(state: State, data: ev.WorkflowStep, time: str) -> State:
    before = state.steps.get(data.step_id, StepState())
    anew = data.status == "opened" or before.status == "review"
    after = StepState(
        status=machine.STEP[(before.status, data.status)],
        step_type=data.step_type,
        since=time,
        output=before.output if before.status == "submitted" and data.status in _KEEPS else data.output,
        reason=data.reason,
        code=data.code,
        until=data.until,
        waits_for=data.waits_for,
        timeout_at=data.timeout_at,
        polls=data.polls or before.polls,
        child_workflow_id=data.child_workflow_id or before.child_workflow_id,
        ran=before.ran and data.status != "again",
        order=state.version + 1,
        attempt=_attempt(before, data),
        visits=before.visits + (data.status == "opened"),
        key=None if anew else before.key,
        callback=None if anew else before.callback,
        opened_at=time if data.status == "opened" else before.opened_at,
    )
    if data.status == "again" and data.step_id in state.gates:
        state = changed(state, gates={key: item for key, item in state.gates.items() if key != data.step_id})
    if data.status == "reopened" and data.step_id in state.gates:  # another attempt: its gate is tried anew
        anew_gate = GateState(returned=state.gates[data.step_id].returned)
        state = changed(state, gates={**state.gates, data.step_id: anew_gate})
    after_it = changed(state, steps={**state.steps, data.step_id: after})
    return after_it if data.child_workflow_id is None else _planned(after_it, data.step_id, data.child_workflow_id)


def _attempt(before: StepState, data: ev.WorkflowStep) -> int:
    if data.status == "again":
        return 0
    if data.polls is not None:  # a poll that begins, or begins anew, with all its calls
        return 1
    return before.attempt + (data.status in ("opened", "reopened"))


def _planned(state: State, step_id: str, child_id: str) -> State:
    _only_once(state.children, child_id)
    child = ChildState(step_id=step_id, status=machine.CHILD[("new", "opened")])
    return changed(state, children={**state.children, child_id: child})


def _child_started(state: State, data: ev.ChildStarted, _time: str) -> State:
    before = state.children[data.child_workflow_id]
    status = machine.CHILD[(before.status, "CHILD_STARTED")]
    child = replace(before, status=status, template=data.template)
    return changed(state, children={**state.children, data.child_workflow_id: child})


def _child_ended(state: State, data: ev.ChildEnded, _time: str) -> State:
    machine.CHILD[(state.children[data.child_workflow_id].status, "CHILD_ENDED")]
    left = {key: child for key, child in state.children.items() if key != data.child_workflow_id}
    return changed(state, children=left)


def _parent_told(state: State, _data: ev.ParentTold, _time: str) -> State:
    return changed(state, parent_told=True)


def _agent_invoke(state: State, data: ev.AgentInvoke, time: str) -> State:
    before = state.invocations.get(data.agent_invocation_id)
    status = machine.INVOCATION[(before.status if before else "new", data.status)]
    if before is None:
        after = InvocationState(
            agent_invocation_id=data.agent_invocation_id,
            step_id=data.step_id,
            agent=data.agent,
            allowed_tools=data.allowed_tools,
            calls_budget=data.calls,
            calls_used=0,
            expires_at=data.expires_at,
            status=status,
            since=time,
            forbidden_tools=data.forbidden_tools,
            argument_rules=data.argument_rules,
        )
    else:
        after = replace(before, status=status, since=time, agent=data.agent)
    return changed(state, invocations={**state.invocations, data.agent_invocation_id: after})


def _gate_checked(state: State, data: GateChecked, _time: str) -> State:
    before = state.gates.get(data.step_id, GateState())
    same = before.attempts == data.attempt
    after = GateState(
        attempts=data.attempt,
        handed_in_by=data.handed_in_by,
        handed_in_by_kind=data.handed_in_by_kind,
        results=(*before.results, *data.results) if same else data.results,
        returned=data.returned,
    )
    return changed(state, gates={**state.gates, data.step_id: after})


def _went_back(state: State, data: PhaseWentBack, _time: str) -> State:
    return changed(state, gates={**state.gates, data.to_step: GateState(returned=data.returned)})


def _only_once(known: dict[str, Any], key: str) -> None:
    if key in known:
        raise KeyError(("new", key))


def _proposal(state: State, data: ev.ProposalMade, _time: str) -> State:
    _only_once(state.proposals, data.proposal_id)
    proposals = {**state.proposals, data.proposal_id: ProposalState(made=data)}
    if data.replaces and data.replaces in proposals:
        proposals[data.replaces] = replace(proposals[data.replaces], replaced_by=data.proposal_id)
    return changed(state, proposals=proposals)


def _approval_requested(state: State, data: ev.ApprovalRequested, _time: str) -> State:
    request = data.request
    _only_once(state.approvals, request.approval_id)
    status = machine.APPROVAL[("new", "requested")]
    proposals = state.proposals
    if request.proposal_id in proposals:
        before = proposals[request.proposal_id]
        proposals = {**proposals, request.proposal_id: replace(before, approval_id=request.approval_id)}
    approvals = {**state.approvals, request.approval_id: ApprovalState(request=request, status=status)}
    return changed(state, approvals=approvals, proposals=proposals)


def _approval_moved(state: State, data: Any, time: str) -> State:
    after = state.approvals[data.approval_id].after(data, time)
    return changed(state, approvals={**state.approvals, data.approval_id: after})


def _grant_given(state: State, data: ev.GrantGiven, _time: str) -> State:
    _only_once(state.grants, data.grant_id)
    return changed(state, grants={**state.grants, data.grant_id: GrantState(given=data, uses_left=data.bounds.uses)})


def _grant_revoked(state: State, data: ev.GrantRevoked, _time: str) -> State:
    grant = replace(state.grants[data.grant_id], revoked=True)
    return changed(state, grants={**state.grants, data.grant_id: grant})


def _called_back(state: State, data: ev.CallbackReceived, _time: str) -> State:
    step = replace(state.steps[data.step_id], callback={"body": data.body})
    return changed(state, steps={**state.steps, data.step_id: step})


def _keyed(state: State, data: ev.ToolInvoke) -> State:
    step = state.steps[data.step_id]
    return changed(state, steps={**state.steps, data.step_id: replace(step, key=step.key or data.idempotency_key)})


def _tool_invoke(state: State, data: ev.ToolInvoke, time: str) -> State:
    before = state.effects.get(data.effect_id)
    status = machine.EFFECT[(before.status if before else "new", "TOOL_INVOKE")]
    if before is not None and data.attempt != before.invoke.attempt + 1:
        raise KeyError(("attempt", data.attempt))
    began = before.began if before else time
    resent = before is not None and before.resent
    after = EffectState(invoke=data, status=status, since=time, began=began, resent=resent)
    effects = {**state.effects, data.effect_id: after}
    if before is not None:
        return changed(state, effects=effects)
    if data.tool.startswith(f"{SERVER}__"):
        state = _keyed(state, data)
    invocations, proposals, approvals, grants = (
        state.invocations,
        state.proposals,
        state.approvals,
        state.grants,
    )
    invocation = invocations.get(data.agent_invocation_id or "")
    if invocation is not None:
        used = replace(invocation, calls_used=invocation.calls_used + 1)
        invocations = {**invocations, invocation.agent_invocation_id: used}
    proposal = proposals.get(data.proposal_id)
    if proposal is not None:
        proposals = {**proposals, data.proposal_id: replace(proposal, effect_id=data.effect_id)}
    for approval_id in data.approval_ids:
        approval = approvals[approval_id]
        status_after = machine.APPROVAL[(approval.status, "used")]
        approvals = {**approvals, approval_id: replace(approval, status=status_after, used_by=data.effect_id)}
    if data.grant_id in grants:
        grant = grants[data.grant_id]
        grants = {**grants, data.grant_id: replace(grant, uses_left=grant.uses_left - 1)}
    return changed(
        state,
        effects=effects,
        invocations=invocations,
        proposals=proposals,
        approvals=approvals,
        grants=grants,
        passed=_passed(state, data),
    )


def _passed(state: State, data: ev.ToolInvoke) -> tuple[GrantPass, ...]:
    if data.under_grant is None or data.agent_invocation_id is not None:
        return state.passed
    found = GrantPass(data.step_id, data.under_grant)
    return state.passed if found in state.passed else (*state.passed, found)


def _effect_ended(state: State, effect_id: str, event_type: str, *, ran: bool) -> State:
    before = state.effects[effect_id]
    machine.EFFECT[(before.status, event_type)]
    effects = {key: value for key, value in state.effects.items() if key != effect_id}
    steps, proposals = state.steps, state.proposals
    if ran and before.invoke.agent_invocation_id is None and before.invoke.step_id in steps:
        step = replace(steps[before.invoke.step_id], ran=True, order=state.version + 1)
        steps = {**steps, before.invoke.step_id: step}
    proposal = proposals.get(before.invoke.proposal_id)
    if proposal is not None and proposal.approval_id is None:
        proposals = {key: value for key, value in proposals.items() if key != before.invoke.proposal_id}
    return changed(state, effects=effects, proposals=proposals, steps=steps)


def _tool_result(state: State, data: ev.ToolResult, _time: str) -> State:
    ran = data.status == "succeeded" and not data.is_error
    return _effect_ended(state, data.effect_id, "TOOL_RESULT", ran=ran)


def _effect_resolved(state: State, data: ev.EffectResolved, time: str) -> State:
    if data.resolution != "retry":
        return _effect_ended(state, data.effect_id, "EFFECT_RESOLVED", ran=data.resolution == "ran")
    before = state.effects[data.effect_id]
    machine.EFFECT[(before.status, "EFFECT_RESOLVED")]
    resent = before.resent or before.status == "dead_lettered"
    return changed(state, effects={**state.effects, data.effect_id: replace(before, since=time, resent=resent)})


def _in_doubt(state: State, data: ev.EffectInDoubt, time: str) -> State:
    before = state.effects[data.effect_id]
    status = machine.EFFECT[(before.status, "EFFECT_IN_DOUBT")]
    after = replace(before, status=status, since=time, reason=data.reason)
    return changed(state, effects={**state.effects, data.effect_id: after})


def _dead_lettered(state: State, data: ev.EffectDeadLettered, time: str) -> State:
    before = state.effects[data.effect_id]
    status = machine.EFFECT[(before.status, "EFFECT_DEAD_LETTERED")]
    after = replace(before, status=status, since=time, reason=data.reason)
    return changed(state, effects={**state.effects, data.effect_id: after})


def _ended(event_type: str) -> Callable[[State, Any, str], State]:
    def apply_end(state: State, data: ev.WorkflowEnded, _time: str) -> State:
        status = machine.WORKFLOW[(state.status, event_type)]
        return changed(state, status=status, output=data.output, reason=data.reason)

    return apply_end


def _compensating(state: State, data: ev.CompensationStarted, _time: str) -> State:
    return changed(state, status=machine.WORKFLOW[(state.status, "COMPENSATION_STARTED")], ending=data)


def _retried(state: State, _data: ev.WorkflowRetried, _time: str) -> State:
    status = machine.WORKFLOW[(state.status, "WORKFLOW_RETRIED")]
    return changed(state, status=status, output=None, reason=None)


def _held(event_type: str) -> Callable[[State, Any, str], State]:
    return lambda state, _data, _time: changed(state, status=machine.WORKFLOW[(state.status, event_type)])


def _unchanged(state: State, _data: Any, _time: str) -> State:
    return state


_APPLY: dict[str, Callable[[State, Any, str], State]] = {
    "WORKFLOW_STARTED": _started,
    "WORKFLOW_STEP": _step,
    "CHILD_STARTED": _child_started,
    "CHILD_ENDED": _child_ended,
    "PARENT_TOLD": _parent_told,
    "STEP_REVIEWED": _unchanged,
    **dict.fromkeys(("SIGNAL_DELIVERED", "SIGNAL_SENT"), _unchanged),
    "CALLBACK_RECEIVED": _called_back,
    "AGENT_INVOKE": _agent_invoke,
    "GATE_CHECKED": _gate_checked,
    "PHASE_WENT_BACK": _went_back,
    "PROPOSAL_MADE": _proposal,
    "POLICY_DECISION": _unchanged,
    "APPROVAL_REQUESTED": _approval_requested,
    **{f"APPROVAL_{name}": _approval_moved for name in ("DECISION", "CLOSED", "TURN")},
    **{f"APPROVAL_{name}": _approval_moved for name in ("REMINDED", "ESCALATED", "DELEGATED")},
    "GRANT_GIVEN": _grant_given,
    "GRANT_REVOKED": _grant_revoked,
    "TOOL_INVOKE": _tool_invoke,
    "TOOL_RESULT": _tool_result,
    "EFFECT_IN_DOUBT": _in_doubt,
    "EFFECT_DEAD_LETTERED": _dead_lettered,
    "EFFECT_RESOLVED": _effect_resolved,
    "COMMAND_REFUSED": _unchanged,
    "COMPENSATION_STARTED": _compensating,
    "WORKFLOW_RETRIED": _retried,
    **{name: _held(name) for name in ("WORKFLOW_PAUSED", "WORKFLOW_RESUMED")},
    **{name: _ended(name) for name in ev.ENDINGS},
}


def apply(state: State, event: ev.Event) -> State:
    """The state after one more event.

    Raises ``IntegrityError`` when the tables do not allow it: such a log was not written by Charter.
    """
    try:
        after = _APPLY[event.type](state, event.data, event.time)
    except KeyError as error:
        raise IntegrityError(
            f"Event {state.version + 1} of {state.workflow_id} ({event.type}) cannot follow: {error.args[0]!r}.",
            detail={"workflow_id": state.workflow_id, "version": state.version + 1},
        ) from None
    return changed(after, version=state.version + 1, updated_at=event.time)


def fold(state: State, events: Iterable[ev.Event]) -> State:
    """The state after these events: live runs and recovery share it."""
    for event in events:
        state = apply(state, event)
    return state
