"""The newest signed checkpoint of each tenant, in a file beside the keys: the database alone cannot be rewritten unnoticed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from urllib.parse import quote


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
        path = self.path(tenant)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(note)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
