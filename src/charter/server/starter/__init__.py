"""What ``charter init`` writes into a folder: configuration, policies to change, keys.

It never overwrites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Literal

import orjson

from charter.errors import Misconfigured
from charter.policies.shipped import shipped_files
from charter.server.keys import create_keys

CONFIG, DATA, POLICIES, TOOLS, TEMPLATES = "charter.toml", ".charter", "policies", "tools", "templates"


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one file: ``written``, or ``kept`` because it was there."""

    path: Path
    action: Literal["written", "kept"]


def config_text(*, person: str, tenant: str = "default") -> str:
    """The commented ``charter.toml``; ``person`` is whom the local agent acts for."""
    text = (files(__name__) / CONFIG).read_text(encoding="utf-8")
    # A TOML basic string has the escapes of a JSON string.
    for mark, value in (("@PERSON@", person), ("@TENANT@", tenant)):
        text = text.replace(f'"{mark}"', orjson.dumps(value).decode())
    return text


def write_starter(
    folder: Path,
    *,
    person: str,
    tenant: str = "default",
    extra: Mapping[str, str] | None = None,
) -> list[Written]:
    """Write what is missing and say what was done, in order.

    ``extra`` adds files by path under ``folder`` (``tools/casebook.tools.yaml``: the manifests of the bundled
    upstream). Folder and files that hold secrets are private from the start.
    """
    data = folder / DATA
    wanted = {
        CONFIG: config_text(person=person, tenant=tenant),
        **{f"{POLICIES}/{name}": text for name, text in shipped_files().items()},
        **(extra or {}),
    }
    try:
        for part in (folder, folder / POLICIES, folder / TOOLS, folder / TEMPLATES):
            part.mkdir(parents=True, exist_ok=True)
        data.mkdir(mode=0o700, exist_ok=True)
        done = [_write(folder, name, text) for name, text in wanted.items()]
        # Keys and the database do not belong into a repository.
        done.append(_write(folder, f"{DATA}/.gitignore", "*\n"))
    except OSError as error:
        raise Misconfigured(
            f"{error.filename}: cannot be written: {error.strerror}.",
            code="starter_unwritable",
            next_step="Run `charter init` in a folder that you may write to.",
        ) from None
    return done + _keys(data / "keys", tenant)


def _keys(folder: Path, tenant: str) -> list[Written]:
    before = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    create_keys(folder, tenant=tenant)
    return [
        Written(path, "kept" if path.name in before else "written")
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    ]


def _write(folder: Path, name: str, text: str) -> Written:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise Misconfigured(f"{name!r} is not a path inside the folder.", code="starter_path")
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        return Written(path, "kept")
    return Written(path, "written")
