"""The page on tracing lists every name that telemetry uses, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from charter.gate.spans import ATTRIBUTES, MOMENTS, Metric

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text(encoding="utf-8")


def first_cells(heading: str) -> set[str]:
    """The names in the first column of the table below this heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}


def test_every_attribute_is_listed() -> None:
    assert first_cells("Attributes") == ATTRIBUTES


def test_every_metric_is_listed() -> None:
    named = {value for name, value in vars(Metric).items() if not name.startswith("_")}
    assert first_cells("Metrics") == named


def test_every_moment_is_listed() -> None:
    section = PAGE.split("## A run is a trace of its own\n")[1].split("\n## ")[0]
    assert {name.split()[0] for name in re.findall(r"`([A-Z_]{6,}(?: deny)?)`", section)} == set(MOMENTS)
