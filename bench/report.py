"""A run's figures as text for the terminal and as ``docs/benchmarks.md`` with its plots."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.plot import Axis, Series, chart
from bench.targets import promises
from bench.workflows import ABOUT

Row = Sequence[str]
_INTRO = """\
# Benchmarks

`make bench` measures all of this on your machine, and `make bench ARGS=--docs` writes this page. Ratios matter, not times:
every figure stands beside its yardstick, measured in turns in the same run.

Each contestant is a process of its own in front of the same upstream process, a trivial tool on the MCP SDK over streamable
HTTP. The load comes from a raw keep-alive JSON-RPC client that speaks 2026-07-28 (the SDK's own client would be two thirds of
a call). Rounds A B C, B C A, … spread whatever else the machine does over all; a ratio is taken within each round, and the
median is shown.

Charter is `charter serve` as `charter init` leaves it: bearer tokens, the shipped policies, argument validation, the record
on SQLite with `synchronous=FULL`. What a call puts on record before the tool runs is on disk before the tool runs. Each
caller has a workflow of its own, as agents have.
"""
_NOTES = """\
## How to read it

A governed call waits for two durable writes, one before the tool runs and one before the answer; no other contestant waits
for any. Alone, a call is therefore as fast as the disk lets it be: compare the row with the store in memory, which shows what
is Charter's own. Among many callers the writes are shared (group commit), and the processor decides.

Plain calls on 2026-07-28 go past the SDK's HTTP transport on both sides ([why](adr/0008-own-lane-for-plain-calls.md)), which
pays for the policy and the record: at 16 and 64 callers a governed call costs the processor about what a call through the
bare proxy costs.

A workflow of three actions makes four durable commits in Charter, and asks its policies four times: the start and the intent
of the first call are one commit, and so are how a call ended and the intent of the next.

FastMCP's proxies send two requests upstream for each call (they list first); the others one. Verification is measured
without the deep check, which also proves each leaf canonical JSON.
"""


def machine() -> dict[str, str]:
    """What the figures depend on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load before": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
    }


def markdown(results: dict[str, Any]) -> str:
    """The page, from what was measured; what was not measured is not in it."""
    parts = [_INTRO, _promise_part(results)]
    parts += [_calls_part(results["calls"])] if "calls" in results else []
    parts += [_rooms_part(results)]
    parts += [_workflows_part(results["workflows"])] if "workflows" in results else []
    parts += [_waiting_part(results["waiting"])] if "waiting" in results else []
    parts += [_lists_part(results["lists"])] if "lists" in results else []
    parts += [_growth_part(results["growth"])] if "growth" in results else []
    parts += [_memory_part(results["memory"])] if "memory" in results else []
    ran = "; ".join(f"{name} {value}" for name, value in results["machine"].items())
    return "\n".join(part for part in [*parts, _NOTES, f"Measured on: {ran}.\n"] if part)


def text(results: dict[str, Any]) -> str:
    """The same tables for a terminal."""
    return markdown(results).removeprefix(_INTRO).replace(_NOTES, "")


def plots(results: dict[str, Any]) -> dict[str, str]:
    """SVG text by file name."""
    found = {}
    if "growth" in results:
        points = results["growth"]["points"]
        lines = [
            Series("Charter", [(point["events"], point["charter_ms"]) for point in points]),
            Series("bare proxy", [(point["events"], point["bare_ms"]) for point in points]),
        ]
        found["growth.svg"] = chart(
            "A governed call as the log grows", Axis("audit events", log=True), Axis("ms, p50"), lines
        )
    if "lists" in results:
        points = results["lists"]["points"]
        shown = ("all", "waiting, a template", "blocked on approvals", "a template, on another's block")
        lines = [Series("load and fold one", [(point["runs"], point["load_us"] / 1e3) for point in points])]
        lines += [Series(look, [(point["runs"], point["lists"][look]) for point in points]) for look in shown]
        found["lists.svg"] = chart(
            "Loading and listing as runs grow", Axis("runs", log=True), Axis("ms, median"), lines
        )
    if "memory" in results:
        line = Series("Charter", [(point["calls"], point["rss_mb"]) for point in results["memory"]["points"]])
        found["memory.svg"] = chart("Memory over governed calls", Axis("calls"), Axis("MiB, resident"), [line])
    return found


