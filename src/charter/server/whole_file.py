"""Writing a file so that whoever reads it finds the old one or the new one, whatever happens meanwhile."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Final

PRIVATE: Final = 0o600
SHARED: Final = 0o666
"""As the process's umask has it."""


def replace_whole(path: Path, data: bytes, *, mode: int) -> None:
    """Put ``data`` at ``path``, whole or not at all, with these rights from the start, on disk when it returns."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
