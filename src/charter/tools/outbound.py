"""Charter's own tools: the requests of ``external`` steps and the messages of ``notification`` steps.

``tools.runner`` alone runs them. Here, and only here, a secret takes the place of its name: just before the request leaves, for
a host that the configuration gives this secret to. It is taken out again of whatever comes back.
"""

from __future__ import annotations

import base64
import email.utils
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import orjson

from charter.errors import CharterError
from charter.manifests.built_in import BUILT_IN
from charter.model.base import Json, JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.outbound import EMAIL_TOOL, HTTP_TOOL, WEBHOOK_TOOL
from charter.tools.egress import Answer, Egress, GuardedClient
from charter.tools.failures import CallError
from charter.tools.mail import MailServer
from charter.tools.webhooks import signed_headers

IDEMPOTENCY_HEADER: Final = "idempotency-key"
AGENT: Final = "charter"
MAX_RETRY_AFTER: Final = 86_400
_NOT_KEPT: Final = frozenset({"set-cookie", "set-cookie2", "www-authenticate", "proxy-authenticate"})
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SHORTEST_SECRET: Final = 4
FOR_GOOD: Final = frozenset(
    {"egress_refused", "bad_request", "secret_not_for_host", "no_callbacks", "not_for_agents"}
    | {"recipient_refused", "no_mail_server", "mail_refused", "bad_webhook_secret", "bad_webhook_id"}
    | {"result_too_large", "too_many_redirects", "compressed_answer"}
)
"""Failures that another attempt would meet again."""


@dataclass(frozen=True, slots=True)
class Place:
    """What one tenant's steps may reach: hosts and networks, and by secret the hosts that it may be sent to."""

    egress: Egress = field(default_factory=Egress)
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallbackAccess:
    """Where the other side calls back, and the secret that it signs with."""

    url: str
    secret: str


@dataclass(slots=True)
class Outbound:
    """Runs Charter's own tools. ``place_of`` by tenant; ``secrets`` by name; ``callback_of`` where callbacks are served."""

    place_of: Callable[[str], Place]
    secrets: Mapping[str, str]
    client: GuardedClient
    callback_of: Callable[[Effect], CallbackAccess] | None = None
    mail_of: Callable[[str], MailServer | None] | None = None
    clock: Callable[[], float] = time.time

    async def run(self, effect: Effect) -> EffectOutcome:
        """Run one effect of these tools. Raises ``CallError``."""
        known = BUILT_IN.get(effect.tool.name)
        if known is None or known.definition_hash != effect.tool.definition_hash:
            raise CallError(
                "not_run", "tool_changed", f"{effect.tool.name} is another tool since this call was decided."
            )
        if not effect.for_step:
            raise CallError("not_run", "not_for_agents", f"{effect.tool.name} is for workflows' own steps alone.")
        return await _RUNS[effect.tool.name](self, effect)

    async def webhook(self, effect: Effect) -> EffectOutcome:
        """A message signed as in Standard Webhooks, under the step's idempotency key as its id."""
        place = self.place_of(effect.tenant)
        late = _Late(self, effect, place)
        arguments = late.filled()
        secret = late.use(arguments["secret"])
        message = {name: arguments[name] for name in ("type", "timestamp", "data")}
        body = orjson.dumps(message)
        try:
            signed = signed_headers([secret], effect.idempotency_key, int(self.clock()), body)
        except CharterError as error:
            raise CallError("not_run", error.error_code, error.message) from None
        headers = {"user-agent": AGENT, "content-type": "application/json", **signed}
        client = replace(self.client, rules=place.egress)
        seconds = arguments["timeout_seconds"]
        try:
            answer = await client.send("POST", arguments["url"], headers=headers, body=body, seconds=seconds)
        except CallError as error:
            raise CallError(error.certainty, error.code, late.without(error.message)) from None
        return _taken(answer, self.clock())

    async def email(self, effect: Effect) -> EffectOutcome:
        """A mail, where the tenant has a mail server."""
        server = self.mail_of(effect.tenant) if self.mail_of is not None else None
        if server is None:
            raise CallError(
                "not_run", "no_mail_server", "No mail server is configured here (`[email]` in charter.toml)."
            )
        arguments = effect.arguments
        to = list(dict.fromkeys(arguments["to"]))
        server.check(to)
        mail = server.message(to, arguments["subject"], arguments["text"], effect.idempotency_key, self.clock())
        count = await server.send(mail, to, arguments["timeout_seconds"])
        told = f"Handed over for {count} recipient{'' if count == 1 else 's'}."
        return EffectOutcome(
            status="succeeded", content=({"type": "text", "text": told},), structured={"recipients": count}
        )

    async def http(self, effect: Effect) -> EffectOutcome:
        """Any request."""
        place = self.place_of(effect.tenant)
        late = _Late(self, effect, place)
        arguments = late.filled()
        headers = {"user-agent": AGENT, **arguments.get("headers", {})}
        body = _body(arguments.get("body"), headers)
        method = arguments["method"]
        if method not in _SAFE and IDEMPOTENCY_HEADER not in {name.lower() for name in headers}:
            headers["Idempotency-Key"] = effect.idempotency_key
        limit = min(arguments.get("max_bytes") or self.client.max_bytes, self.client.max_bytes)
        client = replace(self.client, rules=place.egress, max_bytes=limit)
        try:
            answer = await client.send(
                method,
                arguments["url"],
                headers=headers,
                body=body,
                seconds=arguments["timeout_seconds"],
                follow=bool(arguments.get("follow_redirects")),
            )
        except CallError as error:
            raise CallError(error.certainty, error.code, late.without(error.message)) from None
        return _outcome(answer, late.without, self.clock())


