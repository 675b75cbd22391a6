"""The state of a whole run; ``state`` folds it from events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from charter.model import events as ev
from charter.model.base import JsonObject
from charter.model.template import UNDO
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


@dataclass(frozen=True)
class State:
    """A workflow now. ``version`` counts its events. Without slots, so that :func:`changed` can copy it in one go."""

    workflow_id: str
    tenant: str
    version: int = 0
    status: str = "new"
    template: str = ""
    template_hash: str = ""
    input: JsonObject = field(default_factory=dict)
    purpose: str = ""
    case_id: str | None = None
    owner: str = ""
    started_by: str = ""
    started_by_kind: str = ""
    started_at: str = ""
    updated_at: str = ""
    dry_run: bool = False
    output: Any = None
    reason: str | None = None
    started_by_roles: tuple[str, ...] = ()
    owner_roles: tuple[str, ...] = ()
    parent_workflow_id: str | None = None
    parent_step_id: str | None = None
    parent_told: bool = False
    depth: int = 0
    withheld: tuple[str, ...] = ()
    sealed_ref: str | None = None
    input_digest: str | None = None
    ending: ev.CompensationStarted | None = None
    children: dict[str, ChildState] = field(default_factory=dict)
    steps: dict[str, StepState] = field(default_factory=dict)
    invocations: dict[str, InvocationState] = field(default_factory=dict)
    proposals: dict[str, ProposalState] = field(default_factory=dict)
    approvals: dict[str, ApprovalState] = field(default_factory=dict)
    effects: dict[str, EffectState] = field(default_factory=dict)
    grants: dict[str, GrantState] = field(default_factory=dict)
    passed: tuple[GrantPass, ...] = ()
    gates: dict[str, GateState] = field(default_factory=dict)

    @property
    def live(self) -> bool:
        """Still running."""
        return self.status in machine.LIVE

    @property
    def moving(self) -> bool:
        """Still running, and not paused."""
        return self.status == "running"

    @property
    def driven(self) -> bool:
        """Charter goes on with it by itself: with its steps, or with undoing them."""
        return self.status in ("running", "compensating")

    def driven_steps(self) -> list[tuple[str, StepState]]:
        """The steps that Charter goes on with: all of them, or once the run's end is decided those that undo others."""
        if not self.driven:
            return []
        return [(key, step) for key, step in self.steps.items() if self.ending is None or key.startswith(UNDO)]

    def scope(self) -> dict[str, Any]:
        """What expressions may read: ``trigger``, ``steps.<id>.output`` and ``workflow``."""
        return {
            "trigger": self.input,
            "steps": {key: {"output": step.output, "status": step.status} for key, step in self.steps.items()},
            "workflow": {
                "id": self.workflow_id,
                "tenant": self.tenant,
                "purpose": self.purpose,
                "case_id": self.case_id or "",
                "owner": self.owner,
                "started_at": self.started_at,
            },
        }


def changed(state: State, **changes: Any) -> State:
    """``dataclasses.replace`` for the one record that every event copies, at a tenth of its cost."""
    after = object.__new__(State)
    after.__dict__.update(state.__dict__, **changes)
    return after
