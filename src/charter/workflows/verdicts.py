"""What follows for a step when people have said yes or no, or nobody answered in time."""

from __future__ import annotations

from typing import Any

from charter.model.template import ApprovalStep, OnReject, Step, branches_of
from charter.workflows import failing, steps
from charter.workflows.approval_state import ApprovalState
from charter.workflows.draft import Draft

LATE = "Nobody decided in time."


def approved(draft: Draft, approval: ApprovalState, by: str, comment: str | None) -> None:
    """Everybody agreed: a step's question is answered, an ``action`` step's call runs when its turn comes."""
    request = approval.request
    if request.proposal_id is not None:
        return
    step = steps.step_named(draft.given.template, request.step_id)
    output = _output(step, "approve", by, comment)
    if request.values is not None:
        output["values"] = request.values
    output["approved_by"] = [item.decided_by for item in approval.decisions if item.decision == "approve"]
    steps.complete_step(draft, step, output)


def rejected(draft: Draft, approval: ApprovalState, by: str, comment: str | None) -> None:
    """Somebody said no. A call of an agent's just does not run."""
    if approval.request.agent_invocation_id is None:
        step = steps.step_named(draft.given.template, approval.request.step_id)
        said = f": {comment}" if comment else "."
        _refused(draft, step, _output(step, "reject", by, comment), f"{by} rejected it{said}")


def expired(draft: Draft, approval: ApprovalState) -> None:
    """Nobody decided in time, those to whom it was escalated included: as if it was rejected, unless the step says that it
    fails."""
    if approval.request.agent_invocation_id is not None or not draft.state.live:
        return
    step = steps.step_named(draft.given.template, approval.request.step_id)
    if isinstance(step, ApprovalStep) and step.silence_fails:
        failing.fail_step(draft, step, "approval_expired", LATE, attempted=True)
        return
    output = {**_output(step, "reject", None, LATE), "timed_out": True}
    _refused(draft, step, output, LATE, status="expired")


def _refused(draft: Draft, step: Step, output: dict[str, Any], reason: str, status: str = "rejected") -> None:
    then: OnReject = getattr(step, "on_reject", "reject_workflow")
    code = f"approval_{status}"
    if then == "reject_workflow":
        steps.reject_step(draft, step, reason, status=status)
    elif then == "fail":
        failing.fail_step(draft, step, code, reason)
    elif isinstance(step, ApprovalStep):
        steps.complete_step(draft, step, output)
    else:
        steps.skip_step(draft, step, code, reason)


def _output(step: Step, decision: str, by: str | None, comment: str | None) -> dict[str, Any]:
    output: dict[str, Any] = {"decision": decision, "decided_by": by, "comment": comment or "", "timed_out": False}
    on_yes, on_no = branches_of(step)
    if on_yes or on_no:
        output["left_out"] = list(on_no if decision == "approve" else on_yes)
    return output
