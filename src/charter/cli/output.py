"""What commands print. Strangers' text is made harmless first; ``--json`` is ASCII, so it is harmless as it is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from charter.manifests.plain_text import one_line, plain
from charter.model.joiners import JOINERS, needed
from charter.model.next_steps import said_at

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.", show_default=False)]
_UNBOUNDED = 100_000


def safe(text: str) -> str:
    """Our own text of several lines that may quote strangers: hidden characters are taken out, line by line."""
    return "\n".join(_visible(line) for line in text.split("\n"))


def _visible(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        char
        for at, char in enumerate(line)
        if char.isprintable() or (char in JOINERS and needed(line[:at], char, line[at + 1 :]))
    )


def todo(next_step: str) -> str:
    """A next step, by commands."""
    return safe(said_at("commands", next_step))


def stranger(text: str) -> str:
    """What an agent or an upstream wrote, for a person who decides by it."""
    return plain(text)


def cell(value: Any, limit: int = 120) -> str:
    """One line for a table."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | list):
        return one_line(", ".join(map(str, value)), limit=limit) or "-"
    return one_line(str(value), limit=limit)


def console(*, error: bool = False) -> Console:
    """Standard output; where it is no terminal, lines are as long as they are."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _UNBOUNDED
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=width)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str = "Nothing.") -> None:
    """A plain table; ids never break."""
    table = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header.startswith("id"))
    count = 0
    for row in rows:
        count += 1
        table.add_row(*(Text(cell(value)) for value in row))
    if count:
        console().print(table)
    else:
        note(empty)


def print_fields(fields: Iterable[tuple[str, Any]]) -> None:
    """Name and value, one a line; several lines of a value are indented."""
    kept = [(name, value) for name, value in fields if value is not None and value not in ("", (), [])]
    width = max((len(name) for name, _ in kept), default=0)
    for name, value in kept:
        text = "yes" if value is True else "no" if value is False else str(value)
        first, *rest = safe(text).split("\n")
        say(f"{name + ':':<{width + 1}} {first}")
        for line in rest:
            say(" " * (width + 2) + line)


def print_json(value: Any) -> None:
    """JSON in ASCII: what could move a cursor or turn text around stays escaped."""
    print(json.dumps(as_json(value), indent=2, ensure_ascii=True))


def print_line(value: Any) -> None:
    """The same in one line, for streams."""
    print(json.dumps(as_json(value), ensure_ascii=True))


def as_json(value: Any) -> Any:
    """Models and dataclasses as JSON values."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_json(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def say(text: str = "") -> None:
    """A line on standard output."""
    print(safe(text))


def note(text: str) -> None:
    """A line beside the output, on standard error."""
    sys.stdout.flush()
    print(safe(text), file=sys.stderr)


def page_json(items: Iterable[Any], cursor: str | None = None) -> None:
    """A list as JSON: ``items`` and the cursor of the ``next`` page or null."""
    print_json({"items": list(items), "next": cursor})
