"""The Cedar schema: what policies may speak of, as text, generated for a set of tools.

Every principal and resource carries its tenant. One action stands for each verb of ``model.policy.Action``; each known tool
has an action of its own in the group ``tool.invoke``, so that ``action in Charter::Action::"tool.invoke"`` means any tool
and ``action == Charter::Action::"tool.invoke:casebook__write_note"`` one, with its typed ``context.input``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import get_args

from charter.model.policy import Action
from charter.model.tool import ToolManifest
from charter.policies.inputs import InputType, Record, Scalar, SetOf, input_type

SCHEMA_VERSION = 3
INVOKE = "tool.invoke"

RESOURCES: Mapping[str, tuple[str, ...]] = {
    "workflow.start": ("Template",),
    "workflow.read": ("Workflow",),
    "workflow.cancel": ("Workflow",),
    "workflow.pause": ("Workflow",),
    "workflow.retry": ("Workflow",),
    "workflow.advance": ("Workflow",),
    "step.complete": ("Workflow",),
    INVOKE: ("Tool",),
    "approval.request": ("Tool", "Workflow", "Approval"),
    "approval.read": ("Approval", "Workflow", "Ledger"),
    "approval.decide": ("Approval",),
    "approval.delegate": ("Approval",),
    "grant.give": ("Tool",),
    "grant.revoke": ("Tool", "Workflow"),
    "effect.resolve": ("Workflow", "Tool"),
    "step.review": ("Workflow",),
    "signal.send": ("Ledger", "Workflow"),
    "tool.pin": ("Tool",),
    "template.publish": ("Template",),
    "audit.read": ("Ledger", "Workflow"),
    "record.erase": ("Ledger",),
    "record.maintain": ("Ledger",),
}
"""Which resource types a request with each verb may name."""

_ENTITIES = """\
  // Who asks. `acts_for` is the person whom an agent serves.
  entity Human, Agent, Service = {
    id: String, tenant: String, roles: Set<String>, acts_for?: String, acts_for_roles: Set<String>
  };
  // What is asked for.
  entity Tool = {
    id: String, tenant: String, name: String, server: String, risk: String, side_effects: String,
    idempotent: Bool, quarantined: Bool, tags: Set<String>, roles: Set<String>
  };
  entity Template, Workflow, Ledger = { id: String, tenant: String };
  entity Approval = {
    id: String, tenant: String, risk: String, tool?: String, requested_by: String, requested_by_kind: String,
    owner?: String, roles: Set<String>, channels: Set<String>, people: Set<String>, delegates: Set<String>,
    works_here: Bool
  } tags Long;  // its whole numbers by name: resource.hasTag("cents") && resource.getTag("cents") <= 10000
"""

_CONTEXT = """\
    workflow_id?: String, workflow_live: Bool, workflow_owner?: String, workflow_started_by?: String,
    agent_invocation_id?: String, invocation_live: Bool, template?: String, step_id?: String,
    purpose?: String, case_id?: String, tool_allowed: Bool, dry_run: Bool,
    within_budget: Bool, approved: Set<String>, granted: Bool,
    channel?: String, verdict?: String, delegate_to?: String, signal_type?: String, signal_source?: String,
    schedule?: String"""

_COUNTS = """,
    calls_used: Long, calls_budget: Long"""

_PRINCIPALS = "[Human, Agent, Service]"


def tool_action(tool: str) -> str:
    """The id of the action that stands for this one tool."""
    return f"{INVOKE}:{tool}"


def is_tool_action(action: str) -> bool:
    """Whether this id stands for one tool rather than for a verb."""
    return action.startswith(f"{INVOKE}:")


def input_types(tools: Iterable[ToolManifest]) -> dict[str, Record | None]:
    """For each tool's name the type of its ``context.input``; None where its schema cannot be typed."""
    return {tool.name: input_type(tool.input_schema) for tool in tools}


def schema_text(inputs: Mapping[str, Record | None], *, counts: bool = True) -> str:
    """The Cedar schema for tools with these inputs; without ``counts`` requests do not say how many calls were made."""
    call = _CONTEXT + (_COUNTS if counts else "")
    lines = ["namespace Charter {", _ENTITIES, "  type Call = {", call, "  };", ""]
    lines += [_action(action, RESOURCES[action], "Call") for action in get_args(Action)]
    for tool, typed in inputs.items():
        context = "Call" if typed is None else f"{{\n{call},\n    input: {_render(typed)}\n  }}"
        lines.append(_action(tool_action(tool), ("Tool",), context, group=INVOKE))
    lines.append("}")
    return "\n".join(lines) + "\n"


def _action(name: str, resources: tuple[str, ...], context: str, group: str | None = None) -> str:
    within = f" in [{quote(group)}]" if group else ""
    return (
        f"  action {quote(name)}{within} appliesTo {{ principal: {_PRINCIPALS}, "
        f"resource: [{', '.join(resources)}], context: {context} }};"
    )


def _render(wanted: InputType) -> str:
    if isinstance(wanted, Scalar):
        return wanted.name
    if isinstance(wanted, SetOf):
        return f"Set<{_render(wanted.item)}>"
    fields = (
        f"{quote(name)}{'' if required else '?'}: {_render(inner)}" for name, (inner, required) in wanted.fields.items()
    )
    return "{ " + ", ".join(fields) + " }"


def quote(text: str) -> str:
    """A Cedar string literal."""
    out = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in out) + '"'
