"""How commands fail: two lines (what, next step) on standard error and an exit code, never a traceback.

==  =====================================================================================================
0   done; for checks: everything is as it should be
1   refused, denied, not found, or a check that found something (a failing policy test, a changed tool)
2   usage or configuration: the command, a file or an argument is not what it must be; nothing was changed
3   the ledger, an export or a proof does not verify
4   the credential is missing or not valid
5   something that is needed does not answer: the store, an upstream
6   of ``charter simulate``: the run waits for something that is not scripted
70  a mistake in Charter itself
130 interrupted
==  =====================================================================================================
"""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import typer
from pydantic import ValidationError
from typer.main import get_command

from charter.cli.output import safe, todo
from charter.errors import (
    CharterError,
    IntegrityError,
    InvalidInput,
    Misconfigured,
    Unauthenticated,
    Unavailable,
)
from charter.model.base import in_words

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LONG = re.compile(r"\S{200,}")
OK, REFUSED, USAGE, INTEGRITY, NO_CREDENTIAL, UNAVAILABLE, WAITS, BUG, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 70, 130
_CODES: tuple[tuple[type[CharterError], int], ...] = (
    (IntegrityError, INTEGRITY),
    (InvalidInput, USAGE),
    (Misconfigured, USAGE),
    (Unauthenticated, NO_CREDENTIAL),
    (Unavailable, UNAVAILABLE),
)


def exit_code(error: CharterError) -> int:
    """The exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), REFUSED)


def run_command(app: typer.Typer, argv: Sequence[str] | None) -> int:
    """Run the application; the exit code."""
    command = _built(app)
    try:
        result = command.main(
            args=list(sys.argv[1:] if argv is None else argv), prog_name="charter", standalone_mode=False
        )
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (typer.Abort, KeyboardInterrupt):
        tell("Interrupted.", "Nothing more was done.")
        return INTERRUPTED
    except BaseException as error:
        return _failed(error)
    return result if isinstance(result, int) else OK


_built = cache(get_command)


def the_one(error: BaseException) -> BaseException:
    """The error inside groups of one, which task groups make."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        known = [inner for inner in map(the_one, error.exceptions) if isinstance(inner, CharterError)]
        return known[0] if known else error
    return error


def _failed(error: BaseException) -> int:
    error = the_one(error)
    if isinstance(error, CharterError):
        tell(error.message, error.next_step)
        return exit_code(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else REFUSED
    if isinstance(error, ValidationError):  # an argument that no command takes; its value is not repeated
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "The input"
        tell(f"{where}: {in_words(first['msg'])}.", "Correct it; nothing was changed.")
        return USAGE
    message = getattr(error, "format_message", None)
    if callable(message):  # typer's own: usage
        _tell_usage(error, str(message()))
        return USAGE
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        tell(
            "The disk is full, or a limit on files is reached.", "Free space, then try again; nothing was half written."
        )
        return UNAVAILABLE
    if isinstance(error, OSError):
        tell(
            f"{error.filename or 'A file'}: {error.strerror or type(error).__name__}.", "Check the path and its rights."
        )
        return USAGE
    tell(f"Charter made a mistake ({type(error).__name__} in {_place(error)}).", "Please report it with your command.")
    return BUG


def _place(error: BaseException) -> str:
    """Where it happened: the innermost line of Charter's own; never what was handled there."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "charter" in Path(frame.filename).parts]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "a library"


def _tell_usage(error: BaseException, message: str) -> None:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "charter"
    if not message:  # `charter` alone shows its help
        return
    tell(message, f"See `{path} --help`.")


def tell(what: str, next_step: str) -> None:
    """The two lines."""
    sys.stdout.flush()
    what = _LONG.sub(lambda word: word[0][:120] + "…", safe(what))  # what came in is not sent back whole
    print(f"{what}\nNext: {todo(next_step)}", file=sys.stderr)
