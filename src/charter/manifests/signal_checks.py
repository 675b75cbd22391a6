"""What is wrong with how a template is started by signals and times, and with what its ``signal`` steps say.

A problem is where it is (a JSON pointer), what is wrong, and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from charter.errors import CharterError
from charter.manifests import cron
from charter.manifests.arguments import check_value, compile_schema
from charter.model.placeholders import expressions_in
from charter.model.signal import reserved
from charter.model.template import SignalStep, Template

Problem = tuple[str, str, str]
TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
_NAMES = re.compile(r"(?<![\w.])(trigger|steps|workflow|signal|schedule)\b")
_READS: Final = {"on_signal": "signal", "on_schedule": "schedule"}


def problems(template: Template) -> Iterator[Problem]:
    """Times that never come, inputs that do not fit, and types that are Charter's own."""
    names = [item.name for item in template.on_schedule]
    for index, schedule in enumerate(template.on_schedule):
        where = f"/on_schedule/{index}"
        if schedule.name in names[:index]:
            yield f"{where}/name", f"two schedules are called {schedule.name!r}", "Give each its own name."
        if (wrong := cron.problem(schedule.cron, schedule.time_zone)) is not None:
            yield (
                f"{where}/cron",
                wrong,
                "Write five fields, such as 0 9 * * MON-FRI, and a zone such as Europe/Berlin.",
            )
        if not any(True for _ in expressions_in(schedule.input)):
            yield from _input(template, where, schedule.input)
    for index, step in enumerate(template.steps):
        if isinstance(step, SignalStep) and reserved(step.signal.type, ""):
            text = f"signals of type {step.signal.type!r} are Charter's own"
            yield f"/steps/{index}/signal/type", text, "Choose a type that does not begin with workflow. or approval."


def _input(template: Template, where: str, value: object) -> Iterator[Problem]:
    try:
        schema = compile_schema(template.input_schema, what="The schema")
    except CharterError:
        return  # said where the schema stands
    try:
        check_value(schema, value, what="The input of the schedule")
    except CharterError as error:
        yield f"{where}/input", error.message, "Give an input that the template's `input` schema takes."


def said(template: Template) -> Iterator[tuple[int, str]]:
    """The number of each ``signal`` step, with each CEL source in what it says."""
    for index, step in enumerate(template.steps):
        if isinstance(step, SignalStep):
            for source in (*expressions_in(step.signal.subject), *expressions_in(step.signal.data)):
                yield index, source


def sources(template: Template) -> Iterator[tuple[str, str]]:
    """Pointer and CEL source of what is read before a run starts."""
    for index, start in enumerate(template.on_signal):
        if start.where is not None:
            yield f"/on_signal/{index}/where", start.where
    for index, schedule in enumerate(template.on_schedule):
        for source in expressions_in(schedule.input):
            yield f"/on_schedule/{index}/input", source


def misread(where: str, source: str) -> Iterator[Problem]:
    """What an expression before the start reads and there is not yet."""
    known = _READS[where.split("/")[1]]
    for name in dict.fromkeys(_NAMES.findall(TEXT.sub('""', source))):
        if name != known:
            yield where, f"there is no {name!r} before the run starts", f"Read `{known}` alone here."
