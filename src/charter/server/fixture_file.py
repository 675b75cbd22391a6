"""The file of fixtures that answer in dry runs, in YAML or JSON: reading it, and adding what was recorded."""

from __future__ import annotations

import secrets
from pathlib import Path

from pydantic import ValidationError

from charter.errors import Misconfigured
from charter.manifests.yaml_text import dump, load
from charter.model.base import Json, in_words
from charter.model.fixture import Answers, Fixture, Fixtures

CODE = "bad_fixtures"


def read_fixtures(path: Path | None) -> Answers:
    """What it says; nothing without a file. Raises ``Misconfigured`` (``bad_fixtures``) naming the file and what is wrong."""
    if path is None:
        return {}
    try:
        value = load(path.read_text(encoding="utf-8"), path.name, code=CODE).value
        return Fixtures.model_validate({"answers": value if value is not None else {}}).answers
    except (OSError, UnicodeDecodeError) as error:
        mend = "Make it a readable text file, or take `fixtures` out of [tools] in charter.toml."
        raise Misconfigured(f"{path.name} cannot be read: {error}", code=CODE, next_step=mend) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = "/".join(map(str, first["loc"][1:]))
        raise Misconfigured(
            f"{path.name}: {where}: {in_words(first['msg'])}",
            code=CODE,
            next_step="Correct it as docs/testing-templates.md says under Fixtures.",
        ) from None


def in_file(answers: Answers) -> str:
    """The text of a file with these."""
    return dump({name: _plain(found) for name, found in answers.items()})


def _plain(found: Fixture | tuple[Fixture, ...]) -> Json:
    if isinstance(found, Fixture):
        return found.model_dump(mode="json", exclude_defaults=True)
    return [_plain(each) for each in found]


def add_fixtures(path: Path, answers: Answers) -> tuple[str, ...]:
    """Add to a file, or make it, and say which names were added: what it has, comments too, stays as it is.

    Raises ``Misconfigured`` (``bad_fixtures``) where the file is wrong or cannot be added to; nothing has changed then.
    """
    known = read_fixtures(path) if path.exists() else {}
    new = {name: found for name, found in answers.items() if name not in known}
    if not new:
        return ()
    before = path.read_text(encoding="utf-8").rstrip() if path.exists() else ""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        draft.write_text(f"{before}\n\n{in_file(new)}" if before else in_file(new), encoding="utf-8")
        if read_fixtures(draft) != {**known, **new}:
            raise ValueError
        draft.replace(path)
    except (OSError, ValueError, Misconfigured):
        mend = "Write them into a file of their own (--out), and copy what you want."
        raise Misconfigured(f"{path.name} cannot be added to.", code=CODE, next_step=mend) from None
    finally:
        draft.unlink(missing_ok=True)
    return tuple(new)
