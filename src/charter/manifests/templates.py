"""Workflow templates from YAML or JSON text, their hash, and the catalogue of what is published.

What a text says wrong is told with file, line, JSON pointer and the mend, all of it at once. A template that loads is of the
right shape and can run to an end; what only an installation knows (its tools, its roles) is for
:func:`charter.manifests.template_checks.validate`.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Final, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from charter.errors import Conflict, InvalidInput, Misconfigured, NotFound
from charter.manifests.dialects import Translated, form_of, translate
from charter.manifests.dialects.bindings import NONE, Bindings
from charter.manifests.finding import Finding
from charter.manifests.template_checks import CheckExpression, validate
from charter.manifests.yaml_text import Document, load
from charter.model.base import Json
from charter.model.canonical import digest
from charter.model.json_text import no_twins
from charter.model.template import (
    ActionStep,
    AgentStep,
    ApprovalStep,
    ChildStep,
    ConditionStep,
    ExternalStep,
    NotificationStep,
    SignalStep,
    Template,
    WaitStep,
)

CODE: Final = "template_invalid"
MAX_BYTES: Final = 256 * 1024
STEP_MODELS: Final[dict[str, Any]] = {
    "agent": AgentStep,
    "action": ActionStep,
    "approval": ApprovalStep,
    "condition": ConditionStep,
    "wait": WaitStep,
    "external": ExternalStep,
    "notification": NotificationStep,
    "signal": SignalStep,
    "workflow": ChildStep,
}
Level = Literal["error", "warning"]
_REF = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,127})(?:@([0-9]+(?:\.[0-9]+){0,2}))?")


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A template and the text that it came from, so that findings can name lines."""

    template: Template
    document: Document
    translated: Translated | None = None
    """What came of a document in another form."""

    def findings(self, **installation: Any) -> list[Finding]:
        """What ``validate`` finds, with the line of each; of a document in another form also what only its reader knows."""
        found = validate(self.template, **installation)
        if self.translated is None:
            return [item.at(self.document.line(item.where)) for item in found]
        level: Level = "error" if installation.get("strict") else "warning"
        names = [Finding(level, item.where, item.text, item.mend) for item in self.translated.unbound]
        moved = [replace(item, where=self.translated.place(item.where)) for item in found]
        listed = dict.fromkeys([*self.translated.findings, *names, *moved])
        return [item.at(self.document.line(item.where)) for item in listed]


def read_template(
    text: str, filename: str, *, check_expression: CheckExpression | None = None, bindings: Bindings = NONE
) -> TemplateFile:
    """The template in ``text``, which is YAML or JSON; see :func:`load_template` for the errors.

    A document in another form is translated; ``bindings`` say what its names mean here.
    """
    document = _document(text, filename)
    form = form_of(document.value)
    if form is not None:
        return _translated(document, translate(document.value, form, bindings), check_expression)
    if not isinstance(document.value, dict):
        raise _invalid(document, [_problem("", "a template is a map", "Start with `name:`, `version:` and `steps:`.")])
    fields = {key: value for key, value in document.value.items() if key != "$schema"}  # editors read it
    try:
        template = Template.model_validate(fields)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise _invalid(document, [_of_pydantic(item, document) for item in details]) from None
    found = TemplateFile(template, document)
    wrong = [item for item in found.findings(check_expression=check_expression) if item.level == "error"]
    if wrong:
        raise _invalid(document, [_problem(item.where, item.text, item.mend) for item in wrong])
    return found


def _translated(document: Document, made: Translated, check_expression: CheckExpression | None) -> TemplateFile:
    if made.native is None:
        wrong = [item for item in made.findings if item.level == "error"]
        raise _invalid(document, [_problem(item.where, item.text, item.mend) for item in wrong])
    try:
        template = Template.model_validate(made.native)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        problems = [_of_pydantic(item, document) for item in details]
        raise _invalid(document, [{**item, "pointer": made.place(item["pointer"])} for item in problems]) from None
    found = TemplateFile(template, document, made)
    wrong = [item for item in found.findings(check_expression=check_expression) if item.level == "error"]
    if wrong:
        raise _invalid(document, [_problem(item.where, item.text, item.mend) for item in wrong])
    return found


