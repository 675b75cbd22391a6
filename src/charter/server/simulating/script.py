"""What a simulation is told: who answers what, and what tools answer."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from charter.errors import InvalidInput
from charter.model.approval import ApprovalVerdict
from charter.model.base import Json, JsonObject, Model, in_words
from charter.model.principal import Channel, PrincipalKind

NEVER = "timeout"
"""Nobody answers: the clock goes on until the template or the policy says what then."""

M = TypeVar("M", bound=Model)


class Later(Model):
    """Something that happens so long after it is waited for."""

    after_seconds: int = Field(default=0, ge=0)


class Answer(Later):
    """One person's (or agent's) answer to an approval."""

    decision: ApprovalVerdict
    by: str
    roles: tuple[str, ...] = ()
    kind: PrincipalKind = "human"
    channel: Channel = "console"
    comment: str | None = None
    edited_arguments: JsonObject | None = None


class AgentCall(Model):
    """A tool call of an agent."""

    tool: str
    arguments: JsonObject = Field(default_factory=dict)
    reason: str = ""


class Work(Later):
    """What an agent does in one visit of its step: its calls in order, then it hands over ``output`` (or ``artifacts``)."""

    output: Json = None
    artifacts: JsonObject | None = None
    calls: tuple[AgentCall, ...] = ()
    by: str | None = None
    roles: tuple[str, ...] = ()

    @property
    def handed_over(self) -> Json:
        """The output of ``complete_step``."""
        return self.artifacts if self.artifacts is not None else self.output


class Said(Later):
    """A signal from outside."""

    data: Json = None
    subject: str | None = None
    source: str = "simulation"


class Called(Later):
    """What the other system calls back with."""

    body: Json = None


class Review(Later):
    """What an operator says of a step that failed, or of a call that is in doubt."""

    resolution: Literal["retry", "skip", "supply", "fail", "ran", "did_not_run"]
    output: Json = None


class Starter(Model):
    """Who starts the run."""

    by: str = "author"
    kind: PrincipalKind = "human"
    roles: tuple[str, ...] = ("operator",)
    acts_for: str | None = None


Short = Literal["approve", "reject", "timeout"]
Never = Literal["timeout"]


class Script(Model):
    """The scripted decisions. A list is used up one by one; anything else answers each time it is asked."""

    start: Starter = Starter()
    approvals: dict[str, Short | Answer | tuple[Short | Answer, ...]] = Field(default_factory=dict)
    agents: dict[str, Never | Work | tuple[Never | Work, ...]] = Field(default_factory=dict)
    signals: dict[str, Never | Said | tuple[Never | Said, ...]] = Field(default_factory=dict)
    callbacks: dict[str, Never | Called | tuple[Never | Called, ...]] = Field(default_factory=dict)
    reviews: dict[str, Review | tuple[Review, ...]] = Field(default_factory=dict)


def read(model: type[M], value: Any, what: str) -> M:
    """The model of plain data. Raises ``InvalidInput`` naming each wrong member; values are not repeated."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = list(dict.fromkeys(f"{'.'.join(map(str, e['loc'])) or what}: {in_words(e['msg'])}" for e in found))
        raise InvalidInput(
            f"The {what} are not what they must be: {'; '.join(problems[:8])}.",
            code="bad_simulation",
            next_step="Correct them as docs/testing-templates.md says.",
        ) from None
