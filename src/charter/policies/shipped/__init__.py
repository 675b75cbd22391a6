"""The policy set that Charter ships: commented Cedar texts, and the tests beside them, as package data."""

from __future__ import annotations

from importlib.resources import files

from charter.model.canonical import sha256_hex
from charter.policies.policy_set import PolicySources

_SUFFIXES = (".cedar", ".test.yaml")


def shipped_files() -> dict[str, str]:
    """File name to text of the starter set, tests included: what ``charter init`` copies."""
    found = sorted((item for item in files(__name__).iterdir() if item.name.endswith(_SUFFIXES)), key=lambda i: i.name)
    return {item.name: item.read_text(encoding="utf-8") for item in found}


def was_shipped(name: str, text: str) -> bool:
    """Whether some version shipped exactly this file: then nobody has changed it since ``charter init`` wrote it."""
    lines = (files(__name__) / "versions.txt").read_text(encoding="utf-8").splitlines()
    return f"{sha256_hex(text.encode())}  {name}" in lines


def shipped_sources() -> PolicySources:
    """The policy texts of the starter set."""
    return PolicySources.from_files({name: text for name, text in shipped_files().items() if name.endswith(".cedar")})