def load_template(
    text: str, filename: str, *, check_expression: CheckExpression | None = None, bindings: Bindings = NONE
) -> Template:
    """The template in ``text``; ``filename`` names it in errors, ``check_expression`` compiles its CEL.

    Raises ``InvalidInput`` (``template_invalid``): the message names file, line, pointer and the first problem;
    ``detail.problems`` has them all. Refused besides a wrong shape: more than 256 KiB or 64 levels, YAML aliases, keys
    given twice, and what would fail at run time (unknown needs, cycles, references to nothing, schemas that are none); of
    documents in another form also actions that no ``bindings`` bind to a tool.
    """
    found = read_template(text, filename, check_expression=check_expression, bindings=bindings)
    needed = [item for item in found.translated.unbound if item.needed] if found.translated is not None else []
    if needed:
        raise _invalid(found.document, [_problem(item.where, item.text, item.mend) for item in needed])
    return found.template


def _problem(pointer: str, text: str, mend: str) -> dict[str, str]:
    return {"pointer": pointer, "problem": text, "mend": mend}


def _invalid(document: Document, problems: list[dict[str, str]]) -> InvalidInput:
    listed = [{**item, "line": document.line(item["pointer"])} for item in problems[:20]]
    first = listed[0]
    where = f" ({first['pointer']})" if first["pointer"] else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidInput(
        f"{document.file}:{first['line']}{where}: {first['problem']}{more}",
        code=CODE,
        next_step=str(first["mend"]),
        detail={"file": document.file, "line": first["line"], "pointer": first["pointer"], "problems": listed},
    )


def _document(text: str, filename: str) -> Document:
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        problem = _problem("", f"longer than {MAX_BYTES // 1024} KiB", "Split the work over several templates.")
        raise _invalid(Document(filename, None), [problem])
    if filename.endswith(".json"):
        return _json_document(text, filename)
    try:
        return load(text, filename, code=CODE)
    except Misconfigured as error:
        if text.lstrip().startswith("{"):  # JSON indented with tabs is no YAML
            return _json_document(text, filename)
        raise _from_file(error) from None