def write_docs(results: dict[str, Any], docs: Path) -> None:
    """``benchmarks.md`` and its plots."""
    pictures = docs / "benchmarks"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, svg in plots(results).items():
        (pictures / name).write_text(svg)
    (docs / "benchmarks.md").write_text(markdown(results))


def _table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _promise_part(results: dict[str, Any]) -> str:
    rows = [
        (
            item.text,
            f"{item.value:.2f}{item.unit}",
            f"{'at most' if item.at_most else 'at least'} {item.target:.2f}{item.unit}",
            "yes" if item.kept else "**no**",
        )
        for item in promises(results)
    ]
    return "## Promises\n\n" + _table(("what", "measured", "promised", "kept"), rows) if rows else ""


def _calls_part(calls: dict[str, Any]) -> str:
    parts = ["## A call\n"]
    for callers, level in calls["levels"].items():
        rows = [
            (
                calls["about"][name],
                f"{line['p50_ms']:.2f}",
                f"{line['p99_ms']:.2f}",
                f"{line['per_second']:,.0f}",
                f"{line['cpu_ms']:.2f}",
                f"{line['x_p50']:.2f}" if "x_p50" in line else "",
                f"{line['x_rate']:.2f}" if "x_rate" in line else "",
                f"{line['upstream_requests']:.2f}",
            )
            for name, line in level.items()
        ]
        head = ("through", "p50 ms", "p99 ms", "calls/s", "CPU ms", "p50 / bare", "calls/s / bare", "upstream requests")
        parts.append(f"{callers} at once:\n\n" + _table(head, rows))
    if "disk" in calls:
        parts.append(f"{_disk(calls['disk'])} A governed call waits for two such writes, the others for none.\n")
    parts += [f"Not measured: {name}, {why}.\n" for name, why in calls["missing"].items()]
    return "\n".join(parts)


def _disk(stores: dict[str, Any]) -> str:
    return f"Stores on {stores['filesystem']}, where one durable write took {stores['durable_write_ms']:.2f} ms."


def _rooms_part(results: dict[str, Any]) -> str:
    rows: list[Row] = []
    if "decisions" in results:
        item = results["decisions"]
        bare = item["bare_p50_us"]
        rows += [
            (label, f"{item[key]}", f"{bare}", f"{item[key] / bare:.2f}")
            for label, key in (
                ("a decision, µs p50", "evaluate_p50_us"),
                ("… on such a call once more", "again_p50_us"),
            )
            if key in item  # figures that were kept may be of an older version
        ]
    for callers, item in results.get("appends", {}).items():
        ours, bare = item["store"]["per_second"], item["bare"]["per_second"]
        rows.append((f"durable appends/s, {callers} writers", f"{ours:,.0f}", f"{bare:,.0f}", f"{item['ratio']:.2f}"))
    if "verification" in results:
        item = results["verification"]
        bare = item["per_second"]["hashing"]
        names = {
            "shallow": "verification, events/s",
            "deep": "… and each leaf canonical",
            "from_disk": "… read from the store",
        }
        for name, label in names.items():
            rows.append((label, f"{item['per_second'][name]:,.0f}", f"{bare:,.0f}", f"{item['ratio'][name]:.2f}"))
    head = ("what", "Charter", "yardstick", "Charter / yardstick")
    note = "Yardsticks: the Cedar pass alone, parsed beforehand; a bare group-commit writer; SHA-256 over the stored bytes.\n"
    return f"## Rooms\n\n{_table(head, rows)}\n{note}" if rows else ""


