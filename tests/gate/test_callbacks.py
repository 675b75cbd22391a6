"""``external`` steps that are called back: signed, once, for this step, whenever it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette

from charter.errors import CharterError, Denied, Refused
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.principal import service
from charter.model.template import Template
from charter.server.callbacks import CallbackKeys, access_of, callback_route
from charter.server.problems import on_charter_error
from charter.server.settings_model import Settings
from charter.tools.webhooks import signed_headers
from tests.gate.test_external import everything_written
from tests.guarantees.world import ANN, OPS, SEALING, Clock, Desk, template
from tests.outside import outbound, outside_desk
from tests.web import Asked, Says, Site, site

pytestmark = pytest.mark.anyio

KEYS = CallbackKeys(SEALING, "k1")
UNREASONABLE = [(b"[" * 40 + b"]" * 40, 422), (b'"' + b"x" * 70_000 + b'"', 422), (b"x" * 200_000, 413)]


@pytest.fixture
def web() -> Iterator[Site]:
    with site(lambda _: Says(202, body={"job": 5})) as found:
        yield found


def asks(site: Site, id: str = "call", **more: Any) -> JsonObject:
    """A step that asks to be called back."""
    body = {"tell": "{{ callback.url }}", "sign": "{{ callback.secret }}"}
    found: JsonObject = {"id": id, "type": "external", "url": site.url, "method": "POST", "risk": "low", "body": body}
    return {**found, "callback": {"timeout_seconds": 600}, **more}


def flow(*steps: JsonObject, output: Any = "{{ steps.call.output }}") -> Template:
    return template("flow", *steps, output=output)


@asynccontextmanager
async def charter(path: Path, flow_: Template, clock: Clock | None = None, **more: Any) -> AsyncIterator[Desk]:
    own = more.pop("own", None) or outbound(callback_of=partial(access_of, KEYS, Settings()))
    async with outside_desk(path, (flow_,), own, clock, **more) as desk:
        yield desk


def door(desk: Desk, keys: CallbackKeys = KEYS) -> httpx2.AsyncClient:
    """The HTTP door of callbacks, in front of this desk."""
    app = Starlette(routes=[callback_route(desk.gate, keys)], exception_handlers={CharterError: on_charter_error})
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1:8420")


async def call_back(
    desk: Desk, asked: Asked, body: bytes = b'{"state": "done", "score": 7}', *, id: str = "msg_1", **changes: Any
) -> httpx2.Response:
    """As the other side does: to the URL that it was given, signed with the secret that it was given."""
    at = changes.pop("at", desk.clock.ms // 1000)
    signed = signed_headers([changes.pop("secret", asked.json["sign"])], id, at, body)
    headers = {"content-type": "application/json", **signed, **changes.pop("headers", {})}
    async with door(desk, changes.pop("keys", KEYS)) as client:
        url = changes.pop("url", asked.json["tell"])
        return await client.post(url, content=changes.pop("sent", body), headers=headers)


async def context(desk: Desk, run: Any) -> Any:
    await desk.engine.settle()
    return await desk.queries.workflow(ANN, run.workflow_id)


async def test_a_step_ends_with_its_callback(tmp_path: Path, web: Site) -> None:
    step = asks(
        web,
        extract={"job": "response.body.job"},
        callback={"extract": {"score": "callback.body.score"}, "success_condition": 'callback.body.state == "done"'},
    )
    async with charter(tmp_path / "db", flow(step)) as desk:
        run = await desk.start("flow")
        waiting = await context(desk, run)
        assert (waiting.status, waiting.steps["call"]) == ("waiting", "awaiting")
        assert waiting.blocked_by[0].what == "callback"
        answer = await call_back(desk, web.asked[0])
        assert (answer.status_code, answer.json()) == (202, {"status": "received"})
        ended = await context(desk, run)
        assert (ended.status, ended.output) == ("completed", {"status": 202, "job": 5, "score": 7})
        await desk.check_record()


@pytest.mark.guarantee("G8")
async def test_the_secret_of_a_callback_is_nowhere_on_record(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        secret = web.asked[0].json["sign"]
        assert secret.startswith("whsec_")
        assert secret not in str([event.data for event in await desk.events(run.workflow_id)])
        assert secret.encode() not in everything_written(tmp_path)


FORGED: dict[str, dict[str, Any]] = {
    "unsigned": {"headers": {"webhook-signature": ""}},
    "another body": {"sent": b'{"state": "done", "score": 8}'},
    "another secret": {"secret": "whsec_" + "A" * 32},
    "another id": {"headers": {"webhook-id": "msg_2"}},
    "too old": {"at": 1_799_999_000},
    "from the future": {"at": 1_800_001_000},
    "of another installation": {"keys": CallbackKeys({"k1": b"x" * 32}, "k1")},
}


@pytest.mark.guarantee("G1")
@pytest.mark.parametrize("how", FORGED)
async def test_a_callback_without_a_valid_signature_is_refused_and_changes_nothing(
    tmp_path: Path, web: Site, how: str
) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        before = await desk.types(run.workflow_id)
        answer = await call_back(desk, web.asked[0], **FORGED[how])
        assert answer.status_code == 401
        assert answer.json()["code"] in ("bad_signature", "stale_signature")
        assert await desk.types(run.workflow_id) == before


@pytest.mark.guarantee("G1")
async def test_a_callback_for_another_step_run_or_tenant_is_refused(tmp_path: Path, web: Site) -> None:
    two = flow(asks(web), asks(web, "other", needs=[]), output=None)
    async with charter(tmp_path / "db", two) as desk:
        run, second = await desk.start("flow"), await desk.start("flow")
        await context(desk, run)
        await context(desk, second)
        mine = next(a for a in web.asked if a.json["tell"].endswith(f"{run.workflow_id}/call"))
        wrong = [asked.json["tell"] for asked in web.asked if asked is not mine]
        wrong += [mine.json["tell"].replace("/default/", "/other/"), mine.json["tell"] + "x"]
        for url in wrong:
            assert (await call_back(desk, mine, url=url)).status_code == 401
        assert (await context(desk, run)).steps["call"] == "awaiting"


async def test_a_callback_is_taken_once(tmp_path: Path, web: Site) -> None:
    two = flow(asks(web), {"id": "hold", "type": "wait", "seconds": 60})
    async with charter(tmp_path / "db", two) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        assert (await call_back(desk, web.asked[0])).status_code == 202
        for id in ("msg_1", "msg_2"):
            again = await call_back(desk, web.asked[0], id=id)
            assert (again.status_code, again.json()["code"]) == (409, "callback_not_awaited")
        types = await desk.types(run.workflow_id)
        assert types.count("CALLBACK_RECEIVED") == 1
        assert types.count("COMMAND_REFUSED") == 2
        await desk.check_record()


async def test_a_callback_to_a_run_that_has_ended_is_refused(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        await desk.gate.handle(OPS, cmd.CancelWorkflow(workflow_id=run.workflow_id))
        assert (await call_back(desk, web.asked[0])).status_code == 409
        await desk.check_record()


async def test_only_the_door_delivers_callbacks(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        for who in (OPS, ANN, service("x", "default").model_copy(update={"roles": ()})):
            with pytest.raises(Denied):
                await desk.gate.handle(
                    who, cmd.DeliverCallback(workflow_id=run.workflow_id, step_id="call", message_id="m")
                )


async def test_one_that_comes_after_a_restart_finds_its_step(tmp_path: Path, web: Site) -> None:
    clock = Clock()
    async with charter(tmp_path / "db", flow(asks(web)), clock) as first:
        run = await first.start("flow")
        await context(first, run)
    clock.wait(300)
    async with charter(tmp_path / "db", flow(asks(web)), clock) as second:
        assert (await call_back(second, web.asked[0])).status_code == 202
        ended = await context(second, run)
        assert (ended.status, ended.output) == ("completed", {"body": {"state": "done", "score": 7}})
        await second.check_record()
    assert len(web.asked) == 1


async def test_a_callback_that_overtakes_the_answer_is_kept_for_it(tmp_path: Path, web: Site) -> None:
    step = asks(web, extract={"job": "response.body.job"})
    held = _Held(outbound(callback_of=partial(access_of, KEYS, Settings())))
    async with charter(tmp_path / "db", flow(step), own=held) as desk:
        run = await desk.start("flow")
        held.meanwhile = partial(call_back, desk)
        held.web = web
        ended = await context(desk, run)
        assert held.answered == 202
        assert ended.output == {"status": 202, "job": 5, "body": {"state": "done", "score": 7}}
        await desk.check_record()


class _Held:
    """The answer comes after the callback."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self.meanwhile: Any = None
        self.web: Any = None
        self.answered = 0

    async def run(self, effect: Any) -> Any:
        try:
            return await self._own.run(effect)
        finally:
            self.answered = (await self.meanwhile(self.web.asked[0])).status_code


