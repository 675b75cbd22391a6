"""The folder of templates: which files are some, and the bindings that stand beside documents in another form."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from charter.errors import Misconfigured
from charter.manifests.dialects.bindings import SUFFIX, Bindings, bindings_of

COMMON: Final = "bindings.yaml"


def template_files(folder: Path) -> list[Path]:
    """The templates of a folder, by name; files of bindings are none."""
    found = (path for path in folder.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    return sorted(path for path in found if path.name != COMMON and not path.name.endswith(SUFFIX))


def bindings_beside(path: Path) -> Bindings:
    """What the names in the document at ``path`` mean: ``bindings.yaml`` of its folder, and its own file over it.

    Raises ``Misconfigured`` (``bad_bindings``) with file, line and mend.
    """
    return bindings_of(_text(path.with_name(COMMON)), _text(path.with_name(path.stem + SUFFIX)))


def _text(path: Path) -> tuple[str, str] | None:
    try:
        return path.read_text(encoding="utf-8"), path.name
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(
            f"{path.name} cannot be read: {error}", code="bad_bindings", next_step="Make it a readable text file."
        ) from None
