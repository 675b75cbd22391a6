"""The file of fixtures that answer in dry runs, in YAML or JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from charter.errors import Misconfigured
from charter.manifests.yaml_text import load
from charter.model.base import in_words
from charter.model.fixture import Answers, Fixtures

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
