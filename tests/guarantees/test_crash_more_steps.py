"""kill -9 while a run polls, has an agent's work judged, writes mail, starts at a time and is undone.

As :mod:`tests.guarantees.test_crash_steps`, whose helpers stand by here too. The short one is the same with fewer deaths.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from charter.errors import CharterError
from charter.manifests.tool_files import UpstreamManifest
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.server.app import running
from charter.store.port import Filter, Page
from tests.guarantees.serving import Served
from tests.guarantees.test_crash import ENDED, record_of
from tests.guarantees.test_crash_steps import UNDO, Helpers, action, lived, prepared
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT
from tests.smtp import MailBox, mail_box
from tests.web import Says, Site, site

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.guarantee("G5"),
    pytest.mark.guarantee("G6"),
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal"),
]


def more(url: str) -> JsonObject:
    """A run that fails at last, so that what it has done is undone."""
    book = {"method": "POST", "risk": "low", "idempotent": True, "compensate": {"step": "unbook"}}
    unbook = {"method": "DELETE", "risk": "low", "retry": {"attempts": 5, "backoff_seconds": 0}}
    read = {"tool": "counter__read", "arguments": {"what": "tests"}}
    gate = {
        "checks": [{"id": "tests", "evidence": read, "expression": "evidence != null"}],
        "approval": {"requirements": [{"approvers": 1}]},
    }
    polled = {"tool": "counter__read", "arguments": {"what": "poll"}, "until": "false", "every_seconds": 1}
    mail = {"to": ["ann@example.com"], "subject": "So", "text": "It is so."}
    steps = [
        {"id": "poll", "type": "wait", "poll": {**polled, "attempts": 2}, "on_timeout": "skip"},
        {"id": "work", "type": "agent", "artifacts": [{"name": "plan"}], "gate": gate},
        {"id": "mail", "type": "notification", "email": mail, "wait": True},
        {"id": "book", "type": "external", "url": f"{url}/book", **book},
        {"id": "unbook", "type": "external", "url": f"{url}/unbook", **unbook},
        action("note", "read", {"compensate": {"step": "unnote"}}, what="note"),
        {"id": "unnote", "type": "workflow", "template": "back"},
        action("pay", "charge", {"compensate": UNDO}, account="a", cents=1),
        action("fail", "refuse"),
    ]
    return {"name": "more", "version": "1", "steps": steps}


BACK: JsonObject = {
    "name": "back",
    "version": "1",
    "steps": [action("refund", "charge", account="back", cents=1)],
}
"""The run by which a step of the other is undone."""

EACH: JsonObject = {
    "name": "each",
    "version": "1",
    "on_schedule": [{"cron": "* * * * *"}],
    "steps": [action("tick", "charge", account="tick", cents=1)],
}


@pytest.fixture
def web() -> Iterator[Site]:
    with site(lambda _: Says(200, body={})) as found:
        yield found


@pytest.fixture
def box() -> Iterator[MailBox]:
    with mail_box() as found:
        yield found


@dataclass
class Others(Helpers):
    """The agent besides; and all is over when the run is, and one that a time has started where there is a schedule."""

    workflow_id: str = ""
    scheduled: bool = False
    handed_in: list[str] = field(default_factory=list)

    async def help(self) -> None:
        await super().help()
        shown = await self.charter.queries.workflow(AGENT, self.workflow_id)
        for item in shown.invocations:
            done = cmd.CompleteStep(
                workflow_id=self.workflow_id,
                agent_invocation_id=item.agent_invocation_id,
                output={"plan": "so"},
            )
            with suppress(CharterError):  # the server and this process may both have moved the run
                await self.charter.gate.handle(AGENT, done)

    async def over(self) -> bool:
        rows, _ = await self.charter.store.workflows("default", Filter(), Page(limit=1000))
        wanted = 3 if self.scheduled else 2
        return len(rows) >= wanted and all(row.status in ("completed", "failed") for row in rows)


@pytest.mark.parametrize(
    ("most", "least", "scheduled"), [(1, 1, False), pytest.param(20, 8, True, marks=pytest.mark.slow)]
)
async def test_a_server_that_dies_brings_work_mail_polls_and_what_is_undone_to_their_end(
    tmp_path: Path,
    manifest: UpstreamManifest,
    upstream: Counting,
    web: Site,
    box: MailBox,
    most: int,
    least: int,
    scheduled: bool,
) -> None:
    upstream.forget()
    served, chance = installed(tmp_path, manifest, web, box, scheduled=scheduled), random.Random(3)
    deaths = 0
    try:
        async with running(served.settings, drive=False) as charter:
            start = cmd.StartWorkflow(template="more", purpose="to be killed")
            run = await charter.gate.handle(AGENT, start)
            others = Others(charter, upstream, web, workflow_id=run.workflow_id, scheduled=scheduled)
            while deaths < most and await lived(
                served, others, f"{chance.choice(['before', 'after'])}:{chance.randint(1, 4)}"
            ):
                deaths += 1
            if served.process is not None and served.process.poll() is None:
                served.kill()  # it was to die later than all was over
            assert not await lived(served, others, "")
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            await client.get(served.settings.resource)
        served.stop()
    finally:
        if served.process is not None and served.process.poll() is None:
            served.kill()
    assert deaths >= least
    check(await record_of(served), run.workflow_id, upstream, web, box)


def installed(folder: Path, manifest: UpstreamManifest, web: Site, box: MailBox, *, scheduled: bool) -> Served:
    served = prepared(folder, manifest, web)
    (folder / "templates" / "more.json").write_text(json.dumps(more(web.url)))
    (folder / "templates" / "back.json").write_text(json.dumps(BACK))
    if scheduled:
        (folder / "templates" / "each.json").write_text(json.dumps(EACH))
    mail = f'[email]\nhost = "127.0.0.1"\nport = {box.port}\nsecurity = "none"\nsender = "c@example.com"\n'
    config = folder / "charter.toml"
    text = config.read_text().replace("[email]\n", f'{mail}recipients = ["*@example.com"]\n', 1)
    config.write_text(text)
    return served


def check(runs: dict[str, list[Any]], workflow_id: str, upstream: Counting, web: Site, box: MailBox) -> None:
    """Everything happened once, or is on record as what it was."""
    events = runs[workflow_id]
    types = Counter(event.type for event in events)
    assert events[-1].type == "WORKFLOW_FAILED"
    assert events[-1].data["compensated"] == ["pay", "note", "book"], "the last one first"
    backs = [each for each in runs.values() if each[0].data["template"] == "back@1"]
    assert [each[0].data["parent_step_id"] for each in backs] == ["undo:note"], "one child, however often it died"
    assert types["APPROVAL_REQUESTED"] == types["APPROVAL_DECISION"] == types["AGENT_INVOKE"] - 1 == 1
    assert [event.data["outcome"] for event in events if event.type == "GATE_CHECKED"] == ["waiting", "waiting", "open"]
    calls = {event.data["effect_id"]: event.data["step_id"] for event in events if event.type == "TOOL_INVOKE"}
    made = Counter(calls.values())
    assert (made["poll"], made["work.gate.tests"]) == (2, 1), "no poll and no evidence is lost or doubled"
    status = {event.data["step_id"]: event.data["status"] for event in events if event.type == "WORKFLOW_STEP"}
    assert (status["poll"], status["work"], status["book"], status["pay"]) == ("skipped", *["completed"] * 3)
    assert len(box.got) <= 1, "nobody knows whether a mail was taken that was cut off: it is not sent a second time"
    assert status["mail"] == ("completed" if not types["EFFECT_DEAD_LETTERED"] else "skipped")
    assert len(box.got) == 1 or types["EFFECT_DEAD_LETTERED"] == 1, "and none is lost in silence"
    keys = {(asked.path, asked.headers.get("idempotency-key")) for asked in web.asked}
    assert Counter(path for path, _ in keys) == {"/book": 1, "/unbook": 1}, "one request each, however often sent"
    ticks = [each for each in runs.values() if each[0].data["template"] == "each@1"]
    charged = Counter(call["account"] for call in upstream.calls("charge"))
    assert charged == Counter({"a": 1, "back": 1, "tick": len(ticks)}), "no charge is lost or doubled"
    minutes = Counter(each[0].data["caused_by"]["due_at"] for each in ticks)
    assert all(count == 1 for count in minutes.values()), "a time starts one run"
    assert all(any(event.type in ENDED for event in each) for each in runs.values())
