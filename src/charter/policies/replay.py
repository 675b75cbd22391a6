"""A candidate policy set beside the active one: what would it decide, and what would change?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from charter.errors import InvalidInput
from charter.model.base import JsonObject, Model
from charter.model.policy import Decision, Facts
from charter.policies.evaluate import evaluate
from charter.policies.policy_set import PolicySet

_ORDER = {"permit": 0, "require_approval": 1, "deny": 2}


class Change(Model):
    """One recorded request that the candidate decides otherwise. ``index`` is its place among the recorded ones.

    ``direction``: ``stricter`` or ``looser`` by the verdict, ``different`` when the verdict is the same and what it takes
    (the obligations) is not.
    """

    index: int
    facts: Facts
    before: Decision
    after: Decision
    direction: Literal["stricter", "looser", "different"]

    def text(self) -> str:
        """One line for a person."""
        request = f"{self.facts.action} on {self.facts.resource_id} by {self.facts.principal.id}"
        return (
            f"{self.direction}: {request}: {self.before.verdict} ({self.before.code}) -> "
            f"{self.after.verdict} ({self.after.code}): {self.after.reason}"
        )


def compare(active: PolicySet, candidate: PolicySet, recorded: Iterable[Facts | Mapping[str, Any]]) -> list[Change]:
    """Decide each recorded request under both sets; only what would change comes back.

    Both are decided anew, so a request recorded under an older set compares fairly. Arguments are on record as redacted, so a
    policy on ``context.input`` sees the redacted ones. Raises ``InvalidInput`` for a record that is no request.
    """
    changes = []
    for index, item in enumerate(recorded):
        facts = _facts(index, item)
        before, after = evaluate(active, facts), evaluate(candidate, facts)
        direction = _direction(before, after)
        if direction is not None:
            changes.append(Change(index=index, facts=facts, before=before, after=after, direction=direction))
    return changes


def shadow(candidate: PolicySet, facts: Facts, decision: Decision) -> JsonObject:
    """What ``candidate`` would have decided, as JSON to be recorded beside the real ``decision``."""
    other = evaluate(candidate, facts)
    return {
        "policy_set_hash": other.policy_set_hash,
        "verdict": other.verdict,
        "code": other.code,
        "policy_ids": list(other.policy_ids),
        "reason": other.reason,
        "direction": _direction(decision, other),
    }


def _facts(index: int, item: Facts | Mapping[str, Any]) -> Facts:
    if isinstance(item, Facts):
        return item
    try:
        return Facts.model_validate(item)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InvalidInput(
            f"Recorded request {index} cannot be read: {where}: {problem['msg']}.",
            code="replay_unreadable",
            next_step="Leave this record out, or replay with the release of Charter that wrote it.",
            detail={"index": index},
        ) from None


def _direction(before: Decision, after: Decision) -> Literal["stricter", "looser", "different"] | None:
    difference = _ORDER[after.verdict] - _ORDER[before.verdict]
    if difference:
        return "stricter" if difference > 0 else "looser"
    return None if _takes(before) == _takes(after) else "different"


def _takes(decision: Decision) -> frozenset[tuple[Any, ...]]:
    """What a decision asks for, without the names of the policies that ask."""
    return frozenset(
        (o.name, o.role, o.approvers, o.within_seconds, o.channels, o.fields, o.calls) for o in decision.obligations
    )
