"""What steps of other dialects do outside: tools under other names, HTTP requests, and what follows when they fail."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from charter.manifests.dialects import values
from charter.manifests.dialects.bindings import Bindings
from charter.manifests.dialects.reading import Node, Notes, Unbound, UnreadableError
from charter.model.base import Json, JsonObject

Values = Callable[[Json], Json]
_FAILURES: Final = {
    **dict.fromkeys(("fail", "fail_workflow", "stop", "abort", "retry"), "fail_workflow"),
    **dict.fromkeys(("skip", "continue", "ignore"), "skip"),
    **dict.fromkeys(("human_review", "manual_review", "escalate"), "human_review"),
}
_ATTEMPTS: Final = ("max_attempts", "attempts")
_DELAY: Final = {"backoff_seconds": 1, "delay_seconds": 1, "initial_delay_seconds": 1, "interval_seconds": 1}


def call_of(name: str, given: JsonObject, where: str, bindings: Bindings, notes: Notes) -> JsonObject:
    """The governed tool of an action and its arguments; a governed name stands for itself."""
    bound = bindings.actions.get(name)
    if bound is not None:
        renamed = {bound.rename.get(key, key): item for key, item in given.items()}
        return {"tool": bound.tool, "arguments": {**renamed, **bound.arguments}}
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*__\S+", name) is None:
        text = f"the action {name!r} is unknown here: no governed tool is bound to it"
        notes.unbound.append(Unbound(where, text, f"Bind it: actions: {{{name}: server__tool}}.", needed=True))
    return {"tool": name, "arguments": given}


def on_failure(config: Node) -> JsonObject:
    """``on_failure`` and ``retry_config``."""
    made: JsonObject = {}
    known = config.one_of("on_failure", _FAILURES)
    if known is not None:
        made["on_failure"] = _FAILURES[known]
    if "retry_config" in config:
        made["retry"] = _retry(config.node("retry_config", "retry_config"))
    elif known == "retry":
        config.notes.error(
            config.at("on_failure"), "'retry' needs a retry_config", "Say how often, and after what time."
        )
    return made


def _retry(node: Node) -> JsonObject:
    attempts: int | None = None
    for name in _ATTEMPTS:
        attempts = node.whole(name, attempts, least=1)
    again = node.whole("max_retries")
    if attempts is None:
        attempts = 1 + (again if again is not None else 2)
    made: JsonObject = {"attempts": attempts}
    first = node.seconds(**_DELAY)
    most = node.seconds(max_backoff_seconds=1, max_delay_seconds=1)
    how = node.one_of("backoff", ("exponential", "fixed", "constant"), "exponential")
    factor = node.take("backoff_multiplier", 2)
    if factor not in (1, 2):
        node.notes.warn(
            node.at("backoff_multiplier"), f"waits double; {factor} is not kept", "Write 2, or 1 for equal waits."
        )
    node.done("max_attempts max_retries backoff_seconds max_backoff_seconds backoff backoff_multiplier")
    if first is not None:
        made["backoff_seconds"] = first
    if most is not None:
        made["max_backoff_seconds"] = most
    if how in ("fixed", "constant") or factor == 1:
        made["max_backoff_seconds"] = first if first is not None else 1
    return made


# -- HTTP


_CALLBACK: Final = re.compile(r"\{\{\s*callback_url\s*\}\}")
_MINE: Final = frozenset(("status", "headers", "body"))


def external(config: Node, change: Values, about: str) -> JsonObject:
    """An HTTP request. In ``mode: async`` what is extracted, and the condition, are of what the other side calls back with."""
    later = config.one_of("mode", ("sync", "async"), "sync") == "async"
    method = config.text("method", default="POST" if "body" in config or "payload" in config else "GET").upper()
    made: JsonObject = {"method": method, "url": _texts(config.text("url"), change), "reason": about}
    headers = config.map("headers")
    body = config.take("body", config.take("payload"))
    seconds = config.seconds(timeout_seconds=1, timeout_minutes=60)
    patience = config.seconds(completion_timeout_hours=3600, callback_timeout_hours=3600, timeout_hours=3600)
    wanted = _judged(config, "callback.body" if later else "response.body", later)
    if later:
        said = str([made["url"], headers, body])
        if _CALLBACK.search(said) is None and "callback." not in said:
            headers = {
                **headers,
                "Charter-Callback-Url": "{{ callback.url }}",
                "Charter-Callback-Secret": "{{ callback.secret }}",
            }
            text = "the request does not say where to call back; two headers tell it"
            config.notes.warn(
                config.where, text, "Put {{ callback.url }} and {{ callback.secret }} where the other side reads them."
            )
        made["callback"] = {**wanted, **({} if patience is None else {"timeout_seconds": patience})}
    else:
        made |= wanted
        if patience is not None:
            config.notes.error(
                config.where, "a request that is not async waits at most 10 minutes", "Write timeout_seconds."
            )
    if headers:
        made["headers"] = {key: _texts(item, change) for key, item in headers.items()}
    if body is not None:
        made["body"] = _texts(body, change)
    if seconds is not None:
        made["timeout_seconds"] = seconds
    return made | on_failure(config)


def _texts(value: Json, change: Values) -> Json:
    return change(values.each_text(value, lambda text: _CALLBACK.sub("{{ callback.url }}", text)))


def _judged(config: Node, body: str, later: bool) -> JsonObject:
    made: JsonObject = {}
    if "success_condition" in config:
        made["success_condition"] = _condition(config.text("success_condition"), body, later)
    found = config.take("extract_fields")
    if found is not None:
        made["extract"] = _extract(found, body, config)
    return made


def _condition(source: str, body: str, later: bool) -> str:
    """Their words for status and body; what an answer has besides is taken from its body."""
    source = re.sub(r"(?<![\w.])(?:response\.)?(?:status_code|http_status)\b", "response.status", source)
    source = re.sub(r"(?<![\w.])response\.status(?=\s*[!=]=\s*[\"'])", f"{body}.status", source)

    def of_body(found: re.Match[str]) -> str:
        return found[0] if found[1] in _MINE else f"{body}.{found[1]}"

    source = re.sub(r"(?<![\w.])response\.(\w+)", of_body, source)
    if later:
        source = source.replace("response.body", body)
    return re.sub(r"(?<![\w.])body(?=[.\[])", body, source)


def _extract(found: Json, body: str, config: Node) -> JsonObject:
    """``{name: path}``, or a list of paths whose last name is the name."""
    if isinstance(found, list):
        pairs = [(str((values.parts_of(_bare(item)) or [""])[-1]), item) for item in found if isinstance(item, str)]
        complete = len(pairs) == len(found)
    else:
        pairs = list(found.items()) if isinstance(found, dict) else []
        complete = isinstance(found, dict)
    made: JsonObject = {}
    for name, path in pairs:
        parts = values.parts_of(_bare(path)) if isinstance(path, str) else None
        if parts is None:
            complete = False
        else:
            made[name] = values.cel_path(body, parts)
    if not complete:
        text = "extract_fields is a map of names and paths, or a list of paths"
        config.notes.error(config.at("extract_fields"), text, "Write for example extract_fields: {score: data.score}.")
        raise UnreadableError
    return made


def _bare(path: str) -> str:
    """``$.data.score``, ``response.data.score`` and ``data.score`` are one."""
    path = path.strip().removeprefix("$").removeprefix(".")
    for before in ("response.body.", "response.", "body."):
        if path.startswith(before):
            return path.removeprefix(before)
    return path
