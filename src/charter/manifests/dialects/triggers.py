"""What starts a document of the index-based form: a signal, times, or somebody."""

from __future__ import annotations

import re
from typing import Final

from charter.manifests.dialects import values
from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.reading import Node, Notes, Unbound, slug
from charter.model.base import JsonObject

_BY_HAND: Final = ("manual", "api", "on_demand")
_BY_TIME: Final = ("schedule", "scheduled", "cron", "on_schedule", "timer")
_CRON: Final = ("cron", "cron_expression", "expression", "schedule")
_ZONE: Final = ("time_zone", "timezone", "tz")
_SHORT: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def trigger(root: Node, bindings: Bindings, notes: Notes, places: dict[str, str]) -> JsonObject:
    """``trigger_type`` and ``trigger_config`` as ``on_signal`` or ``on_schedule``; neither where somebody starts it."""
    kind = root.text("trigger_type", default="manual")
    config = root.node("trigger_config", "trigger_config")
    live = [root.flag(name, True) for name in ("is_active", "enabled", "active") if name in root]
    made = _schedule(config, places) if kind in _BY_TIME else _signal(kind, root, config, bindings, notes, places)
    if not all(live):
        notes.warn(root.where, "the document is not active: nothing starts it by itself", "Say that it is active.")
        return {}
    return made


def _schedule(config: Node, places: dict[str, str]) -> JsonObject:
    cron = config.text(*_CRON).strip()
    places["/on_schedule/0"] = config.where
    places["/on_schedule/0/cron"] = next(config.at(name) for name in _CRON if name in config)
    made: JsonObject = {"cron": _SHORT.get(cron, cron), "time_zone": config.text(*_ZONE, default="UTC")}
    given = config.map("input") or config.map("params") or config.map("payload")
    if given:
        made["input"] = values.each_text(given, lambda text: text.replace("{{", '{{ "{{" }}'))
    missed = config.one_of("missed", ("skip", "once", "all"))
    if missed is not None:
        made["missed"] = missed
    config.done("cron time_zone input missed")
    return {"on_schedule": [made]}


def _signal(
    kind: str, root: Node, config: Node, bindings: Bindings, notes: Notes, places: dict[str, str]
) -> JsonObject:
    where = values.conditions(config, "signal.data")
    config.done("conditions logic")
    if kind in _BY_HAND:
        return {}
    signal = bindings.signals.get(kind)
    if signal is None:
        signal = kind if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", kind) else slug(kind, ".") or "trigger"
        mend = f"Bind it: signals: {{{kind}: the.type}}; until then it is {signal!r}."
        notes.unbound.append(Unbound(root.at("trigger_type"), f"the trigger {kind!r} is not bound", mend))
    places["/on_signal/0"] = config.where if where else root.at("trigger_type")
    return {"on_signal": [{"type": signal, **({"where": where} if where else {})}]}
