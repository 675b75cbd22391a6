"""Runs that a step of another run starts. The child's id is on the parent's record first, so there is at most one of it.

Failure goes up by the step's ``on_failure``; an ended or given up step leaves its child as a *stray*, which the engine cancels.
"""

from __future__ import annotations

from dataclasses import dataclass

from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.principal import Principal
from charter.model.template import UNDO
from charter.workflows import failing, steps
from charter.workflows.draft import Draft
from charter.workflows.state import State

MAX_DEPTH = 8
"""How many runs may be above one another; a template that starts itself comes to an end."""

CLAIM = "child"
"""The scope in which a child's id is claimed: by its start, or by its parent's word that it never will start."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which step of which run started this one."""

    parent_workflow_id: str
    parent_step_id: str
    depth: int


def planned(state: State, step_id: str) -> str | None:
    """The child that an open step has announced and that is to be started now."""
    step = state.steps.get(step_id)
    child_id = step.child_workflow_id if step is not None and step.status == "open" else None
    child = state.children.get(child_id or "")
    return child_id if child is not None and child.status == "planned" else None


def strays(state: State) -> list[str]:
    """The children for which no step waits any more: they are to be cancelled."""
    return [key for key in state.children if not _waited_for(state, key)]


def _waited_for(state: State, child_id: str) -> bool:
    step_id = state.children[child_id].step_id
    wanted = state.live and (state.ending is None or step_id.startswith(UNDO))
    step = state.steps[step_id]
    return wanted and step.status == "open" and step.child_workflow_id == child_id


def reports(state: State) -> bool:
    """It has ended, and its parent does not know yet."""
    return state.parent_workflow_id is not None and not state.live and not state.parent_told


def unsettled(state: State) -> bool:
    """The engine has to tell a child or the parent, whatever the run's own state."""
    return reports(state) or (bool(state.children) and bool(strays(state)))


def starter(state: State) -> Principal:
    """Who started the run, as the credential said then: the caller of what its steps start."""
    person = state.owner if state.owner != state.started_by else None
    return Principal.model_validate(
        {
            "id": state.started_by,
            "kind": state.started_by_kind,
            "tenant": state.tenant,
            "roles": state.started_by_roles,
            "acts_for": person,
            "acts_for_roles": state.owner_roles if person else (),
        }
    )


def settle(draft: Draft, command: cmd.ConfirmChild | cmd.EndChild | cmd.NoteParentTold) -> None:
    """Put on record what is known of a child, or that the parent knows. Said twice, it changes nothing."""
    if isinstance(command, cmd.NoteParentTold):
        if reports(draft.state):
            draft.emit("PARENT_TOLD", ev.ParentTold(parent_workflow_id=draft.state.parent_workflow_id or ""))
        return
    child = draft.state.children.get(command.child_workflow_id)
    if child is None:
        return
    if isinstance(command, cmd.EndChild):
        _ended(draft, command, child.step_id)
    elif child.status == "planned":
        data = ev.ChildStarted(
            step_id=child.step_id, child_workflow_id=command.child_workflow_id, template=command.template
        )
        draft.emit("CHILD_STARTED", data)


def _ended(draft: Draft, command: cmd.EndChild, step_id: str) -> None:
    child_id, status = command.child_workflow_id, command.status
    wanted = _waited_for(draft.state, child_id)
    data = ev.ChildEnded(step_id=step_id, child_workflow_id=child_id, status=status, reason=command.reason)
    draft.emit("CHILD_ENDED", data)
    if status == "never_started":
        draft.claims.append((CLAIM, child_id, status))
    if not wanted:
        return
    step = steps.step_named(draft.given.template, step_id)
    if status == "completed":
        steps.complete_step(draft, step, command.output)
        return
    told = command.reason or "it did not say why."
    if status == "never_started":
        failing.fail_step(draft, step, command.code or "child_not_started", told)
    else:
        failing.fail_step(draft, step, f"child_{status}", f"{child_id} was {status}: {told}", attempted=True)
