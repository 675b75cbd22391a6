"""What an agent may do in a run now, and why not the rest: from the state and from what the policies say."""

from __future__ import annotations

from collections.abc import Sequence

from charter.errors import CharterError
from charter.model.actions import May, Possible, PossibleProposal
from charter.model.policy import Decision, Facts
from charter.model.template import AgentStep, Template
from charter.model.tool import ToolManifest
from charter.workflows import argument_rules, quotas, steps
from charter.workflows.batches import not_ready
from charter.workflows.quorum import requirements_of, standing, who, whom
from charter.workflows.state import InvocationState, ProposalState, State

_BEST: tuple[tuple[May, str, str], ...] = (
    ("yes", "permitted", "Something may run now."),
    ("depends", "arguments", "It depends on the arguments."),
    ("needs_approval", "approval_required", "What may run needs approval first."),
)
"""What is said of ``invoke_tool``: the best of what is said of tools and proposals."""
_DESCRIBE = "Call describe_tools for the tools of this step."


def tool(
    state: State,
    invocation: InvocationState | None,
    manifest: ToolManifest,
    facts: Facts,
    decision: Decision,
    unavailable: str | None,
    grants: Sequence[tuple[str, int]],
) -> Possible:
    """One governed tool. ``decision`` is on ``facts`` without arguments; ``unavailable``: why its upstream does not answer;
    ``grants``: the standing ones for it, with the uses that are left."""
    name = manifest.name
    if (why := _not_in_step(invocation, name, facts, decision)) is not None:
        return why
    if decision.verdict == "deny" and decision.code != "policy_error":
        return _no(name, decision.code, decision.reason, decision.next_step or "")
    if state.status == "paused":
        return refused(name, steps.paused())
    if unavailable is not None:
        return _no(name, "upstream_unavailable", f"Nobody can call it now: {unavailable}.", "Try again later.")
    ruled = _ruled(invocation, name)
    if decision.verdict == "deny":
        reason = f"The policies look at its arguments.{ruled}"
        return _possible(
            name, "depends", "arguments", reason, "Call propose_action: it says what becomes of one exact call."
        )
    if decision.verdict == "permit":
        return _possible(name, "yes", "permitted", f"{decision.reason}{ruled}", "Call it.")
    reason = f"{decision.reason}{ruled}{_covered(grants)}"
    asked = _possible(name, "needs_approval", decision.code, reason, "Call propose_action.")
    return asked.model_copy(update={"approval_from": who(requirements_of(decision))})


def _not_in_step(invocation: InvocationState | None, name: str, facts: Facts, decision: Decision) -> Possible | None:
    """What the step itself says no to, by which pattern; also where the policies could not be asked without arguments."""
    if invocation is None or facts.tool_allowed or decision.verdict != "deny":
        return None
    if decision.code not in ("tool_not_allowed", "policy_error"):
        return None
    forbids = next((item for item in invocation.forbidden_tools if argument_rules.matches(item, name)), None)
    step = f"step {invocation.step_id!r}"
    if forbids is not None:
        return _no(name, "tool_forbidden", f"The open {step} forbids {forbids}.", _DESCRIBE)
    allowed = ", ".join(invocation.allowed_tools) or "none"
    return _no(name, "tool_not_allowed", f"The open {step} allows {allowed} only.", _DESCRIBE)


def _ruled(invocation: InvocationState | None, name: str) -> str:
    rules = invocation.argument_rules if invocation is not None else ()
    held = any(argument_rules.matches(rule.tool, name) for rule in rules)
    return " The step has rules for its arguments." if held else ""


def _covered(grants: Sequence[tuple[str, int]]) -> str:
    found = ", ".join(f"{grant_id} ({left} uses left)" for grant_id, left in grants)
    return f" What a standing grant covers needs none: {found}." if found else ""


# -- proposals


def proposal(
    state: State, item: ProposalState, decision: Decision | None, problem: CharterError | None, now: str
) -> PossibleProposal:
    """One proposal that has not run: whether it would now. ``problem``: why its call cannot even be prepared."""
    made = item.made
    why = problem if decision is None else not_ready(state, item, decision)
    if why is None and state.status == "paused":
        why = steps.paused()
    approval = state.approvals.get(item.approval_id or "")
    pending = approval is not None and approval.status == "pending" and now < approval.expires_at
    asks = why is not None and why.error_code == "approval_required"
    named = refused(made.tool, why) if why is not None else None
    if named is None:
        reason = decision.reason if decision is not None else ""
        named = _possible(
            made.tool, "yes", "permitted", reason, f"Call invoke_tool with proposal_id {made.proposal_id}."
        )
    approval_from = who(requirements_of(decision)) if asks and decision is not None else None
    return PossibleProposal.model_validate(
        {
            **named.model_dump(),
            "may": "needs_approval" if asks else named.may,
            "approval_from": approval_from,
            "proposal_id": made.proposal_id,
            "approval_id": item.approval_id,
            "waits_for": whom(standing(approval)) if pending and approval is not None else None,
            "expires_at": approval.expires_at if approval is not None and approval.open else None,
        }
    )


