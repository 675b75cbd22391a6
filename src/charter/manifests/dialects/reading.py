"""Reading somebody else's document: each field once, with its place, and everything that is not understood told.

What is read is taken; what is left over at the end was not understood. A document that says something which Charter would
not do is refused, so nothing that matters is dropped in silence; what does not matter is listed.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from charter.errors import CharterError
from charter.manifests.finding import Finding
from charter.model.base import Json, JsonObject


class UnreadableError(Exception):
    """A part of the document that cannot be read on; why is among the findings already."""


@dataclass(slots=True)
class Notes:
    """What was found on the way; ``unbound`` is what only configuration can resolve."""

    findings: list[Finding] = field(default_factory=list)
    unbound: list[Unbound] = field(default_factory=list)

    def error(self, where: str, text: str, mend: str) -> None:
        """It cannot be loaded."""
        self.findings.append(Finding("error", where, text, mend))

    def warn(self, where: str, text: str, mend: str) -> None:
        """It loads, and its author should know."""
        self.findings.append(Finding("warning", where, text, mend))


@dataclass(frozen=True, slots=True)
class Unbound:
    """A name that configuration does not say the meaning of. ``needed``: without it the template cannot run at all."""

    where: str
    text: str
    mend: str
    needed: bool = False


class Node:
    """A map of the document at a place. Reading a field takes it; :meth:`done` tells what is left."""

    def __init__(self, value: Json, where: str, notes: Notes, what: str) -> None:
        if not isinstance(value, dict):
            notes.error(where, f"{what} is a map, and this is {_kind(value)}", "Write a map here.")
            raise UnreadableError
        self._left = dict(value)
        self._names = tuple(value)
        self.where, self.notes, self.what = where, notes, what

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def at(self, name: str | int) -> str:
        """The place of a field."""
        return place(self.where, name)

    def take(self, name: str, default: Json = None) -> Json:
        """The field's value, whatever it is."""
        return self._left.pop(name, default)

    def text(self, *names: str, default: str | None = None) -> str:
        """A text that is not empty, under the first of these names that is there. Without it and a default: an error."""
        for name in names:
            if name in self._left:
                value = self._left.pop(name)
                if isinstance(value, str) and value.strip():
                    return value
                self._wrong(name, "a text", value)
        if default is None:
            raise self._missing(names[0])
        return default

    def whole(self, name: str, default: int | None = None, *, least: int = 0) -> int | None:
        """A whole number of at least ``least``; a float with no fraction is one."""
        value: object = self._left.pop(name, None)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return value
        self._wrong(name, f"a whole number from {least}", value)
        return default

    def seconds(self, **units: int) -> int | None:
        """A length of time under one of these names, each with its unit in seconds: ``timeout_hours=3600``."""
        found: int | None = None
        for name, unit in units.items():
            value = self._left.pop(name, None)
            if value is None:
                continue
            if type(value) not in (int, float) or not 0 < value <= 315_360_000 / unit or found is not None:
                self._wrong(name, "one length of time, more than nothing and at most ten years", value)
                continue
            found = max(1, round(value * unit))
        return found

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._left.pop(name, default)
        if not isinstance(value, bool):
            self._wrong(name, "true or false", value)
            return default
        return value

    def one_of(self, name: str, known: Collection[str], default: str | None = None) -> str | None:
        """One of these words."""
        value = self._left.pop(name, default)
        if value is None or value in known:
            return value if value is None else str(value)
        near = _near(str(value), known)
        self.notes.error(
            self.at(name), f"{name} {str(value)[:80]!r} is not known", f"{near}Use one of: {', '.join(known)}."
        )
        return default

    def node(self, name: str, what: str, *, needed: bool = False) -> Node:
        """A map within; an empty one where it is missing and not needed."""
        if name not in self._left:
            if needed:
                raise self._missing(name)
            return Node({}, self.at(name), self.notes, what)
        return Node(self._left.pop(name), self.at(name), self.notes, what)

    def map(self, name: str) -> JsonObject:
        """A map that is taken as it is."""
        value = self._left.pop(name, None)
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(name, "a map", value)
            return {}
        return value

    def nodes(self, name: str, what: str) -> Iterator[Node]:
        """The maps of a list; one that is none is told and left out."""
        for index, item in enumerate(self._list(name)):
            try:
                yield Node(item, place(self.at(name), index), self.notes, what)
            except UnreadableError:
                continue

    def texts(self, name: str) -> list[tuple[str, str]]:
        """The texts of a list, each with its place."""
        out = []
        for index, item in enumerate(self._list(name)):
            if isinstance(item, str) and item.strip():
                out.append((item, place(self.at(name), index)))
            else:
                self.notes.error(
                    place(self.at(name), index), f"a text is needed, and this is {_kind(item)}", "Write a text."
                )
        return out

    def _list(self, name: str) -> list[Json]:
        value = self._left.pop(name, None)
        if value is None or isinstance(value, list):
            return value or []
        self._wrong(name, "a list", value)
        return []

    def map_names(self) -> tuple[str, ...]:
        """The names of the fields that were not taken yet."""
        return tuple(self._left)

    def ignore(self, *names: str) -> None:
        """Fields that only describe."""
        for name in names:
            self._left.pop(name, None)

    def unused(self, name: str, why: str) -> None:
        """A field that Charter does not carry out, which is told."""
        if self._left.pop(name, None) is not None:
            self.notes.warn(self.at(name), f"{name!r} is not carried out: {why}", "Leave it, or take it out.")

    def done(self, known: str = "") -> None:
        """Whatever is left was not understood."""
        for name in self._left:
            near = _near(name, [*known.split(), *self._names])
            mend = near or (f"What may stand here: {known}." if known else "Take it out.")
            self.notes.error(self.at(name), f"{name!r} is not known in {self.what}", mend)

    def _missing(self, name: str) -> UnreadableError:
        self.notes.error(self.where, f"{self.what} has no {name!r}", f"Add {name!r}.")
        return UnreadableError()

    def _wrong(self, name: str, wanted: str, value: Json) -> None:
        self.notes.error(self.at(name), f"{wanted} is needed, and this is {_kind(value)}", f"Correct {name!r}.")


