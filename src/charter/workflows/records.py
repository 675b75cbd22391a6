"""What a workflow's state is made of: one record for each step, invocation, proposal, approval, effect and grant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from charter.model import events as ev
from charter.model.approval import GrantBounds
from charter.model.approval_events import UnderGrant
from charter.model.base import JsonObject
from charter.model.phase import ArgumentRule, CheckResult
from charter.workflows import machine


@dataclass(frozen=True, slots=True)
class StepState:
    """A step of this run; ``since`` is when it got its status, ``until`` when Charter goes on with it by itself.

    ``visits``: how often the run came to it; ``attempt``: how often it was tried since it came.
    ``key`` is the idempotency key that the attempts of an outbound step share, ``callback`` what it was called back with.
    ``ran``: its own call has succeeded, whatever became of the step. ``order``: the run's version when it was last told of.
    """

    status: str = "pending"
    step_type: str = ""
    since: str = ""
    output: Any = None
    reason: str | None = None
    code: str | None = None
    until: str | None = None
    attempt: int = 0
    visits: int = 0
    waits_for: str | None = None
    timeout_at: str | None = None
    key: str | None = None
    callback: JsonObject | None = None
    opened_at: str = ""
    polls: str | None = None
    child_workflow_id: str | None = None
    ran: bool = False
    order: int = 0

    @property
    def timer(self) -> str | None:
        """When Charter goes on with it by itself, or gives it up."""
        return min((time for time in (self.until, self.timeout_at) if time is not None), default=None)

    @property
    def calls(self) -> bool:
        """The engine makes its tool call when it is open."""
        return self.step_type in machine.CALLING or self.polls is not None


@dataclass(frozen=True, slots=True)
class InvocationState:
    """A grant to an agent for one step."""

    agent_invocation_id: str
    step_id: str
    agent: str
    allowed_tools: tuple[str, ...]
    calls_budget: int
    calls_used: int
    expires_at: str
    status: str
    since: str
    forbidden_tools: tuple[str, ...] = ()
    argument_rules: tuple[ArgumentRule, ...] = ()


@dataclass(frozen=True, slots=True)
class GateState:
    """The gate of an agent step in this visit: how often it was tried, by whom last, what was found since they handed in, and
    why the work came back."""

    attempts: int = 0
    handed_in_by: str = ""
    handed_in_by_kind: str = ""
    results: tuple[CheckResult, ...] = ()
    returned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProposalState:
    """A proposal that has not run, or that people decided on."""

    made: ev.ProposalMade
    approval_id: str | None = None
    effect_id: str | None = None
    replaced_by: str | None = None


@dataclass(frozen=True, slots=True)
class EffectState:
    """An effect that has not ended; ``began`` is when its first attempt did. ``resent``: a message that was given up,
    and that a person has sent again, whether or not its run is over."""

    invoke: ev.ToolInvoke
    status: str
    since: str
    reason: str | None = None
    began: str = ""
    resent: bool = False


@dataclass(frozen=True, slots=True)
class ChildState:
    """A run that a step of this one starts, until it has ended."""

    step_id: str
    status: str
    template: str = ""


@dataclass(frozen=True, slots=True)
class GrantPass:
    """A step whose own call a standing grant let pass: its giver has passed it."""

    step_id: str
    under: UnderGrant


@dataclass(frozen=True, slots=True)
class GrantState:
    """A standing grant and what is left of it."""

    given: ev.GrantGiven
    uses_left: int
    revoked: bool = False

    @property
    def bounds(self) -> GrantBounds:
        """What it covers."""
        return self.given.bounds
