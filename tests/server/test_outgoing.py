"""What the configuration lets out: read once, each tenant its own, and nothing where nothing is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from charter.errors import Misconfigured
from charter.server.keys import create_keys, load_keys
from charter.server.outgoing import outbound_tools
from charter.server.settings import load_settings
from charter.tools.failures import CallError

CONFIG = """
tenant = "shop"
[egress]
allow = ["api.example.com"]
private = ["10.1.0.0/16"]
[egress.secrets]
CRM = ["api.example.com"]
[egress.tenants.bank]
allow = ["*.bank.example:*"]
[email]
host = "smtp.example.com"
sender = "charter@example.com"
user = "charter"
password_secret = "SMTP"
recipients = ["*@example.com"]
"""


def test_each_tenant_has_its_own_list_and_others_have_none(tmp_path: Path) -> None:
    loaded = load_settings(_file(tmp_path), environ={})
    create_keys(loaded.keys_folder)
    own = outbound_tools(loaded, load_keys(loaded.keys_folder), {"SMTP": "hush"})
    shop, bank, other = (own.place_of(tenant) for tenant in ("shop", "bank", "other"))
    assert shop.egress.hosts == ("api.example.com",)
    assert [str(network) for network in shop.egress.private] == ["10.1.0.0/16"]
    assert shop.secrets == {"CRM": ("api.example.com",)}
    assert (bank.egress.hosts, bank.secrets, bank.egress.private) == (("*.bank.example:*",), {}, ())
    assert (other.egress.hosts, other.secrets) == ((), {})


def test_mail_is_the_configured_tenants_and_its_password_is_read_when_it_is_needed(tmp_path: Path) -> None:
    loaded = load_settings(_file(tmp_path), environ={})
    create_keys(loaded.keys_folder)
    secrets: dict[str, str] = {}
    own = outbound_tools(loaded, load_keys(loaded.keys_folder), secrets)
    assert own.mail_of is not None
    assert own.mail_of("bank") is None
    with pytest.raises(CallError, match="SMTP is not set"):
        own.mail_of("shop")
    secrets["SMTP"] = "hush"
    found = own.mail_of("shop")
    assert found is not None
    assert (found.host, found.port, found.security, found.password) == ("smtp.example.com", 587, "starttls", "hush")
    assert "hush" not in repr(found)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[egress]\nallow = ["https//x/y"]', "egress.allow"),
        ('[egress]\nprivate = ["10.0.0.1/8"]', "egress.private"),
        ('[egress.secrets]\nA = ["a/b"]', "egress.secrets"),
        ('[egress.tenants.other]\nalow = ["x"]', "egress.tenants"),
        ('[email]\nhost = "h"', "email"),
        ('[email]\nhost = "h"\nsender = "a@b.c"\nuser = "u"', "email"),
        ('[email]\nhost = "h"\nsender = "no address"', "email.sender"),
        ('[email]\nhost = "h"\nsender = "a@b.c"\nuser = "u"\npassword_secret = "P"\nsecurity = "none"', "email"),
    ],
)
def test_what_does_not_hold_together_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load_settings(_file(tmp_path, text), environ={})
    assert named in caught.value.message


def test_certificates_that_are_none_are_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    loaded = load_settings(_file(tmp_path, '[egress]\nca_file = "ca.pem"'), environ={})
    create_keys(loaded.keys_folder)
    with pytest.raises(Misconfigured, match=r"ca\.pem"):
        outbound_tools(loaded, load_keys(loaded.keys_folder), {})


def _file(folder: Path, text: str = CONFIG) -> Path:
    file = folder / "charter.toml"
    file.write_text(text)
    return file
