"""Could this principal ever be permitted this? Used to hide tools from lists; never to permit anything."""

from __future__ import annotations

from charter.model.policy import Action, Facts
from charter.model.principal import Principal
from charter.policies import requests
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


def could_ever_of(policies: PolicySet, principal: Principal, action: Action) -> bool:
    """False when set A denies this principal this action whatever the resource and the context."""
    key = requests.EntityKey(principal, "", "", principal.tenant, None, None, action, action)
    return policies.active.possible(action, key)
