"""Charter's own tools as a model reads them: the descriptions teach the whole protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from charter.model.actions import AgentActions
from charter.model.base import FREE_LINE, LINE, Json, JsonObject
from charter.model.commands import BATCH
from charter.model.reply import (
    Advanced,
    BatchOutcome,
    ProposalView,
    ToolOutcome,
    ToolView,
    WorkflowContext,
    WorkflowStepResult,
)
from charter.server.mcp.schemas import INVOCATION_ID, WORKFLOW_ID, of_model, or_error

INSTRUCTIONS: Final = """\
Charter stands between you and the tools you may use. Nothing runs outside a workflow, every call is decided by a policy, \
some calls need a person's approval first, and everything is on record.

1. start_workflow gives you workflow_id and agent_invocation_id; send both with every call that follows.
2. describe_tools lists the tools that your open step allows, with their schemas. Governed tools are named server__tool.
3. Call a tool by its own name with the two ids, or through invoke_tool. What the policy permits runs at once.
4. Where the answer is approval_required, nothing has run: call request_approval with the proposal_id that you were given. \
Once it is approved, call invoke_tool with that proposal_id. An approval is good for exactly that call, once.
5. Where the answer is denied, read the reason and next_step. Do not try the same call again in other words.
6. complete_step when the step's work is done; get_workflow at any time to see where you are and who is waited for, \
agent_actions to see what you may do now and why not the rest.

Every error carries a stable code and a next_step: follow it. Never ask a person to approve outside these tools."""

_TEXT = {"type": "string"}
_REASON: Final[JsonObject] = {
    "type": "string",
    "maxLength": 4000,
    "description": "Why you want this call, in one or two plain sentences. A person who decides reads it as your words.",
}
_TOOL: Final[JsonObject] = {
    "type": "string",
    "description": "The governed tool's name as describe_tools gives it: server__tool.",
}
_ARGUMENTS: Final[JsonObject] = {
    "type": "object",
    "description": "The tool's own arguments, by its input_schema. The ids do not belong in here.",
}


@dataclass(frozen=True, slots=True)
class OwnTool:
    """One of Charter's own tools. ``takes`` are the names of its arguments, ``wire`` is how it is listed."""

    name: str
    takes: tuple[str, ...]
    wire: JsonObject


def own_tools(templates: Sequence[tuple[str, str]], default_template: str) -> dict[str, OwnTool]:
    """The tools in the order in which they are used. ``templates``: names and descriptions of what can be started."""
    tools = (
        _start(templates, default_template),
        _propose(),
        _request(),
        _invoke(),
        _get(),
        _describe(),
        _complete(),
        _cancel(),
        _advance(),
        _actions(),
    )
    return {tool.name: tool for tool in tools}


def own_tool(
    name: str,
    title: str,
    description: str,
    properties: Mapping[str, Json],
    required: Sequence[str],
    output: JsonObject,
    *others: JsonObject,
    **hints: bool,
) -> OwnTool:
    """One of Charter's own tools. ``others``: more outputs; ``hints``: read_only, destructive, idempotent, open_world."""
    inputs: JsonObject = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        inputs["required"] = list(required)
    annotations: dict[str, Any] = {
        "title": title,
        "readOnlyHint": hints.get("read_only", False),
        "destructiveHint": hints.get("destructive", False),
        "idempotentHint": hints.get("idempotent", False),
        "openWorldHint": hints.get("open_world", False),
    }
    wire = {
        "name": name,
        "title": title,
        "description": description,
        "inputSchema": inputs,
        "outputSchema": or_error(output, *others),
        "annotations": annotations,
    }
    return OwnTool(name, tuple(properties), wire)


def _context() -> JsonObject:
    """A workflow's context, with the first of the caller's open invocations on top."""
    schema = of_model(WorkflowContext)
    schema["properties"] = {
        "workflow_id": schema["properties"]["workflow_id"],
        "agent_invocation_id": {
            "type": "string",
            "description": "Your grant for the open step; absent while you hold none.",
        },
        **schema["properties"],
    }
    return schema


