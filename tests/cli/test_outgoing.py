"""What leaves, by a real server or its engine: requests with a secret of the store, callbacks at its own door, webhooks."""

from __future__ import annotations

import threading
from functools import partial

import anyio
import httpx2
import pytest

from charter.model import commands as cmd
from charter.server.app import running
from charter.server.settings import load_settings
from tests.cli.recorded import IDE
from tests.cli.support import Done, Project
from tests.cli.test_first_minutes import call
from tests.engine.test_outbox import eventually
from tests.guarantees.world import OPS
from tests.web import Asked, Says, site

pytestmark = pytest.mark.anyio

TEMPLATE = """
name: called
version: "1"
steps:
  - id: ask
    type: external
    method: POST
    url: URL/jobs
    headers: {Authorization: "Bearer {{ secrets.JOBS }}"}
    body: {tell: "{{ callback.url }}", sign: "{{ callback.secret }}"}
    risk: low
    callback: {extract: {score: callback.body.score}}
  - id: tell
    type: notification
    webhook: {url: "URL/hook", secret: HOOK}
output: "{{ steps.ask.output.score }}"
"""


@pytest.mark.slow
async def test_a_server_asks_is_called_back_and_tells(project: Project) -> None:
    from mcp import Client

    from charter.tools.webhooks import signed_headers

    told = threading.Event()
    answered: list[int] = []

    def answers(asked: Asked) -> Says:
        if asked.path == "/jobs":
            body = b'{"score": 713}'

            def call_back() -> None:
                import time

                headers = signed_headers([asked.json["sign"]], "msg_1", int(time.time()), body)
                headers["content-type"] = "application/json"
                answered.append(httpx2.post(asked.json["tell"], content=body, headers=headers).status_code)
                answered.append(httpx2.post(asked.json["tell"], content=body, headers=headers).status_code)

            threading.Thread(target=call_back).start()
        else:
            told.set()
        return Says(202)

    with site(answers) as web:
        (project.folder / "templates").mkdir(exist_ok=True)
        (project.folder / "templates" / "called.yaml").write_text(TEMPLATE.replace("URL", web.url))
        config = project.folder / "charter.toml"
        text = config.read_text().replace("[egress]", f'[egress]\nallow = ["{web.url}"]\nprivate = ["127.0.0.0/8"]', 1)
        config.write_text(
            text.replace("[egress.secrets]", f'[egress.secrets]\nJOBS = ["{web.url}"]\nHOOK = ["{web.url}"]', 1)
        )
        assert project.charter("secret", "set", "JOBS", stdin="t0p-s3cret").code == 0
        assert project.charter("secret", "set", "HOOK", stdin="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").code == 0
        with project.serving("--anonymous"):
            async with Client(project.url) as client:
                started = await call(client, "start_workflow", template="called", purpose="Look")
            assert told.wait(60)
            async with Client(project.url) as client:
                run = await call(client, "get_workflow", workflow_id=started["workflow_id"])
        assert web.asked[0].headers["authorization"] == "Bearer t0p-s3cret"
        assert sorted(asked.path for asked in web.asked) == ["/hook", "/jobs"]
    assert run["steps"]["ask"] == "completed"
    assert answered == [202, 409]
    kept = b"".join(file.read_bytes() for file in project.database.parent.glob("charter.sqlite*") if file.is_file())
    assert b"t0p-s3cret" not in kept


TOLD = """
[webhooks.crm]
url = "URL"
secret = ["HOOK"]
types = ["invoice.due"]
private = true
attempts = 1
"""
SAYS = """
name: says
version: "1"
steps:
  - {id: say, type: signal, signal: {type: invoice.due, subject: "7"}}
"""


async def test_an_operator_has_a_signal_sent_again_that_a_webhook_did_not_take(project: Project) -> None:
    status, heard = [500], threading.Event()

    def answers(_asked: Asked) -> Says:
        if status[0] == 204:
            heard.set()
        return Says(status[0])

    async def signal(*words: str, role: str = "operator") -> Done:
        """A command beside the server, as an operator gives it."""
        return await anyio.to_thread.run_sync(partial(project.here, "signal", *words, "--as", "olga", "--role", role))

    with site(answers) as web:
        (project.folder / "templates").mkdir(exist_ok=True)
        (project.folder / "templates" / "says.yaml").write_text(SAYS)
        config = project.folder / "charter.toml"
        config.write_text(config.read_text() + TOLD.replace("URL", web.url))
        assert project.charter("secret", "set", "HOOK", stdin="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").code == 0
        async with running(load_settings(config, environ={})) as charter:
            await charter.gate.handle(IDE, cmd.StartWorkflow(template="says", purpose="Say it"))
            await eventually(lambda: charter.outlet.undelivered(OPS))
            (lost,) = (await signal("undelivered", "--json")).json
            assert (lost["subscriber"], lost["signal_type"], lost["attempts"]) == ("webhook:crm", "invoice.due", 1)
            lost_id = lost["signal_id"]
            assert lost_id in (await signal("undelivered")).out
            for words, role in (
                (("evt_none",), "operator"),  # nobody gave that up
                ((lost_id, "--to", "webhook:erp"), "operator"),
                ((lost_id,), "approver"),
            ):
                refused = await signal("resend", *words, role=role)
                assert refused.code == 1, refused.both
            status[0] = 204
            again = await signal("resend", lost_id, "--to", "webhook:crm")
            assert again.out == f"{lost_id} goes out again to webhook:crm.\n", again.both
            assert await anyio.to_thread.run_sync(heard.wait, 60)
            assert (await signal("undelivered", "--json")).json == []
            twice = await signal("resend", lost_id, "--json")
            assert (twice.code, "undelivered" in twice.both) == (1, True)
        bodies = [asked.json for asked in web.asked]
        assert [body["id"] for body in bodies] == [lost_id] * 2
        assert bodies[0] == bodies[1]
    assert lost_id in project.ok("audit", "log", "--type", "SIGNAL_RESENT", "--role", "auditor").out
