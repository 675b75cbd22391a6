"""What of a tool's outcome goes on record, and what is sealed beside it."""

from __future__ import annotations

import json

import orjson

from charter.errors import InvalidInput
from charter.manifests.plain_text import plain
from charter.manifests.redaction import redact_result
from charter.model.base import Json, JsonObject
from charter.model.canonical import canonical, sha256_hex
from charter.model.effect import Effect, EffectOutcome
from charter.model.tool import ToolManifest

MAX_OUTPUT_DEPTH = 60
"""An event nests a step's output in its own members; beyond this a leaf would be too deep."""

_HARMLESS = "It may have run or still be running; it has no side effects, so nothing was changed."


def settled(effect: Effect, outcome: EffectOutcome) -> EffectOutcome:
    """A tool without side effects cannot be in doubt: whether or not it ran, or still runs, nothing is changed."""
    if outcome.error_message is not None:
        outcome = outcome.model_copy(update={"error_message": plain(outcome.error_message, limit=1000)})
    if outcome.status == "unknown" and effect.tool.side_effects == "none":
        told = " ".join(filter(None, (outcome.error_message, _HARMLESS)))
        return outcome.model_copy(update={"status": "failed", "error_message": told})
    return outcome


def recordable(effect: Effect, outcome: EffectOutcome) -> EffectOutcome:
    """An upstream's error text may repeat what it was given: a sensitive tool's is for the caller alone."""
    sensitive = effect.tool.sensitive_arguments or effect.tool.sensitive_results
    if not sensitive or outcome.meta is None or outcome.error_message is None:
        return outcome
    return outcome.model_copy(update={"error_message": "[withheld: the tool manifest says that it is sensitive]"})


class Stored:
    """What of a result goes on record, and what is sealed beside it."""

    __slots__ = ("record", "seal", "too_large")

    def __init__(self, record: JsonObject, seal: JsonObject | None, too_large: bool) -> None:
        self.record, self.seal, self.too_large = record, seal, too_large


def stored_result(effect: Effect, outcome: EffectOutcome, result_limit: int, output_limit: int) -> Stored:
    """Both parts of a result; larger ones than ``result_limit`` bytes, and a step's sensitive ones, are sealed."""
    if outcome.status != "succeeded":
        return Stored({"result_bytes": 0}, None, False)
    whole = {"content": outcome.content, "structured": outcome.structured}
    text = _json_text(whole)
    sensitive = bool(effect.tool.sensitive_results)
    record: JsonObject = {"result_bytes": len(text)}
    if not sensitive:  # the hash of a short secret could be guessed
        record["result_digest"] = "sha256:" + sha256_hex(text)
    too_large = len(text) + (len(_json_text(outcome.meta)) if outcome.meta else 0) > result_limit
    if effect.for_step:
        record["output"] = _output(effect.tool, outcome, output_limit)
    seal = whole if too_large or (effect.for_step and sensitive) else None
    return Stored(record, seal, too_large)


def _json_text(value: JsonObject) -> bytes:
    """Compact JSON with sorted keys; what an upstream sent that JSON cannot carry (half of a surrogate pair) is escaped."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _output(tool: ToolManifest, outcome: EffectOutcome, limit: int) -> Json:
    content, structured, _ = redact_result(tool, list(outcome.content), outcome.structured)
    value: Json = structured
    if value is None:
        value = {"text": "\n".join(str(item.get("text", "")) for item in content if item.get("type") == "text")}
    try:
        size = len(canonical(value, max_depth=MAX_OUTPUT_DEPTH))
    except InvalidInput as error:  # the tool has run: its outcome goes on record whatever it answered
        return {"not_recordable": True, "reason": error.message}
    return value if size <= limit else {"too_large": True, "bytes": size}
