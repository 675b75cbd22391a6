"""The newest signed checkpoint of each tenant, in a file beside the keys: the database alone cannot be rewritten unnoticed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from charter.server.whole_file import PRIVATE, replace_whole


class KeptNotes:
    """One file a tenant, readable by the owner alone. Deleting one is the deliberate act after restoring a backup."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, tenant: str) -> Path:
        """Where the tenant's newest note is kept."""
        return self._folder / f"{quote(tenant, safe='')}.note"

    def newest(self, tenant: str) -> bytes | None:
        """The note that was signed last, None before the first."""
        try:
            return self.path(tenant).read_bytes()
        except FileNotFoundError:
            return None

    def keep(self, tenant: str, note: bytes) -> None:
        """Keep this one instead, whole and durable."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        replace_whole(self.path(tenant), note, mode=PRIVATE)
