"""CloudEvents 1.0 (github.com/cloudevents/spec) as signals: the JSON format, batches, and HTTP's binary mode.

Strict: what does not follow the specification is refused whole, before anything is delivered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from pydantic import ValidationError

from charter.errors import InvalidInput
from charter.model.base import JsonObject
from charter.model.json_text import exact_json
from charter.model.signal import RENAMED, Signal
from charter.model.times import unix_ms_of

EVENT: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
MAX_BATCH: Final = 100
AHEAD_SECONDS: Final = 300
"""How far a source's clock may be ahead of this one."""
_OWN: Final = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "data")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_JSON = re.compile(r"(application|text)/([A-Za-z0-9.!#$&^_-]+\+)?json")


def read(content_type: str, headers: Mapping[str, str], body: bytes, now: str) -> list[Signal] | Signal | None:
    """The signals of a request: a list for a batch, one for structured and binary mode, None for any other media type.

    ``headers`` by lower-case names; ``now`` is RFC 3339. Raises ``InvalidInput`` (``cloudevent_invalid``;
    of JSON that may be read in two ways the code of ``exact_json``).
    """
    media = content_type.partition(";")[0].strip().lower()
    if media == BATCH:
        return _batch(_json(body), now)
    if media == EVENT:
        return signal_of(_json(body), now)
    if "ce-specversion" not in headers:
        return None
    attributes = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    if "data" in attributes or "datacontenttype" in attributes:
        raise _invalid("in binary mode the data is the body, and its type is Content-Type")
    if media and not _JSON.fullmatch(media):
        raise _invalid(f"the data is {media[:60]!r}, and Charter takes JSON")
    return signal_of({**attributes, **({"data": _json(body)} if body else {})}, now)


def signal_of(value: Any, now: str, where: str = "") -> Signal:
    """One event of the JSON format. Raises ``InvalidInput`` (``cloudevent_invalid``) naming the attribute."""
    if not isinstance(value, dict):
        raise _invalid(f"{where}an event is a JSON object")
    given: JsonObject = {name: item for name, item in value.items() if item is not None or name == "data"}
    if given.get("specversion") != "1.0":
        raise _invalid(f'{where}specversion must be "1.0"')
    if "data_base64" in given:
        raise _invalid(f"{where}data_base64 holds bytes, and Charter takes JSON in `data`")
    media = given.get("datacontenttype", "application/json")
    if not isinstance(media, str) or not _JSON.fullmatch(media.partition(";")[0].strip().lower()):
        raise _invalid(f"{where}datacontenttype must be JSON")
    _check_texts(given, where)
    _check_time(given.get("time"), now, where)
    fields = {
        name: item for name, item in given.items() if name in _OWN and name not in ("specversion", "datacontenttype")
    }
    extensions = {name: item for name, item in given.items() if name not in _OWN}
    fields |= {new: extensions.pop(old) for old, new in RENAMED.items() if old in extensions}
    try:
        return Signal.model_validate({**fields, "extensions": extensions})
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        name = next((str(part) for part in reversed(problem["loc"]) if isinstance(part, str) and part != "[key]"), "")
        raise _invalid(f"{where}{name[:60]!r}: {problem['msg']}") from None


def _batch(value: Any, now: str) -> list[Signal]:
    if not isinstance(value, list) or len(value) > MAX_BATCH:
        raise _invalid(f"a batch is a JSON array of at most {MAX_BATCH} events")
    return [signal_of(item, now, f"event {number}: ") for number, item in enumerate(value)]


def _check_texts(given: JsonObject, where: str) -> None:
    for name in ("id", "source", "type"):
        if name not in given:
            raise _invalid(f"{where}{name!r} is missing")
    for name, item in given.items():
        if name == "data":
            continue
        if not isinstance(item, str | bool | int) or (name in _OWN and not isinstance(item, str)):
            raise _invalid(f"{where}{name[:60]!r} must be a text")
        if isinstance(item, int) and not -(2**31) <= item < 2**31:
            raise _invalid(f"{where}{name[:60]!r} is beyond 32 bits")
        if isinstance(item, str) and not item.isprintable():
            raise _invalid(f"{where}{name[:60]!r} holds a control character")


def _check_time(time: Any, now: str, where: str) -> None:
    if time is None:
        return
    try:
        if not _TIME.fullmatch(time):
            raise ValueError
        moment = unix_ms_of(time.upper())
    except ValueError:
        raise _invalid(f"{where}'time' is no RFC 3339 time with an offset") from None
    if moment > unix_ms_of(now) + AHEAD_SECONDS * 1000:
        raise _invalid(f"{where}'time' is more than {AHEAD_SECONDS} seconds ahead of this server's clock")


def _json(body: bytes) -> Any:
    try:
        return exact_json(body)
    except InvalidInput as error:
        if error.error_code != "json_invalid":
            raise
        raise _invalid("the body is no JSON") from None


def _invalid(why: str) -> InvalidInput:
    return InvalidInput(
        f"This is no CloudEvent that Charter takes: {why}.",
        code="cloudevent_invalid",
        next_step="Send CloudEvents 1.0 as JSON; docs/signals.md shows one.",
    )
