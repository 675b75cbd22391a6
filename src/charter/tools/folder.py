"""The folder of ``*.tools.yaml`` files on disk: read, fingerprint and write. The parsing itself is pure."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from charter.errors import Misconfigured
from charter.manifests.tool_files import CODE, SUFFIX, UpstreamManifest, parse, render


def load_folder(folder: Path) -> tuple[UpstreamManifest, ...]:
    """Every upstream of the folder, by file name; none when there is no such folder. Raises ``Misconfigured``."""
    return tuple(load_file(path) for path in sorted(folder.glob(f"*{SUFFIX}")))


def load_file(path: Path) -> UpstreamManifest:
    """One file. Raises ``Misconfigured`` naming the file, the line and the mend."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path.name} cannot be read: {type(error).__name__}.",
            code=CODE,
            next_step="Check the file and its rights.",
        ) from None
    return parse(text, path.name)


def by_server(manifests: Iterable[UpstreamManifest]) -> dict[str, UpstreamManifest]:
    """By the upstream's name. Raises ``Misconfigured`` when two files describe one."""
    found: dict[str, UpstreamManifest] = {}
    for manifest in manifests:
        if manifest.server in found:
            raise Misconfigured(
                f"Two tool files describe the upstream {manifest.server!r}.",
                code="bad_tool_file",
                next_step="Remove one of them, or rename its server.",
            )
        found[manifest.server] = manifest
    return found


def fingerprint(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever a file of the folder was written, added or removed."""
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, status.st_mtime_ns, status.st_size))
    return tuple(found)


def save(folder: Path, upstream: UpstreamManifest) -> Path:
    """Write the upstream's file, whole or not at all, and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{upstream.server}{SUFFIX}"
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, suffix=".tmp", delete=False) as file:
        file.write(render(upstream))
    os.replace(file.name, path)
    return path
