"""Who is told of signals, as configured."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import pytest

from charter.engine.webhooks import Webhook
from charter.errors import InvalidInput, Misconfigured
from charter.gate.outgoing import Outlet
from charter.server.leaving import build_outbox
from charter.server.settings import Settings, load_settings
from tests.gate.conftest import Open, clock, driver, manifest, opened, shared_upstream, shipped, tools, upstream
from tests.guarantees.world import Desk

__all__ = ["clock", "driver", "manifest", "opened", "shared_upstream", "shipped", "tools", "upstream"]

TWO = """
tenant = "acme"
[egress]
private = ["10.1.0.0/16"]
[webhooks.crm]
url = "https://crm.example.com:8443/x?y=1"
secret = ["new", "old"]
attempts = 3
[webhooks.lab]
url = "http://[::1]/hook"
secret = ["new"]
types = ["invoice.*"]
tenant = "other"
private = true
"""


def configured(folder: Path, text: str) -> Settings:
    file = folder / "charter.toml"
    file.write_text(text)
    return load_settings(file, environ={})


def webhooks(desk: Desk, settings: Settings, secrets: dict[str, str]) -> dict[str, list[Webhook]]:
    outbox: Any = build_outbox(desk.gate, Outlet(desk.gate), settings, secrets)
    return dict(outbox._by_tenant)


@pytest.mark.anyio
async def test_a_webhook_is_what_its_section_says(opened: Open, tmp_path: Path) -> None:
    desk, settings = await opened(), configured(tmp_path, TWO)
    found = webhooks(desk, settings, {"new": "n", "old": "o"})
    (crm,), (lab,) = found["acme"], found["other"]
    assert (crm.name, crm.attempts, crm.types) == ("webhook:crm", 3, ("workflow.run.*", "approval.*"))
    assert crm.secrets() == ["n", "o"]
    assert crm.client.rules.hosts == ("https://crm.example.com:8443",)
    assert crm.client.rules.private == (ipaddress.ip_network("10.1.0.0/16"),)
    crm.client.rules.check(crm.url)
    lab.client.rules.check(lab.url)
    assert lab.client.rules.allows(ipaddress.ip_address("::1"))
    (missing,) = webhooks(desk, settings, {})["acme"]
    with pytest.raises(InvalidInput) as caught:
        missing.secrets()
    assert "charter secret set new" in caught.value.next_step


@pytest.mark.parametrize("wrong", ['url = "ftp://x"', "secret = []", "attempts = 0", "colour = 1"])
def test_a_section_that_cannot_be_is_refused(tmp_path: Path, wrong: str) -> None:
    good = {"url": 'url = "https://x.example"', "secret": 'secret = ["a"]'}
    good[wrong.partition(" ")[0]] = wrong
    with pytest.raises(Misconfigured) as caught:
        configured(tmp_path, "[webhooks.crm]\n" + "\n".join(good.values()))
    assert "webhooks.crm" in caught.value.message
