"""What ``external`` steps send, and what they make of the answer. Pure: secrets are names here, and stay so."""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import quote

from charter.errors import CharterError, NotFound
from charter.model import placeholders
from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.fixture import FIXTURE
from charter.model.outbound import EMAIL_TOOL, HTTP_TOOL, IDEMPOTENT, SAFE, SERVER, WEBHOOK_TOOL
from charter.model.template import ActionStep, ExternalStep, NotificationStep, Step, WaitStep
from charter.workflows import expressions
from charter.workflows.draft import Draft
from charter.workflows.expressions import ExpressionError
from charter.workflows.steps import step_named

LATE_NAMES: Final = re.compile(r"(?:secrets\.([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})|callback\.(url|secret))")
"""The sources that are no CEL: what they stand for is put in by the runner, and by nothing before it."""
NOT_TAKEN_UP: Final = frozenset({408, 425, 429, 503})
"""The answers that say that a request was not carried out (RFC 9110, 6585, 8470)."""
_BY_A_GATEWAY: Final = frozenset({502, 504})
PASSING: Final = NOT_TAKEN_UP | {500, 502, 504}


def call_of(step: Step, scope: JsonObject, since: str) -> tuple[str, JsonObject]:
    """The governed tool and the arguments that a step calls it with; ``since`` is when the step opened.

    Raises ``ExpressionError`` where a value is missing or has the wrong type, ``NotFound`` for a step that calls no tool.
    """
    if isinstance(step, ActionStep):
        return step.tool, expressions.render(step.arguments, scope)
    if isinstance(step, WaitStep) and step.poll is not None:
        return step.poll.tool, expressions.render(step.poll.arguments, scope)
    if isinstance(step, ExternalStep):
        return HTTP_TOOL, _http(step, scope)
    if isinstance(step, NotificationStep):
        return _message(step, scope, since)
    raise NotFound(f"Step {step.id!r} runs no tool.")


def _http(step: ExternalStep, scope: JsonObject) -> JsonObject:
    filled = Filled(scope)
    url = filled.value(step.url, "/url", in_url=True)
    if not isinstance(url, str):
        raise ExpressionError(f"The url {step.url!r} gave a {type(url).__name__}, not a text.")
    arguments: JsonObject = {
        "method": step.method,
        "url": url,
        "risk": step.risk or ("low" if step.method in SAFE else "medium"),
        "idempotent": step.method in IDEMPOTENT if step.idempotent is None else step.idempotent,
        "timeout_seconds": step.timeout_seconds,
    }
    if step.headers:
        arguments["headers"] = {
            name: filled.header(name, text, f"/headers/{escaped(name)}") for name, text in step.headers.items()
        }
    if step.body is not None:
        arguments["body"] = filled.value(step.body, "/body")
    optional = {"follow_redirects": step.follow_redirects, "sensitive": step.sensitive, "max_bytes": step.max_bytes}
    arguments |= {name: value for name, value in optional.items() if value}
    if filled.late:
        arguments["late"] = filled.late
    return arguments


def _message(step: NotificationStep, scope: JsonObject, since: str) -> tuple[str, JsonObject]:
    filled = Filled(scope)
    common: JsonObject = {"risk": step.risk, "timeout_seconds": step.timeout_seconds}
    if step.email is not None:
        to = [expressions.as_text(expressions.render(address, scope)) for address in step.email.to]
        subject = expressions.as_text(expressions.render(step.email.subject, scope))
        text = expressions.as_text(expressions.render(step.email.text, scope))
        return EMAIL_TOOL, {"to": to, "subject": subject, "text": text, **common}
    hook = step.webhook
    assert hook is not None
    url = filled.value(hook.url, "/url", in_url=True)
    data = filled.value(hook.data, "/data")
    arguments = {"url": url, "secret": hook.secret, "type": hook.type, "timestamp": since, "data": data, **common}
    return WEBHOOK_TOOL, {**arguments, "late": filled.late} if filled.late else arguments


