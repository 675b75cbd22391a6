"""What binds an approval to one exact call."""

from __future__ import annotations

from charter.model.base import Json, JsonObject
from charter.model.canonical import digest


def call_digest(
    *,
    tenant: str,
    workflow_id: str,
    agent_invocation_id: str | None,
    tool: str,
    definition_hash: str,
    arguments: JsonObject,
    salt: str,
) -> str:
    """``sha256:…`` over RFC 8785 JSON of the whole call.

    The salt keeps a short secret among the arguments from being guessed from the digest; whoever may read the sealed
    arguments can compute it again.
    """
    return digest(
        {
            "agent_invocation_id": agent_invocation_id,
            "arguments": arguments,
            "definition_hash": definition_hash,
            "salt": salt,
            "tenant": tenant,
            "tool": tool,
            "workflow_id": workflow_id,
        }
    )


def input_digest(*, tenant: str, workflow_id: str, value: JsonObject, salt: str) -> str:
    """``sha256:…`` of a run's input of which a part is sealed; the salt as above."""
    return digest({"input": value, "salt": salt, "tenant": tenant, "workflow_id": workflow_id})


def step_digest(*, tenant: str, workflow_id: str, step_id: str, question: str, show: Json) -> str:
    """What binds an approval to one step of one run and to what was shown."""
    return digest(
        {"question": question, "show": show, "step_id": step_id, "tenant": tenant, "workflow_id": workflow_id}
    )
