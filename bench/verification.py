"""Verifying a log beside plainly hashing its stored bytes again, in turns in one run. The target: at least a fifth as fast.

The rows are at hand in memory for both. ``shallow`` is what the target is about: every leaf hash, the tree, the signed
checkpoint, sequence, versions and that each row says what its leaf says. ``deep`` also proves each leaf canonical JSON.
``from_disk`` reads the store too, as the command line does.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bench.filling import Sample, fill
from charter.audit.checkpoint import Checkpoint, Signer, origin_of, sign_checkpoint
from charter.audit.verify import LogVerifier, SizedNote
from charter.store.port import StoredEvent
from charter.store.sqlite import SqliteStore

TARGET = 0.2
PAGE = 5_000
TENANT = "default"


async def run(made_of: Sample, events: int = 100_000, rounds: int = 5) -> dict[str, Any]:
    """Events a second of each, and the ratios."""
    with tempfile.TemporaryDirectory(prefix="charter-bench-") as folder:
        store = SqliteStore(Path(folder) / "charter.db")
        await store.open()
        try:
            await fill(store, events, made_of)
            head = await store.head(TENANT)
            signer = Signer(origin_of(TENANT), Ed25519PrivateKey.generate())
            note = sign_checkpoint(Checkpoint(origin=origin_of(TENANT), size=head.size, root=head.root), signer)
            pages = [await store.log(TENANT, at, PAGE) for at in range(0, head.size, PAGE)]
            hashes = [
                await store.leaf_hashes(TENANT, at, min(at + PAGE, head.size)) for at in range(0, head.size, PAGE)
            ]
            size, root = head.size, head.root

            def verify(deep: bool) -> None:
                verifier = LogVerifier(
                    TENANT, [signer.key], notes=[SizedNote(note, size)], head=(size, root), deep=deep
                )
                for page, kept in zip(pages, hashes, strict=True):
                    verifier.feed(page, kept)
                report = verifier.finish()
                assert report.ok, report

            taken: dict[str, list[float]] = {"hashing": [], "shallow": [], "deep": [], "from_disk": []}
            for _ in range(rounds):
                taken["hashing"].append(_seconds(lambda: _hash(pages)))
                taken["shallow"].append(_seconds(lambda: verify(False)))
                taken["deep"].append(_seconds(lambda: verify(True)))
                taken["from_disk"].append(await _from_disk(store, signer, note, size))
        finally:
            await store.close()
    rate = {name: size / statistics.median(times) for name, times in taken.items()}
    base = taken["hashing"]
    ratio = {name: statistics.median(b / t for b, t in zip(base, times, strict=True)) for name, times in taken.items()}
    return {"events": size, "per_second": rate, "ratio": ratio, "target": TARGET, "met": ratio["shallow"] >= TARGET}


def _hash(pages: Sequence[Sequence[StoredEvent]]) -> None:
    for page in pages:
        for row in page:
            hashlib.sha256(b"\x00" + row.leaf).digest()


async def _from_disk(store: SqliteStore, signer: Signer, note: bytes, size: int) -> float:
    start = time.perf_counter()
    verifier = LogVerifier(TENANT, [signer.key], notes=[SizedNote(note, size)], deep=False)
    for at in range(0, size, PAGE):
        verifier.feed(await store.log(TENANT, at, PAGE), await store.leaf_hashes(TENANT, at, min(at + PAGE, size)))
    assert verifier.finish().ok
    return time.perf_counter() - start


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