@pytest.mark.guarantee("G5")
async def test_a_callback_shows_that_a_request_ran_whose_answer_was_lost(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(raw=b"")
    async with charter(tmp_path / "a", flow(asks(web))) as desk:
        run = await desk.start("flow")
        assert (await context(desk, run)).blocked_by[0].what == "effect_in_doubt"
        assert (await call_back(desk, web.asked[0])).status_code == 202
        assert (await context(desk, run)).status == "completed"
        assert await desk.effects() == []
        await desk.check_record()
    held = _Held(outbound(callback_of=partial(access_of, KEYS, Settings())))
    web.asked.clear()
    async with charter(tmp_path / "b", flow(asks(web)), own=held) as desk:
        run = await desk.start("flow")
        held.meanwhile, held.web = partial(call_back, desk), web
        assert (await context(desk, run)).status == "completed"
        await desk.check_record()


@pytest.mark.parametrize(
    ("on_failure", "status"), [("fail_workflow", "failed"), ("skip", "completed"), ("human_review", "waiting")]
)
async def test_one_that_does_not_come_in_time_fails_the_step(
    tmp_path: Path, web: Site, on_failure: str, status: str
) -> None:
    clock = Clock()
    step = asks(web, on_failure=on_failure, retry={"attempts": 3})
    async with charter(tmp_path / "db", flow(step), clock) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        clock.wait(599)
        assert (await context(desk, run)).steps["call"] == "awaiting"
        clock.wait(1)
        assert (await context(desk, run)).status == status
        steps = [e.data for e in await desk.events(run.workflow_id) if e.type == "WORKFLOW_STEP"]
        assert steps[2]["code"] == "callback_timeout"
        assert (await call_back(desk, web.asked[0])).status_code == 409
        assert len(web.asked) == 1
        await desk.check_record()


async def test_one_that_comes_late_loses_against_the_time_out_although_nobody_looked(tmp_path: Path, web: Site) -> None:
    clock = Clock()
    async with charter(tmp_path / "db", flow(asks(web)), clock) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        clock.wait(601)
        assert (await call_back(desk, web.asked[0])).status_code == 409
        assert (await context(desk, run)).status == "failed"
        await desk.check_record()


@pytest.mark.parametrize("body", [b'{"state": "failed"}', b"{}", b"no json", b"null"])
async def test_a_callback_that_does_not_satisfy_fails_the_step(tmp_path: Path, web: Site, body: bytes) -> None:
    step = asks(web, callback={"success_condition": 'callback.body.state == "done"'}, on_failure="human_review")
    async with charter(tmp_path / "db", flow(step)) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        assert (await call_back(desk, web.asked[0], body)).status_code == 202
        assert (await context(desk, run)).steps["call"] == "review"
        again = cmd.ReviewStep(workflow_id=run.workflow_id, step_id="call", resolution="retry")
        await desk.gate.handle(OPS, again)
        await context(desk, run)
        assert (await call_back(desk, web.asked[1], id="msg_2")).status_code == 202
        assert (await context(desk, run)).status == "completed"
        await desk.check_record()


async def test_a_paused_run_takes_its_callback_and_goes_on_when_it_is_resumed(tmp_path: Path, web: Site) -> None:
    two = flow(asks(web), {"id": "then", "type": "external", "url": web.url})
    async with charter(tmp_path / "db", two) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        await desk.gate.handle(OPS, cmd.PauseWorkflow(workflow_id=run.workflow_id))
        assert (await call_back(desk, web.asked[0])).status_code == 202
        await context(desk, run)
        assert len(web.asked) == 1
        await desk.gate.handle(OPS, cmd.ResumeWorkflow(workflow_id=run.workflow_id))
        assert (await context(desk, run)).status == "completed"
        await desk.check_record()


@pytest.mark.parametrize(("body", "status"), UNREASONABLE, ids=["deep", "long", "endless"])
async def test_a_callback_of_an_unreasonable_shape_is_refused(
    tmp_path: Path, web: Site, body: bytes, status: int
) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        assert (await call_back(desk, web.asked[0], body)).status_code == status
        assert (await context(desk, run)).steps["call"] == "awaiting"


async def test_a_callback_that_can_be_read_in_two_ways_is_refused(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        answer = await call_back(desk, web.asked[0], b'{"ok": false, "ok": true}')
        assert (answer.status_code, answer.json()["code"]) == (422, "json_duplicate_key")
        assert (await context(desk, run)).steps["call"] == "awaiting"


async def test_after_a_change_of_keys_the_older_secret_is_still_good(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow")
        await context(desk, run)
        newer = CallbackKeys({"k0": b"n" * 32, **SEALING}, "k0")
        assert (await call_back(desk, web.asked[0], keys=newer)).status_code == 202
        assert (await context(desk, run)).status == "completed"


async def test_where_no_callbacks_are_served_none_is_asked_for(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web)), own=outbound()) as desk:
        run = await desk.start("flow")
        assert (await context(desk, run)).status == "failed"
        assert (await desk.last(run.workflow_id, "WORKFLOW_STEP"))["code"] == "no_callbacks"
    assert web.asked == []


async def test_a_dry_run_waits_for_no_callback(tmp_path: Path, web: Site) -> None:
    async with charter(tmp_path / "db", flow(asks(web))) as desk:
        run = await desk.start("flow", dry_run=True)
        assert (await context(desk, run)).status == "completed"


def test_refusals_say_what_to_do() -> None:
    from charter.workflows.callbacks import not_awaited

    assert isinstance(not_awaited("x"), Refused)
