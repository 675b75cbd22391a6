"""From facts to a Cedar request: who, what, on what, and the context. Absent stays absent."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, NamedTuple

import cedarpy
import orjson

from charter.model.policy import ApprovalFacts, Facts, ToolFacts
from charter.model.principal import Principal
from charter.policies import approvals
from charter.policies.inputs import InputType, UnrepresentableError, represent
from charter.policies.schema import INVOKE, tool_action

KINDS = {"human": "Human", "agent": "Agent", "service": "Service"}


class IncompleteError(Exception):
    """The facts do not describe one request: a part that the resource type needs is missing or another one's."""


class EntityKey(NamedTuple):
    """All that the entities of a request depend on; equal keys give the same entities. Without a resource type the resource is
    not known (see ``visibility``)."""

    principal: Principal
    resource_type: str
    resource_id: str
    tenant: str
    tool: ToolFacts | None
    approval: ApprovalFacts | None
    action: str
    verb: str


def check(facts: Facts) -> None:
    """Raise :class:`IncompleteError` for facts that speak of no resource, or of two."""
    if facts.resource_type == "Tool":
        if facts.tool is None or facts.tool.name != facts.resource_id:
            raise IncompleteError("the request is about a tool of which the facts say nothing")
    elif facts.resource_type == "Approval" and (
        facts.approval is None or facts.approval.approval_id != facts.resource_id
    ):
        raise IncompleteError("the request is about an approval of which the facts say nothing")


def action_id(facts: Facts, known: Container[str]) -> str:
    """``tool.invoke:NAME`` for a call of a known tool, else the verb itself."""
    if facts.action == INVOKE and facts.resource_id in known:
        return tool_action(facts.resource_id)
    return facts.action


def entity_key(facts: Facts, action: str) -> EntityKey:
    """What the entities depend on; only the part that the resource type speaks of."""
    return EntityKey(
        facts.principal,
        facts.resource_type,
        facts.resource_id,
        facts.tenant,
        facts.tool if facts.resource_type == "Tool" else None,
        facts.approval if facts.resource_type == "Approval" else None,
        action,
        facts.action,
    )


def entities(key: EntityKey) -> cedarpy.Entities:
    """The principal, the resource and the action as a parsed handle; a tool's own action is in the group of its verb.

    Cedar takes the action hierarchy from a handle, not from the schema, and partial evaluation holds an action that the
    handle does not have for unknown.
    """
    group = {"type": "Charter::Action", "id": key.verb}
    found = [
        _entity(KINDS[key.principal.kind], key.principal.id, _principal(key.principal)),
        {"uid": group, "attrs": {}, "parents": []},
    ]
    if key.resource_type:
        found.append(_entity(key.resource_type, key.resource_id, _resource(key)))
        if key.approval is not None:
            found[-1]["tags"] = dict(key.approval.amounts)
    if key.action != key.verb:
        own = {"type": "Charter::Action", "id": key.action}
        found.append({"uid": own, "attrs": {}, "parents": [group]})
    return cedarpy.Entities.from_json_str(orjson.dumps(found).decode())


def _entity(kind: str, name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    return {"uid": {"type": f"Charter::{kind}", "id": name}, "attrs": attributes, "parents": []}


def _principal(principal: Principal) -> dict[str, Any]:
    out: dict[str, Any] = {
        "id": principal.id,
        "tenant": principal.tenant,
        "roles": principal.roles,
        "acts_for_roles": principal.acts_for_roles,
    }
    if principal.acts_for is not None:
        out["acts_for"] = principal.acts_for
    return out


def _resource(key: EntityKey) -> dict[str, Any]:
    out: dict[str, Any] = {"id": key.resource_id, "tenant": key.tenant}
    if key.tool is not None:
        out |= key.tool.model_dump()
    if key.approval is not None:
        out |= key.approval.model_dump(exclude={"approval_id", "amounts"}, exclude_none=True)
    return out


OPTIONAL = (
    "workflow_id",
    "workflow_owner",
    "workflow_started_by",
    "agent_invocation_id",
    "template",
    "step_id",
    "purpose",
    "case_id",
    "channel",
    "verdict",
    "signal_type",
    "signal_source",
    "schedule",
    "delegate_to",
)
COUNTS = ("calls_used", "calls_budget")


def request(key: EntityKey, context: str) -> dict[str, Any]:
    """The request as Cedar takes it."""
    return {
        "principal": {"type": f"Charter::{KINDS[key.principal.kind]}", "id": key.principal.id},
        "action": {"type": "Charter::Action", "id": key.action},
        "resource": {"type": f"Charter::{key.resource_type}", "id": key.resource_id},
        "context": context,
    }


class Spoken(NamedTuple):
    """Of what the policies for an action speak: the ``OPTIONAL`` attributes whose value they ``read``, those of which they have
    only ``asked`` whether they are there, and the ``COUNTS``."""

    read: tuple[str, ...]
    asked: tuple[str, ...]
    counts: bool


def context(facts: Facts, spoken: Spoken, keys: tuple[approvals.Wanted, ...], action_input: InputType | None) -> str:
    """The context as JSON text: what is ``spoken`` of and known. Requests that the policies cannot tell apart have one text.

    Raises :class:`UnrepresentableError` for arguments that their type does not fit.
    """
    out: dict[str, Any] = {
        "workflow_live": facts.workflow_live,
        "invocation_live": facts.invocation_live,
        "tool_allowed": facts.tool_allowed,
        "dry_run": facts.dry_run,
        "within_budget": facts.calls_used < facts.calls_budget,
        "granted": facts.grant_id is not None,
        "approved": _approved(facts, keys) if facts.approvals else (),
    }
    if spoken.counts:
        out |= {name: getattr(facts, name) for name in COUNTS}
    for name in spoken.read:
        value = getattr(facts, name)
        if value is not None:
            out[name] = value
    for name in spoken.asked:
        if getattr(facts, name) is not None:
            out[name] = ""
    if action_input is not None:
        if facts.input is None:
            raise UnrepresentableError("", "there, and policies speak of it")
        out["input"] = represent(facts.input, action_input)
    return orjson.dumps(out).decode()


def _approved(facts: Facts, keys: tuple[approvals.Wanted, ...]) -> list[str]:
    given = approvals.counted(facts)
    return [key.key for key in keys if key.met_by(given)]
