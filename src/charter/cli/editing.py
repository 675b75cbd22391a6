"""JSON from the command line, from a file, or from the person's editor."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson

from charter.errors import InvalidInput
from charter.model.json_text import exact_json


def text_from(given: str) -> str:
    """The text itself, the file's after ``@``, or standard input's for ``-``."""
    if given == "-":
        return sys.stdin.read()
    return Path(given[1:]).read_text(encoding="utf-8") if given.startswith("@") else given


def json_from(given: str, what: str) -> Any:
    """JSON given as text, ``@FILE`` or ``-``. Raises ``InvalidInput``."""
    try:
        return exact_json(text_from(given))
    except InvalidInput as error:
        code = "bad_json" if error.error_code == "json_invalid" else error.error_code
        raise InvalidInput(f"{what}: {error.message}", code=code, next_step=error.next_step) from None


def arguments_from(given: str, what: str = "--arguments") -> dict[str, Any]:
    """A JSON object. Raises ``InvalidInput``."""
    value = json_from(given, what)
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} must be a JSON object.", code="bad_json")
    return value


def edited(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments after the person has changed them in $VISUAL or $EDITOR."""
    from charter.server.settings import process_environment

    environment = process_environment()
    editor = environment.get("VISUAL") or environment.get("EDITOR")
    if not editor or not sys.stdin.isatty():
        raise InvalidInput("There is no editor to open.", next_step="Give --arguments JSON or @FILE, or set EDITOR.")
    with tempfile.TemporaryDirectory(prefix="charter-") as place:
        file = Path(place) / "arguments.json"
        file.write_bytes(orjson.dumps(arguments, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        subprocess.run([*shlex.split(editor), str(file)], check=False)  # noqa: S603 - the person's own editor
        return arguments_from(f"@{file}", "What you wrote")
