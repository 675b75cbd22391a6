"""One decision: set A authorises, and if it permits, set B says what that takes. Any error means deny.

Both sets go to Cedar in one pass, which costs half of two. That is no other rule: set B has permits only (``notes`` sees to
it), so a forbid comes from A; Cedar names every policy that applies, so the request is permitted when one of A is among
them, and those of B are the obligations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import cedarpy
import orjson

from charter.model.next_steps import NOT_PERMITTED
from charter.model.policy import Decision, Facts
from charter.policies import floor, requests
from charter.policies.inputs import InputType, UnrepresentableError
from charter.policies.notes import Policy
from charter.policies.policy_set import Compiled, PolicySet

_ERROR_NEXT = "Tell the operator: `charter policy explain` shows what went wrong. Trying again does not help."


def evaluate(policies: PolicySet, facts: Facts) -> Decision:
    """Decide one request. Total: whatever the facts, it answers, and what it cannot answer it denies.

    ``deny`` when a forbid applies, no permit does, or anything could not be evaluated (``policy_error``);
    ``require_approval`` when A permits and an approval that B asks for is not yet given; else ``permit``. The obligations
    of a permit are to be carried out by the caller; one that it does not know means that it must deny.
    """
    return _decide(policies.active, policies.hash, facts)


def evaluate_trial(policies: PolicySet, facts: Facts) -> Decision | None:
    """What the set would decide if its ``@mode("log_only")`` policies were enforced; None when it has none."""
    return None if policies.trial is None else _decide(policies.trial, policies.hash, facts)


def _decide(compiled: Compiled, set_hash: str, facts: Facts) -> Decision:
    try:
        requests.check(facts)
        answer = _answer(compiled, facts)
    except requests.IncompleteError as problem:
        return _error(set_hash, f"The facts are incomplete: {problem}.", ())
    except UnrepresentableError as problem:
        return _error(set_hash, f"The argument {problem}, so the policies cannot judge the call.", ())
    except (ValueError, TypeError, orjson.JSONEncodeError, RecursionError):
        # No text of the error: it may quote an argument.
        return _error(set_hash, "The request cannot be put to the policies as it is.", ())
    if answer is None:
        return _error(set_hash, "The request does not fit what policies may speak of.", ())
    errors, reasons = answer.diagnostics.errors, answer.diagnostics.reasons
    if errors and not all(_is_obliging(compiled, message) for message in errors):
        return _failed(set_hash, errors)
    permits = [name for name in reasons if compiled.policies[name].part == "authorise"]
    if not answer.allowed or not permits:
        return _denied(compiled, set_hash, facts, () if answer.allowed else reasons)
    guarantee = floor.broken(facts)
    if guarantee is not None:
        return floor.deny(guarantee, facts, set_hash)
    if errors:
        return _failed(set_hash, errors)
    return compiled.answer(set_hash, frozenset(permits), frozenset(reasons).difference(permits))


def _answer(compiled: Compiled, facts: Facts) -> cedarpy.AuthzResult | None:
    """What Cedar answers; remembered for a request that comes again to the letter. Raises what ``_decide`` catches."""
    key, context, typed = asked(compiled, facts)
    return (compiled.ask if typed is None else compiled.ask_anew)(key, context)


def asked(compiled: Compiled, facts: Facts) -> tuple[requests.EntityKey, str, InputType | None]:
    """What the Cedar request behind these facts is made of, and the type of its arguments where policies speak of them.

    Raises what ``_decide`` catches.
    """
    action = requests.action_id(facts, compiled.tools)
    typed = compiled.inputs.get(facts.resource_id) if action != facts.action else None
    context = requests.context(facts, compiled.passes(action).spoken, compiled.keys, typed)
    return requests.entity_key(facts, action), context, typed


def _denied(compiled: Compiled, set_hash: str, facts: Facts, forbids: Sequence[str]) -> Decision:
    if not forbids:
        return Decision(
            verdict="deny",
            reason=f"No policy permits {facts.action} on {facts.resource_type} {facts.resource_id[:200]} "
            f"to this {facts.principal.kind}.",
            code="not_permitted",
            policy_set_hash=set_hash,
            next_step=NOT_PERMITTED,
        )
    found = in_order(compiled, forbids)
    first = found[0]
    return Decision(
        verdict="deny",
        reason=f"{first.reason or 'A policy forbids this.'} (policy {first.id})",
        code=first.code or "forbidden",
        policy_ids=tuple(policy.id for policy in found),
        policy_set_hash=set_hash,
        next_step=first.next_step or NOT_PERMITTED,
    )


def in_order(compiled: Compiled, ids: Iterable[str]) -> list[Policy]:
    """These policies in the order of the texts: the first says why."""
    return [compiled.policies[policy_id] for policy_id in sorted(ids, key=compiled.order.__getitem__)]


def _failed(set_hash: str, errors: Iterable[str]) -> Decision:
    problems = sorted({_safe(message) for message in errors})
    return _error(set_hash, f"A policy could not be evaluated, so the answer is no: {'; '.join(problems)}.", problems)


_POLICY = re.compile(r"policy `([^`]*)`")
_KINDS = ("overflow", "attribute", "type error", "entity", "extension")


def _is_obliging(compiled: Compiled, message: str) -> bool:
    """Is it a policy of set B that failed? What A denies is denied with A's reason all the same."""
    found = _POLICY.search(message)
    policy = compiled.policies.get(found[1]) if found else None
    return policy is not None and policy.part == "obligations"


def _safe(message: str) -> str:
    """Which policy failed, and how, without the values that Cedar quotes."""
    found = _POLICY.search(message)
    kind = next((kind for kind in _KINDS if kind in message), "error")
    return f"{found[1] if found else 'unknown policy'} ({kind})"


def _error(set_hash: str, reason: str, errors: Iterable[str]) -> Decision:
    return Decision(
        verdict="deny",
        reason=reason,
        code="policy_error",
        policy_set_hash=set_hash,
        errors=tuple(errors) or (reason,),
        next_step=_ERROR_NEXT,
    )
