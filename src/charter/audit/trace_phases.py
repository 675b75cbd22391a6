"""The part of the trace validator that follows gates, and ways back from one agent step to another."""

from __future__ import annotations

from collections.abc import Callable

from charter.audit.trace_approvals import Run
from charter.model import events as ev
from charter.model.phase import GateChecked, PhaseWentBack

Say = Callable[[str, str], None]


class Phases:
    """Follows the gates of one run."""

    def __init__(self, run: Run, say: Say) -> None:
        self._run, self._say = run, say
        self._open: dict[str, bool] = {}
        """Steps whose work was handed in: whether the gate was found open since."""
        self._blocked: set[str] = set()
        """Steps with a blocking check that did not pass since they were handed in."""
        self._visits: dict[str, int] = {}
        self._again: set[str] = set()
        """Steps that were taken back, until a PHASE_WENT_BACK or their gate says why."""

    def on_step(self, data: ev.WorkflowStep, before: str | None) -> None:
        """A step's new status, and the one before it."""
        step_id = data.step_id
        if data.status == "opened":
            self._visits[step_id] = self._visits.get(step_id, 0) + 1
            if step_id in self._again:
                self._say("again_by_a_way_back", f"Step {step_id} is opened again, and no way back says why.")
        elif data.status == "submitted":
            self._open[step_id] = False
            self._blocked.discard(step_id)
        elif data.status == "returned" and self._open.get(step_id):
            self._say("gate_open_first", f"Step {step_id} goes back to its agent, and its gate was open.")
        elif data.status == "completed" and before == "submitted" and not self._open.get(step_id):
            self._say("gate_open_first", f"Step {step_id} is completed, and its gate was not found open.")
        elif data.status == "again":
            self._again.add(step_id)

    def on_gate(self, data: GateChecked) -> None:
        """Checks were made."""
        for name in [name for name in self._again if name.startswith(f"{data.step_id}.gate")]:
            self._again.discard(name)
        if any(item.severity == "blocking" and item.outcome != "passed" for item in data.results):
            self._blocked.add(data.step_id)
        if data.outcome != "open":
            return
        if self._run.steps.get(data.step_id) != "submitted":
            self._say("gate_open_first", f"The gate of {data.step_id} is open, and nothing was handed in.")
        if data.step_id in self._blocked:
            self._say("gate_open_first", f"The gate of {data.step_id} is open, and a blocking check has not passed.")
        self._open[data.step_id] = True

    def on_back(self, data: PhaseWentBack) -> None:
        """The run went back."""
        if self._run.steps.get(data.to_step) is not None or data.to_step not in self._again:
            self._say("again_by_a_way_back", f"The run goes back to {data.to_step}, which was not taken back.")
        if data.visit != self._visits.get(data.to_step, 0) + 1:
            self._say("again_by_a_way_back", f"Visit {data.visit} of {data.to_step} is not the next one.")
        self._again.clear()
