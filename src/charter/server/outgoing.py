"""What leaves this installation: Charter's own tools, under what the configuration lets out."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import partial

from charter.errors import CharterError
from charter.server.callbacks import CallbackKeys, access_of
from charter.server.keys import Keys
from charter.server.settings_model import Settings
from charter.tools.egress import Egress, GuardedClient, authorities
from charter.tools.failures import CallError
from charter.tools.mail import MailServer
from charter.tools.outbound import Outbound, Place


def outbound_tools(settings: Settings, keys: Keys, secrets: Mapping[str, str]) -> Outbound:
    """Charter's own tools. Secrets are read when a call needs them, so one that was set is taken at once."""

    def place_of(tenant: str) -> Place:
        found = settings.egress_of(tenant)
        private = tuple(ipaddress.ip_network(text) for text in found.private)
        return Place(Egress(found.allow, private), found.secrets)

    tls = authorities(settings.egress.ca_file)
    client = GuardedClient(Egress(), tls=tls, max_bytes=settings.egress.max_response_bytes)
    callback_of = partial(access_of, CallbackKeys(keys.sealing, keys.sealing_current), settings)

    def mail_of(tenant: str) -> MailServer | None:
        section = settings.email
        if section.host is None or section.sender is None or tenant != settings.tenant:
            return None
        return MailServer(
            host=section.host,
            port=section.port,
            sender=section.sender,
            security=section.security,
            user=section.user,
            password=_password(section.password_secret, secrets) if section.user is not None else None,
            recipients=section.recipients,
            tls=tls,
        )

    return Outbound(place_of, secrets, client, callback_of, mail_of)


def _password(name: str | None, secrets: Mapping[str, str]) -> str:
    try:
        value = secrets.get(name or "")
    except CharterError as error:
        raise CallError("not_run", "missing_secret", f"The secret {name} cannot be read: {error.error_code}.") from None
    if not value:
        raise CallError("not_run", "missing_secret", f"The secret {name} is not set (`charter secret set {name}`).")
    return value
