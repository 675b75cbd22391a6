"""A real server: its engine sends a request with a secret of the store, and is called back at its own door."""

from __future__ import annotations

import threading

import httpx2
import pytest

from tests.cli.support import Project
from tests.cli.test_first_minutes import call
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
