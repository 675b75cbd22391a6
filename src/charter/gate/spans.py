"""Every name that Charter gives to telemetry, in one place: the GenAI and MCP conventions are still in
development.

The MCP SDK makes the server span of a request itself (``tools/call NAME``, continuing ``traceparent`` from
``_meta``); Charter's spans are its children. Approvals have no convention yet, so those names are our own,
under ``charter.``.
"""

from __future__ import annotations

from typing import Final

COMMAND: Final = "charter.command"
POLICY: Final = "charter.policy"
STORE_APPEND: Final = "charter.store.append"
STORE_LOAD: Final = "charter.store.load"
APPROVAL: Final = "charter.approval"


def execute_tool(tool: str) -> str:
    """The span of the upstream call (GenAI conventions: ``execute_tool {gen_ai.tool.name}``)."""
    return f"execute_tool {tool}"


def invoke_workflow(template: str) -> str:
    """The root of a workflow's own trace (GenAI conventions: ``invoke_workflow {gen_ai.workflow.name}``)."""
    return f"invoke_workflow {template}"


class Attr:
    """Attribute names.

    Only these are ever set; a value is an id, a name, a code or a number, never an argument.
    """

    OPERATION: Final = "gen_ai.operation.name"
    TOOL: Final = "gen_ai.tool.name"
    TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
    WORKFLOW_NAME: Final = "gen_ai.workflow.name"
    ERROR: Final = "error.type"
    SERVER: Final = "charter.upstream"
    TENANT: Final = "charter.tenant"
    COMMAND: Final = "charter.command"
    ACTION: Final = "charter.action"
    WORKFLOW: Final = "charter.workflow_id"
    STEP: Final = "charter.step_id"
    INVOCATION: Final = "charter.agent_invocation_id"
    PROPOSAL: Final = "charter.proposal_id"
    APPROVAL: Final = "charter.approval_id"
    EFFECT: Final = "charter.effect_id"
    PRINCIPAL_KIND: Final = "charter.principal.kind"
    VERDICT: Final = "charter.decision.verdict"
    CODE: Final = "charter.decision.code"
    POLICIES: Final = "charter.policy.ids"
    POLICY_SET: Final = "charter.policy.set_hash"
    OBLIGATIONS: Final = "charter.obligations"
    EVENTS: Final = "charter.store.events"
    OUTCOME: Final = "charter.effect.status"


ATTRIBUTES: Final = frozenset(
    value for name, value in vars(Attr).items() if not name.startswith("_") and isinstance(value, str)
)


class Metric:
    """Instrument names. Durations are seconds."""

    DECISIONS: Final = "charter.decisions"
    CALL_DURATION: Final = "charter.call.duration"
    UPSTREAM_DURATION: Final = "charter.upstream.duration"
    PENDING_APPROVALS: Final = "charter.approvals.pending"
