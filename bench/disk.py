"""The disk that the stores of a run are on: a durable write costs what it costs, and says much about all other figures."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

RAM = Path("/dev/shm")
PAGES = b"\x00" * 4 * 4096
"""About what one governed call's commit writes."""


def probe(folder: Path | None = None, writes: int = 20) -> float:
    """Milliseconds of one durable write of some pages, the median of a few."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(PAGES * writes)
        file.flush()
        os.fsync(file.fileno())
        for number in range(writes):
            start = time.perf_counter()
            os.pwrite(file.fileno(), PAGES, number * len(PAGES))
            getattr(os, "fdatasync", os.fsync)(file.fileno())
            taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1e3


def filesystem(folder: Path) -> str:
    """Its kind (Linux), or "unknown"."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown"
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    within = [(mount, kind) for mount, kind in found if folder.resolve().is_relative_to(mount)]
    return max(within, key=lambda item: len(item[0]), default=("", "unknown"))[1]


def described() -> dict[str, Any]:
    """Where stores go now, and what a durable write costs there."""
    return {"filesystem": filesystem(Path(tempfile.gettempdir())), "durable_write_ms": probe()}
