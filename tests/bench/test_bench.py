"""The benchmark runs, and its report says what was measured. No figure is asserted: the machine may be busy."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import orjson
import pytest
from bench.__main__ import main
from bench.plot import Axis, Series, chart
from bench.targets import promises

from bench import report


@pytest.mark.slow
def test_the_whole_benchmark_runs_in_its_quickest_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    # decisions and appends have one pace only
    names = ["calls", "verification", "growth", "memory", "workflows", "waiting", "lists"]
    assert main([*names, "--quickest", "--json", str(figures)]) == 0

    results = orjson.loads(figures.read_bytes())
    level = results["calls"]["levels"]["1"]
    assert {"direct", "bare", "charter", "charter-invoke"} <= level.keys()
    assert level["charter"]["upstream_requests"] == 1, "a governed call is one request to the upstream"
    assert level["charter-invoke"]["upstream_requests"] == 1
    assert results["growth"]["points"][-1]["events"] >= 2_000
    assert results["memory"]["points"][-1]["calls"] >= 200
    assert results["workflows"]["levels"]["1"]["charter"]["per_second"] > 0
    assert results["waiting"]["lateness"]["timers"] == 20
    assert results["lists"]["points"][-1]["runs"] == 200
    assert "a governed call alone" in capsys.readouterr().out

    report.write_docs(results, tmp_path / "docs")
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    for name in ("growth.svg", "memory.svg", "lists.svg"):
        assert f"benchmarks/{name}" in page
        ET.parse(tmp_path / "docs" / "benchmarks" / name)


def test_a_chart_is_well_formed_and_names_its_lines() -> None:
    lines = [Series("a < b", [(1_000, 2.0), (1_000_000, 2.1)]), Series("bare", [(1_000, 1.0), (1_000_000, 1.0)])]
    svg = chart("Cost & size", Axis("events", log=True), Axis("ms"), lines)
    texts = [element.text for element in ET.fromstring(svg).iter() if element.text]
    assert {"Cost & size", "a < b", "bare", "1,000", "1,000,000"} <= set(texts)


def test_a_promise_knows_which_side_is_good() -> None:
    kept = {item.text: item.kept for item in promises({"decisions": {"ratio_p50": 1.2}})}
    missed = {item.text: item.kept for item in promises({"appends": {"64": {"ratio": 0.2}}})}
    assert list(kept.values()) == [True]
    assert list(missed.values()) == [False]
