"""The part of the trace validator that follows the runs that steps start."""

from __future__ import annotations

from charter.audit.trace_approvals import Say
from charter.model import events as ev

RULE = "child_by_its_step"


class Children:
    """Follows the children of one run."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._announced: dict[str, str] = {}  # child: step
        self._started: set[str] = set()
        self._ends: dict[str, str] = {}  # child: how it ended
        self._last: dict[str, str] = {}  # step: its newest child

    def on_step(self, data: ev.WorkflowStep, *, supplied: bool) -> None:
        """A workflow step announces its child, and ends as the child did unless a person ``supplied`` its end."""
        if data.child_workflow_id is not None:
            if data.child_workflow_id in self._announced:
                self._say(RULE, f"{data.child_workflow_id} is announced a second time.")
            self._last[data.step_id] = data.child_workflow_id
            self._announced[data.child_workflow_id] = data.step_id
        elif (
            data.status == "completed"
            and not supplied
            and self._ends.get(self._last.get(data.step_id, "")) != "completed"
        ):
            self._say(RULE, f"Step {data.step_id} is completed, and its workflow is not.")

    def on_started(self, data: ev.ChildStarted) -> None:
        """It is there."""
        known = self._announced.get(data.child_workflow_id) == data.step_id
        if not known or data.child_workflow_id in self._started or data.child_workflow_id in self._ends:
            self._say(RULE, f"{data.child_workflow_id} starts for step {data.step_id}, which did not announce it.")
        self._started.add(data.child_workflow_id)

    def on_ended(self, data: ev.ChildEnded) -> None:
        """It is over."""
        if self._announced.get(data.child_workflow_id) != data.step_id or data.child_workflow_id in self._ends:
            self._say(RULE, f"{data.child_workflow_id} ends for step {data.step_id}, and was not open there.")
        self._ends[data.child_workflow_id] = data.status
