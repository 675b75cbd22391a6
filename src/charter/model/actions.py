"""What an agent may do in a run now, and why not the rest."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from charter.model.base import Model
from charter.model.reply import Blocker

May = Literal["yes", "needs_approval", "depends", "no"]


class Possible(Model):
    """One tool or verb. ``depends``: the policies look at the arguments, and none were asked about."""

    name: str
    may: May
    code: str = Field(description="Why: stays the same over versions.")
    reason: str
    approval_from: str | None = Field(default=None, description="Who must agree, in words.")
    next_step: str = ""


class PossibleProposal(Possible):
    """A proposal that has not run."""

    proposal_id: str
    approval_id: str | None = None
    waits_for: str | None = Field(default=None, description="Who is asked and has not answered.")
    expires_at: str | None = Field(default=None, description="When the approval, asked for or given, is over.")


class InvocationActions(Model):
    """What one grant allows now. Without an id: no step of this run is open for this agent."""

    agent_invocation_id: str | None = None
    step_id: str | None = None
    calls_left: int = 0
    expires_at: str | None = None
    verbs: tuple[Possible, ...] = ()
    tools: tuple[Possible, ...] = ()
    proposals: tuple[PossibleProposal, ...] = Field(default=(), description="The newest that have not run.")


class AgentActions(Model):
    """What an agent may do in a run now."""

    workflow_id: str
    status: str
    agent: str
    invocations: tuple[InvocationActions, ...]
    verbs: tuple[Possible, ...] = Field(default=(), description="On the workflow as a whole.")
    waits_for: tuple[Blocker, ...] = ()
