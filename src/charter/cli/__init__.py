"""The command line: translation only. Each command opens the same rooms as the server and passes the same gate."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code (see ``charter.cli.failing``)."""
    from charter.cli.failing import run_command
    from charter.cli.root import app

    sys.exit(run_command(app, argv))
