"""What an adversary from outside has broken once."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from charter.errors import Unavailable
from charter.manifests.tool_files import Reference, StdioConnection
from charter.model.policy import Approved
from charter.policies.approvals import Wanted
from charter.tools.adding import discover, propose
from charter.tools.connecting import Sources
from charter.tools.registry import Registry

pytestmark = pytest.mark.anyio

CHATTY = """
import sys
print('{"password": "hunter2"', flush=True)
print("debug: the password is hunter2", flush=True)
sys.stdin.readline()
"""


@pytest.mark.guarantee("G8")
async def test_what_an_upstream_wrote_that_is_no_message_is_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """The SDK quotes such a line in the error that it logs; upstreams that print while they debug are many."""
    connection = StdioConnection(command=sys.executable, args=("-c", CHATTY))
    with caplog.at_level(logging.DEBUG), pytest.raises(Unavailable):
        await discover("chatty", connection, Sources({}), seconds=10)
    assert "what is no message" in caplog.text, "that a line was no message is worth a log line"
    assert "hunter2" not in caplog.text


@pytest.mark.guarantee("G4")
def test_two_spellings_of_a_name_are_not_two_people() -> None:
    twice = tuple(Approved(approver=name, channel="cli", kind="human") for name in ("bob", "Bob"))
    assert Wanted("any:1", None, None, 1).met_by(twice)
    assert not Wanted("any:2", None, None, 2).met_by(twice)


@pytest.mark.guarantee("G8")
async def test_children_are_given_the_credentials_that_are_theirs_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What any user of the machine may read of a process (its command) has no secret; what its owner may, only its own."""
    monkeypatch.setenv("CHARTER_TOKEN", "token-of-the-operator")
    monkeypatch.setenv("MINE", "mine-4711")
    monkeypatch.setenv("OTHERS", "others-4712")
    command = ("-m", "charter.bundled.casebook", "--folder", str(tmp_path))
    connection = StdioConnection(command=sys.executable, args=command, env={"KEY": Reference(env="MINE")})
    offered = await discover("casebook", connection, Sources(environment=dict(os.environ)))
    manifest, _ = propose("casebook", connection, offered.tools)
    registry = Registry(lambda: (manifest,), Sources(environment=dict(os.environ)))
    async with registry.running():
        assert await registry.wait_ready(60) == ()
        children = _processes(str(tmp_path))
        assert children
        for shown, environment in children:
            assert b"mine-4711" in environment
            for secret in (b"mine-4711", b"others-4712", b"token-of-the-operator"):
                assert secret not in shown
                assert secret == b"mine-4711" or secret not in environment


def _processes(named: str) -> list[tuple[bytes, bytes]]:
    """Command and environment of each process whose command has this text."""
    found = [(_read(path / "cmdline"), _read(path / "environ")) for path in Path("/proc").glob("[0-9]*")]
    return [item for item in found if named.encode() in item[0]]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended
        return b""
