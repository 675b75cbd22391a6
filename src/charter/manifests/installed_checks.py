"""What only an installation can resolve: its tools, people, roles, agents, secrets, templates, and whether it sends e-mail."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from charter.manifests import approver_checks, phase_checks
from charter.manifests.finding import Finding
from charter.manifests.withheld import Here, handed_over, problems, withheld
from charter.model.outbound import SERVER
from charter.model.placeholders import expressions_in
from charter.model.template import (
    ActionStep,
    AgentStep,
    ChildStep,
    ExternalStep,
    NotificationStep,
    Step,
    Template,
    WaitStep,
    compensation,
)
from charter.model.tool import ToolManifest

Level = Literal["error", "warning"]
_SECRET: Final = re.compile(r"secrets\.([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")


@dataclass(frozen=True, slots=True)
class Installation:
    """The names that are known here. None: it is not known which there are, so none is missed."""

    tools: Collection[str] | None = None
    roles: Collection[str] | None = None
    agents: Collection[str] | None = None
    people: Collection[str] | None = None
    secrets: Collection[str] | None = None
    templates: Mapping[str, Template] | None = None
    """By ``name`` and by ``name@version``."""
    email: bool | None = None
    manifests: Mapping[str, ToolManifest] = field(default_factory=dict)
    """Of the tools, by their names."""


UNKNOWN: Final = Installation()


def findings(template: Template, here: Installation, level: Level) -> Iterator[Finding]:
    """What this installation does not have, and what of the input its tools would not let come on record."""
    known = Here(here.manifests.get, (here.templates or {}).get)
    for problem in problems(template, withheld(template, known), known):
        yield Finding(level, problem.where, problem.text, problem.mend)
    for problem in handed_over(template, known):
        yield Finding("warning", problem.where, problem.text, problem.mend)
    for index, step in enumerate(template.steps):
        where = f"/steps/{index}"
        if isinstance(step, ActionStep) and step.tool.startswith(f"{SERVER}__"):
            mend = "Use a step of `type: external` or `type: notification`."
            yield Finding("error", f"{where}/tool", "Charter's own tools have steps of their own", mend)
        for place, tool in _own_tools(step):
            if here.tools is not None and tool not in here.tools and not tool.startswith(f"{SERVER}__"):
                text = f"there is no governed tool {tool!r} here"
                mend = "Add its upstream with `charter upstream add`, or correct the name."
                yield Finding(level, f"{where}/{place}", text, mend)
        if isinstance(step, AgentStep):
            yield from _patterns(step, where, here.tools, level)
            yield from phase_checks.installed(step, where, here.tools, level)
            yield from _agent(step, where, here.agents, level)
        yield from _roles(step, where, here.roles, level)
        yield from approver_checks.strangers(step, where, here.people, here.agents, level)
        yield from _sending(step, where, here, level)
        if (
            isinstance(step, ChildStep)
            and here.templates is not None
            and step.template not in (*here.templates, template.name)
        ):
            text = f"there is no template {step.template!r} here"
            yield Finding(level, f"{where}/template", text, "Publish it first, or correct the name.")


def _agent(step: AgentStep, where: str, agents: Collection[str] | None, level: Level) -> Iterator[Finding]:
    if agents is None or step.agent is None or step.agent == "*" or step.agent.startswith("role:"):
        return
    if step.agent not in agents:
        mend = "Add it to `agents` of [workflows], or write the id of an agent, role:NAME or *."
        yield Finding(level, f"{where}/agent", f"there is no agent {step.agent!r} here", mend)


def _sending(step: Step, where: str, here: Installation, level: Level) -> Iterator[Finding]:
    if isinstance(step, NotificationStep) and step.email is not None and here.email is False:
        mend = "Set [email] host and sender in charter.toml, or notify by webhook."
        yield Finding(level, f"{where}/email", "no e-mail is sent from here", mend)
    for place, name in _secrets(step):
        if here.secrets is not None and name not in here.secrets:
            mend = f"Set it: `charter secret set {name}`."
            yield Finding(level, f"{where}/{place}", f"there is no secret {name!r} here", mend)


def _secrets(step: Step) -> Iterator[tuple[str, str]]:
    """Where a step names a secret, and which."""
    parts: list[tuple[str, object]] = []
    if isinstance(step, ExternalStep):
        parts = [("url", step.url), ("headers", step.headers), ("body", step.body)]
    if isinstance(step, NotificationStep) and step.webhook is not None:
        yield "webhook/secret", step.webhook.secret
        parts = [("webhook/url", step.webhook.url), ("webhook/data", step.webhook.data)]
    for place, value in parts:
        for source in expressions_in(value):
            if (found := _SECRET.fullmatch(source)) is not None:
                yield place, found[1]


def _own_tools(step: Step) -> Iterator[tuple[str, str]]:
    """Where a step names a tool that the workflow itself calls, and which."""
    if isinstance(step, ActionStep):
        yield "tool", step.tool
    if isinstance(step, WaitStep) and step.poll is not None:
        yield "poll/tool", step.poll.tool
    if (undo := compensation(step)) is not None and undo.tool is not None:
        yield "compensate/tool", undo.tool


def _patterns(step: AgentStep, where: str, tools: Collection[str] | None, level: Level) -> Iterator[Finding]:
    for number, pattern in enumerate(step.allowed_tools):
        place = f"{where}/allowed_tools/{number}"
        if "*" in pattern[:-1]:
            mend = "Write the whole name, or its beginning and a * at the end."
            yield Finding("error", place, f"{pattern!r} has a * before its end", mend)
        elif tools is not None and not any(_matches(pattern, tool) for tool in tools):
            text = f"{pattern!r} matches no governed tool here"
            yield Finding(level, place, text, "Add the upstream, correct the name, or take it out.")


def _matches(pattern: str, tool: str) -> bool:
    return tool.startswith(pattern[:-1]) if pattern.endswith("*") else tool == pattern


def _roles(step: Step, where: str, roles: Collection[str] | None, level: Level) -> Iterator[Finding]:
    if roles is None:
        return
    named: list[tuple[str, str]] = []
    if isinstance(step, AgentStep) and step.agent and step.agent.startswith("role:"):
        named.append((f"{where}/agent", step.agent[5:]))
    named += approver_checks.roles(step, where)
    for place, role in named:
        if role not in roles:
            yield Finding(level, place, f"nobody here has the role {role!r}", "Give it to somebody, or name another.")
