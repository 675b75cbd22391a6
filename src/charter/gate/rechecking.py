"""Is what stands beside the log whole? Lists, claims, sealed content, templates: each against the log that vouches for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from charter.audit.findings import Finding
from charter.errors import CharterError
from charter.gate.parts import Parts
from charter.gate.relisting import relisting
from charter.gate.templates import pinned
from charter.store.port import StoredEvent

MOST = 100
_SEALED = b'_ref":"seal_'


class Recheck:
    """Sees a tenant's events page by page, then says what does not hold. Its memory does not grow with the log."""

    def __init__(self, parts: Parts, tenant: str) -> None:
        self._parts, self._tenant = parts, tenant
        self._templates: dict[str, int] = {}
        self._missing: dict[str, StoredEvent] = {}
        self._found: list[Finding] = []
        self.astray = False
        """Streams or the order of their events cannot be read from the store as they were written."""

    async def see(self, rows: Sequence[StoredEvent]) -> None:
        """The next events. One that cannot be read is somebody else's finding."""
        for row in rows:
            if len(self._found) + len(self._missing) >= MOST:
                return
            if row.type in ("WORKFLOW_STARTED", "TEMPLATE_PUBLISHED"):
                self._templates.setdefault(str(_data(row).get("template_hash")), row.seq)
            if _SEALED in row.leaf:
                for key, ref in _data(row).items():
                    if key.endswith("_ref") and isinstance(ref, str) and ref.startswith("seal_"):
                        await self._see_sealed(row, ref)

    async def _see_sealed(self, row: StoredEvent, ref: str) -> None:
        try:
            sealed = await self._parts.store.unseal(self._tenant, ref)
            if sealed is None:
                self._missing.setdefault(ref, row)
            else:
                self._parts.sealer.open(self._tenant, sealed)
        except CharterError as error:
            self._found.append(Finding("sealed_damaged", f"{ref}: {error.message}", row.seq, row.id))

    async def finish(self) -> list[Finding]:
        """What was found, those that name an event first; then how the lists differ."""
        for template_hash, seq in self._templates.items():
            await self._check_template(template_hash, seq)
        if self._missing:
            await self._forgive_erased()
        for ref, row in self._missing.items():
            text = f"{ref} is gone, and no SEALED_ERASED is on record for it."
            self._found.append(Finding("sealed_missing", text, row.seq, row.id))
        try:
            made = await self._parts.store.differences(self._tenant, relisting(self._tenant), MOST)
        except CharterError as error:
            self._found.append(Finding("list_differs", f"The lists cannot be compared: {error.message}"))
        else:
            self.astray = any(item.place in ("streams", "events") for item in made)
            self._found += [Finding("list_differs", f"{item.place} {item.key}: {item.text}.") for item in made]
        return sorted(self._found, key=lambda finding: (finding.seq is None, finding.seq or 0))

    async def _check_template(self, template_hash: str, seq: int) -> None:
        text = await self._parts.store.claimed(self._tenant, "template", template_hash)
        try:
            if text is not None:
                pinned(text, template_hash)
                return
            problem = f"The template {template_hash} is not in the store."
        except CharterError as error:
            problem = error.message
        self._found.append(Finding("template_changed", problem, seq))

    async def _forgive_erased(self) -> None:
        """Asked last: an erasure is on record before the bytes go, also one that happened while we read."""
        at = 0
        while rows := await self._parts.store.log(self._tenant, at, 500, ("SEALED_ERASED",)):
            for row in rows:
                self._missing.pop(str(_data(row).get("ref")), None)
            at = rows[-1].seq + 1


def _data(row: StoredEvent) -> dict[str, Any]:
    try:
        data = orjson.loads(row.leaf)["data"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}
