"""What a tool answers where none is called: written by hand, or recorded from a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field

from charter.model.base import Json, Model

DRY_RUN: Final = "io.charter/dry-run"
FIXTURE: Final = "io.charter/fixture"
"""In an outcome's metadata: which fixture answered. A dry run's answer without it is made up."""


class Fixture(Model):
    """What a tool answers: ``output`` (structured) or ``text``; or ``error``, and whether it ``ran`` all the same.

    ``ran``: ``answered`` (it ran and told of the error), ``no`` (it certainly did not run), ``unknown`` (the call is in
    doubt, unless the tool is idempotent or has no side effects).
    """

    output: Json = None
    text: str | None = None
    error: str | None = None
    code: str = "simulated_error"
    ran: Literal["answered", "no", "unknown"] = "answered"


Answers = Mapping[str, Fixture | tuple[Fixture, ...]]
"""By step for the workflow's own calls, by tool name for all; of a list the last one answers from then on."""


class Fixtures(Model):
    """A set of them."""

    answers: dict[str, Fixture | tuple[Fixture, ...]] = Field(default_factory=dict)


def nth(found: Fixture | tuple[Fixture, ...], number: int) -> Fixture:
    """What answers call number ``number``, counted from 1."""
    if isinstance(found, Fixture):
        return found
    return found[min(number, len(found)) - 1] if found else Fixture()
