"""The decider: a state, a command and what is given answer with events, perhaps an effect, and a reply.

Pure: no clock, randomness, I/O or logging. The same arguments give the same draft in any process.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

from charter.errors import CharterError, InvalidInput, Refused, Unavailable
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model import signal_events as sev
from charter.model.base import JsonObject
from charter.model.digests import input_digest
from charter.model.template import AgentStep
from charter.workflows import (
    approvals,
    asking_others,
    batches,
    callbacks,
    calls,
    children,
    effects,
    failing,
    phases,
    quotas,
    retrying,
    reviews,
    signals,
    steps,
)
from charter.workflows.children import Lineage
from charter.workflows.draft import Call, Draft, Given, Secret, Withheld
from charter.workflows.ending import end, end_invocation
from charter.workflows.state import ProposalState, State


def start(
    state: State,
    command: cmd.StartWorkflow,
    given: Given,
    *,
    template_hash: str,
    caused_by: sev.Cause | None = None,
    lineage: Lineage | None = None,
    withheld: Withheld | None = None,
) -> Draft:
    """A new run of the given template. ``state`` is new; the policy's answer is in ``given``. A child has a ``lineage``;
    what of its input is ``withheld`` from the record is sealed."""
    draft = Draft(state=state, given=given)
    principal = given.principal
    if given.decision is None or given.facts is None:
        raise InvalidInput("A start needs a decision.")
    draft.emit(
        "WORKFLOW_STARTED",
        ev.WorkflowStarted(
            template=given.template.ref,
            template_hash=template_hash,
            input=command.input if withheld is None else withheld.shown,
            purpose=command.purpose,
            case_id=command.case_id,
            owner=principal.acts_for or principal.id,
            started_by=principal.id,
            started_by_kind=principal.kind,
            dry_run=command.dry_run,
            caused_by=caused_by,
            idempotency_key=command.idempotency_key,
            started_by_roles=principal.roles,
            owner_roles=principal.acts_for_roles,
            **(asdict(lineage) if lineage else {}),
            **(_sealed(draft, withheld, command.input) if withheld else {}),
        ),
    )
    draft.policy(given.facts, given.decision)
    if command.idempotency_key is not None:
        draft.claims.append(("start", f"{principal.id}|{command.idempotency_key}", state.workflow_id))
    steps.advance(draft)
    return draft


def _sealed(draft: Draft, withheld: Withheld, value: JsonObject) -> JsonObject:
    mint, state = draft.given.mint, draft.state
    ref, salt = mint.new("sealed"), mint.salt()
    draft.secrets.append(Secret(ref=ref, content={"input": value, "salt": salt}))
    digest = input_digest(tenant=state.tenant, workflow_id=state.workflow_id, value=value, salt=salt)
    return {"withheld": withheld.pointers, "sealed_ref": ref, "input_digest": digest}


def decide(
    state: State,
    command: cmd.Command,
    given: Given,
    *,
    result: dict[str, Any] | None = None,
) -> Draft:
    """What follows from a command on an existing run. ``result`` goes with ``RecordOutcome`` alone."""
    draft = Draft(state=state, given=given)
    if isinstance(command, cmd.RecordOutcome):
        effects.record_outcome(draft, command, result or {})
    elif isinstance(command, cmd.RecoverEffect):
        effects.recover(draft, command, given.call)
    elif isinstance(command, cmd.ResolveEffect):
        if _permitted(draft):
            effects.resolve(draft, command, given.call)
    elif isinstance(command, cmd.DecideApproval):
        approvals.decide(draft, command, given.call)
    elif isinstance(command, cmd.DelegateApproval):
        approvals.delegate(draft, command)
    elif isinstance(command, cmd.GiveGrant):
        approvals.give_grant(draft, command)
    elif isinstance(command, cmd.RevokeGrant):
        approvals.revoke_grant(draft, command)
    elif isinstance(command, cmd.RetryWorkflow):
        retrying.retry(draft, command)
    else:
        _decide_on_run(draft, command)
    return draft


def _decide_on_run(draft: Draft, command: cmd.Command) -> None:
    if isinstance(command, cmd.CompleteStep):
        _complete(draft, command)
    elif isinstance(command, cmd.CancelWorkflow):
        _cancel(draft, command)
    elif isinstance(command, cmd.PauseWorkflow | cmd.ResumeWorkflow):
        reviews.hold(draft, command)
        due(draft)
        steps.advance(draft)
    elif isinstance(command, cmd.ReviewStep):
        reviews.review(draft, command)
    elif isinstance(command, cmd.DeliverSignal):
        due(draft)  # a wait whose time was over before the signal came is not woken by it
        signals.deliver(draft, command)
    elif isinstance(command, cmd.DeliverCallback):
        due(draft)  # one that comes after its time changes nothing
        callbacks.deliver(draft, command)
    elif isinstance(command, cmd.AdvanceWorkflow):
        _advance(draft)
    elif isinstance(command, cmd.ConfirmChild | cmd.EndChild | cmd.NoteParentTold):
        children.settle(draft, command)
    else:
        _decide_on_calls(draft, command)


def _decide_on_calls(draft: Draft, command: cmd.Command) -> None:
    if isinstance(command, cmd.InvokeBatch):
        batches.check(draft)
    elif draft.given.call is not None:
        _decide_on_call(draft, command, draft.given.call)
    else:
        raise InvalidInput(f"{type(command).__name__} was not prepared.")


def _decide_on_call(draft: Draft, command: cmd.Command, call: Call) -> None:
    if isinstance(command, cmd.ProposeAction | cmd.InvokeTool) and quotas.refused(draft, command, call):
        return
    if call.decision.verdict != "deny":
        phases.claim(draft, call.agent_invocation_id)
    if isinstance(command, cmd.ProposeAction):
        calls.propose(draft, command, call)
    elif isinstance(command, cmd.RequestApproval):
        calls.request_approval(draft, command, call)
    elif isinstance(command, cmd.InvokeTool):
        calls.invoke(draft, command, call)
    elif isinstance(command, cmd.RunStep):
        due(draft)
        if runnable(draft.state, command.step_id):
            calls.run_step(draft, command, call)
    else:
        raise InvalidInput(f"{type(command).__name__} is not a command on a call.")


def unprepared(state: State, command: cmd.Command, given: Given, error: CharterError) -> Draft:
    """A call that could not be prepared: an ``action`` step has failed, anything else is the caller's error."""
    draft = Draft(state=state, given=given)
    if not isinstance(command, cmd.RunStep) or isinstance(error, Unavailable):
        raise error
    if runnable(state, command.step_id):
        step = steps.step_named(given.template, command.step_id)
        # What was asked wrongly will be asked wrongly again; a tool that is not there may come.
        attempted = not isinstance(error, InvalidInput)
        failing.fail_step(draft, step, error.error_code, error.message, attempted=attempted)
    return draft