# -- verbs


def verbs(
    state: State,
    template: Template,
    invocation: InvocationState,
    complete: Decision,
    tools: Sequence[Possible],
    proposals: Sequence[PossibleProposal],
) -> tuple[Possible, ...]:
    """The verbs of one grant. ``complete``: what the policy says of completing its step."""
    return (
        _possible("describe_tools", "yes", "permitted", "The step is open for you.", "Call it."),
        _propose(state, invocation),
        _request(proposals),
        _invoke(state, tools, proposals),
        _complete(state, template, invocation, complete),
    )


def _propose(state: State, invocation: InvocationState) -> Possible:
    error = quotas.full(state, invocation.agent_invocation_id)
    if error is not None:
        return refused("propose_action", error)
    return _possible("propose_action", "yes", "permitted", "It runs nothing.", "Name a tool and its arguments.")


def _request(proposals: Sequence[PossibleProposal]) -> Possible:
    name = "request_approval"
    unasked = [item.proposal_id for item in proposals if item.may == "needs_approval" and item.waits_for is None]
    if unasked:
        return _possible(name, "yes", "permitted", "People were not asked yet.", f"Call it with {unasked[0]}.")
    waiting = [item for item in proposals if item.waits_for is not None]
    if waiting:
        return _no(
            name, "already_asked", f"{waiting[0].proposal_id} waits for {waiting[0].waits_for}.", "Wait for them."
        )
    return _no(name, "nothing_to_request", "No proposal waits to be asked about.", "Call propose_action first.")


def _invoke(state: State, tools: Sequence[Possible], proposals: Sequence[PossibleProposal]) -> Possible:
    name = "invoke_tool"
    if state.status == "paused":
        return refused(name, steps.paused())
    found: Sequence[Possible] = [*proposals, *tools]
    for may, code, reason in _BEST:
        if any(item.may == may for item in found):
            return _possible(name, may, code, reason, "See tools and proposals.")
    codes = {item.code for item in found}
    if len(codes) == 1:
        return found[0].model_copy(update={"name": name})
    return _no(name, "no_tool", "None of the tools may be called now.", "Read why with each of them.")


def _complete(state: State, template: Template, invocation: InvocationState, decision: Decision) -> Possible:
    name = "complete_step"
    if decision.verdict != "permit":
        return _no(name, decision.code, decision.reason, decision.next_step or "")
    step = steps.step_named(template, invocation.step_id)
    gated = isinstance(step, AgentStep) and step.gate is not None
    running = (item.invoke.agent_invocation_id for item in state.effects.values())
    if gated and invocation.agent_invocation_id in running:
        return _no(name, "calls_running", "A call of this invocation is still running.", "Wait for its result.")
    return _possible(name, "yes", "permitted", decision.reason, "Call it when the step's work is done.")


def without_invocation() -> tuple[Possible, ...]:
    """The verbs of a grant, for who holds none."""
    names = ("describe_tools", "propose_action", "request_approval", "invoke_tool", "complete_step")
    told = "No step of this run is open for this agent."
    return tuple(
        _no(name, "no_invocation", told, "See what the run waits for; call get_workflow later.") for name in names
    )


def on_the_run(state: State, name: str, decision: Decision) -> Possible:
    """``get_workflow``, ``advance_workflow`` or ``cancel_workflow``, which the policy decided on so."""
    if decision.verdict != "permit":
        return _no(name, decision.code, decision.reason, decision.next_step or "")
    if name == "get_workflow":
        return _possible(name, "yes", "permitted", decision.reason, "Call it at any time.")
    if not state.live:
        return _no(name, "workflow_ended", f"The workflow is {state.status}.", "Start another if there is more to do.")
    if name == "advance_workflow" and state.status == "paused":
        return refused(name, steps.paused())
    if name == "cancel_workflow" and state.ending is not None:
        return _no(name, "already_ending", "What it has done is being undone.", "Wait until it has ended.")
    return _possible(name, "yes", "permitted", decision.reason, "Call it where it is wanted.")


# -- words


def refused(name: str, error: CharterError) -> Possible:
    """A no with the code and the words of the error that the call would end in."""
    return _no(name, error.error_code, error.message, error.next_step)


def _no(name: str, code: str, reason: str, next_step: str) -> Possible:
    return _possible(name, "no", code, reason, next_step)


def _possible(name: str, may: May, code: str, reason: str, next_step: str) -> Possible:
    return Possible(name=name, may=may, code=code, reason=reason, next_step=next_step)
