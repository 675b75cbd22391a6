"""A document in the index-based form that reaches outside, run end to end: its own times, requests, people and mail."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from charter.manifests.dialects.bindings import read_bindings
from charter.manifests.templates import load_template
from charter.model import commands as cmd
from charter.model.principal import Principal, service
from charter.server.callbacks import access_of
from charter.server.settings_model import Settings
from charter.store.port import Filter, Page
from charter.workflows.expressions import problem
from tests.gate.test_callbacks import KEYS, call_back
from tests.gate.test_notifications import mailing, server
from tests.guarantees.world import OPS, Clock
from tests.manifests.foreign import SUPPLIER, SUPPLIER_BINDINGS
from tests.outside import outside_desk
from tests.smtp import mail_box
from tests.web import Asked, Says, site

pytestmark = pytest.mark.anyio
BOARD = Principal(id="the-board", kind="human", roles=("board",))


async def test_from_its_time_to_its_mail(tmp_path: Path) -> None:
    answers = iter((Says(503), Says(200, {"data": {"score": 7, "names": ["Acme"]}}), Says(202, {"job": 5})))

    def answer(_: Asked) -> Says:
        return next(answers)

    clock = Clock()
    with site(answer) as web, mail_box() as box:
        text = json.dumps(SUPPLIER).replace("http://registry.example", web.url)
        bound = read_bindings(SUPPLIER_BINDINGS, "b.yaml")
        template = load_template(text, "doc.json", check_expression=problem, bindings=bound)
        own = replace(mailing(server(box)), callback_of=partial(access_of, KEYS, Settings()))
        async with outside_desk(tmp_path / "db", (template,), own, clock) as desk:
            keep = cmd.KeepSchedule(schedule="supplier-check/default")
            due = await desk.gate.handle(service("schedules", "default"), keep)
            assert due is not None
            assert due.endswith("T07:30:00.000Z"), "half past eight in Berlin's winter"
            while clock.now <= due:
                clock.wait(3600)
            await desk.gate.handle(service("schedules", "default"), keep)
            [row] = (await desk.store.workflows("default", Filter(), Page()))[0]
            for _ in range(3):
                await desk.engine.settle()
                clock.wait(5)
            [asked] = (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]
            await desk.decide(asked.approval_id)  # the shipped policy has people agree to a POST
            await desk.engine.settle()
            assert [asked.path for asked in web.asked] == ["/score/s%201", "/score/s%201", "/check"]
            back = await call_back(desk, web.asked[2], b'{"result": {"verdict": "sound"}}')
            assert back.status_code == 202
            await desk.engine.settle()
            clock.wait(4 * 3600 + 1)
            await desk.engine.settle()
            [asked] = (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]
            assert "APPROVAL_ESCALATED" in await desk.types(row.workflow_id)
            await desk.decide(asked.approval_id, by=BOARD)
            await desk.engine.settle()
            assert (await desk.queries.workflow(OPS, row.workflow_id)).status == "completed"
            await desk.check_record()
        [(_, to, letter)] = box.got
    assert sorted(to) == ["ann@example.com", "box@example.com", "buy@example.com"]
    assert letter["subject"] == "Supplier s 1"
    assert "Score 7, sound." in str(letter.get_payload())