def place(where: str, name: str | int) -> str:
    """The JSON pointer of a part."""
    return f"{where}/{str(name).replace('~', '~0').replace('/', '~1')}"


def _kind(value: Json) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    named: tuple[tuple[Any, str], ...] = ((str, "a text"), (int, "a number"), (float, "a number"), (list, "a list"))
    return next((name for kind, name in named if isinstance(value, kind)), "a map") + (
        f" ({str(value)[:40]})" if isinstance(value, int | float) else ""
    )


def _near(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, [item for item in known if item != name], n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


# -- names


def slug(text: str, between: str = "_") -> str:
    """A name made of a title: ``Check Amount Tier`` is ``check_amount_tier``. Empty where nothing of it can be kept."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", between, plain).strip(between)[:100]


def step_ids(titles: list[str]) -> list[str]:
    """An id for each title that expressions can name: no two are the same, none begins with a digit."""
    out: list[str] = []
    for number, title in enumerate(titles):
        made = slug(title) or f"step_{number}"
        made = f"step_{made}" if made[0].isdigit() else made
        found, count = made, 2
        while found in out:
            found, count = f"{made}_{count}", count + 1
        out.append(found)
    return out


def version_of(node: Node, default: str = "1") -> str:
    """``version`` as Charter writes it: one to three numbers. A leading v and what follows a hyphen are not kept."""
    value = node.take("version", default)
    text = str(value).strip().lower().removeprefix("v").partition("-")[0].partition("+")[0]
    if isinstance(value, bool) or re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9}){0,2}", text) is None:
        node.notes.error(node.at("version"), f"{str(value)[:40]!r} is no version", 'Write one to three numbers: "1.2".')
        return default
    return text


def tell(error: CharterError, node: Node, name: str) -> None:
    """An error of the bindings or of a value, at its place."""
    node.notes.error(node.at(name), error.message, error.next_step)