def escaped(token: str) -> str:
    """One part of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


class Filled:
    """Fills ``{{ }}`` in. ``late``: by JSON pointer, the texts that hold secrets, in parts. A text that came in through a
    value is never read again, so nobody can ask for a secret by writing its name into a trigger."""

    def __init__(self, scope: JsonObject) -> None:
        self._scope = scope
        self.late: dict[str, list[JsonObject]] = {}

    def value(self, value: Any, pointer: str, *, in_url: bool = False) -> Any:
        """A JSON value with its ``{{ }}`` filled in."""
        if isinstance(value, dict):
            return {key: self.value(item, f"{pointer}/{escaped(key)}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item, f"{pointer}/{number}") for number, item in enumerate(value)]
        if not isinstance(value, str) or "{{" not in value:
            return value
        source = placeholders.whole(value)
        if source is not None and LATE_NAMES.fullmatch(source) is None:
            return expressions.evaluate(source, self._scope)
        return self._text(value, pointer, in_url)

    def header(self, name: str, text: str, pointer: str) -> str:
        """A header's value: never empty because something was missing."""
        value = self.value(text, pointer)
        if value is None or isinstance(value, dict | list):
            raise ExpressionError(f"The header {name} has no value: {text!r} gave a {type(value).__name__}.")
        return expressions.as_text(value)

    def _text(self, text: str, pointer: str, in_url: bool) -> str:
        parts: list[JsonObject] = []
        for is_source, part in placeholders.parts(text):
            late = LATE_NAMES.fullmatch(part) if is_source else None
            if late is not None:
                named: JsonObject = {"secret": late[1]} if late[1] else {"callback": late[2]}
                parts.append({**named, "encode": True} if in_url else named)
            elif is_source:
                filled = expressions.as_text(expressions.evaluate(part, self._scope))
                parts.append({"text": _in_url(part, filled) if in_url else filled})
            else:
                parts.append({"text": part})
        if any("text" not in part for part in parts):
            self.late[pointer] = parts
        return "".join(_shown(part) for part in parts)


def _in_url(source: str, text: str) -> str:
    """A value within a URL: it can add no host, path, parameter or fragment of its own."""
    if text in ("", ".", ".."):
        raise ExpressionError(f"The expression {source!r} gave {text!r}, which is no part of a URL.")
    return quote(text, safe="")


def _shown(part: JsonObject) -> str:
    if "text" in part:
        return str(part["text"])
    name = f"secrets.{part['secret']}" if "secret" in part else f"callback.{part['callback']}"
    return "{{ " + name + " }}"


# -- the answer


def judged(draft: Draft, effect: Effect, outcome: EffectOutcome) -> EffectOutcome:
    """The outcome as the step sees it: succeeded by its own condition, with what it extracts."""
    response = outcome.structured
    if effect.tool.server != SERVER or outcome.status != "succeeded" or not isinstance(response, dict):
        return outcome
    step = step_named(draft.given.template, effect.step_id)
    if not isinstance(step, ExternalStep):
        return outcome
    if effect.dry_run and FIXTURE not in (outcome.meta or {}):  # nothing answered, so there is nothing to judge
        unknown = {"status": response["status"], **dict.fromkeys(step.extract)} if step.extract else response
        return outcome.model_copy(update={"structured": unknown})
    try:
        return _judged(step, outcome, response, {**draft.state.scope(), "response": response})
    except CharterError as error:
        return _failed(outcome, error.error_code, error.message, retryable=False)


def _judged(step: ExternalStep, outcome: EffectOutcome, response: JsonObject, scope: JsonObject) -> EffectOutcome:
    status = response["status"]
    retryable = status in (PASSING if _idempotent(step) else NOT_TAKEN_UP)
    if step.success_condition is None:
        if status in _BY_A_GATEWAY and not _idempotent(step):
            lost = f"A gateway answered HTTP {status}: nobody knows whether the request was carried out."
            return outcome.model_copy(update={"status": "unknown", "error_code": "http_gateway", "error_message": lost})
        if not 200 <= status < 300:
            return _failed(outcome, "http_status", f"The answer is HTTP {status}.", retryable=retryable)
    elif not expressions.condition(step.success_condition, scope):
        reason = f"The success condition {step.success_condition!r} is false; the answer is HTTP {status}."
        return _failed(outcome, "success_condition", reason, retryable=retryable or _idempotent(step))
    if not step.extract:
        return outcome.model_copy(update={"is_error": False})
    found = {name: expressions.evaluate(source, scope) for name, source in step.extract.items()}
    return outcome.model_copy(update={"is_error": False, "structured": {"status": status, **found}})


def _idempotent(step: ExternalStep) -> bool:
    return step.method in IDEMPOTENT if step.idempotent is None else step.idempotent


def _failed(outcome: EffectOutcome, code: str, message: str, *, retryable: bool) -> EffectOutcome:
    changes = {"is_error": True, "error_code": code, "error_message": message, "retryable": retryable}
    return outcome.model_copy(update=changes)
