"""Fixtures for dry runs, made of what the tools answered in a run: from its record, so with what the manifests let on it.

What a manifest withholds is in no fixture: a part of a result is replaced by a made-up value of that part of the output schema,
a result that is withheld whole gives none. Nor does what is not on record as it was answered: what agents' calls brought,
results that were too large, and requests of which only the extract was kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from charter.errors import CharterError, InvalidInput
from charter.manifests.arguments import compile_schema
from charter.manifests.redaction import WITHHELD_BLOCK, is_marker, redact_at
from charter.manifests.samples import filled
from charter.model.base import Json, JsonObject
from charter.model.fixture import Fixture
from charter.model.outbound import HTTP_TOOL
from charter.model.tool import ToolManifest

_WITHHELD: Final = {"text": WITHHELD_BLOCK["text"]}
_RESPONSE: Final = frozenset({"status", "headers", "body"})


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An answer of which no fixture is made."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Recording:
    """By ``TEMPLATE/STEP``, as the file of fixtures has them."""

    answers: dict[str, Fixture | tuple[Fixture, ...]]
    left_out: tuple[LeftOut, ...]


class _NoneOfItError(Exception):
    """Why there is no fixture of an answer."""


@dataclass(slots=True)
class _Call:
    step_id: str
    tool: str
    number: int
    by_agent: bool
    ended: tuple[str, JsonObject] | None = None


@dataclass(slots=True)
class _Run:
    """A run as far as its own calls go. ``tries``: at which try each step is, as dry runs count them."""

    template: str = ""
    tries: dict[str, int] = field(default_factory=dict)
    calls: dict[str, _Call] = field(default_factory=dict)

    def see(self, type_: str, data: JsonObject) -> None:
        if type_ == "WORKFLOW_STARTED":
            self._started(data)
        elif type_ == "WORKFLOW_STEP":
            self._step(data)
        elif type_ == "TOOL_INVOKE":
            by_agent = data.get("agent_invocation_id") is not None
            number = self.tries.get(data["step_id"], 1)
            self.calls.setdefault(data["effect_id"], _Call(data["step_id"], data["tool"], number, by_agent))
        elif type_ in _ENDS:
            ended = None if data.get("resolution") == "retry" else (type_, data)
            self.calls[data["effect_id"]].ended = ended

    def _started(self, data: JsonObject) -> None:
        if data.get("dry_run"):
            raise InvalidInput(
                "It is a dry run: what answered in it was made up, or a fixture already.",
                code="dry_run_recorded",
                next_step="Name a run that was not dry.",
            )
        self.template = str(data["template"]).partition("@")[0]

    def _step(self, data: JsonObject) -> None:
        step_id, status = data["step_id"], data["status"]
        if status == "again":
            self.tries[step_id] = 0
        elif data.get("polls") is not None:
            self.tries[step_id] = 1
        elif status in ("opened", "reopened"):
            self.tries[step_id] = self.tries.get(step_id, 0) + 1


_ENDS: Final = frozenset({"TOOL_RESULT", "EFFECT_IN_DOUBT", "EFFECT_DEAD_LETTERED", "EFFECT_RESOLVED"})


def recorded(events: Iterable[JsonObject], manifests: Mapping[str, ToolManifest]) -> Recording:
    """The fixtures of a run's events; ``manifests`` are the tools of now, by their names.

    Raises ``InvalidInput`` (``dry_run_recorded``) for a dry run.
    """
    run = _Run()
    for event in events:
        run.see(event["type"], event["data"])
    found: dict[str, dict[int, Fixture]] = {}
    left_out: dict[str, LeftOut] = {}
    for call in run.calls.values():
        name = call.tool if call.by_agent else f"{run.template}/{call.step_id}"
        try:
            found.setdefault(name, {})[call.number] = _fixture(call, manifests.get(call.tool))
        except _NoneOfItError as error:
            left_out[name] = LeftOut(name, str(error))
    # Half a list would answer a try with what another one was answered.
    whole = {name: tuple(tries[number] for number in sorted(tries)) for name, tries in found.items()}
    answers = {name: _shortest(tries) for name, tries in whole.items() if tries and name not in left_out}
    return Recording(answers, tuple(left_out.values()))


def _shortest(tries: tuple[Fixture, ...]) -> Fixture | tuple[Fixture, ...]:
    """Of a list the last one answers from then on, so it stands there once."""
    kept = list(tries)
    while len(kept) > 1 and kept[-1] == kept[-2]:
        kept.pop()
    return tuple(kept) if len(kept) > 1 else kept[0]


def _fixture(call: _Call, manifest: ToolManifest | None) -> Fixture:
    if call.by_agent:
        raise _NoneOfItError("what the calls of agents were answered is not on record")
    if manifest is None:
        raise _NoneOfItError(f"{call.tool} is not governed here, so nobody says what of its results is sensitive")
    if call.ended is None:
        raise _NoneOfItError("its answer is not on record yet")
    type_, data = call.ended
    if type_ in _WITHOUT_ANSWER:
        code, ran = _WITHOUT_ANSWER[type_]
        return Fixture.model_validate({"error": _words(manifest, data["reason"]), "code": code, "ran": ran})
    if type_ == "EFFECT_RESOLVED" and data["resolution"] == "did_not_run":
        return Fixture(error="It did not run.", code="did_not_run", ran="no")
    if data.get("status") == "failed" or data.get("is_error"):
        return _error(data, manifest)
    return _answer(call.tool, data.get("output"), manifest)


_WITHOUT_ANSWER: Final = {"EFFECT_IN_DOUBT": ("in_doubt", "unknown"), "EFFECT_DEAD_LETTERED": ("dead_lettered", "no")}


def _error(data: JsonObject, manifest: ToolManifest) -> Fixture:
    output: Any = data.get("output")
    said = output.get("text") if isinstance(output, dict) else None
    text = data.get("error_message") or said or "The tool answered with an error."
    ran: Any = "no" if data.get("status") == "failed" else "answered"
    return Fixture(error=_words(manifest, str(text)), code=data.get("error_code") or "tool_error", ran=ran)


def _words(manifest: ToolManifest, text: str) -> str:
    """What an error says, which may repeat what the tool was given."""
    return "Its words are withheld." if manifest.sensitive_arguments or manifest.sensitive_results else text


def _answer(tool: str, output: Json, manifest: ToolManifest) -> Fixture:
    if isinstance(output, dict) and (output.get("too_large") is True or output.get("not_recordable") is True):
        raise _NoneOfItError("its result is not on record: it was too large, or no JSON")
    if tool == HTTP_TOOL and not (isinstance(output, dict) and output.keys() >= _RESPONSE):
        raise _NoneOfItError("only what the step extracts is on record; write the response: {status, headers, body}")
    known, _ = redact_at(manifest.sensitive_results, output)  # a manifest may withhold more now than it did then
    words = _is_text(known) and (known == _WITHHELD or bool(manifest.sensitive_results and not manifest.output_schema))
    if is_marker(known) or words:  # content blocks are withheld wherever anything of a result is
        raise _NoneOfItError("its result is withheld entirely: the tool manifest says that it is sensitive")
    value = filled(known, manifest.output_schema or {}, is_marker)
    _check(value, manifest)
    if _is_text(value) and manifest.output_schema is None:
        assert isinstance(value, dict)
        return Fixture(text=value["text"])
    return Fixture(output=value)


def _is_text(value: Json) -> bool:
    """What stands for an answer without structured content."""
    return isinstance(value, dict) and value.keys() == {"text"} and isinstance(value["text"], str)


def _check(value: Json, manifest: ToolManifest) -> None:
    if manifest.output_schema is None:
        return
    try:
        problems = compile_schema(manifest.output_schema).problems(value)
    except CharterError:
        return  # a schema that is none is said where the tool is added
    if problems:
        told = problems[0].as_json()
        where = f"{told['pointer'] or 'it'}: {told['message']}"
        raise _NoneOfItError(f"it does not fit the tool's output schema ({where})")
