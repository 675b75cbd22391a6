"""Documents in other people's forms, written for the tests: one of each kind, with what the kind can say."""

from __future__ import annotations

import copy
from typing import Any

INDEXED: dict[str, Any] = {
    "name": "Expense Claim",
    "description": "Large claims are looked at.",
    "trigger_type": "on_claim",
    "trigger_config": {
        "conditions": [
            {"field": "kind", "op": "in", "value": ["travel", "meals"]},
            {"field": "total", "op": "gt", "value": 0},
        ]
    },
    "steps": [
        {
            "type": "condition",
            "name": "Small?",
            "config": {"expression": "trigger.total < 50", "if_true": "skip_to:4", "if_false": "continue"},
        },
        {
            "type": "condition",
            "name": "Huge?",
            "config": {"expression": "trigger.total > 5000", "if_false": "skip_to:3"},
        },
        {
            "type": "approval",
            "name": "Board",
            "config": {"approvers": {"type": "role", "value": "board"}, "timeout_hours": 1.5},
        },
        {
            "type": "approval",
            "name": "Lead",
            "config": {
                "approvers": [{"type": "role", "value": "lead", "count": 1}],
                "message": "Pay {{trigger.total}}?",
            },
        },
        {
            "type": "action",
            "name": "Pay",
            "config": {
                "action": "pay_claim",
                "params": {"claim": "{{trigger.id}}"},
                "on_failure": "retry",
                "retry_config": {"max_attempts": 3, "backoff_seconds": 2},
            },
        },
    ],
}

SIGNAL: dict[str, Any] = {
    "workflow": {
        "name": "Ticket answer",
        "version": "2.1",
        "trigger": {"signal": "ticket.opened"},
        "steps": [
            {"id": "draft-answer", "type": "agent", "agent_ref": {"slug": "drafter"}, "input": {"from_signal": True}},
            {
                "id": "send",
                "type": "directive",
                "directive": "ticket.reply",
                "payload": {
                    "ticket": "${signal.ticket.id}",
                    "text": "Hello {{ name }}: ${steps.draft-answer.output.text} (${signal.ticket.tags[0]})",
                },
            },
        ],
    }
}

CONTRACT: dict[str, Any] = {
    "name": "Change",
    "version": "1.0",
    "phases": [
        {
            "id": "DRAFT",
            "name": "Write it down",
            "required_artifacts": [
                {
                    "type": "change_note",
                    "schema": "schemas/note.json",
                    "validation": [{"rule": "has_reason", "message": "It says why"}],
                }
            ],
            "gates": [
                {
                    "id": "written",
                    "type": "validation",
                    "blockers": [
                        {"check": "note_is_filed", "severity": "blocking", "message": "The note is in the book"},
                        {"check": "note_is_short", "severity": "warning", "limit": 20},
                    ],
                    "timeout_seconds": 600,
                    "auto_advance": True,
                }
            ],
            "allowed_tools": ["look", "write"],
            "forbidden_tools": ["take_money"],
            "tool_constraints": {
                "write": {"allowed_patterns": ["notes/**"], "forbidden_patterns": ["notes/old/**/*"]},
            },
        },
        {
            "id": "APPLY",
            "name": "Do it",
            "required_artifacts": [{"type": "result", "schema": {"type": "object", "required": ["done"]}}],
            "gates": [{"id": "agreed", "type": "approval", "approvers": ["human"], "timeout_seconds": 3600}],
            "allowed_tools": ["look"],
        },
        {"id": "TELL", "name": "Tell it", "gates": [], "allowed_tools": []},
    ],
    "transitions": [
        {"from": "DRAFT", "to": "APPLY", "gate": "written", "requires_token": True},
        {
            "from": "APPLY",
            "to": "TELL",
            "gate": "agreed",
            "triggers": [{"action": "note_it", "params": {"what": "applied"}}],
        },
        {"from": "APPLY", "to": "DRAFT", "on": "rejected"},
    ],
    "schemas": {
        "note.json": {
            "type": "object",
            "required": ["reason", "name"],
            "properties": {"reason": {"type": "string"}, "name": {"type": "string"}},
        }
    },
    "recovery": {"gate_timeout": {"action": "escalate_to_human", "preserve_state": True}},
    "monitoring": {"metrics": ["gate_pass_rate"]},
}

CONTRACT_BINDINGS = """
tools:
  look: counter__read
  write: {tools: [counter__write_idempotent], path: what}
  take_money: counter__charge
actions: {note_it: counter__read}
checks:
  has_reason: {expression: size(artifacts.change_note.reason) > 0}
  note_is_filed:
    evidence: {tool: counter__read, arguments: {what: "{{ artifacts.change_note.name }}"}}
    expression: evidence.result == "this is plan"
  note_is_short: {expression: size(artifacts.change_note.reason) <= params.limit}
"""


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with one part another, or, where ``value`` is ``...``, without it."""
    out = copy.deepcopy(document)
    *before, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    here: Any = out
    for part in before:
        here = here[part]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return out


SUPPLIER: dict[str, Any] = {
    "name": "Supplier Check",
    "trigger_type": "schedule",
    "trigger_config": {
        "cron": "30 8 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "input": {"supplier": "s 1", "mail": "ann@example.com"},
    },
    "steps": [
        {
            "type": "external",
            "name": "Ask the registry",
            "config": {
                "url": "http://registry.example/score/{{trigger.supplier}}",
                "method": "GET",
                "headers": {"Accept": "application/json"},
                "extract_fields": {"score": "data.score", "first": "$.data.names[0]"},
                "success_condition": "response.status_code == 200 && response.data.score >= 0",
                "retry_config": {"max_attempts": 3, "backoff_seconds": 2, "backoff": "fixed"},
                "timeout_seconds": 20,
                "on_failure": "fail",
            },
        },
        {
            "type": "external",
            "name": "Deep check",
            "config": {
                "mode": "async",
                "url": "http://registry.example/check",
                "body": {"tell": "{{callback_url}}", "sign": "{{ callback.secret }}", "of": "{{trigger.supplier}}"},
                "extract_fields": ["result.verdict"],
                "success_condition": "response.result.verdict != ''",
                "completion_timeout_hours": 2,
                "on_failure": "human_review",
            },
        },
        {
            "type": "approval",
            "name": "Lead",
            "config": {
                "approvers": {"type": "role", "value": "lead"},
                "timeout_hours": 4,
                "reminder_hours": 1,
                "on_timeout": "escalate",
                "escalate_to": {"type": "role", "value": "board"},
            },
        },
        {
            "type": "notification",
            "name": "Tell them",
            "config": {
                "channel": "email",
                "recipients": ["{{trigger.mail}}", "purchasing"],
                "subject": "Supplier {{trigger.supplier}}",
                "body": "Score {{steps.0.output.score}}, {{steps.1.output.verdict}}.",
            },
        },
    ],
}
SUPPLIER_BINDINGS = "addresses: {purchasing: [buy@example.com, box@example.com]}"
