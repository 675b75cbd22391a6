"""What goes wrong on the machine is told with what to mend."""

from __future__ import annotations

import errno

import pytest

from charter.cli.failing import run_command
from charter.cli.root import app


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(errno.ENOSPC, 5, "disk is full"), (errno.EFBIG, 5, "disk is full"), (errno.EACCES, 2, "path and its rights")],
)
def test_a_file_that_cannot_be_written_says_what_to_mend(
    number: int, code: int, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(number, "it cannot be written", "/somewhere/secrets.json")

    monkeypatch.setattr("charter.cli.credentials._file", fails)
    assert run_command(app, ["secret", "list"]) == code
    assert says in capsys.readouterr().err
