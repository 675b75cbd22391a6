"""The state machine as tables: in this status, that may happen, and leads there. The docs' diagrams are drawn from it.

A fold refuses an event that its table does not allow (``KeyError`` becomes ``IntegrityError``): the decider never emits one,
so such a log was not written by Charter.
"""

from __future__ import annotations

WORKFLOW: dict[tuple[str, str], str] = {
    ("new", "WORKFLOW_STARTED"): "running",
    ("running", "WORKFLOW_PAUSED"): "paused",
    ("paused", "WORKFLOW_RESUMED"): "running",
    ("running", "COMPENSATION_STARTED"): "compensating",  # its end is decided; what was done is undone first
    ("paused", "COMPENSATION_STARTED"): "compensating",
    ("compensating", "WORKFLOW_FAILED"): "failed",
    ("compensating", "WORKFLOW_CANCELLED"): "cancelled",
    ("compensating", "WORKFLOW_REJECTED"): "rejected",
    ("running", "WORKFLOW_COMPLETED"): "completed",
    ("running", "WORKFLOW_FAILED"): "failed",
    ("running", "WORKFLOW_CANCELLED"): "cancelled",
    ("running", "WORKFLOW_REJECTED"): "rejected",
    ("failed", "WORKFLOW_RETRIED"): "running",  # an operator has it go on
    ("paused", "WORKFLOW_FAILED"): "failed",
    ("paused", "WORKFLOW_CANCELLED"): "cancelled",
    ("paused", "WORKFLOW_REJECTED"): "rejected",
}

STEP: dict[tuple[str, str], str] = {
    ("pending", "opened"): "open",
    ("pending", "skipped"): "skipped",
    ("pending", "failed"): "failed",
    ("open", "completed"): "completed",
    ("open", "failed"): "failed",
    ("open", "skipped"): "skipped",
    ("pending", "review"): "review",  # its condition has no value
    ("open", "retrying"): "retrying",  # this attempt failed; the next is made at its time
    ("retrying", "reopened"): "open",
    ("open", "review"): "review",  # it failed for good; a person says how it goes on
    ("retrying", "failed"): "failed",  # the time for all attempts is over
    ("retrying", "skipped"): "skipped",
    ("retrying", "expired"): "expired",
    ("retrying", "review"): "review",
    ("open", "polling"): "polling",  # the answer is not what the wait is for; the tool is asked again at its time
    ("polling", "reopened"): "open",
    ("polling", "failed"): "failed",
    ("polling", "skipped"): "skipped",
    ("polling", "expired"): "expired",
    ("polling", "review"): "review",
    ("failed", "reopened"): "open",  # the failed run was retried
    ("open", "reopened"): "open",  # the run was retried, and what the step waited for had ended with it
    ("review", "reopened"): "open",
    ("review", "completed"): "completed",
    ("review", "skipped"): "skipped",
    ("review", "failed"): "failed",
    ("open", "awaiting"): "awaiting",  # its request was answered; the other side has yet to call back
    ("awaiting", "completed"): "completed",
    ("awaiting", "failed"): "failed",
    ("awaiting", "skipped"): "skipped",
    ("awaiting", "review"): "review",
    ("open", "rejected"): "rejected",
    ("open", "expired"): "expired",
    ("open", "submitted"): "submitted",  # an agent has handed in; the gate is checked
    ("submitted", "completed"): "completed",
    ("submitted", "returned"): "open",  # the gate stays shut, and the agent goes on
    ("submitted", "failed"): "failed",
    ("submitted", "retrying"): "retrying",
    ("submitted", "skipped"): "skipped",
    ("submitted", "review"): "review",
    ("submitted", "rejected"): "rejected",
    ("submitted", "expired"): "expired",
    ("open", "again"): "pending",  # the run goes back to this step, or to one before it
    ("submitted", "again"): "pending",
    ("completed", "again"): "pending",
    ("skipped", "again"): "pending",
    ("retrying", "again"): "pending",  # a message that nobody waited for
    ("review", "again"): "pending",
}

INVOCATION: dict[tuple[str, str], str] = {
    ("new", "granted"): "open",
    ("open", "claimed"): "open",
    ("open", "ended"): "ended",
    ("open", "expired"): "expired",
    ("open", "revoked"): "revoked",
}

APPROVAL: dict[tuple[str, str], str] = {
    ("new", "requested"): "pending",
    ("pending", "pending"): "pending",  # one approval of several
    ("pending", "more_info"): "pending",  # the question is on record; the request stays open
    ("pending", "turn"): "pending",  # in a sequence: the next are asked
    ("pending", "reminded"): "pending",
    ("pending", "escalated"): "pending",  # others are asked
    ("pending", "delegated"): "pending",  # a person handed their part to another
    ("pending", "approved"): "approved",
    ("pending", "rejected"): "rejected",
    ("pending", "edited"): "edited",
    ("pending", "expired"): "expired",
    ("pending", "withdrawn"): "withdrawn",
    ("approved", "expired"): "expired",
    ("approved", "withdrawn"): "withdrawn",
    ("approved", "used"): "used",
}

EFFECT: dict[tuple[str, str], str] = {
    ("new", "TOOL_INVOKE"): "running",
    ("running", "TOOL_INVOKE"): "running",  # an idempotent retry, one attempt more
    ("running", "TOOL_RESULT"): "ended",
    ("running", "EFFECT_IN_DOUBT"): "in_doubt",
    ("running", "EFFECT_DEAD_LETTERED"): "dead_lettered",  # a message that was given up
    ("dead_lettered", "EFFECT_RESOLVED"): "ended",
    ("dead_lettered", "TOOL_INVOKE"): "running",  # a person has it sent again
    ("in_doubt", "TOOL_RESULT"): "ended",  # the answer came after all
    ("in_doubt", "EFFECT_RESOLVED"): "ended",
    ("in_doubt", "TOOL_INVOKE"): "running",  # a person chose to run it again
}

CHILD: dict[tuple[str, str], str] = {
    ("new", "opened"): "planned",  # its id is on record; whether it has started is not
    ("planned", "CHILD_STARTED"): "running",
    ("planned", "CHILD_ENDED"): "ended",
    ("running", "CHILD_ENDED"): "ended",
}

TABLES = {
    "workflow": WORKFLOW,
    "step": STEP,
    "invocation": INVOCATION,
    "approval": APPROVAL,
    "effect": EFFECT,
    "child": CHILD,
}

LIVE = frozenset({"running", "paused", "compensating"})
STEP_DONE = frozenset({"completed", "skipped"})
CALLING = frozenset({"action", "external", "notification"})
"""The types of steps whose tool call the engine runs."""


def mermaid(name: str) -> str:
    """One table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2"]
    lines += [f"    {source} --> {target}: {what}" for (source, what), target in TABLES[name].items()]
    return "\n".join(lines)
