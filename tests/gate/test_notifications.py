"""``notification`` steps: delivered with patience, given up visibly, and in nobody's way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from charter.audit.trace import validate_trace
from charter.errors import Denied, NotFound, Refused
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.principal import service
from charter.model.template import Template
from charter.tools.mail import MailServer
from charter.tools.outbound import Place
from charter.tools.webhooks import key_of, verify
from tests.gate.test_external import everything_written, in_turn
from tests.guarantees.world import ANN, BOB, OPS, Clock, Desk, template
from tests.outside import outbound, outside_desk, place
from tests.smtp import MailBox, mail_box
from tests.web import Asked, Says, Site, site

pytestmark = pytest.mark.anyio

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
HOOK = {"HOOK": SECRET}
STRANGERS = ["eve@evil.example", "ann@example.com, eve@evil.example", "Ann <ann@example.com>", "ann", ""]
STRANGERS += ["ann@example.com\r\nBcc: eve@evil.example", "ann@example.com\n", '"a b"@example.com']


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as found:
        yield found


@pytest.fixture
def box() -> Iterator[MailBox]:
    with mail_box() as found:
        yield found


def hook(site: Site, **more: Any) -> JsonObject:
    message = {"url": f"{site.url}/hook", "secret": "HOOK", "type": "order.paid", "data": {"no": "{{ trigger.no }}"}}
    return {"id": "tell", "type": "notification", "webhook": message, **more}


def mail(to: str = "ann@example.com", **more: Any) -> JsonObject:
    message = {"to": [to], "subject": "Order {{ trigger.no }}", "text": "Paid: {{ trigger.no }}.\n.\nÜ"}
    return {"id": "tell", "type": "notification", "email": message, **more}


def flow(*steps: JsonObject, output: Any = "{{ steps.tell.status }}") -> Template:
    return template("flow", *steps, output=output)


def after(site: Site) -> JsonObject:
    return {"id": "go", "type": "external", "url": f"{site.url}/go", "needs": ["tell"]}


def server(box: MailBox, **more: Any) -> MailServer:
    given: dict[str, Any] = {"security": "none", "recipients": ("*@example.com",), **more}
    return MailServer("127.0.0.1", box.port, "charter@example.org", **given)


def mailing(found: MailServer | None) -> Any:
    return replace(outbound(), mail_of=lambda _tenant: found)


async def ran(desk: Desk, run: Any) -> Any:
    await desk.engine.settle()
    return await desk.queries.workflow(ANN, run.workflow_id)


async def patiently(desk: Desk, run: Any) -> Any:
    """Until nothing more happens by itself."""
    for _ in range(8):
        await desk.engine.settle()
        desk.clock.wait(400)
    return await desk.queries.workflow(ANN, run.workflow_id)


def check(asked: Asked, now: int) -> str:
    return verify((key_of(SECRET),), asked.headers, asked.body, now)


# -- webhooks


async def test_a_webhook_is_signed_as_standard_webhooks_says(tmp_path: Path, web: Site) -> None:
    async with outside_desk(
        tmp_path / "db", (flow(hook(web)),), replace(outbound(HOOK), clock=lambda: 1_800_000_000.5)
    ) as desk:
        run = await desk.start("flow", input={"no": 12})
        assert (await ran(desk, run)).output == "completed"
        opened = next(e for e in await desk.events(run.workflow_id) if e.type == "WORKFLOW_STEP")
        await desk.check_record()
        assert SECRET.encode() not in everything_written(tmp_path)
    (asked,) = web.asked
    assert asked.headers["webhook-timestamp"] == "1800000000"
    assert check(asked, 1_800_000_000) == asked.headers["webhook-id"]
    assert asked.json == {"type": "order.paid", "timestamp": opened.time, "data": {"no": 12}}


@pytest.mark.guarantee("G5")
async def test_a_webhook_that_is_not_taken_is_sent_again_under_the_same_id(tmp_path: Path, web: Site) -> None:
    web.answers = in_turn(Says(500), Says(raw=b""), Says(raw=b""), Says(429, headers={"retry-after": "60"}), Says(204))
    async with outside_desk(tmp_path / "db", (flow(hook(web)),), outbound(HOOK), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        assert (await patiently(desk, run)).output == "completed"
        assert await desk.effects() == []
        await desk.check_record()
    assert len(web.asked) == 5
    assert len({asked.headers["webhook-id"] for asked in web.asked}) == 1
    assert len({asked.body for asked in web.asked}) == 1


@pytest.mark.parametrize(
    ("answer", "sent", "code"),
    [
        (Says(500), 3, "http_status"),
        (Says(410), 1, "http_status"),
        (Says(302, headers={"location": "/x"}), 3, "http_status"),
    ],
)
async def test_one_that_cannot_be_delivered_is_a_dead_letter_and_the_run_goes_on(
    tmp_path: Path, web: Site, answer: Says, sent: int, code: str
) -> None:
    web.answers = lambda _: answer
    async with outside_desk(
        tmp_path / "db", (flow(hook(web, retry={"attempts": 3})),), outbound(HOOK), Clock()
    ) as desk:
        run = await desk.start("flow", input={"no": 1})
        context = await patiently(desk, run)
        assert (context.status, context.output) == ("completed", "skipped")
        (row,) = await desk.effects()
        assert (row.status, row.tool, row.workflow_id) == ("dead_lettered", "charter__webhook", run.workflow_id)
        letter = await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED")
        assert (letter["sent"], letter["code"]) == (sent, code)
        await desk.check_record()
        await desk.resolve(run.workflow_id, row.effect_id, "retry")
        (row,) = await desk.effects()
        assert row.status == "dead_lettered", "given up once more"
        await desk.check_record()
        await desk.resolve(run.workflow_id, row.effect_id, "did_not_run", comment="told them by phone")
        assert await desk.effects() == []
        await desk.check_record()
    assert len(web.asked) == sent + 1


async def test_an_operator_has_a_dead_letter_sent_again_after_the_runs_end(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(500)
    steps = flow(hook(web, retry={"attempts": 1}))
    async with outside_desk(tmp_path / "db", (steps,), outbound(HOOK), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        assert (await patiently(desk, run)).status == "completed"
        (row,) = await desk.effects("dead_lettered")
        web.answers = lambda _: Says(202)
        with pytest.raises(Denied):
            await desk.resolve(run.workflow_id, row.effect_id, "retry", by=BOB)
        answer = await desk.resolve(run.workflow_id, row.effect_id, "retry")
        assert (answer.status, await desk.effects()) == ("succeeded", [])
        with pytest.raises((NotFound, Refused)):
            await desk.resolve(run.workflow_id, row.effect_id, "retry")
        assert (await patiently(desk, run)).status == "completed"
        await desk.check_record()
    assert len({asked.headers["webhook-id"] for asked in web.asked}) == 1, "it is one message to who receives it"
    assert len(web.asked) == 2


async def test_a_lost_answer_is_no_doubt_that_stops_the_run(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(raw=b"")
    async with outside_desk(
        tmp_path / "db", (flow(hook(web, retry={"attempts": 2})),), outbound(HOOK), Clock()
    ) as desk:
        run = await desk.start("flow", input={"no": 1})
        assert (await patiently(desk, run)).status == "completed"
        letter = await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED")
        assert letter["reason"].startswith("It may have arrived")
        assert "EFFECT_IN_DOUBT" not in await desk.types(run.workflow_id)
        await desk.check_record()


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("own", "code"),
    [
        (outbound({}, place("HOOK")), "missing_secret"),
        (outbound(HOOK, place("OTHER")), "missing_secret"),
        (outbound({"HOOK": "short"}), "bad_webhook_secret"),
        (outbound(HOOK, Place(place().egress, {"HOOK": ("api.example.com",)})), "secret_not_for_host"),
    ],
    ids=["not set", "not given", "no key", "other host"],
)
async def test_without_its_secret_nothing_is_sent(tmp_path: Path, web: Site, own: Any, code: str) -> None:
    async with outside_desk(tmp_path / "db", (flow(hook(web, retry=None)),), own) as desk:
        run = await desk.start("flow", input={"no": 1})
        await ran(desk, run)
        assert (await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED"))["code"] == code
    assert web.asked == []


# -- in nobody's way


@pytest.mark.parametrize("wait", [False, True])
async def test_later_steps_wait_for_a_delivery_only_where_the_step_says_so(
    tmp_path: Path, web: Site, wait: bool
) -> None:
    fails = in_turn(Says(503), Says(200))
    web.answers = lambda asked: fails(asked) if asked.path == "/hook" else Says(200)
    clock = Clock()
    async with outside_desk(tmp_path / "db", (flow(hook(web, wait=wait), after(web)),), outbound(HOOK), clock) as desk:
        run = await desk.start("flow", input={"no": 1})
        context = await ran(desk, run)
        assert context.steps == {"tell": "retrying", "go": "pending" if wait else "completed"}
        assert context.status == "waiting"
        assert context.blocked_by[0].what == "timer"
        assert (await patiently(desk, run)).status == "completed"
        await desk.check_record()
    asked = [each.path for each in web.asked]
    assert sorted(asked) == ["/go", "/hook", "/hook"]
    assert asked[-1] == ("/go" if wait else "/hook")  # the first two are of one moment where nobody waits


@pytest.mark.parametrize(("on_failure", "status"), [("fail_workflow", "failed"), ("human_review", "waiting")])
async def test_a_step_may_take_its_delivery_seriously(tmp_path: Path, web: Site, on_failure: str, status: str) -> None:
    web.answers = in_turn(Says(500), Says(200))
    step = hook(web, wait=True, retry={"attempts": 1}, on_failure=on_failure)
    async with outside_desk(tmp_path / "db", (flow(step, after(web)),), outbound(HOOK), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        assert (await patiently(desk, run)).status == status
        assert "EFFECT_DEAD_LETTERED" not in await desk.types(run.workflow_id)
        if on_failure == "human_review":
            again = cmd.ReviewStep(workflow_id=run.workflow_id, step_id="tell", resolution="retry")
            await desk.gate.handle(OPS, again)
            assert (await ran(desk, run)).status == "completed"
        await desk.check_record()


async def test_a_run_that_is_cancelled_sends_no_more(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(503)
    async with outside_desk(tmp_path / "db", (flow(hook(web)),), outbound(HOOK), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        await ran(desk, run)
        await desk.gate.handle(OPS, cmd.CancelWorkflow(workflow_id=run.workflow_id))
        await patiently(desk, run)
        await desk.check_record()
    assert len(web.asked) == 1


# -- e-mail


async def test_a_mail_is_handed_over(tmp_path: Path, box: MailBox) -> None:
    async with outside_desk(tmp_path / "db", (flow(mail()),), mailing(server(box))) as desk:
        run = await desk.start("flow", input={"no": "7\r\nBcc: eve@example.com"})
        assert (await ran(desk, run)).output == "completed"
        effect = await desk.last(run.workflow_id, "TOOL_INVOKE")
        await desk.check_record()
    ((sender, to, message),) = box.got
    assert (sender, to) == ("charter@example.org", ["ann@example.com"])
    assert "Bcc" not in message
    assert message["To"] == "ann@example.com"
    assert message["Message-ID"] == f"<{effect['idempotency_key']}@example.org>"
    body = message.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert "\n.\nÜ" in body.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("to", STRANGERS)
async def test_nobody_is_written_to_who_is_not_named(tmp_path: Path, box: MailBox, to: str) -> None:
    step = mail("{{ trigger.to }}")
    async with outside_desk(tmp_path / "db", (flow(step),), mailing(server(box)), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1, "to": to})
        await patiently(desk, run)
        assert (await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED"))["code"] == "recipient_refused"
    assert box.seen == []


@pytest.mark.parametrize(
    ("replies", "code", "tries"),
    [
        ({"RCPT": "550 no such user"}, "mail_refused", 1),
        ({"RCPT": "450 later"}, "mail_not_now", 2),
        ({"MAIL": "421 busy"}, "mail_not_now", 2),
        ({"DATA": "554 spam"}, "mail_refused", 1),
        ({".": "552 too much"}, "mail_refused", 1),
        ({"MAIL": "hang up"}, "mail_unreachable", 2),
    ],
)
async def test_what_a_mail_server_refuses_is_tried_again_only_when_it_may_help(
    tmp_path: Path, box: MailBox, replies: dict[str, str], code: str, tries: int
) -> None:
    box.replies = replies
    step = mail(retry={"attempts": 2})
    async with outside_desk(tmp_path / "db", (flow(step),), mailing(server(box)), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        await patiently(desk, run)
        letter = await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED")
        assert (letter["code"], letter["sent"]) == (code, tries)
        await desk.check_record()
    assert box.got == []


@pytest.mark.guarantee("G5")
async def test_a_mail_whose_receipt_was_lost_is_not_sent_twice(tmp_path: Path, box: MailBox) -> None:
    box.replies = {".": "hang up"}
    async with outside_desk(tmp_path / "db", (flow(mail()),), mailing(server(box)), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        assert (await patiently(desk, run)).status == "completed"
        letter = await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED")
        assert (letter["code"], letter["reason"][:19]) == ("mail_lost", "It may have arrived")
        await desk.check_record()
    assert len(box.got) == 1


async def test_without_a_mail_server_it_says_so(tmp_path: Path) -> None:
    async with outside_desk(tmp_path / "db", (flow(mail()),), mailing(None), Clock()) as desk:
        run = await desk.start("flow", input={"no": 1})
        await patiently(desk, run)
        assert (await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED"))["code"] == "no_mail_server"


async def test_a_password_goes_over_an_encrypted_connection(tmp_path: Path) -> None:
    from tests.tools.test_egress import certificate

    ours, theirs = certificate("localhost", tmp_path)
    with mail_box(ours) as box:
        made = server(box, security="starttls", user="charter", password="hush", tls=theirs)
        async with outside_desk(tmp_path / "db", (flow(mail()),), mailing(replace(made, host="localhost"))) as desk:
            run = await desk.start("flow", input={"no": 1})
            assert (await ran(desk, run)).output == "completed"
        assert box.logins == ["\0charter\0hush"]
        assert box.seen.index("STARTTLS") < box.seen.index("AUTH")
    with mail_box() as plain:
        made = server(plain, security="starttls", user="charter", password="hush")
        async with outside_desk(tmp_path / "db2", (flow(mail(retry=None)),), mailing(made)) as desk:
            run = await desk.start("flow", input={"no": 1})
            await ran(desk, run)
            assert (await desk.last(run.workflow_id, "EFFECT_DEAD_LETTERED"))["code"] == "mail_unreachable"
        assert plain.logins == []


# -- a process that dies


@pytest.mark.guarantee("G5")
async def test_a_message_whose_sender_died_is_sent_again_or_given_up(tmp_path: Path, web: Site, box: MailBox) -> None:
    import asyncio

    from tests.gate.test_external import _Dies

    own = replace(outbound(HOOK), mail_of=lambda _tenant: server(box))
    for name, step, sent in (("hook", hook(web), 2), ("mail", mail(), 1)):
        clock, dying = Clock(), _Dies(own)
        async with outside_desk(tmp_path / name, (flow(step),), dying, clock) as first:  # type: ignore[arg-type]
            run = await first.start("flow", input={"no": 1})
            driving = asyncio.create_task(first.engine.settle())
            await dying.dead.wait()
            (row,) = await first.effects("running")
            async with outside_desk(tmp_path / name, (flow(step),), own, clock) as second:
                command = cmd.RecoverEffect(
                    workflow_id=run.workflow_id, effect_id=row.effect_id, dead_instance=first.gate.parts.instance
                )
                await second.gate.handle(service("engine", "default"), command)
                assert (await ran(second, run)).status == "completed"
                letters = [
                    event for event in await second.events(run.workflow_id) if event.type == "EFFECT_DEAD_LETTERED"
                ]
                assert len(letters) == (name == "mail")
                assert validate_trace(await second.events(run.workflow_id)) == ()
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
        assert len(web.asked if name == "hook" else box.got) == sent
