"""What the names in other people's documents mean in this installation: read from ``NAME.bindings.yaml`` beside the document.

``bindings.yaml`` holds for all documents of the folder; what the document's own file says comes first.
"""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field, StringConstraints, ValidationError, model_validator

from charter.errors import Misconfigured
from charter.manifests.yaml_text import load
from charter.model.approval import Requirement
from charter.model.base import JsonObject, Model, Name
from charter.model.phase import Check

CODE: Final = "bad_bindings"
SUFFIX: Final = ".bindings.yaml"
Word = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+){0,2}$")]


class ActionBinding(Model):
    """A governed tool for the name of an action; ``rename`` gives its arguments' names for theirs, ``arguments`` adds some."""

    tool: Word
    rename: dict[Word, Name] = Field(default_factory=dict)
    arguments: JsonObject = Field(default_factory=dict, description="May hold {{ CEL }}.")


class ToolBinding(Model):
    """Governed tools for the name of a tool, and which of their arguments is the path and which the command."""

    tools: tuple[Word, ...]
    path: Name = "path"
    command: Name = "command"


class AgentBinding(Model):
    """Who works on a step, and with what instructions and budget; what is left out stays as the document or Charter has it."""

    agent: Word | None = None
    instructions: str | None = None
    allowed_tools: tuple[Word, ...] | None = None
    calls: int | None = Field(default=None, ge=0)
    expires_after_seconds: int | None = Field(default=None, ge=1)
    max_visits: int | None = Field(default=None, ge=1, le=50)


class CheckBinding(Check):
    """What the name of a check means. ``severity`` and ``message`` are the document's own."""

    id: Name = "bound"


class Bindings(Model):
    """See the module's text. Every map is from a name in the documents to what it means here."""

    name: Name | None = Field(default=None, description="The template's name in Charter. Default: made of the title.")
    version: Version | None = Field(default=None, description="Its version; a changed binding needs a new one.")
    signals: dict[Word, Name] = Field(default_factory=dict, description="Triggers, to types of signals.")
    actions: dict[Word, ActionBinding] = Field(default_factory=dict)
    tools: dict[Word, ToolBinding] = Field(default_factory=dict)
    agents: dict[Word, AgentBinding] = Field(default_factory=dict, description="By slug, or by the id of a phase.")
    roles: dict[Word, Name] = Field(default_factory=dict)
    addresses: dict[Word, tuple[Word, ...]] = Field(default_factory=dict, description="E-mail addresses, by names.")
    webhook_secret: Name | None = Field(default=None, description="The secret that signs webhooks which name none.")
    approvers: dict[Word, Requirement] = Field(default_factory=dict, description="By the names that gates give them.")
    gate_approvers: tuple[Requirement, ...] | None = Field(
        default=None, description="Who answers the questions of gates that name nobody."
    )
    checks: dict[Word, CheckBinding] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        """``actions: {pay: bank__pay}`` and ``tools: {grep: [files__search]}``, in full."""
        if not isinstance(value, dict):
            return value
        out = dict(value)
        for name, field, many in (("actions", "tool", False), ("tools", "tools", True), ("agents", "agent", False)):
            if isinstance(out.get(name), dict):
                out[name] = {key: _full(item, field, many) for key, item in out[name].items()}
        return out

    def over(self, common: Bindings) -> Bindings:
        """These where they say something, else the common ones."""
        out: JsonObject = {}
        for name in type(self).model_fields:
            mine, theirs = getattr(self, name), getattr(common, name)
            if isinstance(mine, dict):
                out[name] = {**theirs, **mine}
            else:
                out[name] = theirs if mine is None and name in ("gate_approvers", "webhook_secret") else mine
        return self.model_construct(**out)


def _full(item: object, field: str, many: bool) -> object:
    if isinstance(item, str):
        return {field: (item,) if many else item}
    return {field: item} if many and isinstance(item, list) else item


NONE: Final = Bindings()


def read_bindings(text: str, filename: str) -> Bindings:
    """The bindings in ``text``, YAML or JSON. Raises ``Misconfigured`` (``bad_bindings``) with file, line and mend."""
    document = load(text, filename, code=CODE)
    if document.value is None:
        return NONE
    try:
        return Bindings.model_validate(document.value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in first["loc"])
        known = ", ".join(Bindings.model_fields)
        unknown = first["type"] == "extra_forbidden"
        problem = f"{first['loc'][-1]!r} is not known here" if unknown else first["msg"].removeprefix("Value error, ")
        mend = f"At the top may stand: {known}; docs/dialects.md explains them."
        raise document.error(pointer, problem, mend, code=CODE) from None


def bindings_of(common: tuple[str, str] | None, own: tuple[str, str] | None) -> Bindings:
    """The bindings of a document from the folder's file and its own, each as text and name."""
    found = NONE if common is None else read_bindings(*common)
    if found.name is not None or found.version is not None:
        raise Misconfigured(
            f"{common[1] if common else ''}: `name` and `version` are of one document.",
            code=CODE,
            next_step=f"Write them into DOCUMENT{SUFFIX}.",
        )
    return found if own is None else read_bindings(*own).over(found)
