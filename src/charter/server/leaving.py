"""Who is told of signals that leave, as configured; a part of the composition root."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable, Mapping, Sequence

import httpx2

from charter.engine.outbox import Inside, Outbox, Subscriber
from charter.engine.webhooks import Webhook
from charter.errors import InvalidInput
from charter.gate import Gate
from charter.gate.outgoing import Outlet
from charter.server.settings_model import Settings, WebhookSection
from charter.tools.egress import Egress, GuardedClient, authorities

EVERYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def build_outbox(gate: Gate, outlet: Outlet, settings: Settings, secrets: Mapping[str, str]) -> Outbox:
    """The tenant's own runs, and the configured webhooks."""
    by_tenant: dict[str, list[Subscriber]] = {}
    for name, section in settings.webhooks.items():
        tenant = section.tenant or settings.tenant
        networks = tuple(ipaddress.ip_network(text) for text in settings.egress_of(tenant).private)
        # The operator named the receiver; nobody else can choose where it goes, and redirects are not followed.
        rules = Egress(hosts=(_pattern(section.url),), private=EVERYWHERE if section.private else networks)
        client = GuardedClient(rules, tls=authorities(settings.egress.ca_file))
        by_tenant.setdefault(tenant, []).append(_webhook(name, section, secrets, gate.parts.clock, client))
    return Outbox(gate, outlet, everywhere=(Inside(gate),), by_tenant=by_tenant)


def _webhook(
    name: str, section: WebhookSection, secrets: Mapping[str, str], clock: Callable[[], int], client: GuardedClient
) -> Webhook:
    def keys() -> Sequence[str]:
        missing = [each for each in section.secret if each not in secrets]
        if missing:
            raise InvalidInput(
                f"There is no secret {missing[0]!r} to sign with.",
                code="webhook_secret_missing",
                next_step=f"Run `charter secret set {missing[0]}`.",
            )
        return [secrets[each] for each in section.secret]

    return Webhook(
        name=f"webhook:{name}",
        url=section.url,
        types=section.types,
        secrets=keys,
        client=client,
        clock=clock,
        spread=random.random,
        attempts=section.attempts,
        seconds=section.timeout_seconds,
        first_pause=section.first_retry_seconds,
        longest_pause=section.longest_retry_seconds,
    )


def _pattern(url: str) -> str:
    parsed = httpx2.URL(url)
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    return f"{parsed.scheme}://{host}" + (f":{parsed.port}" if parsed.port is not None else "")
