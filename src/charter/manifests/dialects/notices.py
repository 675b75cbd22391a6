"""Notification steps of the index-based form: by e-mail, by webhook, or over whatever a channel's name is bound to."""

from __future__ import annotations

from typing import Final

from charter.manifests.dialects import outside
from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.reading import Node, Unbound, UnreadableError
from charter.model.base import Json, JsonObject

_EMAIL: Final = ("email", "mail", "e-mail", "smtp")
_WEBHOOK: Final = ("webhook", "http")
_TO: Final = ("to", "recipients", "recipient")
_TEXT: Final = ("body", "message", "text", "content")


def notification(config: Node, change: outside.Values, about: str, bindings: Bindings) -> JsonObject:
    """A native notification, or an action where the channel is neither e-mail nor a webhook."""
    channel = _channel(config)
    waits = config.flag("blocking", False) or config.flag("wait_for_delivery", False)
    if channel in _EMAIL:
        made: JsonObject = {"email": _email(config, change, about, bindings)}
    elif channel in _WEBHOOK:
        made = {"webhook": _webhook(config, change, bindings)}
    else:
        return _otherwise(channel, config, change, about, bindings)
    seconds = config.seconds(timeout_seconds=1, timeout_minutes=60)
    if seconds is not None:
        made["timeout_seconds"] = seconds
    return {**made, **({"wait": True} if waits else {}), "reason": about, **outside.on_failure(config)}


def _channel(config: Node) -> str:
    """``channel``, ``method`` or the one of ``channels``; without any of them, what the other fields are of."""
    listed = config.take("channels")
    if isinstance(listed, list) and len(listed) > 1:
        config.notes.error(config.at("channels"), "several channels in one step", "Write a step for each channel.")
        raise UnreadableError
    if isinstance(listed, list) and listed:
        return str(listed[0]).lower()
    default = "webhook" if "url" in config or "webhook_url" in config else "email"
    return config.text("channel", "method", "notification_type", default=str(listed or default)).lower()


def _email(config: Node, change: outside.Values, about: str, bindings: Bindings) -> JsonObject:
    named = next((name for name in _TO if name in config), _TO[0])
    given = config.take(named)
    listed = given if isinstance(given, list) else [given]
    to: list[str] = []
    for item in listed:
        to += _addresses(item, config, config.at(named), bindings)
    if not to:
        config.notes.error(config.where, "nobody is written to", "Write addresses as `to`.")
        raise UnreadableError
    return {
        "to": [str(change(item)) for item in to],
        "subject": change(config.text("subject", "title", default=about)),
        "text": change(config.text(*_TEXT, default=about)),
    }


def _addresses(item: Json, config: Node, where: str, bindings: Bindings) -> list[str]:
    """An address, a value that will be one, or a name that the bindings give addresses for."""
    name = item.get("value") if isinstance(item, dict) else item
    if not isinstance(name, str) or not name.strip():
        config.notes.error(where, "an address is a text", "Write somebody@example.com, or a name that is bound.")
        return []
    if name in bindings.addresses:
        return list(bindings.addresses[name])
    if "@" not in name and "{{" not in name:
        mend = f"Bind it: addresses: {{{name}: [somebody@example.com]}}."
        config.notes.unbound.append(Unbound(where, f"nobody knows the address of {name!r}", mend, needed=True))
    return [name]


def _webhook(config: Node, change: outside.Values, bindings: Bindings) -> JsonObject:
    url = config.text("url", "webhook_url")
    secret = config.text("secret", "signing_secret", default=bindings.webhook_secret or "")
    if not secret:
        mend = "Bind it: webhook_secret: NAME, which is set by `charter secret set NAME`."
        text = "the webhook is signed, and no secret is named"
        config.notes.unbound.append(Unbound(config.where, text, mend, needed=True))
    named = next((name for name in ("data", "payload", "body") if name in config), None)
    data = config.take(named) if named else None
    if data is None and any(name in config for name in _TEXT):
        data = {"message": config.text(*_TEXT)}
    if data is not None and not isinstance(data, dict):
        data = {"message": data}
    made: JsonObject = {"url": change(url), "secret": secret or "not-bound", "data": change(data or {})}
    if "event" in config or "event_type" in config:
        made["type"] = config.text("event", "event_type")
    return made


def _otherwise(channel: str, config: Node, change: outside.Values, about: str, bindings: Bindings) -> JsonObject:
    """A message over something else is a call of the tool that the channel's name is bound to; it hinders nobody."""
    failing = {"on_failure": "skip", **outside.on_failure(config)}
    given = {name: config.take(name) for name in config.map_names()}
    made = outside.call_of(channel, _as_map(change(given)), config.where, bindings, config.notes)
    return {"type": "action", **made, "reason": about, **failing}


def _as_map(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}
