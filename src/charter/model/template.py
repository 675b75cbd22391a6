"""Workflow definitions: ``name@version``, content-hashed, immutable once published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from charter.model.approval import Requirement
from charter.model.base import Json, JsonObject, Model, Name

StepType = Literal["agent", "action", "approval", "condition", "wait", "notification", "external"]
OnFailure = Literal["skip", "fail_workflow"]


class StepBase(Model):
    """What every step has. ``needs`` are the steps it waits for; ``if`` is a CEL condition. Times are seconds."""

    id: Name
    title: str | None = None
    needs: tuple[str, ...] | None = Field(default=None, description="Default: the step before it.")
    condition: str | None = Field(default=None, alias="if")

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class AgentStep(StepBase):
    """Opens an invocation for an agent, until it completes the step.

    ``allowed_tools`` are names; ``*`` at the end of one matches the rest.
    """

    type: Literal["agent"]
    instructions: str = ""
    agent: str | None = Field(
        default=None, description="An agent's id or role:NAME; default: who started the workflow."
    )
    allowed_tools: tuple[str, ...] = ()
    calls: int = Field(default=1000, ge=0, description="How many tool calls the invocation may make.")
    expires_after_seconds: int = Field(default=86_400, ge=1)
    output_schema: JsonObject | None = None


class ActionStep(StepBase):
    """A governed tool call by the workflow itself."""

    type: Literal["action"]
    tool: str
    arguments: JsonObject = Field(default_factory=dict)
    reason: str = ""
    on_failure: OnFailure = "fail_workflow"


class ApprovalStep(StepBase):
    """People decide whether the workflow goes on."""

    type: Literal["approval"]
    question: str
    show: Json = None
    requirements: tuple[Requirement, ...] = (Requirement(),)
    risk: Literal["low", "medium", "high"] = "medium"
    expires_after_seconds: int = Field(default=86_400, ge=1)


Step = Annotated[AgentStep | ActionStep | ApprovalStep, Field(discriminator="type")]


class Template(Model):
    """A workflow definition in its native form."""

    name: Name
    version: str = Field(pattern=r"^[0-9]+(\.[0-9]+){0,2}$")
    title: str | None = None
    description: str = ""
    input_schema: JsonObject = Field(default_factory=lambda: {"type": "object"}, alias="input")
    steps: tuple[Step, ...] = Field(min_length=1)
    output: Json = None

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    def needs_of(self, index: int) -> tuple[str, ...]:
        """The steps that step number ``index`` waits for: what it says, else the one before it."""
        step = self.steps[index]
        if step.needs is not None:
            return step.needs
        return (self.steps[index - 1].id,) if index else ()
