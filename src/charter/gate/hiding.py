"""Tools whose ``roles`` keep them from a caller: to that caller they are as unknown as names that nobody gave.

Nothing is asked before a call is decided: whether a tool is hidden is looked at only when the answer is no. What the policy
said stands on record all the same.
"""

from __future__ import annotations

from charter.errors import NotFound
from charter.gate.parts import Parts
from charter.model.plain_text import one_line
from charter.model.policy import Facts
from charter.model.principal import Principal
from charter.model.tool import ToolManifest
from charter.workflows import facts as facts_of


def unknown_tool(name: str) -> NotFound:
    """The one answer for every tool that a caller may not know of."""
    return NotFound(
        f"There is no governed tool {one_line(name)!r}.",
        code="unknown_tool",
        next_step="Call tools/list, or describe_tools within a workflow, to see the tools that there are.",
    )


def could_ever(parts: Parts, principal: Principal, tool: ToolManifest) -> bool:
    """Whether the policy could ever permit this principal this tool."""
    return parts.evaluator.could_ever(
        Facts(
            principal=principal,
            action="tool.invoke",
            resource_type="Tool",
            resource_id=tool.name,
            tenant=principal.tenant,
            tool=facts_of.tool_facts(tool, quarantined=False),
        )
    )


def is_hidden(parts: Parts, principal: Principal, name: str) -> bool:
    """Whether there is such a tool, for other roles alone."""
    tool = parts.tools.find(name)
    if tool is None or not tool.roles or set(tool.roles) & set(principal.roles):
        return False
    return not could_ever(parts, principal, tool)