_RUNS: Final[Mapping[str, Callable[[Outbound, Effect], Awaitable[EffectOutcome]]]] = {
    HTTP_TOOL: Outbound.http,
    WEBHOOK_TOOL: Outbound.webhook,
    EMAIL_TOOL: Outbound.email,
}


def _taken(answer: Answer, now: float) -> EffectOutcome:
    """Whether a receiver took a message. Standard Webhooks: 2xx does; 410 wants no more of them; all else is tried again."""
    good = 200 <= answer.status < 300
    return EffectOutcome(
        status="succeeded",
        is_error=not good,
        error_code=None if good else "http_status",
        error_message=None if good else f"The receiver answered HTTP {answer.status}.",
        content=({"type": "text", "text": f"HTTP {answer.status}"},),
        structured={"status": answer.status},
        retryable=answer.status != HTTPStatus.GONE,
        retry_after_seconds=retry_after(answer.headers.get("retry-after"), now),
    )


def _body(body: Json, headers: dict[str, str]) -> bytes:
    if body is None:
        return b""
    kind = next((name for name in headers if name.lower() == "content-type"), None)
    if isinstance(body, str):
        headers.setdefault(kind or "Content-Type", "text/plain; charset=utf-8")
        return body.encode()
    headers.setdefault(kind or "Content-Type", "application/json")
    return orjson.dumps(body)


def _outcome(answer: Answer, without: Callable[[str], str], now: float) -> EffectOutcome:
    text = without(answer.body.decode("utf-8", "replace"))
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    structured: JsonObject = {
        "status": answer.status,
        "headers": {name: without(value) for name, value in answer.headers.items() if name not in _NOT_KEPT},
        "body": _json(text) if kind == "application/json" or kind.endswith("+json") else text,
    }
    good = 200 <= answer.status < 300
    return EffectOutcome(
        status="succeeded",
        is_error=not good,
        error_code=None if good else "http_status",
        error_message=None if good else f"The answer is HTTP {answer.status}.",
        content=({"type": "text", "text": f"HTTP {answer.status}, {len(answer.body):,} bytes"},),
        structured=structured,
        retry_after_seconds=retry_after(answer.headers.get("retry-after"), now),
    )