def _permitted(draft: Draft) -> bool:
    facts, decision = draft.given.facts, draft.given.decision
    if facts is None or decision is None:
        raise InvalidInput("The command needs a decision.")
    draft.policy(facts, decision)
    if decision.verdict == "permit":
        return True
    draft.error = calls.denied(decision)
    return False


def _complete(draft: Draft, command: cmd.CompleteStep) -> None:
    if not draft.state.live:
        draft.refuse("complete_step", approvals.ended(draft))
        return
    if not _permitted(draft):
        return
    invocation = draft.state.invocations.get(command.agent_invocation_id or "")
    if invocation is None or invocation.status != "open":
        error = Refused(
            "This invocation is not open any more.",
            code="invocation_ended",
            next_step="Call get_workflow to see which invocations you hold.",
        )
        draft.refuse("complete_step", error)
        return
    phases.claim(draft, invocation.agent_invocation_id)
    step = steps.step_named(draft.given.template, invocation.step_id)
    output = command.output if command.output is not None else {"summary": command.summary}
    phases.hand_in(draft, cast(AgentStep, step), draft.state.invocations[invocation.agent_invocation_id], output)


def _cancel(draft: Draft, command: cmd.CancelWorkflow) -> None:
    if not draft.state.live:
        draft.refuse("cancel_workflow", approvals.ended(draft))
        return
    if draft.state.ending is not None:
        draft.refuse("cancel_workflow", reviews.being_undone(draft))
        return
    if _permitted(draft):
        reason = command.reason or f"{draft.given.principal.id} cancelled it."
        end(draft, "WORKFLOW_CANCELLED", code="cancelled", reason=reason)


