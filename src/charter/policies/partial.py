"""Set A with the context unknown: is there a way to a permit at all?"""

from __future__ import annotations

import cedarpy

from charter.policies import requests
from charter.policies.schema import quote


def possible(authorise: cedarpy.PolicySet, entities: cedarpy.Entities, action: str, key: requests.EntityKey) -> bool:
    """Whether set A, with nothing known of the context, leaves a way to a permit."""
    request = {
        "principal": f"Charter::{requests.KINDS[key.principal.kind]}::{quote(key.principal.id)}",
        "action": f"Charter::Action::{quote(action)}",
    }
    if key.resource_type:
        request["resource"] = f"Charter::{key.resource_type}::{quote(key.resource_id)}"
    answer = cedarpy.is_authorized_partial(request, authorise, entities)
    if answer.decision is cedarpy.Decision.NoDecision:
        return bool(answer.residuals)
    return answer.allowed
