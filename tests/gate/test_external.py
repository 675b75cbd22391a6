"""``external`` steps: a governed HTTP request, with secrets that are nowhere but in it, and answers that are judged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charter.errors import NotFound
from charter.model import commands as cmd
from charter.model.principal import service
from charter.model.template import Template
from charter.store.port import Filter, Page
from charter.tools.egress import Egress
from charter.tools.outbound import Place
from tests.guarantees.world import AGENT, ANN, OPS, Clock, Desk, template
from tests.outside import LOOPBACK, outbound, outside_desk, place
from tests.web import Asked, Says, Site, site

pytestmark = pytest.mark.anyio

TOKEN = 's3cr3t/to+ken "x"'


@pytest.fixture
def web() -> Iterator[Site]:
    with site(lambda asked: Says(body={"id": 7, "state": "done", "ratio": 0.5})) as found:
        yield found


def external(site: Site, path: str = "/", **more: Any) -> dict[str, Any]:
    return {"id": "call", "type": "external", "url": f"{site.url}{path}", "risk": "low", **more}


def flow(*steps: dict[str, Any], output: Any = "{{ steps.call.output }}") -> Template:
    return template("flow", *steps, output=output)


async def ran(desk: Desk, run: Any) -> Any:
    await desk.engine.settle()
    return await desk.queries.workflow(ANN, run.workflow_id)


async def once(tmp_path: Path, step: dict[str, Any], *, own: Any = None, **start: Any) -> tuple[Any, Desk]:
    """One run of one step; its context, and the desk, closed."""
    async with outside_desk(tmp_path / "db", (flow(step),), own or outbound()) as desk:
        run = await desk.start("flow", **start)
        context = await ran(desk, run)
        await desk.check_record()
        context = context.model_copy(update={"purpose": await failed(desk, run)})
        return context, desk


async def failed(desk: Desk, run: Any) -> str:
    """Code and reason of the step's last event."""
    last = await desk.last(run.workflow_id, "WORKFLOW_STEP")
    return f"{last.get('code')}: {last.get('reason')}"


# -- the request


async def test_a_request_is_filled_in_sent_and_its_answer_is_the_output(tmp_path: Path, web: Site) -> None:
    step = external(
        web,
        "/orders/{{ trigger.no }}?by={{ trigger.who }}",
        method="POST",
        headers={"X-Who": "{{ trigger.who }}", "X-No": "{{ trigger.no }}"},
        body={"who": "{{ trigger.who }}", "items": "{{ trigger.items }}", "text": "no {{ trigger.no }}"},
    )
    started = {"no": 12, "who": "a b/ü?&#", "items": [1, {"two": 2.5}]}
    context, _ = await once(tmp_path, step, input=started)
    assert context.status == "completed"
    assert (context.output["status"], context.output["body"]) == (200, {"id": 7, "state": "done", "ratio": 0.5})
    assert context.output["headers"]["content-type"] == "application/json"
    (asked,) = web.asked
    assert asked.method == "POST"
    assert asked.path == "/orders/12?by=a%20b%2F%C3%BC%3F%26%23"
    assert asked.json == {"who": started["who"], "items": started["items"], "text": "no 12"}
    assert (asked.headers["x-no"], asked.headers["content-type"]) == ("12", "application/json")


async def test_what_is_extracted_is_the_output_and_all_that_is_recorded(tmp_path: Path, web: Site) -> None:
    step = external(web, extract={"id": "response.body.id", "big": "response.body.ratio > 0.4"})
    async with outside_desk(tmp_path / "db", (flow(step),), outbound()) as desk:
        run = await desk.start("flow")
        assert (await ran(desk, run)).output == {"status": 200, "id": 7, "big": True}
        assert "ratio" not in str((await desk.last(run.workflow_id, "TOOL_RESULT"))["output"])


@pytest.mark.parametrize(
    ("answer", "condition", "code"),
    [
        (Says(404, body={"state": "none"}), None, "http_status"),
        (Says(302, headers={"location": "/elsewhere"}), None, "http_status"),
        (Says(404, body={"state": "none"}), "response.status in [200, 404]", None),
        (Says(200, body={"state": "failed"}), 'response.body.state == "done"', "success_condition"),
        (Says(200, body={}), 'response.body.state == "done"', "expression_error"),
        (
            Says(200, body=b"no json", headers={"content-type": "application/json"}),
            "response.body.ok",
            "expression_error",
        ),
        (Says(200, body={"ok": "true"}), "response.body.ok", "expression_error"),
    ],
)
async def test_success_is_what_the_condition_says_and_an_error_is_no_success(
    tmp_path: Path, web: Site, answer: Says, condition: str | None, code: str | None
) -> None:
    web.answers = lambda _: answer
    context, _ = await once(tmp_path, external(web, success_condition=condition))
    assert context.status == ("failed" if code else "completed")
    assert context.purpose.startswith(f"{code}:")
    assert len(web.asked) == 1