def _workflows_part(measured: dict[str, Any]) -> str:
    parts = ["## A workflow of three actions\n"]
    for at_once, level in measured["levels"].items():
        rows = [
            (
                ABOUT[name],
                f"{item['p50_ms']:.1f}",
                f"{item['p99_ms']:.1f}",
                f"{item['per_second']:,.1f}",
                f"{item.get('x_p50', float('nan')):.2f}",
                f"{item.get('x_rate', float('nan')):.2f}",
            )
            for name, item in level.items()
        ]
        head = ("engine", "p50 ms", "p99 ms", "workflows/s", "p50 / DBOS", "workflows/s / DBOS")
        parts.append(f"{at_once} at once:\n\n{_table(head, rows)}")
    parts.append(f"The actions do nothing; every step is on disk before the next. {_disk(measured['disk'])}\n")
    return "\n".join(parts)


def _waiting_part(measured: dict[str, Any]) -> str:
    late = measured["lateness"]
    rows = [
        (name, f"{item['start_seconds']:.1f}", f"{item['idle_cpu_ms']:.1f}", f"{item['rss_mb']:.0f}")
        for name, item in (("an empty store", measured["empty"]), (f"{measured['runs']:,} runs", measured["full"]))
    ]
    head = ("a server on", "start, s", "idle, ms of processor time a second", "MiB")
    said = (
        "A quarter of the runs each waits for a time, a signal, people and an agent.\n"
        f"With them there, {late['timers']:,} timers fell due while 16 callers made {late['calls_per_second']:,.0f} calls a "
        f"second: they fired {late['p50_ms']:.0f} ms late at p50, {late['p99_ms']:.0f} ms at p99, "
        f"{late['most_ms']:.0f} ms at most, up to the decision that goes on record.\n{_disk(measured['disk'])}\n"
    )
    return "\n".join(("## Runs that wait\n", _table(head, rows), said))


def _lists_part(measured: dict[str, Any]) -> str:
    points = measured["points"]
    rows = [("load and fold one", *(f"{point['load_us'] / 1e3:.2f}" for point in points))]
    rows += [(look, *(f"{point['lists'][look]:.2f}" for point in points)) for look in points[0]["lists"]]
    head = ("ms, median", *(f"{point['runs']:,} runs" for point in points))
    said = (
        "A page has fifty rows. Six runs of ten have ended, the others wait for times, signals, people and agents.\n"
        "A thousand runs lie in the reading connection's cache; to load one of more reads a few pages anew.\n"
    )
    picture = "![Loading and listing as runs grow](benchmarks/lists.svg)"
    return "\n".join(("## As runs grow\n", picture, "", _table(head, rows), said))


def _growth_part(growth: dict[str, Any]) -> str:
    rows = [
        (f"{p['events']:,}", f"{p['charter_ms']:.2f}", f"{p['bare_ms']:.2f}", f"{p['x_p50']:.2f}", f"{p['rss_mb']:.0f}")
        for p in growth["points"]
    ]
    head = ("audit events", "Charter, ms p50", "bare proxy, ms p50", "ratio", "MiB")
    picture = "![Cost of a call over the size of the log](benchmarks/growth.svg)"
    said = f"{_disk(growth['disk'])}\n" if "disk" in growth else ""
    return "\n".join(("## As the log grows\n", picture, "", _table(head, rows), said))


def _memory_part(memory: dict[str, Any]) -> str:
    last = memory["points"][-1]
    said = (
        f"{last['calls']:,} calls by 16 callers, a new workflow every 100 calls: {last['rss_mb']:.0f} MiB at the end, "
    )
    said += f"{memory['growth_mb']:+.1f} MiB since call {memory['since_calls']:,}.\n"
    return f"## Memory\n\n![Resident memory over calls](benchmarks/memory.svg)\n\n{said}"
