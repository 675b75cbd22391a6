"""What an adversary from outside has broken once."""

from __future__ import annotations

import logging
import sys

import pytest

from charter.errors import Unavailable
from charter.manifests.tool_files import StdioConnection
from charter.model.policy import Approved
from charter.policies.approvals import Wanted
from charter.tools.adding import discover
from charter.tools.connecting import Sources

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
