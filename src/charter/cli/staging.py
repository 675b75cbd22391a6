"""Accepting tool definitions: on record first, by the gate, then in the manifests folder.

Charter is opened on a copy of the folder that already has the new file. So the policies are validated against the
new definitions before anything changes, and a caller whom the policy does not let pin changes nothing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from charter.cli.session import Who, run_as
from charter.errors import Misconfigured, NotFound
from charter.manifests.tool_files import UpstreamManifest
from charter.model.commands import PinTool
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter
    from charter.server.settings_model import Settings

SCHEMA_FILE = "charter.cedarschema"


@dataclass(frozen=True, slots=True)
class Pin:
    """One definition that somebody accepted; ``old_hash`` None for a new tool."""

    tool: str
    old_hash: str | None
    new_hash: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The file that was written, and the Cedar schema that was written beside the policies, if there is a folder."""

    path: Path
    schema: Path | None
    typed: int


def manifests_folder(config: Settings) -> Path:
    """Where the tool files are. Raises ``Misconfigured`` when none is configured."""
    folder = config.tools.manifests
    if folder is None:
        raise Misconfigured(
            "No folder for tool files is configured.",
            code="no_manifests_folder",
            next_step='Set [tools] manifests = "tools" in charter.toml, or run `charter init`.',
        )
    return folder


def upstream_named(config: Settings, server: str) -> UpstreamManifest:
    """The tool file of this upstream. Raises ``NotFound``."""
    from charter.tools.folder import load_folder

    for upstream in load_folder(manifests_folder(config)):
        if upstream.server == server:
            return upstream
    raise NotFound(f"There is no upstream {server!r}.", next_step="See `charter upstream list`.")


def accept(config: Settings, by: Who, upstream: UpstreamManifest, pins: Sequence[Pin]) -> Accepted:
    """Put the pins on record and write the upstream's file and the Cedar schema."""
    from charter.tools.folder import save

    folder = manifests_folder(config)
    with tempfile.TemporaryDirectory(prefix="charter-") as place:
        copy = Path(place) / "tools"
        if folder.is_dir():
            shutil.copytree(folder, copy)
        save(copy, upstream)
        staged = config.model_copy(update={"tools": config.tools.model_copy(update={"manifests": copy})})

        async def record(charter: Charter, caller: Principal) -> tuple[str, int]:
            for pin in pins:
                command = PinTool(tool=pin.tool, old_hash=pin.old_hash, new_hash=pin.new_hash)
                await charter.gate.handle(caller, command)
            active = charter.policies.active
            return active.schema_text, sum(1 for name, typed in active.inputs.items() if typed is not None)

        schema_text, typed = run_as(by, record, using=staged)
    path = save(folder, upstream)
    return Accepted(path, _write_schema(config, schema_text), typed)


def _write_schema(config: Settings, text: str) -> Path | None:
    folder = config.policies.folder
    if folder is None or not folder.is_dir():
        return None
    path = folder / SCHEMA_FILE
    path.write_text(text, encoding="utf-8")
    return path