def _json(text: str) -> Json:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def retry_after(value: str | None, now: float) -> int | None:
    """Seconds of a ``Retry-After`` (RFC 9110, 10.2.3), at most a day; None where there is none that can be read."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return min(int(value.strip()[:9]), MAX_RETRY_AFTER)
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, min(int(moment - now) + 1, MAX_RETRY_AFTER))


class _Late:
    """Puts in what was left out of the record, and takes it out of what comes back."""

    def __init__(self, outbound: Outbound, effect: Effect, place: Place) -> None:
        self._outbound, self._effect, self._place = outbound, effect, place
        self._used: dict[str, str] = {}
        self._url = ""

    def filled(self) -> JsonObject:
        """The arguments as they are sent. Raises ``CallError`` (``not_run``)."""
        arguments: JsonObject = dict(self._effect.arguments)
        late: Mapping[str, list[JsonObject]] = arguments.pop("late", {})
        for pointer, parts in late.items():
            text = "".join(self._part(part) for part in parts)
            arguments = _put(arguments, [_unescaped(part) for part in pointer.split("/")[1:]], text)
        self._url = arguments["url"]
        for name in self._used:
            self._may_go(name)
        return arguments

    def use(self, name: str) -> str:
        """A secret that does not go out itself, but signs what does."""
        value = self._secret(name)
        self._may_go(f"secrets.{name}")
        return value

    def without(self, text: str) -> str:
        """``text`` with each secret that was used, in the usual spellings, replaced by its name."""
        for name, value in self._used.items():
            for spelling in _spellings(value):
                text = text.replace(spelling, f"[{name}]")
        return text

    def _part(self, part: JsonObject) -> str:
        if "text" in part:
            return str(part["text"])
        value = self._callback(part["callback"]) if "callback" in part else self._secret(part["secret"])
        return quote(value, safe="") if part.get("encode") else value

    def _secret(self, name: str) -> str:
        if name not in self._place.secrets:
            raise CallError(
                "not_run",
                "missing_secret",
                f"Steps may not use the secret {name}: `[egress.secrets]` does not name it.",
            )
        try:
            value = self._outbound.secrets.get(name)
        except CharterError as error:
            raise CallError(
                "not_run", "missing_secret", f"The secret {name} cannot be read: {error.error_code}."
            ) from None
        if not value:
            raise CallError("not_run", "missing_secret", f"The secret {name} is not set (`charter secret set {name}`).")
        self._used[f"secrets.{name}"] = value
        return value

    def _callback(self, which: str) -> str:
        if self._outbound.callback_of is None:
            raise CallError(
                "not_run", "no_callbacks", "Callbacks are not served here: Charter runs without its HTTP door."
            )
        access = self._outbound.callback_of(self._effect)
        if which == "url":
            return access.url
        self._used["callback.secret"] = access.secret
        return access.secret

    def _may_go(self, name: str) -> None:
        patterns = self._place.secrets.get(name.removeprefix("secrets."), ())
        if name == "callback.secret":
            return
        try:
            Egress(hosts=tuple(patterns)).check(self._url)
        except CallError:
            raise CallError(
                "not_run", "secret_not_for_host", f"{name} may not be sent to this host (`[egress.secrets]`)."
            ) from None


def _put(value: Any, path: list[str], text: str) -> Any:
    if not path:
        return text
    if isinstance(value, dict) and path[0] in value:
        return {**value, path[0]: _put(value[path[0]], path[1:], text)}
    if isinstance(value, list) and path[0].isdigit() and int(path[0]) < len(value):
        number = int(path[0])
        return [*value[:number], _put(value[number], path[1:], text), *value[number + 1 :]]
    raise CallError("not_run", "bad_request", "A secret's place is not in the request; the call was edited.")


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")


def _spellings(value: str) -> list[str]:
    """How a secret may come back, the longest first: as it is, in JSON, in a URL, in base64."""
    if len(value) < _SHORTEST_SECRET:
        return []
    found = {
        value,
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        quote(value, safe=""),
        quote(value),
    }
    found.add(base64.b64encode(value.encode()).decode().rstrip("="))
    found.add(base64.urlsafe_b64encode(value.encode()).decode().rstrip("="))
    return sorted(found, key=len, reverse=True)
