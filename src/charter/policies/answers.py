"""The decision when set A permits: what set B still asks for, and the reason in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from charter.model.policy import Decision, Obligation
from charter.policies.notes import Policy

_ASK_NEXT = "Call request_approval for this proposal, then invoke_tool once it is approved."


def permitted(
    policies: Mapping[str, Policy],
    order: Mapping[str, int],
    set_hash: str,
    permits: frozenset[str],
    obliging: frozenset[str],
) -> Decision:
    """``permit``, or ``require_approval`` when one of the ``obliging`` policies asks for people."""
    ids = sorted(permits, key=order.__getitem__)
    applying = [policies[policy_id] for policy_id in sorted(obliging, key=order.__getitem__)]
    obligations = tuple(policy.obligation for policy in applying if policy.obligation is not None)
    asking = [obligation for obligation in obligations if obligation.name == "require_approval"]
    if asking:
        return Decision(
            verdict="require_approval",
            reason=" ".join(f"{_asks(obligation)} (policy {obligation.policy_id})" for obligation in asking),
            code="approval_required",
            policy_ids=tuple(obligation.policy_id for obligation in asking),
            obligations=obligations,
            policy_set_hash=set_hash,
            next_step=_ASK_NEXT,
        )
    return Decision(
        verdict="permit",
        reason=_permits(policies[ids[0]], obligations),
        code="permitted",
        policy_ids=(*ids, *(obligation.policy_id for obligation in obligations)),
        obligations=obligations,
        policy_set_hash=set_hash,
    )


def _asks(obligation: Obligation) -> str:
    if obligation.reason:
        return obligation.reason
    who = f"with the role {obligation.role}" if obligation.role else "of any role"
    return f"{obligation.approvers} approver(s) {who} must agree first."


def _permits(policy: Policy, obligations: Iterable[Obligation]) -> str:
    text = f"{policy.reason or 'Permitted.'} (policy {policy.id})"
    duties = ", ".join(f"{obligation.name} (policy {obligation.policy_id})" for obligation in obligations)
    return f"{text} With: {duties}." if duties else text
