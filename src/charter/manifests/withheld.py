"""What of a run's input is not for the record: all that its template puts into arguments that a tool calls sensitive.

Found by reading the template against the tools, before the run starts. Where the reading cannot be exact it takes more of the
input than need be, never less; and what is withheld may be read nowhere else, so it cannot come on record by another way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from charter.manifests.expression_places import sources
from charter.manifests.finding import TEXT
from charter.manifests.outbound_checks import outbound_sources
from charter.manifests.redaction import parse_pointer
from charter.model.base import Json
from charter.model.placeholders import expressions_in, whole
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

Path = tuple[str, ...]
_DEEPEST: Final = 8
_PART: Final = r"""(?:\.[A-Za-z_]\w*(?!\w*\s*\()|\[\s*(?:"[^"\\]*"|'[^'\\]*'|\d+)\s*\])"""
_READ: Final = re.compile(rf"(?<![\w.])trigger\b((?:{_PART})*)")
_NAME: Final = re.compile(r"""\.([A-Za-z_]\w*)|\[\s*(?:"([^"\\]*)"|'([^'\\]*)'|(\d+))\s*\]""")
_CALLS: Final = re.compile(r"(arguments|input|url|headers|body|webhook|email)\b|.*/arguments$")
_SHOWN: Final = re.compile(r"(^|/)(instructions|question|show|output|signal)$")
_OUTPUT: Final = re.compile(r"""(?<![\w.])steps(?:\.([A-Za-z_]\w*)|\[\s*["']([^"']*)["']\s*\])\.output\b""")
_HTTP: Final = (("headers",), ("body",))


@dataclass(frozen=True, slots=True)
class Here:
    """What is asked of the installation: a tool's manifest, and a child's template in its present version."""

    tool: Callable[[str], ToolManifest | None]
    template: Callable[[str], Template | None]


@dataclass(frozen=True, slots=True)
class Problem:
    """``where`` is a JSON pointer into the template."""

    where: str
    text: str
    mend: str


@dataclass(frozen=True, slots=True)
class _Call:
    """What a step hands to a tool or a child, and the parts of it that are sensitive there."""

    where: str
    value: Json
    sensitive: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Use:
    """One expression: where it stands, what of the input it reads, and how much of that its place withholds.

    ``covers``: None for nothing, ``((),)`` for all of what is read, else the parts below it (then ``reads`` is one path).
    """

    where: str
    reads: tuple[Path, ...]
    covers: tuple[Path, ...] | None
    shows: bool = False
    """It is one path within ``{{ }}`` that nothing is made of: what is withheld within it is shown as withheld."""


def withheld(template: Template, here: Here, depth: int = 0) -> tuple[str, ...]:
    """JSON pointers (``*`` matches each member) into the input, those of what runs of this template withhold; ``""`` is all."""
    if depth > _DEEPEST:
        return ()
    found: set[Path] = set()
    for step in template.steps:
        for use in _call_uses(step, "", here, depth, sensitive=True):
            for path in use.reads:
                found.update(path + rest for rest in use.covers or ())
    return tuple(sorted(map(_pointer, {path for path in found if not _within_another(path, found)})))


def problems(template: Template, pointers: tuple[str, ...], here: Here) -> Iterator[Problem]:
    """Where what is withheld would be read and not be withheld: runs are not started while there is one."""
    if not pointers:
        return
    paths = tuple(parse_pointer(pointer) for pointer in pointers)
    for index in range(len(template.on_signal)):
        yield Problem(
            f"/on_signal/{index}",
            f"{_told(paths[0])} goes into a sensitive argument, and a signal's data is on record in the clear",
            "Start it with start_workflow or as a step of another workflow, or let the signal name where the value is kept.",
        )
    for index, step in enumerate(template.steps):
        yield from _of_uses(_call_uses(step, f"/steps/{index}", here, 0), paths)
    yield from _of_uses(_other_uses(template), paths)


def handed_over(template: Template, here: Here) -> Iterator[Problem]:
    """Where what an agent hands over, which is on record as it is, goes into a sensitive argument."""
    agents = {step.id for step in template.steps if isinstance(step, AgentStep)}
    for index, step in enumerate(template.steps):
        for call in _calls(step, f"/steps/{index}", here, 0):
            named = {name for source in _sensitive_sources(call.value, (), call) for name in _OUTPUT.findall(source)}
            for name in sorted(agents.intersection(part for parts in named for part in parts)):
                yield Problem(
                    call.where,
                    f"what step {name!r} hands over is on record in the clear, and goes into a sensitive argument",
                    "Let the agent make this call itself; the arguments are sealed then.",
                )


def _sensitive_sources(value: Json, at: Path, call: _Call) -> Iterator[str]:
    for place, text in _texts(value, at):
        if _covered(place, call.sensitive, plain=False) is not None:
            yield from expressions_in(text)


def step_problem(step: Step, pointers: tuple[str, ...], here: Here) -> str | None:
    """Why a step's call may not be made with what is withheld, as the tools are now; None when it may."""
    paths = tuple(parse_pointer(pointer) for pointer in pointers)
    return next((item.text for item in _of_uses(_call_uses(step, "", here, 0), paths)), None)


def reads(step: Step, pointers: tuple[str, ...], here: Here) -> bool:
    """Whether the step's call needs what is withheld."""
    paths = tuple(parse_pointer(pointer) for pointer in pointers)
    uses = _call_uses(step, "", here, 0)
    return any(_meet(path, wanted) for use in uses for path in use.reads for wanted in paths)


# -- problems


def _of_uses(uses: Iterator[_Use], paths: tuple[Path, ...]) -> Iterator[Problem]:
    for use in uses:
        if use.covers is not None and () in use.covers:
            continue
        for path in use.reads:
            kept = {path + rest for rest in use.covers or ()}
            for wanted in paths:
                if not _meet(path, wanted) or (use.shows and len(path) < len(wanted)):
                    continue
                if not any(_starts(wanted, item) for item in kept):
                    yield Problem(
                        use.where,
                        f"{_told(wanted)} goes into a sensitive argument of a step, and this would put it on record",
                        "Leave it out here, or let the tool's manifest call this argument sensitive too.",
                    )
                    return


def _told(path: Path) -> str:
    return f"'trigger{''.join(f'.{part}' for part in path)}'"


def _starts(path: Path, begin: Path) -> bool:
    """Whether ``path`` is ``begin`` or below it; a star is any name."""
    return len(path) >= len(begin) and all(b in (a, "*") for a, b in zip(path, begin, strict=False))


def _meet(one: Path, other: Path) -> bool:
    """Whether one is the other, above it or below it."""
    return all(a == b or "*" in (a, b) for a, b in zip(one, other, strict=False))


def _within_another(path: Path, all_paths: set[Path]) -> bool:
    return any(other != path and _starts(path, other) for other in all_paths)


def _pointer(path: Path) -> str:
    return "".join(f"/{part.replace('~', '~0').replace('/', '~1')}" for part in path)


# -- what expressions read


def _paths_of(source: str) -> tuple[Path, ...]:
    """The parts of the input that an expression names; the whole input where it is not plain which."""
    texts = [found.span() for found in TEXT.finditer(source)]
    found: dict[Path, None] = {}
    for read in _READ.finditer(source):
        if not any(begin < read.start() < end for begin, end in texts):
            found[tuple(next(filter(None, part), "") for part in _NAME.findall(read[1]))] = None
    return tuple(found)


def _plain(source: str) -> bool:
    return _READ.fullmatch(source.strip()) is not None


def _other_uses(template: Template) -> Iterator[_Use]:
    """What is no call's: conditions, and texts that are shown."""
    for where, source, step in sources(template):
        field = "/".join(where.split("/")[3:]) if step is not None else where[1:]
        if not _CALLS.match(field) and not where.startswith("/on_"):
            shows = _SHOWN.search(field) is not None and _plain(source)
            yield _Use(where, _paths_of(source), None, shows)


# -- calls


def _call_uses(step: Step, where: str, here: Here, depth: int, *, sensitive: bool = False) -> Iterator[_Use]:
    for call in _calls(step, where, here, depth):
        if call.sensitive or not sensitive:
            yield from _in_value(call.value, (), call)


def _in_value(value: Json, at: Path, call: _Call) -> Iterator[_Use]:
    for place, text in _texts(value, at):
        alone = whole(text)
        covers = _covered(place, call.sensitive, plain=alone is not None and _plain(alone))
        for source in expressions_in(text):
            yield _Use(call.where, _paths_of(source), covers)


def _texts(value: Json, at: Path) -> Iterator[tuple[Path, str]]:
    """Every text of a JSON value, with its place."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*at, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _texts(item, (*at, str(index)))
    elif isinstance(value, str):
        yield at, value


def _covered(at: Path, sensitive: tuple[Path, ...], *, plain: bool) -> tuple[Path, ...] | None:
    """What of a value at this place is withheld: all of it, where it is more than one path also when only a part is."""
    if any(_starts(at, item) for item in sensitive):
        return ((),)
    below = tuple(item[len(at) :] for item in sensitive if _starts_loosely(item, at))
    if not below:
        return None
    return below if plain else ((),)


def _starts_loosely(path: Path, begin: Path) -> bool:
    return len(path) > len(begin) and _meet(path, begin)


def _calls(step: Step, where: str, here: Here, depth: int) -> Iterator[_Call]:
    if isinstance(step, ActionStep):
        yield _Call(f"{where}/arguments", step.arguments, _sensitive(step.tool, here))
    if (undo := compensation(step)) is not None and undo.tool is not None:
        yield _Call(f"{where}/compensate/arguments", undo.arguments, _sensitive(undo.tool, here))
    if isinstance(step, ChildStep):
        child = here.template(step.template)
        kept = withheld(child, here, depth + 1) if child is not None else ()
        yield _Call(f"{where}/input", step.input, tuple(map(parse_pointer, kept)))
    if isinstance(step, WaitStep) and step.poll is not None:
        yield _Call(f"{where}/poll/arguments", step.poll.arguments, _sensitive(step.poll.tool, here))
    if isinstance(step, ExternalStep):
        sent: Json = {"url": step.url, "headers": step.headers, "body": step.body}
        yield _Call(where, sent, _HTTP if step.sensitive else ())
    if isinstance(step, NotificationStep):
        yield _Call(where, [source for _, source in _in_braces(step)], ())
    if isinstance(step, AgentStep) and step.gate is not None:
        for number, check in enumerate(step.gate.checks):
            if check.evidence is not None:
                place = f"{where}/gate/checks/{number}/evidence/arguments"
                yield _Call(place, check.evidence.arguments, _sensitive(check.evidence.tool, here))


def _in_braces(step: NotificationStep) -> Iterator[tuple[str, str]]:
    for place, source in outbound_sources(step):
        yield place, "{{ " + source + " }}"


def _sensitive(tool: str, here: Here) -> tuple[Path, ...]:
    manifest = here.tool(tool)
    return () if manifest is None else tuple(map(parse_pointer, manifest.sensitive_arguments))
