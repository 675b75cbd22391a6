"""Could this principal ever be permitted this? Used to hide tools from lists; never to permit anything."""

from __future__ import annotations

from typing import get_args

from charter.model.policy import Action, Facts
from charter.model.principal import Principal
from charter.policies import requests, syntax
from charter.policies.policy_set import PolicySet


def could_ever(policies: PolicySet, facts: Facts) -> bool:
    """False when set A denies this principal this action on this resource in whatever context.

    Only ``principal``, ``action``, the resource and its facts are looked at. Cedar evaluates with the context unknown, so True
    means "not ruled out by who asks and what for"; ``evaluate`` decides each call. Facts that cannot be asked about give False.
    """
    if facts.principal.tenant != facts.tenant:
        return False
    try:
        requests.check(facts)
        action = requests.action_id(facts, policies.active.tools)
        return policies.active.possible(action, requests.entity_key(facts, action))
    except (requests.IncompleteError, ValueError, TypeError):
        return False


def uncovered(policies: PolicySet) -> tuple[Action, ...]:
    """The verbs that no permit of the set names, so that they are denied to everybody: an older set knows no newer ones."""
    permits = [
        syntax.actions_of(policy.template)
        for policy in policies.policies.values()
        if policy.part == "authorise" and policy.effect == "permit" and not policy.log_only
    ]
    if None in permits:
        return ()
    named = {action.partition(":")[0] for actions in permits for action in actions or ()}
    return tuple(action for action in get_args(Action) if action not in named)


def could_ever_of(policies: PolicySet, principal: Principal, action: Action) -> bool:
    """False when set A denies this principal this action whatever the resource and the context."""
    key = requests.EntityKey(principal, "", "", principal.tenant, None, None, action, action)
    return policies.active.possible(action, key)