def _json_document(text: str, filename: str) -> Document:
    document = Document(filename, None)
    try:
        document.value = json.loads(text, object_pairs_hook=no_twins, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        document.lines[""] = error.lineno
        raise _invalid(document, [_problem("", error.msg, "Correct the JSON at this line.")]) from None
    except (ValueError, RecursionError) as error:
        text_of = str(error) if isinstance(error, ValueError) else "nested too deep"
        raise _invalid(document, [_problem("", text_of, "Correct the JSON.")]) from None
    try:  # read as YAML it has the same values, and lines
        document.lines = load(text, filename, code=CODE).lines
    except Misconfigured as error:
        if "nested deeper" in error.message:
            raise _from_file(error) from None
    return document


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _from_file(error: Misconfigured) -> InvalidInput:
    return InvalidInput(error.message, code=CODE, next_step=error.next_step, detail=error.detail)


def _of_pydantic(error: ErrorDetails, document: Document) -> dict[str, str]:
    path = list(error["loc"])
    step_type = path[2] if len(path) > 2 and path[0] == "steps" and path[2] in STEP_MODELS else None
    if step_type is not None:
        del path[2]  # pydantic names the branch of the union; the text has no such level
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    name = str(path[-1]) if path else ""
    if kind == "extra_forbidden":
        return _problem(pointer, f"{name!r} is not known here", _meant(name, step_type, path))
    if kind == "missing":
        return _problem(pointer, f"{name!r} is missing", f"Add `{name}:`.")
    if kind == "union_tag_invalid":
        return _problem(f"{pointer}/type", "this is no step type", f"Use one of: {', '.join(STEP_MODELS)}.")
    if kind == "union_tag_not_found":
        return _problem(pointer, "'type' is missing", f"Add `type:` with one of: {', '.join(STEP_MODELS)}.")
    if kind == "string_type" and pointer in document.lines:
        return _problem(pointer, "text is needed here", f'Put it in quotes: {name}: "…".')
    return _problem(pointer, message[:1].lower() + message[1:], "Correct this field; docs/templates.md lists them.")


def _meant(name: str, step_type: Any, path: list[Any]) -> str:
    model: Any = STEP_MODELS[step_type] if step_type and len(path) == 3 else Template if len(path) == 1 else None
    if model is None:
        return "Remove it; docs/templates.md lists what may stand here."
    known = [item.alias or key for key, item in model.model_fields.items()]
    close = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{close[0]}`?" if close else f"Remove it; what may stand here: {', '.join(known)}."


# -- names and hashes


def parse_ref(ref: str) -> tuple[str, str | None]:
    """``name`` and version of ``name@version``; the version is None in ``name`` alone.

    Raises ``InvalidInput`` (``template_ref``).
    """
    found = _REF.fullmatch(ref)
    if found is None:
        raise InvalidInput(
            f"{ref[:80]!r} does not name a template.",
            code="template_ref",
            next_step="Write name for the newest version, or name@version as in governed-session@1.",
        )
    return found.group(1), found.group(2)


def template_hash(template: Template) -> str:
    """``sha256:…`` of the template without what it leaves at its default, so that comments and order of keys do not matter,
    and a field that a later Charter adds changes no hash."""
    return digest(template.model_dump(mode="json", by_alias=True, exclude_defaults=True))


def _order(version: str) -> tuple[int, ...]:
    numbers = tuple(int(part) for part in version.split("."))
    return numbers + (0,) * (3 - len(numbers))


# -- what is published


@dataclass(slots=True)
class Catalogue:
    """The published templates. A published ``name@version`` never changes."""

    _by_name: dict[str, dict[tuple[int, ...], tuple[Template, str]]] = field(default_factory=dict)
    _by_hash: dict[str, Template] = field(default_factory=dict)

    def add(self, template: Template) -> str:
        """Publish it; the same again is fine. Its hash. Raises ``Conflict`` (``template_immutable``) for another text of it."""
        versions = self._by_name.setdefault(template.name, {})
        found_hash, order = template_hash(template), _order(template.version)
        known = versions.get(order)
        if known is not None and known[1] != found_hash:
            raise Conflict(
                f"Template {known[0].ref} is published already with another content; a version never changes.",
                code="template_immutable",
                next_step=f"Give the changed template a new version, for example {_next(max(versions))}.",
                detail={"template": template.ref, "published": known[1], "offered": found_hash},
            )
        versions[order] = (template, found_hash)
        self._by_hash[found_hash] = template
        return found_hash

    def latest(self, name: str) -> tuple[Template, str]:
        """The newest version of ``name``, or exactly ``name@version``, with its hash.

        Raises ``NotFound`` (``unknown_template``), or ``InvalidInput`` when it is no name at all.
        """
        wanted, version = parse_ref(name)
        versions = self._by_name.get(wanted, {})
        found = versions.get(_order(version)) if version else versions.get(max(versions, default=()))
        if found is None:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise NotFound(
                f"There is no template {name!r}.",
                code="unknown_template",
                next_step=f"Use a published one: {known}.",
            )
        return found

    def pinned(self, template_hash: str) -> Template:
        """The definition with this hash. Raises ``NotFound`` (``unknown_template``)."""
        found = self._by_hash.get(template_hash)
        if found is None:
            raise NotFound(f"There is no template with the hash {template_hash}.", code="unknown_template")
        return found

    def for_signal(self, type: str) -> tuple[Template, ...]:
        """The newest version of each template, where it may be started by a signal of this type."""
        return tuple(item for item in self._newest() if any(start.type == type for start in item.on_signal))

    def scheduled(self) -> tuple[Template, ...]:
        """The newest version of each template, where it is started at times."""
        return tuple(item for item in self._newest() if item.on_schedule)

    def _newest(self) -> list[Template]:
        return [versions[max(versions)][0] for _, versions in sorted(self._by_name.items())]

    def all(self) -> tuple[tuple[Template, str], ...]:
        """Every version with its hash: by name, the newest first."""
        return tuple(
            versions[order] for _, versions in sorted(self._by_name.items()) for order in sorted(versions, reverse=True)
        )


def _next(order: tuple[int, ...]) -> str:
    return f"{order[0]}.{order[1]}.{order[2] + 1}" if any(order[1:]) else str(order[0] + 1)


def bundled_templates() -> dict[str, str]:
    """The text of each template that comes with Charter, by its name."""
    folder = resources.files("charter.manifests") / "bundled"
    files = sorted((item for item in folder.iterdir() if item.name.endswith(".yaml")), key=lambda item: item.name)
    return {item.name.removesuffix(".yaml"): item.read_text(encoding="utf-8") for item in files}