def _advance(draft: Draft) -> None:
    """The engine does what is due. So does anybody else whom the policy lets; it is on record when anything was."""
    decision = draft.given.decision
    if decision is None:
        due(draft)
        return
    trial = Draft(state=draft.state, given=draft.given)
    due(trial)
    if (trial.events or decision.verdict != "permit") and _permitted(draft):
        due(draft)


def due(draft: Draft) -> None:
    """Everything whose time has come: reminders, escalations, what has expired, waits and retries."""
    now = draft.given.now
    if not draft.state.driven:
        return
    for approval in list(draft.state.approvals.values()):
        asking_others.look(draft, draft.state.approvals[approval.request.approval_id])
    for invocation in list(draft.state.invocations.values()):
        if draft.state.live and invocation.status == "open" and now >= invocation.expires_at:
            end_invocation(draft, invocation.agent_invocation_id, "expired")
            step = steps.step_named(draft.given.template, invocation.step_id)
            failing.fail_step(draft, step, "step_expired", "The agent did not complete it in time.", attempted=True)
    while draft.state.live and (timers := _timers_due(draft.state, now)):
        steps.timer(draft, steps.step_named(draft.given.template, timers[0][1]))


def _timers_due(state: State, now: str) -> list[tuple[str, str]]:
    """Time and step of each timer that is due, the earliest first: each fires once, however late."""
    return sorted(
        (item.timer, key) for key, item in state.driven_steps() if item.timer is not None and now >= item.timer
    )


def runnable(state: State, step_id: str) -> bool:
    """True when a step's own call waits for the engine: open, no effect begun, no request pending."""
    return step_id in runnable_steps(state)


def runnable_steps(state: State) -> list[str]:
    """The steps whose calls the engine should make now, in the order in which they opened."""
    opened = [(key, step) for key, step in state.driven_steps() if step.status == "open"]
    if not opened:
        return []
    busy = {item.invoke.step_id for item in state.effects.values() if item.invoke.agent_invocation_id is None}
    for approval in state.approvals.values():
        if approval.status == "pending" and approval.request.agent_invocation_id is None:
            busy.add(approval.request.step_id)
    return [
        key for key, step in opened if (key not in busy if step.calls else children.planned(state, key) is not None)
    ]


def step_proposal(state: State, step_id: str) -> ProposalState | None:
    """The call that an ``action`` step has proposed and not begun: what people approved, edited or not, is what runs."""
    for proposal in reversed(state.proposals.values()):
        made = proposal.made
        if made.step_id == step_id and made.agent_invocation_id is None and not proposal.replaced_by:
            return proposal if proposal.effect_id is None else None
    return None


def wake_at(state: State) -> str | None:
    """When the engine must look again: now (the run's last change) when a step is ready or a child or the parent is to be told,
    else its next expiry or timer."""
    if children.unsettled(state):
        return state.updated_at
    if not state.driven:
        return None
    if runnable_steps(state):
        return state.updated_at
    times = [timer for approval in state.approvals.values() if (timer := approval.timer) is not None]
    times += [invocation.expires_at for invocation in state.invocations.values() if invocation.status == "open"]
    times += [step.timer for _, step in state.driven_steps() if step.timer is not None]
    return min(times, default=None)
