"""An approval on the terminal: everything that a person needs to decide."""

from __future__ import annotations

from typing import Any

import orjson

from charter.cli.output import print_fields, safe, say, stranger
from charter.model.approval import Requirement
from charter.model.reply import ApprovalView


def print_view(view: ApprovalView) -> None:
    """Everything that a person needs to decide. What strangers wrote is made harmless and marked as theirs."""
    request = view.request
    between = ", then " if request.in_sequence else "; "
    dry = " · dry run: nothing is executed, whatever is decided" if request.dry_run else ""
    say(f"── {request.approval_id} · {view.status} · risk {request.risk}{dry}")
    print_fields(
        [
            ("call", request.tool or f"step {request.step_id}"),
            *((f"  {stranger(line.label)}", stranger(line.value)) for line in request.shown),
            ("arguments", _arguments(view) if request.proposal_id else None),
            ("preview", stranger(request.preview) if request.preview else None),
            ("agent's reason", stranger(request.reason) if request.reason else None),
            ("asked because", request.asked_because),
            ("policies", ", ".join(request.policy_ids)),
            ("asked by", f"{request.requested_by_kind} {request.requested_by}" + _owner(view)),
            ("workflow", f"{request.workflow_id} ({view.template})"),
            ("purpose", stranger(view.purpose)),
            ("still needed", between.join(needed(item) for item in view.still_needed)),
            ("or instead", " or ".join(needed(item) for item in view.or_instead) or None),
            (
                "handed on",
                "\n".join(f"{item.delegated_by} to {item.delegated_to}" for item in view.delegations) or None,
            ),
            ("revision", f"{request.revision}, instead of {request.replaces}" if request.replaces else None),
            ("answers", "\n".join(_answer(item) for item in view.decisions)),
            ("agent's history", stranger("\n".join(view.history[-12:])).replace("⏎\n│ ", "\n")),
            ("asked at", request.requested_at),
            ("until", view.expires_at or request.expires_at),
            ("digest", request.digest),
        ]
    )


def needed(item: Requirement) -> str:
    """``2 × finance of ann, bob by cli``."""
    people = f" of {', '.join(item.people)}" if item.people else ""
    channels = f" by {', '.join(item.channels)}" if item.channels else ""
    return f"{item.approvers} × {item.role or 'any person'}{people}{channels}"


def _arguments(view: ApprovalView) -> str:
    return safe(orjson.dumps(view.arguments, option=orjson.OPT_INDENT_2).decode())


def _owner(view: ApprovalView) -> str:
    return f", acting for {view.request.owner}" if view.request.owner else ""


def _answer(item: Any) -> str:
    comment = f": {stranger(item.comment)}" if item.comment else ""
    kind = "" if item.decided_by_kind == "human" else f"{item.decided_by_kind} "
    instead = f" for {', '.join(item.on_behalf_of)}" if item.on_behalf_of else ""
    return f"{kind}{item.decided_by}{instead} ({item.channel}) {item.decision}{comment}"
