"""What one invocation may pile up. Calls have their budget, which policies see; this bounds what is only asked for."""

from __future__ import annotations

from charter.errors import Refused
from charter.model import commands as cmd
from charter.workflows.draft import Call, Draft
from charter.workflows.state import State

SPARE = 100
"""An agent that proposes each of its calls twice, and some more, is still at work."""


def refused(draft: Draft, command: cmd.ProposeAction | cmd.InvokeTool, call: Call) -> bool:
    """True, and on record, when the call would be one proposal more than a run keeps for its invocation.

    The state has every proposal that did not simply run, so without a bound an agent could make each command on the run
    slower than the one before. A call that is permitted outright, or was proposed before, adds none.
    """
    if call.proposal_id in draft.state.proposals:
        return False
    if isinstance(command, cmd.InvokeTool) and call.decision.verdict != "require_approval":
        return False
    error = full(draft.state, call.agent_invocation_id)
    if error is None:
        return False
    draft.refuse(command.kind, error, tool=call.manifest.name)
    return True


def full(state: State, invocation_id: str | None) -> Refused | None:
    """Why this invocation may make no more proposals, or None."""
    invocation = state.invocations.get(invocation_id or "")
    if invocation is None:
        return None
    most = 2 * invocation.calls_budget + SPARE
    if len(state.proposals) < most:
        return None
    kept = sum(item.made.agent_invocation_id == invocation.agent_invocation_id for item in state.proposals.values())
    if kept < most:
        return None
    return Refused(
        f"This invocation has made {kept} proposals, and no more are taken.",
        code="too_many_proposals",
        next_step="Run what was approved, then complete the step; a template's `calls` says how much a step may do.",
    )
