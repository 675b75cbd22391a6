"""A request for ``charter policy explain``, from text and flags; what is not said is taken from an ordinary call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from charter.cli.editing import text_from
from charter.errors import InvalidInput, NotFound
from charter.manifests.yaml_text import load
from charter.model.policy import Facts
from charter.model.tool import ToolManifest
from charter.workflows.facts import tool_facts

_INSIDE: dict[str, Any] = {
    "workflow_id": "wf_example",
    "workflow_live": True,
    "agent_invocation_id": "inv_example",
    "invocation_live": True,
    "tool_allowed": True,
    "calls_budget": 1,
}


def described(
    text: str | None, flags: dict[str, Any], tools: Sequence[ToolManifest], *, tenant: str, outside: bool
) -> Facts:
    """The facts. A call described by flags alone is one inside a live workflow whose open step allows the tool, unless
    ``outside``; text is taken as it is, flags win over it.

    Raises ``InvalidInput`` naming what is missing.
    """
    facts: dict[str, Any] = _mapping(text) if text is not None else {}
    if flags["action"]:
        facts["action"] = flags["action"]
    if flags["caller"]:
        facts["principal"] = _principal(flags, tenant)
    named = flags["tool"] or (facts["tool"] if isinstance(facts.get("tool"), str) else None)
    if named:
        facts |= _tool(named, tools)
    if named and text is None and not outside:
        facts = {**_INSIDE, "workflow_owner": flags["acts_for"], **facts}
    facts.setdefault("tenant", tenant)
    try:
        return Facts.model_validate(facts)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidInput(
            f"The request is not complete: {where}: {problem['msg']}.",
            code="bad_facts",
            next_step="Give --tool and --caller KIND:ID, or --facts @FILE; or explain a recorded event by its id.",
        ) from None


def _mapping(text: str) -> dict[str, Any]:
    value = load(text_from(text), "--facts", code="bad_facts").value
    if not isinstance(value, dict):
        raise InvalidInput("--facts must be a map.", code="bad_facts")
    return dict(value)


def _principal(flags: dict[str, Any], tenant: str) -> dict[str, Any]:
    kind, colon, name = flags["caller"].partition(":")
    if not colon:
        kind, name = "agent", kind
    return {
        "id": name,
        "kind": kind,
        "tenant": tenant,
        "roles": tuple(flags["roles"] or ()),
        "acts_for": flags["acts_for"],
    }


def _tool(name: str, tools: Sequence[ToolManifest]) -> dict[str, Any]:
    manifest = next((tool for tool in tools if tool.name == name), None)
    if manifest is None:
        raise NotFound(f"There is no governed tool {name!r}.", next_step="See `charter tools list`.")
    return {
        "action": "tool.invoke",
        "resource_type": "Tool",
        "resource_id": name,
        "tool": tool_facts(manifest, quarantined=False).model_dump(),
    }
