"""``charter policy upgrade``: an installation's copies of the shipped policies beside those of this version."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from charter.cli.output import Json, note, print_json, safe, say
from charter.cli.policies import commands, governed
from charter.cli.session import settings
from charter.errors import CharterError, InvalidInput

if TYPE_CHECKING:
    from charter.policies import PolicySet

State = Literal["current", "older", "changed", "missing"]
_SAID: dict[State, str] = {
    "current": "as this version ships it",
    "older": "as an older version shipped it",
    "changed": "changed since it was shipped",
    "missing": "not in the folder",
}


@dataclass(frozen=True, slots=True)
class Copy:
    """One shipped file and its copy, if there is one."""

    name: str
    state: State
    here: str
    shipped: str

    @property
    def target(self) -> str:
        """Where ``--write`` puts the shipped text: over what nobody changed, beside all else."""
        return self.name if self.state == "older" else f"{self.name}.new"

    def diff(self) -> str:
        """From the copy to what this version ships."""
        lines = difflib.unified_diff(
            self.here.splitlines(), self.shipped.splitlines(), self.name, f"{self.name} (shipped)", lineterm=""
        )
        return "\n".join(lines)


def copies(folder: Path) -> list[Copy]:
    """Every shipped file, with what the folder has of it."""
    from charter.policies import shipped_files, was_shipped

    found = []
    for name, shipped in shipped_files().items():
        path = folder / name
        here = path.read_text(encoding="utf-8") if path.is_file() else None
        state: State = "missing" if here is None else "changed"
        if here is not None and here == shipped:
            state = "current"
        elif here is not None and was_shipped(name, here):
            state = "older"
        found.append(Copy(name, state, here or "", shipped))
    return found


@commands.command("upgrade")
def upgrade(
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A folder of *.cedar. Default: configured.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="Replace the files that nobody changed; put the others beside yours as NAME.new."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how the copies that `charter init` made of the shipped policies differ from those of this version.

    Nothing is written without --write, and no file that you changed is ever touched.
    """
    from charter.policies import uncovered
    from charter.server.whole_file import SHARED, replace_whole

    config = settings()
    place = folder or config.policies.folder
    if place is None:
        note("No policies.folder is set: the policies in force are those that this version ships.")
        return
    if not place.is_dir():
        raise InvalidInput(f"{place} is no folder.", next_step="Name a folder with *.cedar files.")
    found = copies(place)
    differing = [each for each in found if each.state != "current"]
    missing = _lacking(place)
    after = uncovered(_loaded(place, {each.name: each.shipped for each in differing if each.state == "older"}))
    if write:
        missing = after
        for each in differing:
            replace_whole(place / each.target, each.shipped.encode(), mode=SHARED)
    if as_json:
        items = [{"file": each.name, "state": each.state, "diff": each.diff()} for each in found]
        written = [each.target for each in differing] if write else []
        print_json({"items": items, "written": written, "uncovered": missing, "next": None})
    else:
        _tell(found, differing, missing, write=write)


def _lacking(folder: Path) -> Sequence[str]:
    """The verbs that the folder's own set permits to nobody. One that this version does not load is told of."""
    from charter.policies import uncovered

    try:
        return uncovered(_loaded(folder, {}))
    except CharterError as error:
        note(f"The folder's policies do not load: {error.message}")
        return ()


def _loaded(folder: Path, instead: Mapping[str, str]) -> PolicySet:
    """The set of the folder with these texts in it: one that would not load is not written."""
    from charter.policies import PolicySources, load_policy_set

    files = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.cedar"))}
    cedar = {name: text for name, text in {**files, **instead}.items() if name.endswith(".cedar")}
    return load_policy_set(PolicySources.from_files(cedar), governed(settings()))


def _tell(found: Sequence[Copy], differing: Sequence[Copy], missing: Sequence[str], *, write: bool) -> None:
    for each in found:
        say(f"{each.name}: {_SAID[each.state]}")
        if write and each.state != "current":
            say(f"  {'replaced' if each.state == 'older' else f'written beside it: {each.target}'}")
        elif each.state != "current":
            say(safe(each.diff()) + "\n" if each.state != "missing" else "")
    if missing:
        note(f"No policy of the folder permits {', '.join(missing)} to anybody.")
    if not differing:
        note("Nothing to upgrade.")
    elif not write:
        note("`--write` replaces what nobody changed, and puts the others beside yours as NAME.new.")
    else:
        note("Run `charter policy check` and `charter policy test`, then restart the server.")
