"""Why would this request be permitted, denied or asked? Each policy that is about it, and what it found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import cedarpy
from cedarpy import pst

from charter.model.base import Model
from charter.model.policy import Decision, Facts
from charter.policies import requests, syntax
from charter.policies.evaluate import asked, evaluate
from charter.policies.inputs import UnrepresentableError
from charter.policies.notes import Policy
from charter.policies.policy_set import Compiled, PolicySet
from charter.policies.schema import INVOKE


class PolicyNote(Model):
    """What one policy made of the request.

    ``applies``: its condition held. ``not_met``: it is about this principal, action and resource, and ``condition`` (Cedar
    text) is the part that kept it from applying. ``error``: it could not be evaluated. ``decides``: the decision names it.
    """

    policy_id: str
    file: str
    part: Literal["authorise", "obligations"]
    effect: str
    status: Literal["applies", "not_met", "error"]
    decides: bool
    log_only: bool = False
    reason: str | None = None
    condition: str | None = None


class Explanation(Model):
    """The decision and the policies behind it, in the order of the texts."""

    decision: Decision
    notes: tuple[PolicyNote, ...]

    def text(self) -> str:
        """For a person at a terminal."""
        lines = [f"{self.decision.verdict} ({self.decision.code}): {self.decision.reason}"]
        if self.decision.next_step:
            lines.append(f"Next: {self.decision.next_step}")
        groups = (
            ("Decided by", [n for n in self.notes if n.decides]),
            ("Applied as well", [n for n in self.notes if n.status == "applies" and not n.decides]),
            ("Could not be evaluated", [n for n in self.notes if n.status == "error"]),
            ("Did not apply", [n for n in self.notes if n.status == "not_met" and not n.decides]),
        )
        for title, notes in groups:
            if notes:
                lines += ["", f"{title}:", *(_line(note) for note in notes)]
        return "\n".join(lines)


def _line(note: PolicyNote) -> str:
    mode = " (log only)" if note.log_only else ""
    if note.status == "not_met":
        return (
            f"  {note.effect} {note.policy_id}{mode} [{note.file}]: {note.condition or 'its condition does not hold'}"
        )
    return f"  {note.effect} {note.policy_id}{mode} [{note.file}]: {note.reason or ''}".rstrip(": ")


def explain(policies: PolicySet, facts: Facts) -> Explanation:
    """Decide, and say for every policy whose scope fits the request whether it applied, and if not, what was missing."""
    decision = evaluate(policies, facts)
    compiled = policies.trial or policies.active
    try:
        requests.check(facts)
        key, context, _ = asked(compiled, facts)
        request, entities = requests.request(key, context), compiled.entities(key)
    except (requests.IncompleteError, UnrepresentableError, ValueError, TypeError):
        return Explanation(decision=decision, notes=())
    asking = _Asking(compiled, request, entities)
    notes = tuple(_note(policy, asking, decision) for policy in compiled.policies.values() if asking.about(policy))
    return Explanation(decision=decision, notes=notes)


def _note(policy: Policy, asking: _Asking, decision: Decision) -> PolicyNote:
    status = asking.status(policy.template.clauses)
    return PolicyNote(
        policy_id=policy.id,
        file=policy.file,
        part=policy.part,
        effect=policy.effect,
        status=status,
        decides=policy.id in decision.policy_ids,
        log_only=policy.log_only,
        reason=policy.reason,
        condition=asking.missing(policy.template.clauses) if status == "not_met" else None,
    )


class _Asking:
    """One request, put to single conditions."""

    def __init__(self, compiled: Compiled, request: dict[str, Any], entities: cedarpy.Entities) -> None:
        self._request = request
        self._entities = entities
        self._schema = compiled.schema

    def about(self, policy: Policy) -> bool:
        """Whether the scope of the policy fits the request."""
        actions = syntax.actions_of(policy.template)
        action = self._request["action"]["id"]
        own = {action, INVOKE} if action.startswith(f"{INVOKE}:") else {action}
        return (
            (actions is None or bool(actions & own))
            and _fits(policy.template.principal, self._request["principal"])
            and _fits(policy.template.resource, self._request["resource"])
        )

    def status(self, clauses: tuple[pst.Clause, ...]) -> Literal["applies", "not_met", "error"]:
        """Whether these conditions hold together."""
        answer = cedarpy.is_authorized(self._request, _alone(clauses), self._entities, self._schema)
        if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
            return "error"
        return "applies" if answer.allowed else "not_met"

    def missing(self, clauses: tuple[pst.Clause, ...]) -> str | None:
        """The first part that kept the policy from applying, as Cedar text."""
        for clause in clauses:
            if isinstance(clause, pst.When):
                for part in _parts(clause.expr, "and"):
                    if self.status((pst.When(part),)) != "applies":
                        return f"does not hold: {_text(part)}"
            else:
                for part in _parts(clause.expr, "or"):
                    if self.status((pst.When(part),)) == "applies":
                        return f"holds: {_text(part)}"
        return None


def _fits(scope: pst.PrincipalOrResourceConstraint, uid: dict[str, str]) -> bool:
    """Principals and resources have no parents, so ``in`` means ``==``."""
    if isinstance(scope, (pst.ScopeIs, pst.ScopeIsIn)) and str(scope.entity_type) != uid["type"]:
        return False
    if isinstance(scope, (pst.ScopeEq, pst.ScopeIn, pst.ScopeIsIn)):
        named = scope.entity
        return isinstance(named, pst.EntityUid) and str(named.type) == uid["type"] and named.id == uid["id"]
    return True


_TEMPLATE = pst.Template("p", "permit", pst.ScopeAny(), pst.ScopeAny(), pst.ScopeAny(), (), pst.FrozenMap({}))


def _alone(clauses: tuple[pst.Clause, ...]) -> cedarpy.PolicySet:
    return syntax.build({"p": replace(_TEMPLATE, clauses=clauses)})


def _parts(expr: pst.Expr, op: Literal["and", "or"]) -> Iterator[pst.Expr]:
    if isinstance(expr, pst.BinaryOp) and expr.op == op:
        yield from _parts(expr.left, op)
        yield from _parts(expr.right, op)
    else:
        yield expr


def _text(expr: pst.Expr) -> str:
    whole = str(_alone((pst.When(expr),)))
    inner = whole[whole.index("{") + 1 : whole.rindex("}")]
    return " ".join(inner.split())
