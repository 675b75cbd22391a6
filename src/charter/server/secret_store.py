"""Upstreams' credentials, encrypted in one file beside the keys; a manifest refers to them by name (``secret: NAME``).

The file holds what ``store.sealing`` makes, bound to each name; its keys are in the key folder. It is read when an upstream
connects, so a secret that was set is taken at the next connecting, without a restart.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from charter.errors import InvalidInput, Misconfigured
from charter.server.keys import Keys
from charter.server.settings_model import Settings
from charter.server.whole_file import PRIVATE, replace_whole
from charter.store.port import Sealed
from charter.store.sealing import Sealer

_SCOPE = "upstream-secrets"
MAX_BYTES = 64 * 1024


class SecretFile(Mapping[str, str]):
    """Names to secrets. Reading one decrypts it; ``set`` and ``remove`` replace the file whole."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path, self._sealer = path, sealer

    def __getitem__(self, name: str) -> str:
        """The secret. Raises ``KeyError``, and ``IntegrityError`` for bytes that were changed or moved to another name."""
        entry = self._read()[name]
        sealed = Sealed(name, entry["key_id"], base64.b64decode(entry["sealed"]))
        return self._sealer.open(_SCOPE, sealed).decode()

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def set(self, name: str, value: str) -> None:
        """Keep a secret under this name. Raises ``InvalidInput`` (``bad_secret``)."""
        if not name or "|" in name or not name.isascii() or not name.isprintable() or len(name) > 128:
            raise InvalidInput(
                f"{name!r} is no name for a secret.",
                code="bad_secret",
                next_step="Use letters, digits, dots and dashes.",
            )
        if not value or len(value.encode()) > MAX_BYTES:
            raise InvalidInput(
                "A secret has 1 to 65,536 bytes.", code="bad_secret", next_step="Send the value on stdin."
            )
        sealed = self._sealer.seal(_SCOPE, name, value.encode())
        entry = {"key_id": sealed.key_id, "sealed": base64.b64encode(sealed.blob).decode()}
        self._write({**self._read(), name: entry})

    def remove(self, name: str) -> bool:
        """Forget it; False when there was none."""
        entries = self._read()
        if entries.pop(name, None) is None:
            return False
        self._write(entries)
        return True

    def _read(self) -> dict[str, Any]:
        try:
            data: dict[str, Any] = orjson.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, orjson.JSONDecodeError) as error:
            raise Misconfigured(
                f"The file of secrets cannot be read: {type(error).__name__}.",
                code="secrets_unreadable",
                next_step="Put back a copy of secrets.json, or remove it and set the secrets again.",
            ) from None
        return data

    def _write(self, entries: Mapping[str, Any]) -> None:
        data = orjson.dumps(entries, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
        replace_whole(self._path, data, mode=PRIVATE)


def secret_file(settings: Settings, keys: Keys) -> SecretFile:
    """The upstreams' credentials."""
    return SecretFile(settings.keys_folder / "secrets.json", Sealer(keys.sealing, keys.sealing_current))