async def test_a_value_can_add_nothing_to_a_url(tmp_path: Path, web: Site) -> None:
    for index, value in enumerate(("..", ".", "")):
        context, _ = await once(
            tmp_path / str(index), external(web, "/users/{{ trigger.x }}/public"), input={"x": value}
        )
        assert (context.status, context.purpose.partition(":")[0]) == ("failed", "expression_error")
    await once(tmp_path / "last", external(web, "/users/{{ trigger.x }}"), input={"x": "../admin?all=1"})
    assert [asked.path for asked in web.asked] == ["/users/..%2Fadmin%3Fall%3D1"]


@pytest.mark.parametrize(
    "headers", [{"X-A": "{{ trigger.none }}"}, {"X-A": "{{ trigger.null }}"}, {"X-A": "{{ trigger.map }}"}]
)
async def test_a_header_without_a_value_is_an_error_and_no_empty_header(
    tmp_path: Path, web: Site, headers: dict[str, str]
) -> None:
    context, _ = await once(tmp_path, external(web, headers=headers), input={"null": None, "map": {}})
    assert (context.status, web.asked) == ("failed", [])


async def test_an_answer_over_the_limit_is_an_error(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(body=b"x" * 500)
    context, _ = await once(tmp_path, external(web, max_bytes=100, retry={"attempts": 3}))
    assert context.purpose.startswith("result_too_large:")
    assert len(web.asked) == 1


# -- where it may go


async def test_a_host_that_is_not_allowed_is_refused_by_name_and_nothing_is_tried_again(
    tmp_path: Path, web: Site
) -> None:
    own = outbound(where=Place(Egress(hosts=("api.example.com",), private=LOOPBACK)))
    context, _ = await once(tmp_path, external(web, retry={"attempts": 5}), own=own)
    assert context.purpose.startswith("egress_refused:")
    assert web.asked == []


@pytest.mark.guarantee("G9")
async def test_what_one_tenant_may_reach_another_may_not(tmp_path: Path, web: Site) -> None:
    places = {"default": place("KEY"), "other": Place()}
    own = outbound({"KEY": TOKEN})
    own.place_of = places.__getitem__
    step = external(web, headers={"X-Key": "{{ secrets.KEY }}"})
    async with outside_desk(tmp_path / "db", (flow(step),), own) as desk:
        for agent, status in ((AGENT, "completed"), (AGENT.model_copy(update={"tenant": "other"}), "failed")):
            run = await desk.start("flow", by=agent)
            await desk.engine.settle()
            assert (await desk.queries.workflow(agent, run.workflow_id)).status == status
    assert len(web.asked) == 1


# -- secrets


def everything_written(path: Path) -> bytes:
    """Every byte beside the encrypted ones: the database's files hold those too, and cannot be read in them."""
    return b"".join(file.read_bytes() for file in path.iterdir() if file.is_file())


@pytest.mark.guarantee("G8")
async def test_a_secret_is_in_the_request_and_nowhere_else(
    tmp_path: Path, web: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when the other side sends it back, in its body, a header or an error, and in the usual disguises."""

    def echoes(asked: Asked) -> Says:
        given = asked.headers["authorization"]
        more = {"spelled": base64.b64encode(TOKEN.encode()).decode(), "path": asked.path, "token": TOKEN}
        return Says(200, body={"you sent": given, **more}, headers={"X-Echo": given})

    web.answers = echoes
    step = external(
        web,
        "/?key={{ secrets.KEY }}&x=1",
        method="POST",
        headers={"Authorization": "Bearer {{ secrets.KEY }}"},
        body={"in": ["text {{ secrets.KEY }} end", 1]},
    )
    caplog.set_level("DEBUG")
    async with outside_desk(tmp_path / "db", (flow(step),), outbound({"KEY": TOKEN})) as desk:
        run = await desk.start("flow")
        context = await ran(desk, run)
        assert context.status == "completed"
        asked = web.asked[0]
        assert asked.headers["authorization"] == f"Bearer {TOKEN}"
        assert asked.json == {"in": [f"text {TOKEN} end", 1]}
        assert asked.path == "/?key=s3cr3t%2Fto%2Bken%20%22x%22&x=1"
        assert context.output["body"]["you sent"] == "Bearer [secrets.KEY]"
        sent = await desk.last(run.workflow_id, "TOOL_INVOKE")
        assert sent["arguments"]["headers"] == {"Authorization": "Bearer {{ secrets.KEY }}"}
        written = everything_written(tmp_path)
        events = str([event.data for event in await desk.events(run.workflow_id)])
        await desk.check_record()
    for text in (written.decode("latin-1"), events, caplog.text, str(context)):
        assert "s3cr3t" not in text
        assert base64.b64encode(TOKEN.encode()).decode()[:12] not in text


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize("kept", [{}, {"OTHER": "x"}, {"KEY": ""}])
async def test_a_secret_that_is_missing_is_an_error_and_no_empty_header(
    tmp_path: Path, web: Site, kept: dict[str, str]
) -> None:
    own = outbound(kept, place("KEY"))
    context, _ = await once(tmp_path, external(web, headers={"Authorization": "Bearer {{ secrets.KEY }}"}), own=own)
    assert context.purpose.startswith("missing_secret:")
    assert web.asked == []


@pytest.mark.guarantee("G8")
async def test_a_secret_that_steps_were_not_given_is_not_theirs(tmp_path: Path, web: Site) -> None:
    """The store holds the upstreams' credentials too; a template's author does not get them by knowing their names."""
    own = outbound({"KEY": TOKEN}, place("OTHER"))
    context, _ = await once(tmp_path, external(web, headers={"X": "{{ secrets.KEY }}"}), own=own)
    assert context.purpose.startswith("missing_secret:")
    assert web.asked == []


@pytest.mark.guarantee("G8")
async def test_a_secret_goes_to_its_own_hosts_alone(tmp_path: Path, web: Site) -> None:
    own = outbound({"KEY": TOKEN}, Place(place().egress, {"KEY": ("api.example.com",)}))
    context, _ = await once(tmp_path, external(web, headers={"X": "{{ secrets.KEY }}"}), own=own)
    assert context.purpose.startswith("secret_not_for_host:")
    assert web.asked == []


@pytest.mark.guarantee("G8")
async def test_a_secret_s_name_in_a_value_is_a_text_like_any_other(tmp_path: Path, web: Site) -> None:
    step = external(
        web, method="POST", headers={"X": "{{ trigger.x }}"}, body={"a": "{{ trigger.x }}", "late": "{{ trigger.y }}"}
    )
    asks = {"x": "{{ secrets.KEY }}", "y": {"/headers/X": [{"secret": "KEY"}]}}
    context, _ = await once(tmp_path, step, own=outbound({"KEY": TOKEN}), input=asks)
    assert context.status == "completed"
    assert web.asked[0].headers["x"] == "{{ secrets.KEY }}"
    assert web.asked[0].json == {"a": asks["x"], "late": asks["y"]}


@pytest.mark.guarantee("G8")
async def test_a_sensitive_request_is_sealed_and_only_what_is_extracted_is_shown(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(body={"iban": "DE00 hush", "ok": True})
    step = external(
        web,
        method="POST",
        body={"iban": "{{ trigger.a }}{{ trigger.b }}"},
        sensitive=True,
        extract={"ok": "response.body.ok"},
    )
    async with outside_desk(tmp_path / "db", (flow(step),), outbound()) as desk:
        run = await desk.start("flow", input={"a": "DE00 ", "b": "hush"})
        assert (await ran(desk, run)).output == {"status": 200, "ok": True}
        assert "DE00 hush" not in str([event.data for event in await desk.events(run.workflow_id)])
        await desk.check_record()
    assert web.asked[0].json == {"iban": "DE00 hush"}


# -- governed


@pytest.mark.guarantee("G2")
async def test_a_request_that_changes_something_asks_people_unless_its_template_calls_it_low_risk(
    tmp_path: Path, web: Site
) -> None:
    step = external(web, method="POST", body={"amount": 5})
    del step["risk"]
    async with outside_desk(tmp_path / "db", (flow(step),), outbound()) as desk:
        run = await desk.start("flow")
        assert (await ran(desk, run)).status == "waiting"
        assert web.asked == []
        (row,) = (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]
        shown = {
            field["label"]: field["value"]
            for field in (await desk.last(run.workflow_id, "APPROVAL_REQUESTED"))["request"]["shown"]
        }
        assert shown["method"] == "POST"
        assert '"amount"' in shown["body"]
        await desk.decide(row.approval_id)
        assert (await ran(desk, run)).status == "completed"
        await desk.check_record()
    assert len(web.asked) == 1


@pytest.mark.guarantee("G1")
async def test_no_agent_calls_charter_s_own_tools_whatever_its_step_allows(tmp_path: Path, web: Site) -> None:
    arguments = {"method": "GET", "url": web.url, "risk": "low", "idempotent": True, "timeout_seconds": 5}
    async with outside_desk(tmp_path / "db", (), outbound()) as desk:
        work = await desk.session()
        with pytest.raises(NotFound) as refused:
            await work.invoke("charter__http_request", **arguments)
        assert refused.value.error_code == "unknown_tool"  # it is hidden from those who may never use it
        assert (await desk.last(work.workflow_id, "POLICY_DECISION"))["verdict"] == "deny"
        context = await work.context()
        assert "charter__http_request" not in str(context.invocations)
    assert web.asked == []


async def test_a_dry_run_sends_nothing(tmp_path: Path, web: Site) -> None:
    async with outside_desk(tmp_path / "db", (flow(external(web)),), outbound()) as desk:
        run = await desk.start("flow", dry_run=True)
        assert (await ran(desk, run)).status == "completed"
    assert web.asked == []


# -- again


def in_turn(*answers: Says) -> Any:
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.guarantee("G5")
async def test_what_was_not_taken_up_is_sent_again_later_under_the_same_key(tmp_path: Path, web: Site) -> None:
    web.answers = in_turn(Says(503), Says(429, headers={"retry-after": "120"}), Says(200))
    clock = Clock()
    step = external(web, method="POST", body={"a": 1}, retry={"attempts": 3, "backoff_seconds": 10})
    async with outside_desk(tmp_path / "db", (flow(step),), outbound(), clock) as desk:
        run = await desk.start("flow")
        waits = []
        for _ in range(2):
            await desk.engine.settle()
            last = await desk.last(run.workflow_id, "WORKFLOW_STEP")
            assert (last["status"], last["code"]) == ("retrying", "http_status")
            waits.append(_seconds(clock.now, last["until"]))
            clock.wait(waits[-1] + 1)
        assert 5 <= waits[0] <= 10
        assert 118 <= waits[1] <= 120
        assert (await ran(desk, run)).status == "completed"
        await desk.check_record()
    keys = {asked.headers["idempotency-key"] for asked in web.asked}
    assert len(web.asked) == 3
    assert len(keys) == 1


def _seconds(start: str, end: str) -> float:
    from charter.model.times import unix_ms_of

    return (unix_ms_of(end) - unix_ms_of(start)) / 1000


@pytest.mark.parametrize(
    ("method", "more", "answer", "sent", "code"),
    [
        ("GET", {}, Says(500), 3, "http_status"),
        ("PUT", {}, Says(502), 3, "http_status"),
        ("DELETE", {}, Says(504), 3, "http_status"),
        ("POST", {"idempotent": True}, Says(500), 3, "http_status"),
        ("POST", {}, Says(500), 1, "http_status"),
        ("GET", {}, Says(400), 1, "http_status"),
        ("PUT", {"idempotent": False}, Says(500), 1, "http_status"),
        ("GET", {"success_condition": "response.status == 201"}, Says(200), 3, "success_condition"),
        ("POST", {"success_condition": "response.status == 201"}, Says(200), 1, "success_condition"),
    ],
)
async def test_only_what_may_be_sent_again_is(
    tmp_path: Path, web: Site, method: str, more: dict[str, Any], answer: Says, sent: int, code: str
) -> None:
    web.answers = lambda _: answer
    clock = Clock()
    step = external(web, method=method, retry={"attempts": 3}, **more)
    async with outside_desk(tmp_path / "db", (flow(step),), outbound(), clock) as desk:
        run = await desk.start("flow")
        for _ in range(4):
            await desk.engine.settle()
            clock.wait(10)
        assert (await failed(desk, run)).startswith(f"{code}:")
        await desk.check_record()
    assert len(web.asked) == sent


@pytest.mark.guarantee("G5")
async def test_a_lost_answer_to_what_may_not_be_repeated_waits_for_a_person(tmp_path: Path, web: Site) -> None:
    for index, lost in enumerate((Says(raw=b""), Says(502), Says(504))):
        web.asked.clear()
        web.answers = lambda _, lost=lost: lost  # type: ignore[misc]
        step = external(web, method="POST", retry={"attempts": 5})
        async with outside_desk(tmp_path / f"db{index}", (flow(step),), outbound()) as desk:
            run = await desk.start("flow")
            await desk.engine.settle()
            (row,) = await desk.effects("in_doubt")
            assert len(web.asked) == 1
            await desk.resolve(run.workflow_id, row.effect_id, "ran", output={"status": 200})
            assert (await ran(desk, run)).output == {"status": 200}
            await desk.check_record()


@pytest.mark.guarantee("G5")
async def test_a_lost_answer_to_what_may_be_repeated_is_asked_for_again(tmp_path: Path, web: Site) -> None:
    web.answers = in_turn(Says(raw=b""), Says(raw=b""), Says(raw=b""), Says(200, body={"ok": True}))
    clock = Clock()
    step = external(web, method="PUT", retry={"attempts": 3})
    async with outside_desk(tmp_path / "db", (flow(step),), outbound(), clock) as desk:
        run = await desk.start("flow")
        for _ in range(3):
            await desk.engine.settle()
            clock.wait(10)
        assert (await ran(desk, run)).status == "completed"
        await desk.check_record()
    assert len({asked.headers["idempotency-key"] for asked in web.asked}) == 1


async def test_a_caller_s_own_idempotency_key_is_kept(tmp_path: Path, web: Site) -> None:
    step = external(web, method="POST", headers={"idempotency-key": "order {{ trigger.no }}"})
    await once(tmp_path, step, input={"no": 4})
    assert web.asked[0].headers["idempotency-key"] == "order 4"


# -- what follows a failure


@pytest.mark.parametrize(
    ("resolution", "status"),
    [("retry", "completed"), ("skip", "completed"), ("supply", "completed"), ("fail", "failed")],
)
async def test_a_person_says_how_a_failed_request_goes_on(
    tmp_path: Path, web: Site, resolution: Any, status: str
) -> None:
    web.answers = in_turn(Says(422), Says(200, body={"ok": True}))
    step = external(web, on_failure="human_review", extract={"ok": "response.body.ok"})
    async with outside_desk(tmp_path / "db", (flow(step),), outbound()) as desk:
        run = await desk.start("flow")
        context = await ran(desk, run)
        assert (context.steps["call"], context.blocked_by[0].what) == ("review", "review")
        command = cmd.ReviewStep(
            workflow_id=run.workflow_id, step_id="call", resolution=resolution, output={"ok": "by hand"}
        )
        await desk.gate.handle(OPS, command)
        context = await ran(desk, run)
        assert context.status == status
        outputs = {"retry": {"status": 200, "ok": True}, "supply": {"ok": "by hand"}}
        assert context.output == outputs.get(resolution)
        await desk.check_record()


async def test_a_failure_may_be_skipped(tmp_path: Path, web: Site) -> None:
    web.answers = lambda _: Says(500)
    context, _ = await once(tmp_path, external(web, on_failure="skip"))
    assert (context.status, context.output) == ("completed", None)


@pytest.mark.guarantee("G5")
@pytest.mark.parametrize(("method", "sent"), [("POST", 1), ("PUT", 2)])
async def test_a_process_that_dies_in_a_request_leaves_it_in_doubt_or_sends_it_again(
    tmp_path: Path, web: Site, method: str, sent: int
) -> None:
    """The first process never hears the answer; the next one finds what it left behind."""
    clock, templates = Clock(), (flow(external(web, method=method)),)
    dying = _Dies(outbound())
    async with outside_desk(tmp_path / "db", templates, dying, clock) as first:  # type: ignore[arg-type]
        run = await first.start("flow")
        driving = asyncio.create_task(first.engine.settle())
        await dying.dead.wait()
        (row,) = await first.effects("running")
        async with outside_desk(tmp_path / "db", templates, outbound(), clock) as second:
            command = cmd.RecoverEffect(
                workflow_id=run.workflow_id, effect_id=row.effect_id, dead_instance=first.gate.parts.instance
            )
            await second.gate.handle(service("engine", "default"), command)
            context = await ran(second, run)
            if method == "POST":
                assert context.blocked_by[0].what == "effect_in_doubt"
            else:
                assert context.status == "completed"
            await second.check_record()
        driving.cancel()
        await asyncio.gather(driving, return_exceptions=True)
    assert len(web.asked) == sent
    assert len({asked.headers["idempotency-key"] for asked in web.asked}) == 1


class _Dies:
    """Sends the request and is never heard of again."""

    def __init__(self, own: Any) -> None:
        self._own = own
        self.dead = asyncio.Event()

    async def run(self, effect: Any) -> Any:
        await self._own.run(effect)
        self.dead.set()
        await asyncio.Event().wait()
