"""Publishing a template: its ``name@version`` means this definition for good, and who said so is on record.

The claims are those that a first start would make, so runs and publications can never disagree about a version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from pydantic import ValidationError

from charter.errors import InvalidInput, Unavailable
from charter.gate.parts import TRIES, CallContext
from charter.manifests.templates import template_hash
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.policy import Facts
from charter.model.principal import Principal
from charter.model.reply import Publication
from charter.model.template import Template
from charter.store.port import AlreadyClaimed, Claim, Store
from charter.workflows.draft import policy_event

if TYPE_CHECKING:
    from charter.gate.gate import Gate

SCOPE = "template_published"


async def publish(gate: Gate, principal: Principal, command: cmd.PublishTemplate, ctx: CallContext) -> Publication:
    """Put it on record, once: the same definition again changes nothing.

    Raises ``Denied`` (on record), ``Conflict`` (``template_immutable``) where this version means another definition.
    """
    template = _read(command.text)
    found = template_hash(template)
    facts = Facts(
        principal=principal,
        action="template.publish",
        resource_type="Template",
        resource_id=template.ref,
        tenant=principal.tenant,
        template=template.ref,
    )
    decision = gate.prepare.evaluate(facts)
    if decision.verdict != "permit":
        await gate.refuse_outside(principal, facts, decision, ctx)
    published = ev.TemplatePublished(template=template.ref, template_hash=found, published_by=principal.id)
    events = [
        ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision)),
        ev.Event(type="TEMPLATE_PUBLISHED", time="", data=published),
    ]
    for _ in range(TRIES):
        wanted = await gate.templates.claim(principal.tenant, template, found)
        if await gate.parts.store.claimed(principal.tenant, SCOPE, template.ref) is not None:
            return Publication(template=template.ref, template_hash=found, anew=False)
        claims = tuple(Claim(*item) for item in (*wanted, (SCOPE, template.ref, found)))
        try:
            await gate.record_outside(principal, events, ctx, stream=published_stream(principal.tenant), claims=claims)
        except AlreadyClaimed:  # a start or another publication was as quick: look again what it said
            continue
        return Publication(template=template.ref, template_hash=found, anew=True)
    raise Unavailable("The publication could not be recorded.", code="busy")


def published_stream(tenant: str) -> str:
    """Where it is on record what was published."""
    return f"templates:{tenant}"


async def published(store: Store, tenant: str) -> tuple[str, ...]:
    """Each ``name@version`` that was published, in order."""
    rows = await store.load(tenant, published_stream(tenant))
    return tuple(orjson.loads(row.leaf)["data"]["template"] for row in rows if row.type == "TEMPLATE_PUBLISHED")


def _read(text: str) -> Template:
    try:
        return Template.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput(
            f"This is no template in its native form: {error.error_count()} problems.",
            code="template_invalid",
            next_step="Run `charter template validate FILE`.",
        ) from None