def _start(templates: Sequence[tuple[str, str]], default_template: str) -> OwnTool:
    known = "".join(f"\n- {name}: {' '.join(text.split())}" for name, text in templates)
    return own_tool(
        "start_workflow",
        "Start a workflow",
        "Call this first. Every tool call in Charter happens inside a workflow; a call outside one is denied. Answers with "
        "workflow_id and agent_invocation_id (send both with everything that follows), the open step with its instructions, "
        "and the names of the tools that it allows. Then call describe_tools. A connection that broke is no reason for a "
        "second workflow: send the same idempotency_key and you get the first one again."
        + (f"\nTemplates:{known}" if known else ""),
        {
            "template": {
                "type": "string",
                "description": "Which workflow definition: its name for the newest version, or name@version."
                f" Left out: {default_template}.",
            },
            "input": {
                "type": "object",
                "description": "The template's input, by its schema; {} where it asks nothing.",
            },
            "purpose": {
                "type": "string",
                "maxLength": 500,
                "pattern": FREE_LINE,
                "description": "What this work is for, in a sentence. Policies and approvers see it.",
            },
            "case_id": {
                "type": "string",
                "maxLength": 500,
                "pattern": LINE,
                "description": "The case, ticket or customer that the work belongs to, if there is one.",
            },
            "idempotency_key": {
                "type": "string",
                "maxLength": 500,
                "pattern": LINE,
                "description": "Any text of yours that names this start. The same key gives the same workflow.",
            },
            "dry_run": {
                "type": "boolean",
                "description": "True to go through everything without a tool being executed.",
            },
        },
        ("purpose",),
        _context(),
    )


def _propose() -> OwnTool:
    return own_tool(
        "propose_action",
        "Propose a call",
        "Ask what the policy says of one exact tool call, without running it. Answers with a proposal_id and the decision: "
        "permit (call invoke_tool with the proposal_id), require_approval (call request_approval with it; requirements says "
        "who must agree and through what), or deny (reason says why, next_step what to do instead). Calling it again with the "
        "same arguments gives the same proposal. Where a person asked you for more, call it again with a better reason.",
        {
            "workflow_id": WORKFLOW_ID,
            "agent_invocation_id": INVOCATION_ID,
            "tool": _TOOL,
            "arguments": _ARGUMENTS,
            "reason": _REASON,
        },
        ("workflow_id", "agent_invocation_id", "tool", "arguments", "reason"),
        of_model(ProposalView),
        idempotent=True,
    )


def _request() -> OwnTool:
    return own_tool(
        "request_approval",
        "Ask people to approve a proposal",
        "Put a proposal before the people who may decide on it. Where your client can ask its person and the policy lets that "
        "person decide, they are asked right here, once, and the answer comes back with their decision. Otherwise it answers "
        "at once with approval_status pending, who must decide, and until when: go on with other work and call get_workflow "
        "now and then. Do not call it again to hurry people; they are not asked twice. When approval_status is approved, "
        "call invoke_tool with the proposal_id.",
        {
            "workflow_id": WORKFLOW_ID,
            "agent_invocation_id": INVOCATION_ID,
            "proposal_id": {
                "type": "string",
                "description": "From propose_action, or from an approval_required answer.",
            },
        },
        ("workflow_id", "agent_invocation_id", "proposal_id"),
        of_model(ProposalView),
        idempotent=True,
    )


def _invoke() -> OwnTool:
    return own_tool(
        "invoke_tool",
        "Run a governed tool",
        "Run a governed tool: either an approved proposal (proposal_id alone) or tool with arguments that the policy permits "
        "outright. status succeeded: the tool's answer is in structured and in the content blocks. An error with code "
        "approval_required means that nothing ran: call request_approval with its proposal_id. status in_doubt means that "
        "nobody knows whether it ran: never repeat such a call. A large result is stored, and a link says where to read it. "
        "Several proposals that are approved or permitted run side by side with proposal_ids: either all of them may run now, "
        "or nothing runs and detail.members says what each still needs (code batch_not_ready). results stand in your order; "
        "some may have failed where others succeeded (code batch_partly_failed): do not send those again that ran.",
        {
            "workflow_id": WORKFLOW_ID,
            "agent_invocation_id": INVOCATION_ID,
            "proposal_id": {
                "type": "string",
                "description": "The proposal to run; then tool and arguments may be left out.",
            },
            "proposal_ids": {
                "type": "array",
                "items": _TEXT,
                "minItems": 1,
                "maxItems": BATCH,
                "uniqueItems": True,
                "description": "Several proposals of this invocation to run side by side, in place of everything else but the "
                "ids. Only for calls that do not depend on each other: they may end in any order.",
            },
            "tool": _TOOL,
            "arguments": _ARGUMENTS,
            "reason": _REASON,
        },
        ("workflow_id", "agent_invocation_id"),
        of_model(ToolOutcome),
        of_model(BatchOutcome),
        destructive=True,
        open_world=True,
    )


