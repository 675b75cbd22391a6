"""An agent step as a phase: the artifacts it hands over, rules for its tools' arguments, checks of its gate, ways back."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from charter.model.base import JsonObject, Model, Name

Severity = Literal["blocking", "warning"]
CheckKind = Literal["expression", "schema", "evidence", "question"]


class Artifact(Model):
    """Something that an agent must hand over: one JSON document, or a list of at least ``min_count`` of them."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: Name
    description: str = Field(default="", description="What the agent reads.")
    document_schema: JsonObject = Field(
        default_factory=dict, alias="schema", description="JSON Schema of one document. Default: any."
    )
    min_count: int | None = Field(
        default=None, ge=1, description="With it the artifact is a list of at least so many documents."
    )


def artifacts_schema(artifacts: tuple[Artifact, ...]) -> JsonObject:
    """JSON Schema of a map of these artifacts. Each keeps its own ``#`` by an ``$id``, as a schema inside another has."""
    properties: JsonObject = {}
    for item in artifacts:
        inner = {"$id": f"urn:charter:artifact:{item.name}", **item.document_schema}
        if item.description:
            inner.setdefault("description", item.description)
        listed = {"type": "array", "minItems": item.min_count, "items": inner}
        properties[item.name] = inner if item.min_count is None else listed
    return {"type": "object", "required": list(properties), "additionalProperties": False, "properties": properties}


class ArgumentRule(Model):
    """What one argument of a tool must be. A call whose arguments break a rule is denied, whatever a policy says.

    ``path``: relative POSIX paths and globs (``*`` and ``?`` within a name, ``**`` over folders). ``command``: a command
    line that begins with one of these words and holds nothing that a shell would read as more than one command.
    ``pattern``: RE2, which must match the whole text. What is forbidden outweighs what is allowed; an argument that is
    not there, or no text and no list of texts, breaks the rule.
    """

    tool: str = Field(description="Governed names; a * at the end matches the rest.")
    argument: Name = Field(description="The name of the argument.")
    kind: Literal["path", "command", "pattern"]
    allowed: tuple[str, ...] | None = Field(default=None, description="One of these must match. Default: anything.")
    forbidden: tuple[str, ...] = Field(default=(), description="None of these may match.")
    optional: bool = Field(default=False, description="The argument may be left out.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.allowed is None and not self.forbidden:
            raise ValueError("A rule names what is allowed or what is forbidden.")
        return self


class Evidence(Model):
    """A tool call that Charter makes itself, governed like every other, to judge by its result."""

    tool: str = Field(description="Its governed name: server__tool.")
    arguments: JsonObject = Field(
        default_factory=dict, description="What it is called with; may hold {{ CEL }} over artifacts and the run."
    )


class Check(Model):
    """One condition of a gate: CEL, a JSON Schema, CEL over evidence, or a question to people.

    A check that has no value (a field is missing, the tool did not run) has not passed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    id: Name
    message: str = Field(default="", description="What the agent reads when it has not passed.")
    severity: Severity = Field(default="blocking", description="A warning is put on record and hinders nothing.")
    expression: str | None = Field(
        default=None,
        description="CEL over artifacts, params, trigger, steps and workflow; with `evidence` over that too.",
    )
    document_schema: JsonObject | None = Field(
        default=None,
        alias="schema",
        description="JSON Schema of the artifact, or of all artifacts where none is named.",
    )
    artifact: Name | None = Field(default=None, description="The artifact that `schema` is about.")
    evidence: Evidence | None = Field(default=None, description="What Charter calls; `expression` judges its result.")
    question: str | None = Field(default=None, description="What the gate's approver must answer; no means not passed.")
    params: JsonObject = Field(default_factory=dict, description="Values that the expression reads as params.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if [self.expression, self.document_schema, self.question].count(None) != 2:
            raise ValueError("A check has one of `expression`, `schema` and `question`.")
        if self.evidence is not None and self.expression is None:
            raise ValueError("An `expression` judges the evidence; it reads it as evidence.")
        if self.artifact is not None and self.document_schema is None:
            raise ValueError("`artifact` is what a `schema` is about.")
        return self

    @property
    def kind(self) -> CheckKind:
        """How it is judged."""
        if self.evidence is not None:
            return "evidence"
        if self.expression is not None:
            return "expression"
        return "question" if self.question is not None else "schema"


class CheckResult(Model):
    """What became of one check: ``error`` means that it had no value, which is not passed."""

    check: Name
    kind: CheckKind
    severity: Severity
    outcome: Literal["passed", "failed", "error"]
    message: str = Field(default="", description="What the template says of it.")
    detail: str = Field(default="", description="What was found, computed by Charter or said by a person.")

    @property
    def blocks(self) -> bool:
        """It keeps the gate shut."""
        return self.severity == "blocking" and self.outcome != "passed"

    def text(self) -> str:
        """In one line."""
        return f"{self.check}: {' '.join(filter(None, (self.message, self.detail))) or self.outcome}"


class GateChecked(Model):
    """Checks of an agent step's gate were made. ``waiting``: others are still open; ``blocked``: it stays shut."""

    step_id: str
    attempt: int
    outcome: Literal["open", "blocked", "waiting"]
    results: tuple[CheckResult, ...] = ()
    handed_in_by: str
    handed_in_by_kind: str
    returned: tuple[str, ...] = Field(default=(), description="Why the work goes back to the agent.")


class PhaseWentBack(Model):
    """The run goes back to an earlier agent step; what came after it is done again."""

    from_step: str
    to_step: str
    on: Literal["passed", "blocked", "rejected"]
    returned: tuple[str, ...] = Field(default=(), description="Why.")
    visit: int = Field(description="The number of the visit that begins, from 2.")


class GoBack(Model):
    """A way back to an earlier agent step: it and all that comes after it is done again.

    ``passed``: the gate has opened (or there is none); ``blocked``: a blocking check has not passed; ``rejected``: people
    said no.
    """

    to: Name = Field(description="An agent step that this one comes after, or itself.")
    on: Literal["passed", "blocked", "rejected"] = "blocked"
    when: str | None = Field(
        default=None,
        description="CEL over artifacts, trigger, steps and workflow; only if it is true. `passed` needs it.",
    )

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.on == "passed" and self.when is None:
            raise ValueError("A way back from a gate that has opened needs a `when`, or the run would never go on.")
        return self
