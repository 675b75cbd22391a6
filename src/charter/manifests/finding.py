"""One thing that is wrong with a template, or may be."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
"""Quoted text in an expression, in which no name is a reference."""


@dataclass(frozen=True, slots=True)
class Finding:
    """``where`` is a JSON pointer into the template; ``line`` is known when it came from a file."""

    level: Literal["error", "warning"]
    where: str
    text: str
    mend: str
    line: int | None = None

    def at(self, line: int) -> Finding:
        """The same finding with its line."""
        return replace(self, line=line)
