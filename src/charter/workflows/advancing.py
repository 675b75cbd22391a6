"""Having a run go on by hand: what was due and was done, and what it still misses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from charter.model import events as ev
from charter.model.reply import Advanced, Blocker, Moved
from charter.workflows.draft import Draft
from charter.workflows.state import State
from charter.workflows.views import blocked_by, status_of


def told(draft: Draft, ready: tuple[str, ...]) -> Advanced:
    """What this command did. ``ready``: the steps whose calls the engine makes now."""
    state = draft.state
    missing = blocked_by(state)
    return Advanced(
        workflow_id=state.workflow_id,
        status=status_of(state),
        moved=tuple(moved for event in draft.events if (moved := _moved(event)) is not None),
        ready=ready,
        missing=missing,
        next_step=_next_step(state, ready, missing),
    )


def _moved(event: ev.Event) -> Moved | None:
    said = _SAID.get(event.type, _ended if event.type in ev.ENDINGS else None)
    if said is None:
        return None
    data: Any = event.data
    names = {name: getattr(data, name, None) for name in ("step_id", "approval_id")}
    return Moved(what=event.type, detail=said(data), **names)


def _step(data: ev.WorkflowStep) -> str:
    why = f": {data.reason}" if data.reason else ""
    return f"Step {data.step_id!r} {data.status}{why}"


def _agent(data: ev.AgentInvoke) -> str:
    return f"The grant {data.agent_invocation_id} for step {data.step_id!r} is {data.status}"


def _ended(data: ev.WorkflowEnded) -> str:
    return f"The workflow ended{f': {data.reason}' if data.reason else ''}"


_SAID: dict[str, Callable[[Any], str]] = {
    "WORKFLOW_STEP": _step,
    "AGENT_INVOKE": _agent,
    "APPROVAL_REQUESTED": lambda data: f"People are asked about step {data.request.step_id!r}",
    "APPROVAL_TURN": lambda _data: "The next in turn are asked",
    "APPROVAL_REMINDED": lambda _data: "People are reminded",
    "APPROVAL_ESCALATED": lambda _data: "Others are asked instead",
    "APPROVAL_CLOSED": lambda data: f"The request is {data.status}: {data.reason}",
    "COMPENSATION_STARTED": lambda _data: "What was done is being undone",
}


def _next_step(state: State, ready: tuple[str, ...], missing: tuple[Blocker, ...]) -> str:
    if not state.live:
        return f"The workflow is {state.status}; start another if there is more to do."
    if not state.driven:
        return "It is paused: an operator resumes it (charter workflows resume)."
    if ready:
        return f"Charter's server runs {', '.join(ready)} now; get_workflow shows how it ends."
    return f"It cannot go on by itself. {missing[0].detail} Nothing is gained by asking again before."
