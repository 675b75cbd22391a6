"""The templates that can be started: shipped ones, published ones, and the files of the templates folder.

What ``charter template publish`` wrote into ``published/`` never changes: its files are named for their version. Should one be
changed all the same, and put back, that is seen too: a running server looks at names and times when it is asked for a template.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from charter.errors import CharterError, Conflict, Misconfigured
from charter.manifests.templates import Catalogue, bundled_templates, load_template
from charter.model.template import Template
from charter.server.template_folder import bindings_beside, template_files
from charter.server.whole_file import SHARED, replace_whole
from charter.workflows.expressions import problem

logger = logging.getLogger(__name__)

PUBLISHED: Final = "published"
SHOWN: Final = 5


def read_templates(folder: Path | None) -> Catalogue:
    """The shipped templates, the published ones and those of the folder.

    A file that says something else than what was published under its version is not loaded, which is logged. Raises
    ``Misconfigured`` or ``InvalidInput`` naming the file.
    """
    catalogue = Catalogue()
    for name, text in bundled_templates().items():
        catalogue.add(load_template(text, name, check_expression=problem))
    if folder is None or not folder.is_dir():
        return catalogue
    fixed = set()
    for name in published_names(folder):
        template = _published(folder, name)
        catalogue.add(template)
        fixed.add(template.ref)
    for path in template_files(folder):
        text = path.read_text(encoding="utf-8", errors="replace")
        template = load_template(text, path.name, check_expression=problem, bindings=bindings_beside(path))
        try:
            catalogue.add(template)
        except Conflict as error:
            if template.ref not in fixed:
                raise
            logger.warning("%s is not used: %s %s", path, error.message, error.next_step)
    return catalogue


def published_names(folder: Path) -> tuple[str, ...]:
    """The files of what was published, in order."""
    try:
        return tuple(sorted(name for name in os.listdir(folder / PUBLISHED) if name.endswith(".json")))
    except (FileNotFoundError, NotADirectoryError):
        return ()


def missing(folder: Path | None, published: Iterable[str]) -> str | None:
    """What was published in the database, and is not among the files here; in words, None where nothing is missing."""
    here = set(published_names(folder)) if folder is not None else set()
    lost = [ref for ref in published if f"{ref}.json" not in here]
    if not lost:
        return None
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    place = f"{folder / PUBLISHED}" if folder is not None else "any templates folder"
    return f"{', '.join(lost[:SHOWN])}{more}: published in this database, and not in {place}"


SHARE: Final = (
    "Where it was not deleted on purpose: have all servers of the database share one templates folder, or publish it "
    "from here too."
)


def _published(folder: Path, name: str) -> Template:
    path = folder / PUBLISHED / name
    template = load_template(path.read_text(encoding="utf-8"), f"{PUBLISHED}/{name}", check_expression=problem)
    if f"{template.ref}.json" != name:
        raise Misconfigured(
            f"{path} holds {template.ref}: what was published was renamed or changed.",
            code="published_changed",
            next_step="Put the file back as it was published, or publish the template anew from its source.",
        )
    return template


def write_published(folder: Path, template: Template) -> Path:
    """Its file, whole or not at all; the same again is fine."""
    place = folder / PUBLISHED
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{template.ref}.json"
    text = template.model_dump_json(by_alias=True, exclude_defaults=True, indent=2) + "\n"
    replace_whole(path, text.encode(), mode=SHARED)
    return path


def _stamps(folder: Path | None) -> tuple[tuple[str, int, int, int], ...]:
    """Name, inode, size and time of each published file: other ones mean that something is to be read again."""
    try:
        with os.scandir(folder / PUBLISHED if folder is not None else "") as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(".json")]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found))


class PublishedTemplates:
    """The templates that can be started, as the gate asks for them; what is published meanwhile is among them."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._seen = _stamps(folder)
        self._catalogue = read_templates(folder)

    def latest(self, name: str) -> tuple[Template, str]:
        """See ``gate.parts.Templates``."""
        return self._now().latest(name)

    def for_signal(self, type: str) -> tuple[Template, ...]:
        """See ``gate.parts.Templates``."""
        return self._now().for_signal(type)

    def scheduled(self) -> tuple[Template, ...]:
        """See ``gate.parts.Templates``."""
        return self._now().scheduled()

    def all(self) -> tuple[tuple[Template, str], ...]:
        """Every version with its hash: by name, the newest first."""
        return self._now().all()

    def _now(self) -> Catalogue:
        seen = _stamps(self._folder)
        if seen != self._seen:
            self._seen = seen  # also where they cannot be read: it is said once, not at every start
            try:
                self._catalogue = read_templates(self._folder)
            except (CharterError, OSError) as error:
                logger.error("the templates were not read again, the old ones stay: %s", error)
        return self._catalogue
