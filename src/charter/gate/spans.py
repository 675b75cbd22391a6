"""Every name that Charter gives to telemetry, in one place: the GenAI and MCP conventions are still in
development.

The MCP SDK makes the server span of a request itself (``tools/call NAME``, continuing ``traceparent`` from
``_meta``); Charter's spans are its children. Approvals have no convention yet, so those names are our own,
under ``charter.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.util.types import AttributeValue

POLICY: Final = "policy"
STORE_APPEND: Final = "store append"
STORE_LOAD: Final = "store load"


def governed(command: str) -> str:
    """The span of one command on its way through the gate."""
    return f"gate {command}"


def policy(verdict: str) -> str:
    """The span of one decision, named by its verdict: three names, and a person sees at once what was said."""
    return f"{POLICY} {verdict}"


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
    WORKFLOW_NAME: Final = "gen_ai.workflow.name"
    CONVERSATION: Final = "gen_ai.conversation.id"
    """The workflow's id once more: viewers group traces by it and so show a run as a whole."""
    GOVERNED_TOOL: Final = "charter.tool"
    """The tool that a command or a moment is about; ``gen_ai.tool.name`` is for spans in which a tool runs."""
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
    APPROVAL_DECISION: Final = "charter.approval.decision"
    APPROVAL_STATUS: Final = "charter.approval.status"
    CHANNEL: Final = "charter.approval.channel"
    GRANT: Final = "charter.grant_id"
    EFFECT: Final = "charter.effect_id"
    PRINCIPAL_KIND: Final = "charter.principal.kind"
    VERDICT: Final = "charter.decision.verdict"
    CODE: Final = "charter.decision.code"
    POLICIES: Final = "charter.policy.ids"
    POLICY_SET: Final = "charter.policy.set_hash"
    OBLIGATIONS: Final = "charter.obligations"
    EVENTS: Final = "charter.store.events"
    EVENT_TYPES: Final = "charter.store.event_types"
    OUTCOME: Final = "charter.effect.status"
    STEP_STATUS: Final = "charter.step.status"
    RISK: Final = "charter.tool.risk"
    CHILD: Final = "charter.child_workflow_id"


ATTRIBUTES: Final = frozenset(
    value for name, value in vars(Attr).items() if not name.startswith("_") and isinstance(value, str)
)


class Metric:
    """Instrument names. Durations are seconds."""

    DECISIONS: Final = "charter.decisions"
    CALL_DURATION: Final = "charter.call.duration"
    UPSTREAM_DURATION: Final = "charter.upstream.duration"
    PENDING_APPROVALS: Final = "charter.approvals.pending"


_TOOL = {"tool": Attr.GOVERNED_TOOL, "step_id": Attr.STEP, "proposal_id": Attr.PROPOSAL}
_APPROVAL = {"approval_id": Attr.APPROVAL, "status": Attr.APPROVAL_STATUS}
MOMENTS: Final[Mapping[str, Mapping[str, str]]] = {
    "POLICY_DECISION": {"verdict": Attr.VERDICT, "code": Attr.CODE, "action": Attr.ACTION},
    "COMMAND_REFUSED": {"command": Attr.COMMAND, "code": Attr.CODE},
    "WORKFLOW_STEP": {"step_id": Attr.STEP, "status": Attr.STEP_STATUS, "code": Attr.CODE},
    "CHILD_STARTED": {"step_id": Attr.STEP, "child_workflow_id": Attr.CHILD},
    "CHILD_ENDED": {"step_id": Attr.STEP, "child_workflow_id": Attr.CHILD, "status": Attr.STEP_STATUS},
    "STEP_REVIEWED": {"step_id": Attr.STEP, "resolution": Attr.STEP_STATUS},
    "GATE_CHECKED": {"step_id": Attr.STEP, "outcome": Attr.STEP_STATUS},
    "PHASE_WENT_BACK": {"to_step": Attr.STEP, "on": Attr.STEP_STATUS},
    "SIGNAL_DELIVERED": {"step_id": Attr.STEP},
    "CALLBACK_RECEIVED": {"step_id": Attr.STEP},
    "SIGNAL_SENT": {"step_id": Attr.STEP},
    "COMPENSATION_STARTED": {"code": Attr.ERROR},
    "WORKFLOW_RETRIED": {},
    "WORKFLOW_PAUSED": {},
    "WORKFLOW_RESUMED": {},
    "APPROVAL_REQUESTED": {**_TOOL, "approval_id": Attr.APPROVAL, "risk": Attr.RISK},
    "APPROVAL_DECISION": {**_APPROVAL, "decision": Attr.APPROVAL_DECISION, "channel": Attr.CHANNEL},
    "APPROVAL_TURN": {"approval_id": Attr.APPROVAL},
    "APPROVAL_REMINDED": {"approval_id": Attr.APPROVAL},
    "APPROVAL_ESCALATED": {"approval_id": Attr.APPROVAL},
    "APPROVAL_DELEGATED": {"approval_id": Attr.APPROVAL},
    "APPROVAL_CLOSED": _APPROVAL,
    "GRANT_GIVEN": {"grant_id": Attr.GRANT},
    "GRANT_REVOKED": {"grant_id": Attr.GRANT},
    "TOOL_INVOKE": {**_TOOL, "effect_id": Attr.EFFECT},
    "EFFECT_IN_DOUBT": {"effect_id": Attr.EFFECT},
    "EFFECT_DEAD_LETTERED": {"effect_id": Attr.EFFECT, "code": Attr.CODE},
    "EFFECT_RESOLVED": {"effect_id": Attr.EFFECT},
    "WORKFLOW_COMPLETED": {},
    "WORKFLOW_FAILED": {"code": Attr.ERROR},
    "WORKFLOW_REJECTED": {},
    "WORKFLOW_CANCELLED": {},
}
"""The events that are shown as moments of their workflow's own trace, and the members of each that may be seen there."""

_SUBJECT: Final = (
    Attr.GOVERNED_TOOL,
    Attr.VERDICT,
    Attr.COMMAND,
    Attr.APPROVAL_DECISION,
    Attr.STEP,
    Attr.APPROVAL_STATUS,
)


def moment(event_type: str, data: Mapping[str, Any]) -> tuple[str, dict[str, AttributeValue]] | None:
    """An event as a moment: the span's name (``TOOL_INVOKE casebook__read_note``) and attributes; None for those that a
    person who looks at a run would not miss.
    """
    fields = MOMENTS.get(event_type)
    if fields is None or data.get("verdict", "deny") != "deny":
        return None
    shown = data.get("request", data)
    found: dict[str, AttributeValue] = {fields[key]: shown[key] for key in fields if isinstance(shown.get(key), str)}
    subject = next((str(found[name]) for name in _SUBJECT if name in found), "")
    status = str(found.get(Attr.STEP_STATUS, ""))
    return " ".join(filter(None, (event_type, subject, status))), found
