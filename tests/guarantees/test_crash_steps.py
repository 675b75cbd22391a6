"""kill -9 while a run goes through every type of step: it comes to its end, and nothing is asked, told or started twice.

One run, many lives of the server: each dies before or after one of its next few commits. Beside it, in another process,
stand those who help the run on: they approve, send the signal, call back, and find out what became of a doubt.
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
from typing import Any, get_args

import anyio
import httpx2
import pytest

from charter.manifests.tool_files import UpstreamManifest
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.signal import Signal
from charter.model.template_parts import StepType
from charter.server.app import Charter, running
from charter.server.keys import load_keys
from charter.server.secret_store import SecretFile
from charter.store.port import Filter, Page
from charter.store.sealing import Sealer
from charter.tools.webhooks import signed_headers
from tests.guarantees.serving import Served, install
from tests.guarantees.test_crash import ENDED, record_of
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, CAT, OPS
from tests.web import Says, Site, site

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.guarantee("G5"),
    pytest.mark.guarantee("G6"),
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal"),
]
EGRESS = '[egress]\nallow = ["http://127.0.0.1:*"]\nprivate = ["127.0.0.0/8"]\n'
USES = '[egress.secrets]\nHOOK = ["http://127.0.0.1:*"]\n'
UNDO = {"tool": "counter__write_idempotent", "arguments": {"what": "undo", "value": "1"}}


def action(id: str, tool: str, more: JsonObject | None = None, /, **arguments: Any) -> JsonObject:
    return {"id": id, "type": "action", "tool": f"counter__{tool}", "arguments": arguments, **(more or {})}


def templates(url: str) -> dict[str, JsonObject]:
    """Every type of step but ``agent``, whose calls :mod:`tests.guarantees.test_crash` makes; the last one fails."""
    call = {"url": f"{url}/call", "method": "POST", "risk": "low", "idempotent": True}
    body = {"tell": "{{ callback.url }}", "sign": "{{ callback.secret }}"}
    hook = {"url": f"{url}/hook", "secret": "HOOK", "data": {}}
    every = [
        {"id": "if", "type": "condition", "expression": "trigger.n == 1", "if_true": ["pay"]},
        action("pay", "charge", {"compensate": UNDO}, account="a", cents=1),
        {"id": "nap", "type": "wait", "seconds": 1},
        {"id": "word", "type": "wait", "signal": {"type": "word"}},
        {"id": "call", "type": "external", **call, "body": body, "callback": {"timeout_seconds": 600}},
        {"id": "tell", "type": "notification", "webhook": hook, "wait": True},
        {"id": "say", "type": "signal", "signal": {"type": "said", "data": {"n": 1}}},
        {"id": "sub", "type": "workflow", "template": "child"},
        {"id": "ask", "type": "approval", "question": "Go on?"},
        action("fail", "refuse"),
    ]
    return {
        "every": {"name": "every", "version": "1", "steps": every},
        "child": {"name": "child", "version": "1", "steps": [action("keep", "charge", account="child", cents=1)]},
        "heard": {
            "name": "heard",
            "version": "1",
            "on_signal": [{"type": "said"}],
            "steps": [action("note", "charge", account="heard", cents=1)],
        },
    }


@pytest.fixture
def web() -> Iterator[Site]:
    with site(lambda _: Says(202, body={})) as found:
        yield found


def prepared(folder: Path, manifest: UpstreamManifest, web: Site) -> Served:
    """An installation with these templates, which may call the site."""
    served = install(folder, manifest)
    for name, document in templates(web.url).items():
        (folder / "templates" / f"{name}.json").write_text(json.dumps(document))
    config = folder / "charter.toml"
    text = config.read_text().replace("[egress]\n", EGRESS, 1).replace("[egress.secrets]\n", USES, 1)
    config.write_text(text)
    keys = load_keys(served.settings.keys_folder)
    secrets = SecretFile(served.settings.keys_folder / "secrets.json", Sealer(keys.sealing, keys.sealing_current))
    secrets.set("HOOK", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0")
    return served


@dataclass
class Helpers:
    """Everybody whom the run waits for. They know only what is on record, and what they were asked."""

    charter: Charter
    upstream: Counting
    web: Site
    taken: set[int] = field(default_factory=set)

    async def help(self) -> None:
        page = Page()
        for row in (await self.charter.store.approvals("default", Filter(status="pending"), page))[0]:
            decide = cmd.DecideApproval(approval_id=row.approval_id, decision="approve", channel="cli")
            await self.charter.gate.handle(CAT, decide)
        if await self.charter.store.waiting_for("default", "word", "", 1):
            signal = Signal(id="w1", source="test", type="word", data={})
            await self.charter.gate.handle(OPS, cmd.SendSignal(signal=signal))
        for effect in (await self.charter.store.effects("default", Filter(status="in_doubt"), page))[0]:
            ran = self.upstream.counts("charge")[effect.effect_id]
            found = cmd.ResolveEffect(
                workflow_id=effect.workflow_id,
                effect_id=effect.effect_id,
                resolution="ran" if ran else "retry",
                output={},
            )
            await self.charter.gate.handle(OPS, found)
        await self.call_back()

    async def call_back(self) -> None:
        """Until it is acknowledged, as Standard Webhooks asks; 409: it was, and the answer was lost."""
        for number, asked in enumerate(self.web.asked):
            if asked.path != "/call" or number in self.taken:
                continue
            at = self.charter.gate.parts.clock() // 1000
            headers = signed_headers([asked.json["sign"]], "msg_1", at, b"{}")
            with suppress(httpx2.HTTPError):
                async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
                    content = {"content-type": "application/json", **headers}
                    answer = await client.post(asked.json["tell"], content=b"{}", headers=content)
                assert answer.status_code in (202, 409), answer.text
                self.taken.add(number)

    async def over(self) -> bool:
        """Whether every run that there is has ended, and the one that the signal starts is there."""
        rows, _ = await self.charter.store.workflows("default", Filter(), Page())
        return len(rows) == 3 and all(row.status in ("completed", "failed") for row in rows)


async def lived(served: Served, helpers: Helpers, when: str) -> bool:
    """One life of the server; whether it was killed before all was over."""
    with suppress(AssertionError):  # it may die while it starts
        served.start(**({"KILL_AT_COMMIT": when} if when else {}))
    assert served.process is not None
    with anyio.fail_after(60):
        while served.process.poll() is None:
            await helpers.help()
            if await helpers.over():
                return False
            await anyio.sleep(0.02)
    return True


async def test_a_server_that_dies_at_each_step_of_a_run_brings_it_to_its_end(
    tmp_path: Path, manifest: UpstreamManifest, upstream: Counting, web: Site
) -> None:
    upstream.forget()
    served, chance = prepared(tmp_path, manifest, web), random.Random(2)
    deaths = 0
    try:
        async with running(served.settings, drive=False) as charter:
            start = cmd.StartWorkflow(template="every", input={"n": 1}, purpose="to be killed")
            run = await charter.gate.handle(AGENT, start)
            helpers = Helpers(charter, upstream, web)
            while deaths < 16 and await lived(
                served, helpers, f"{chance.choice(['before', 'after'])}:{chance.randint(1, 3)}"
            ):
                deaths += 1
            if served.process is not None and served.process.poll() is None:
                served.kill()  # it was to die later than all was over
            assert not await lived(served, helpers, "")
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
            await client.get(served.settings.resource)  # it answers, so it ends as it should when it is told to
        served.stop()
    finally:
        if served.process is not None and served.process.poll() is None:
            served.kill()
    assert deaths >= 5, "it was killed again and again"
    check(await record_of(served), run.workflow_id, upstream)


def check(runs: dict[str, list[Any]], workflow_id: str, upstream: Counting) -> None:
    """See the module's text."""
    started = Counter(events[0].data["template"] for events in runs.values())
    assert started == {"every@1": 1, "child@1": 1, "heard@1": 1}, "no start is lost or doubled"
    events = runs[workflow_id]
    types = Counter(event.type for event in events)
    assert events[-1].type == "WORKFLOW_FAILED"
    assert events[-1].data["compensated"] == ["pay"]
    assert all(types[once] == 1 for once in ("APPROVAL_REQUESTED", "APPROVAL_DECISION", "SIGNAL_SENT", "CHILD_STARTED"))
    assert types["SIGNAL_DELIVERED"] == types["CALLBACK_RECEIVED"] == 1
    done = [e.data["step_id"] for e in events if e.type == "WORKFLOW_STEP" and e.data["status"] == "completed"]
    assert len(done) == len(set(done)), "each step ends once: no timer fires twice"
    assert {"if", "pay", "nap", "word", "call", "tell", "say", "sub", "ask"} <= set(done)
    charged = Counter(call["account"] for call in upstream.calls("charge"))
    assert charged == {"a": 1, "child": 1, "heard": 1}, "no charge is lost or doubled"
    assert {call["what"] for call in upstream.calls("write_idempotent")} == {"undo"}
    assert len(upstream.counts("write_idempotent")) == 1, "undone under one key"
    assert all(any(event.type in ENDED for event in each) for each in runs.values())


def test_every_type_of_step_is_in_the_template() -> None:
    used = {step["type"] for step in templates("http://127.0.0.1")["every"]["steps"]}
    assert used | {"agent"} == set(get_args(StepType))
