"""Approvers that no principal can be: people and roles that this installation has not, and parts that nobody is left for."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Literal

from charter.manifests.finding import Finding
from charter.model.approval import Requirement
from charter.model.principal import person_key
from charter.model.template import AgentStep, ApprovalStep, Step, Template

Level = Literal["error", "warning"]


def _approvals(step: Step, where: str) -> Iterator[tuple[ApprovalStep, str]]:
    """The question that a step asks people, and where it stands."""
    if isinstance(step, ApprovalStep):
        yield step, where
    elif isinstance(step, AgentStep) and step.gate is not None and step.gate.approval is not None:
        yield step.gate.approval, f"{where}/gate/approval"


def _asked(step: Step, where: str) -> Iterator[tuple[Requirement, str]]:
    for approval, place in _approvals(step, where):
        for name, items in (("requirements", approval.requirements), ("escalations", approval.escalations)):
            yield from ((item, f"{place}/{name}/{number}") for number, item in enumerate(items))


def roles(step: Step, where: str) -> Iterator[tuple[str, str]]:
    """The roles that are asked, each with its place."""
    yield from ((f"{place}/role", item.role) for item, place in _asked(step, where) if item.role)


def strangers(
    step: Step, where: str, people: Collection[str] | None, agents: Collection[str] | None, level: Level
) -> Iterator[Finding]:
    """Who is named and is not among the people of this installation, nor an agent that may be asked; None: nobody said who
    there is."""
    if people is None:
        return
    known = {person_key(name) for name in people}
    for item, place in _asked(step, where):
        others = set() if item.people_only else {person_key(name) for name in agents or ()}
        for number, name in enumerate(item.people):
            if person_key(name) not in known | others:
                mend = "Add them to `people` of [workflows], or correct the name."
                yield Finding(level, f"{place}/people/{number}", f"there is nobody called {name!r} here", mend)


def findings(template: Template) -> Iterator[Finding]:
    """Questions that the people they name can never answer together: each counts in one requirement only."""
    if template.separation_of_duties == "none":
        return
    for index, step in enumerate(template.steps):
        for approval, place in _approvals(step, f"/steps/{index}"):
            if not _enough(approval.requirements):
                text = "fewer people are named than must agree: nobody counts in two requirements of one question"
                mend = "Name more people, ask for fewer, or write `separation_of_duties: none`."
                yield Finding("error", f"{place}/requirements", text, mend)


def _enough(requirements: tuple[Requirement, ...]) -> bool:
    """Whether each place of those that name people can have a person of its own."""
    places = [
        {person_key(name) for name in item.people}
        for item in requirements
        if item.people
        for _ in range(item.approvers)
    ]
    taken: dict[str, int] = {}

    def seated(place: int, tried: set[str]) -> bool:
        for person in sorted(places[place] - tried):
            tried.add(person)
            if person not in taken or seated(taken[person], tried):
                taken[person] = place
                return True
        return False

    return all(seated(place, set()) for place in range(len(places)))