def _get() -> OwnTool:
    return own_tool(
        "get_workflow",
        "Where a workflow is",
        "Where the workflow is, what you may do now (invocations: your open grants, with instructions and tools), and who or "
        "what it waits for (blocked_by). Changes nothing; call it whenever you are unsure, and to follow an approval.",
        {"workflow_id": WORKFLOW_ID},
        ("workflow_id",),
        _context(),
        read_only=True,
        idempotent=True,
    )


def _describe() -> OwnTool:
    view = of_model(ToolView)
    definitions = view.pop("$defs", {})
    output: JsonObject = {
        "type": "object",
        "properties": {"tools": {"type": "array", "items": view}},
        "required": ["tools"],
    }
    return own_tool(
        "describe_tools",
        "The tools you may use",
        "The governed tools that your invocation may use, each with description, input_schema, risk, side effects, and whether "
        "it needs approval (approval: not_needed, needed, depends on the arguments, unavailable). Use exactly these names and "
        "schemas with propose_action and invoke_tool.",
        {
            "workflow_id": WORKFLOW_ID,
            "agent_invocation_id": INVOCATION_ID,
            "names": {"type": "array", "items": _TEXT, "description": "Only these tools; left out, all of them."},
        },
        ("workflow_id", "agent_invocation_id"),
        {**output, "$defs": definitions} if definitions else output,
        read_only=True,
        idempotent=True,
    )


def _complete() -> OwnTool:
    return own_tool(
        "complete_step",
        "Complete the open step",
        "Say that the open step's work is done and hand over its output, by the step's output_schema where get_workflow shows "
        "one. The workflow goes on to its next step or ends; your invocation is over, and what it allowed with it.",
        {
            "workflow_id": WORKFLOW_ID,
            "agent_invocation_id": INVOCATION_ID,
            "output": {"description": "The step's result: any JSON, by output_schema where there is one."},
            "summary": {
                "type": "string",
                "maxLength": 4000,
                "description": "What you did, in a few sentences. Where output is left out and output_schema takes "
                '{"summary": …}, this is the output.',
            },
        },
        ("workflow_id", "agent_invocation_id"),
        of_model(WorkflowStepResult),
    )


def _cancel() -> OwnTool:
    return own_tool(
        "cancel_workflow",
        "Cancel a workflow",
        "End the workflow without its result: open approvals are withdrawn and nothing more runs in it. What has run stays "
        "done and on record. Use it when the work is no longer wanted, not to get around a refusal.",
        {
            "workflow_id": WORKFLOW_ID,
            "reason": {"type": "string", "maxLength": 4000, "description": "Why, for the record."},
        },
        ("workflow_id",),
        of_model(WorkflowContext),
        destructive=True,
        idempotent=True,
    )


def _advance() -> OwnTool:
    return own_tool(
        "advance_workflow",
        "Have a workflow go on",
        "Have the workflow go on if it can: what is due is done now (timers, expiries), and Charter's engine looks at it at "
        "once. Answers with what was done (moved), which steps run now (ready), and who or what is missing (missing). It "
        "passes over no approval, gate or time, so there is no use in calling it again and again: Charter goes on by itself.",
        {"workflow_id": WORKFLOW_ID},
        ("workflow_id",),
        of_model(Advanced),
        idempotent=True,
    )


def _actions() -> OwnTool:
    return own_tool(
        "agent_actions",
        "What you may do now",
        "What you may do in this workflow now, and why not the rest: for each of your open grants tools and verbs, with may "
        "(yes, needs_approval and from whom, depends on the arguments, no), a code and the reason; and your proposals that "
        "have not run, with who is waited for. Changes nothing. Call it when a call was refused and you do not see why.",
        {
            "workflow_id": WORKFLOW_ID,
            "agent_invocation_id": {
                **INVOCATION_ID,
                "description": "Of this grant alone; left out, of all that you hold.",
            },
            "names": {"type": "array", "items": _TEXT, "description": "Of these tools only; left out, of all of them."},
        },
        ("workflow_id",),
        of_model(AgentActions),
        read_only=True,
        idempotent=True,
    )
