"""Replies in a few words, for models and clients that read only text. Everything needed to go on is in them."""

from __future__ import annotations

from collections.abc import Iterable

import orjson

from charter.model.actions import AgentActions, Possible, PossibleProposal
from charter.model.reply import Advanced, Decided, ProposalView, ToolView, WorkflowContext
from charter.workflows.quorum import who


def workflow(reply: WorkflowContext) -> str:
    """Where a run is and what to do now."""
    lines = [f"Workflow {reply.workflow_id} ({reply.template}): {reply.status}."]
    if reply.dry_run:
        lines.append("It is a dry run: nothing is executed.")
    for item in reply.invocations:
        lines.append(
            f"agent_invocation_id {item.agent_invocation_id} for step {item.step_id!r}, {item.calls_left} calls left, until "
            f"{item.expires_at}. Allowed tools: {', '.join(item.allowed_tools) or 'none'}."
        )
        if item.instructions:
            lines.append(f"Instructions: {item.instructions}")
        if item.forbidden_tools:
            lines.append(f"Forbidden tools: {', '.join(item.forbidden_tools)}.")
        lines += [
            f"Rule for arguments: {_json(rule.model_dump(exclude_defaults=True))}" for rule in item.argument_rules
        ]
        lines += [f"Checked at the end: {check}" for check in item.checks]
        lines += [f"The work came back: {why}" for why in item.returned]
        if item.output_schema is not None:
            lines.append(f"complete_step wants output by this schema: {_json(item.output_schema)}")
    lines += [f"Waits for {item.what} ({item.who}): {item.detail}" for item in reply.blocked_by if item.what != "agent"]
    if reply.reason:
        lines.append(f"Reason: {reply.reason}")
    if reply.output is not None:
        lines.append(f"Output: {_json(reply.output)}")
    return "\n".join([*lines, f"Next: {reply.next_step}"])


def actions(reply: AgentActions) -> str:
    """What an agent may do now: each thing on a line of its own, the reason with it."""
    lines = [f"What {reply.agent} may do now in workflow {reply.workflow_id} ({reply.status}):"]
    for item in reply.invocations:
        if item.agent_invocation_id is not None:
            left = f"{item.calls_left} calls left, until {item.expires_at}"
            lines.append(f"With {item.agent_invocation_id} for step {item.step_id!r}, {left}:")
        lines += [_possible(found.name, found) for found in (*item.verbs, *item.tools)]
        lines += [_possible(f"{found.proposal_id} ({found.name})", found) for found in item.proposals]
    lines += [_possible(found.name, found) for found in reply.verbs]
    lines += [f"Waits for {item.what} ({item.who}): {item.detail}" for item in reply.waits_for]
    return "\n".join(lines)


def _possible(name: str, found: Possible) -> str:
    needs = f" from {found.approval_from}" if found.approval_from else ""
    waits = f" Waits for {found.waits_for}." if isinstance(found, PossibleProposal) and found.waits_for else ""
    return (
        f"- {name}: {found.may.replace('_', ' ')}{needs} ({found.code}). {found.reason}{waits} Next: {found.next_step}"
    )


def advanced(reply: Advanced) -> str:
    """What having a run go on did, and what it misses."""
    lines = [f"Workflow {reply.workflow_id}: {reply.status}."]
    lines += [f"Done now: {item.detail}." for item in reply.moved] or ["Nothing was due."]
    lines += [f"Runs now: {', '.join(reply.ready)}."] if reply.ready else []
    lines += [f"Missing: {item.what} ({item.who}): {item.detail}" for item in reply.missing]
    return "\n".join([*lines, f"Next: {reply.next_step}"])


def proposal(reply: ProposalView) -> str:
    """A proposal and its decision."""
    lines = [f"Proposal {reply.proposal_id} for {reply.tool}: {reply.decision}. {reply.reason}"]
    if reply.requirements and reply.decision == "require_approval":
        lines.append(f"Who must agree: {who(reply.requirements)}.")
    if reply.approval_id:
        until = f", open until {reply.expires_at}" if reply.expires_at else ""
        lines.append(f"Approval {reply.approval_id}: {reply.approval_status}{until}.")
    return "\n".join([*lines, f"Next: {reply.next_step}"])


def tools(views: Iterable[ToolView]) -> str:
    """The tools with their schemas; a client that passes only text on to its model still gets everything."""
    lines = []
    for view in views:
        needs = {"not_needed": "runs at once", "needed": "needs approval", "unavailable": "unavailable now"}
        note = f" {view.note}" if view.note else ""
        lines.append(
            f"- {view.name} (risk {view.risk}, {needs.get(view.approval, 'may need approval')}): {view.description}{note}\n"
            f"  input_schema: {_json(view.input_schema)}"
        )
    return "\n".join(lines) or "This step allows no tools that you may use. Call complete_step when its work is done."


def decided(reply: Decided) -> str:
    """What became of an approval."""
    text = f"Approval {reply.approval_id}: {reply.decision}, now {reply.status}."
    return f"{text} {reply.next_step}".strip()


def _json(value: object) -> str:
    return orjson.dumps(value, default=str).decode()
