"""The part of the trace validator that follows the undoing of what a run has done."""

from __future__ import annotations

from charter.audit.trace_approvals import Run, Say
from charter.model import events as ev

RULE = "undone_in_reverse"
UNDO = "undo:"


class Undoing:
    """Follows the compensations of one run."""

    def __init__(self, run: Run, say: Say) -> None:
        self._run, self._say = run, say
        self._done: list[str] = []  # steps, in the order in which they were done
        self._begun: ev.CompensationStarted | None = None
        self._undone: dict[str, str] = {}  # step: how its undoing stands

    def on_begun(self, data: ev.CompensationStarted) -> None:
        """The run's end is decided."""
        if self._begun is not None or self._run.ended:
            self._say(RULE, "The undoing begins a second time.")
        self._begun = data

    def on_step(self, data: ev.WorkflowStep) -> None:
        """A step is done, or undone."""
        undoes = data.step_id.removeprefix(UNDO) if data.step_id.startswith(UNDO) else None
        if undoes is not None:
            self._undo(undoes, data.status)
        elif data.status == "completed":
            self._done.append(data.step_id)
        elif self._begun is not None and data.status in ("opened", "reopened"):
            self._say(RULE, f"Step {data.step_id} is {data.status} while the run is being undone.")

    def _undo(self, step_id: str, status: str) -> None:
        if self._begun is None:
            self._say(RULE, f"Step {step_id} is undone, and the run goes on.")
        if status == "opened":
            if step_id not in self._done and self._run.called.get(step_id) != "succeeded":
                self._say(RULE, f"Step {step_id} is undone and was not done.")
            if any(open_ not in ("completed", "skipped", "failed") for open_ in self._undone.values()):
                self._say(RULE, f"Step {step_id} is undone before the one after it.")
            if any(0 <= self._place(each) < self._place(step_id) for each in self._undone):
                self._say(RULE, f"Step {step_id} is undone after one that was done before it.")
        self._undone[step_id] = status

    def _place(self, step_id: str) -> int:
        return self._done.index(step_id) if step_id in self._done else -1

    def on_ended(self, type_: str, data: ev.WorkflowEnded) -> None:
        """The end is the one that was decided, and tells what was undone."""
        if self._begun is None:
            if data.compensated or data.not_compensated:
                self._say(RULE, "The end tells of an undoing that was not begun.")
            return
        undone = {step_id for step_id, status in self._undone.items() if status == "completed"}
        if type_ != self._begun.ending or set(data.compensated) != undone:
            self._say(
                RULE, f"The run ends as {type_} and not as was decided, or tells of other steps than were undone."
            )
