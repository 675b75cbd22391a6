"""What CEL's type checker says of an expression; made in ``workflows``, told by ``manifests``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Misfit:
    """An operator or function of an expression, and the types that it is not for. ``at`` is its place in the source."""

    at: int
    operator: str
    types: tuple[str, ...]
    harmless: bool
    """It does not fail: what it compares is never equal."""
