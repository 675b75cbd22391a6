"""Facts and manifests to start from: a permitted read by an agent in its own step."""

from __future__ import annotations

from typing import Any

from charter.model.policy import Facts, ToolFacts
from charter.model.principal import Principal
from charter.model.tool import ToolManifest
from charter.policies import PolicySet, PolicySources, load_policy_set

AGENT = Principal(id="agent-1", kind="agent", acts_for="alice")
READ = ToolFacts(name="casebook__read", server="casebook", risk="low", side_effects="none", idempotent=True)
WRITE = ToolFacts(name="casebook__write", server="casebook", risk="medium", side_effects="reversible", idempotent=False)
DELETE = ToolFacts(
    name="casebook__delete", server="casebook", risk="high", side_effects="irreversible", idempotent=False
)

ALL = frozenset({"require_approval", "dry_run", "redact", "rate_limit"})
WALL = '@id("wall") forbid (principal, action, resource) unless { principal.tenant == resource.tenant };'
OPEN = '@id("open") permit (principal, action, resource);'


def call(tool: ToolFacts = READ, /, **changes: Any) -> Facts:
    """A call of ``tool`` with every wall satisfied, but for the ``changes``."""
    values: dict[str, Any] = {
        "principal": AGENT,
        "action": "tool.invoke",
        "resource_type": "Tool",
        "resource_id": tool.name,
        "tenant": "default",
        "tool": tool,
        "workflow_id": "wf_1",
        "workflow_live": True,
        "workflow_owner": "alice",
        "agent_invocation_id": "inv_1",
        "invocation_live": True,
        "tool_allowed": True,
        "calls_budget": 10,
    }
    return Facts(**{**values, **changes})


def manifest(name: str, **properties: Any) -> ToolManifest:
    """A tool whose arguments are these JSON Schema properties; a name with ``_required`` true inside is required."""
    required = [key for key, value in properties.items() if value.get("_required")]
    cleaned = {key: {k: v for k, v in value.items() if k != "_required"} for key, value in properties.items()}
    return with_schema(name, {"type": "object", "properties": cleaned, "required": required})


def with_schema(name: str, schema: dict[str, Any]) -> ToolManifest:
    """A tool with this input schema."""
    return ToolManifest(
        name=name, server="casebook", upstream_name=name, input_schema=schema, definition_hash="sha256:0"
    )


def policies(authorise: str, obligations: str = "", *tools: ToolManifest) -> PolicySet:
    """A policy set of one file each, for a caller that carries out every obligation."""
    sources = PolicySources({"authorise.cedar": authorise}, {"obligations.cedar": obligations} if obligations else {})
    return load_policy_set(sources, tools, carried_out=ALL)
