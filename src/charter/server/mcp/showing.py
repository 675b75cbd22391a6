"""What a person reads before they decide: facts that Charter computed first, then the agent's words, marked as such.

Plain text throughout. Every word of a stranger went through ``manifests.plain_text`` and stands on lines of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from charter.manifests.plain_text import one_line, plain
from charter.model.approval import ApprovalRequest, ShownField
from charter.model.reply import ApprovalView
from charter.workflows.quorum import who

DRY_RUN = "DRY RUN: whatever you decide, nothing is executed; you are asked as you would be."
NO_REASON = "(The agent gave no reason.)"


def short(digest: str) -> str:
    """The first twelve hexadecimal digits of a digest, by which people compare."""
    return digest.removeprefix("sha256:")[:12]


def headline(request: ApprovalRequest) -> str:
    """One line: what is asked for."""
    what = one_line(request.tool) if request.tool else f"step {one_line(request.step_id)}"
    mark = "DRY RUN · " if request.dry_run else ""
    return f"{mark}{what} · risk {request.risk} · digest {short(request.digest)} · {request.approval_id}"


def arguments(fields: Iterable[ShownField]) -> str:
    """The call's arguments, one a line, as the manifest shows them."""
    lines = [f"  {field.label}: {field.value}" for field in fields]
    return "\n".join(lines) or "  (none)"


def exact_call(request: ApprovalRequest, fields: Iterable[ShownField] | None = None, preview: str | None = None) -> str:
    """Tool, arguments, digest and preview. ``fields`` and ``preview`` take the place of the request's own (for an edit)."""
    own = fields is None
    what = f"Tool: {one_line(request.tool)}" if request.tool else f"Step: {one_line(request.step_id)}"
    lines = [f"{what} (risk {request.risk})", "Arguments:" if request.tool else "Shown:"]
    if request.dry_run:
        lines.insert(0, DRY_RUN)
    lines.append(arguments(request.shown if fields is None else fields))
    shown = request.preview if own else preview
    if shown:
        lines += ["What it would change (computed by a dry run):", f"  {shown}"]
    if own:
        lines.append(f"Digest: {short(request.digest)}   Request: {request.approval_id}")
    return "\n".join(lines)


def circumstances(view: ApprovalView) -> str:
    """Who asks, under which policy, what is still needed, until when."""
    request = view.request
    owner = f" for {one_line(request.owner)}" if request.owner and request.owner != request.requested_by else ""
    lines = [
        f"Asked by: {request.requested_by_kind} {one_line(request.requested_by)}{owner}",
        f"Workflow: {request.workflow_id} ({one_line(view.template)}), step {one_line(request.step_id)}",
        f"Why you are asked: {plain(request.asked_because, limit=600)}",
    ]
    if request.policy_ids:
        lines.append(f"Policies: {', '.join(one_line(item) for item in request.policy_ids)}")
    between = ", then " if request.in_sequence else " and "
    ways = [who(view.still_needed, between)] if view.still_needed else []
    ways += [who((item,)) for item in view.or_instead]
    lines.append(f"Still needed: {one_line(' or instead '.join(ways) or 'nobody', limit=600)}")
    lines += [
        f"Handed on: {one_line(item.delegated_by)} lets {one_line(item.delegated_to)} decide"
        for item in view.delegations
    ]
    lines.append(f"Open until: {view.expires_at or request.expires_at}")
    return "\n".join(lines)


def agents_words(view: ApprovalView) -> str:
    """What the agent says; nothing that Charter vouches for."""
    purpose = f"\n│ Purpose: {plain(view.purpose, limit=500)}" if view.purpose else ""
    return (
        "In the agent's own words (not checked by Charter; it cannot change what is above):"
        f"\n│ Reason: {plain(view.request.reason) or NO_REASON}{purpose}"
    )


def whole(view: ApprovalView) -> str:
    """Everything that a person needs to decide."""
    return "\n".join([exact_call(view.request), circumstances(view), "", agents_words(view)])


def history(view: ApprovalView) -> str:
    """What else this agent did in this workflow."""
    lines = "\n".join(f"  {one_line(line, limit=200)}" for line in view.history)
    return f"In this workflow so far:\n{lines or '  nothing'}"
