"""What every engine must do with a run, written against the port. An implementation subclasses these and gives ``driver``.

``opened`` opens one more process on the same data, each with an engine of its own.
"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from charter.errors import Denied
from charter.model import commands as cmd
from charter.model.principal import service
from charter.model.signal import Signal
from charter.model.times import rfc3339
from tests.engine.driven import CHAIN, Writes, action, agree_to_everything, attempts, pending, question
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, ANN, DAY, OPS, Work, template

FAILING: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown tool": (action("go", "nothing"), "unknown_tool"),
    "arguments that the schema refuses": (action("go", "read", what=7), "invalid_arguments"),
    "an expression without a value": (action("go", "read", what="{{ trigger.nothing }}"), "expression_error"),
    "a tool that answers with an error": (action("go", "refuse"), "tool_error"),
}

REFUSED = template(
    "refused",
    action("go", "refuse", {"retry": {"attempts": 3, "backoff_seconds": 60}, "on_failure": "human_review"}),
    output="{{ steps.go.output.n }}",
)


class StepsContract:
    """Steps that run by themselves, one after another and side by side, and what becomes of those that fail."""

    async def test_steps_run_one_after_another_with_what_came_before(self, opened: Open, upstream: Counting) -> None:
        desk = await opened(templates=(CHAIN,))
        run = await desk.start("chain", input={"what": "acme"})
        await agree_to_everything(desk)
        context = await desk.queries.workflow(ANN, run.workflow_id)
        assert (context.status, context.output) == ("completed", "charged acme 7")
        assert set(context.steps.values()) == {"completed"}
        called = [(call["tool"], call.get("value")) for call in upstream.calls()]
        assert called == [("read", None), ("write_idempotent", "this is acme"), ("charge", None)]
        await desk.check_record()

    async def test_a_step_s_effect_starts_at_most_four_durable_writes_after_the_event_that_led_to_it(
        self, opened: Open, upstream: Counting
    ) -> None:
        signal = {"id": "word", "type": "wait", "signal": {"type": "word"}}
        flow = template("flow", *CHAIN.model_dump(mode="json")["steps"], signal, action("end", "read", what="end"))
        desk = await opened(templates=(flow,))
        run = await desk.start("flow", input={"what": "acme"})
        writes = Writes(desk, run.workflow_id)
        await agree_to_everything(desk)
        await desk.gate.handle(
            service("signals", "default"), cmd.SendSignal(signal=Signal(id="1", source="t", type="word"))
        )
        await desk.engine.settle()
        assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
        assert len(writes.before_effects()) == len(upstream.calls()) == 4
        assert max(writes.before_effects()) <= 4
        await desk.check_record()

    async def test_a_step_s_call_passes_the_same_policy_and_waits_for_people(
        self, opened: Open, upstream: Counting
    ) -> None:
        desk = await opened(templates=(template("pay", action("pay", "charge", account="acme", cents=7)),))
        run = await desk.start("pay")
        await desk.engine.settle()
        context = await desk.queries.workflow(ANN, run.workflow_id)
        assert (context.status, context.approval_required, upstream.calls()) == ("waiting", True, [])
        (row,) = await pending(desk)
        assert row.requested_by == "charter:engine"
        await desk.decide(row.approval_id, "reject", comment="no")
        await desk.engine.settle()
        assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_REJECTED"
        assert upstream.calls() == []
        await desk.check_record()

    @pytest.mark.parametrize("why", FAILING)
    @pytest.mark.parametrize("on_failure", ["fail_workflow", "skip"])
    async def test_a_step_that_fails_ends_the_run_or_is_skipped_as_the_template_says(
        self, opened: Open, upstream: Counting, why: str, on_failure: str
    ) -> None:
        step, code = FAILING[why]
        desk = await opened(
            templates=(template("t", {**step, "on_failure": on_failure}, action("then", "read", what="x")),)
        )
        run = await desk.start("t")
        await desk.engine.settle()
        ended = (await desk.types(run.workflow_id))[-1]
        steps = (await desk.queries.workflow(ANN, run.workflow_id)).steps
        if on_failure == "skip":
            assert (ended, steps) == ("WORKFLOW_COMPLETED", {"go": "skipped", "then": "completed"})
        else:
            assert (ended, steps) == ("WORKFLOW_FAILED", {"go": "failed", "then": "pending"})
            assert (await desk.last(run.workflow_id, "WORKFLOW_FAILED"))["code"] == code
        await desk.check_record()

    async def test_a_cancelled_run_s_steps_do_not_run(self, opened: Open, upstream: Counting) -> None:
        desk = await opened(templates=(CHAIN,))
        run = await desk.start("chain", input={"what": "acme"})
        await Work(desk, run.workflow_id, "").cancel()
        await desk.engine.settle()
        assert upstream.calls() == []
        assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_CANCELLED"

    @pytest.mark.parametrize(("cents", "ran"), [(500, "large"), (5, "small")])
    async def test_a_condition_runs_one_branch_and_the_join(
        self, opened: Open, upstream: Counting, cents: int, ran: str
    ) -> None:
        branching = template(
            "branching",
            {
                "id": "big",
                "type": "condition",
                "expression": "trigger.cents > 100",
                "if_true": ["a"],
                "if_false": ["b"],
            },
            action("a", "read", what="large"),
            action("b", "read", {"needs": ["big"]}, what="small"),
            action("end", "read", {"needs": ["a", "b"]}, what="end"),
            output="{{ steps.big.output.branch }}",
        )
        desk = await opened(templates=(branching,))
        run = await desk.start("branching", input={"cents": cents})
        await desk.engine.settle()
        context = await desk.queries.workflow(ANN, run.workflow_id)
        assert (context.status, context.output) == ("completed", "if_true" if cents > 100 else "if_false")
        assert [call["what"] for call in upstream.calls()] == [ran, "end"]
        await desk.check_record()

    async def test_an_operator_says_how_a_step_goes_on_and_nobody_else(self, opened: Open, upstream: Counting) -> None:
        desk = await opened(templates=(template("now", action("go", "refuse", {"on_failure": "human_review"})),))
        run = await desk.start("now")
        await desk.engine.settle()
        command = cmd.ReviewStep(workflow_id=run.workflow_id, step_id="go", resolution="retry", comment="it is back")
        for somebody in (AGENT, ANN):
            with pytest.raises(Denied):
                await desk.gate.handle(somebody, command)
        await desk.gate.handle(OPS, command)
        await desk.engine.settle()
        assert await attempts(desk, run.workflow_id) == 2
        supplied = command.model_copy(update={"resolution": "supply", "output": {"n": 7}})
        assert (await desk.gate.handle(OPS, supplied)).status == "completed"
        assert (await desk.last(run.workflow_id, "STEP_REVIEWED"))["reviewed_by"] == "ops"
        await desk.check_record()

    async def test_a_paused_run_is_left_alone_until_an_operator_resumes_it(
        self, opened: Open, upstream: Counting
    ) -> None:
        desk = await opened(templates=(template("plain", action("go", "read", what="x")),))
        run = await desk.start("plain")
        hold = cmd.PauseWorkflow(workflow_id=run.workflow_id, reason="the upstream is sick")
        with pytest.raises(Denied):
            await desk.gate.handle(ANN, hold)
        assert (await desk.gate.handle(OPS, hold)).status == "paused"
        await desk.engine.settle()
        assert upstream.calls() == []
        assert await desk.store.next_wake() is None
        other = await opened(templates=(template("plain", action("go", "read", what="x")),))
        await other.gate.handle(OPS, cmd.ResumeWorkflow(workflow_id=run.workflow_id))
        await desk.engine.settle()
        assert len(upstream.calls()) == 1
        assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
        await desk.check_record()

    async def test_branches_run_side_by_side_and_join_once(self, opened: Open, upstream: Counting) -> None:
        wide = template(
            "wide",
            action("first", "read", what="first"),
            *(action(f"b{n}", "read", {"needs": ["first"]}, what=f"b{n}") for n in range(3)),
            question() | {"needs": ["first"]},
            action("join", "read", {"needs": ["b0", "b1", "b2", "ask"]}, what="join"),
        )
        desk = await opened(templates=(wide,))
        run = await desk.start("wide")
        await desk.engine.settle()
        steps = (await desk.queries.workflow(ANN, run.workflow_id)).steps
        assert [steps[id] for id in ("b0", "b1", "b2", "join")] == ["completed"] * 3 + ["pending"]
        await agree_to_everything(desk)
        assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
        called = [call["what"] for call in upstream.calls()]
        assert (called[0], called[-1], sorted(called[1:-1])) == ("first", "join", ["b0", "b1", "b2"])
        await desk.check_record()

    async def test_what_was_done_is_undone_when_a_later_step_fails(self, opened: Open, upstream: Counting) -> None:
        undo = {"compensate": {"tool": "counter__read", "arguments": {"what": "undo {{ steps.a.output.result }}"}}}
        trip = template("trip", action("a", "read", undo, what="hotel"), action("b", "refuse"))
        desk = await opened(templates=(trip,))
        run = await desk.start("trip")
        await desk.engine.settle()
        assert [call["what"] for call in upstream.calls()] == ["hotel", "undo this is hotel"]
        assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_FAILED"
        assert (await desk.last(run.workflow_id, "WORKFLOW_FAILED"))["compensated"] == ["a"]
        await desk.check_record()


class TimesContract:
    """Timers, time limits and retries, whichever process is there."""

    @pytest.mark.guarantee("G3")
    @pytest.mark.guarantee("G6")
    async def test_waits_end_when_their_time_has_come_by_the_clock(self, opened: Open, upstream: Counting) -> None:
        patient = template("patient", question(seconds=3600))
        work = template("work", {"id": "work", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": 7200})
        desk = await opened(templates=(patient, work))
        asked, granted = await desk.start("patient"), await desk.start("work")
        await desk.engine.settle()
        desk.clock.wait(3599)
        await desk.engine.settle()
        assert (await desk.queries.workflow(ANN, asked.workflow_id)).status == "waiting"
        desk.clock.wait(2)
        await desk.engine.settle()
        assert (await desk.types(asked.workflow_id))[-3:] == ["APPROVAL_CLOSED", "WORKFLOW_STEP", "WORKFLOW_REJECTED"]
        desk.clock.wait(3600)
        await desk.engine.settle()
        assert (await desk.last(granted.workflow_id, "WORKFLOW_FAILED"))["code"] == "step_expired"
        assert await desk.store.next_wake() is None
        await desk.check_record()

    @pytest.mark.guarantee("G6")
    async def test_a_failed_attempt_is_made_again_at_its_time_by_whichever_process_is_there(
        self, opened: Open, upstream: Counting
    ) -> None:
        desk = await opened(templates=(REFUSED,))
        run = await desk.start("refused")
        await desk.engine.settle()
        assert await attempts(desk, run.workflow_id) == 1
        desk.clock.wait(59)
        await desk.engine.settle()
        assert await attempts(desk, run.workflow_id) == 1
        for attempt, seconds in ((2, 2), (3, 121)):
            desk = await opened(templates=(REFUSED,))  # nothing in memory
            desk.clock.wait(seconds)
            await desk.engine.settle()
            await desk.engine.settle()
            assert await attempts(desk, run.workflow_id) == attempt
        assert (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].what == "review"
        assert await desk.store.next_wake() is None
        await desk.check_record()

    @pytest.mark.guarantee("G6")
    async def test_a_wait_ends_at_its_time_in_another_process_and_once(self, opened: Open, upstream: Counting) -> None:
        waiting = template("waiting", {"id": "w", "type": "wait", "seconds": 3600}, action("go", "read", what="x"))
        desk = await opened(templates=(waiting,))
        run = await desk.start("waiting")
        await desk.engine.settle()
        assert await desk.store.next_wake() is not None
        desk.clock.wait(3500)
        await desk.engine.settle()
        assert upstream.calls() == []
        one, other = await opened(templates=(waiting,)), await opened(templates=(waiting,))
        desk.clock.wait(90_000)
        for each in (one, other):
            await each.engine.settle()
        assert (await other.queries.workflow(ANN, run.workflow_id)).status == "completed"
        assert len(upstream.calls()) == 1
        await desk.check_record()

    @pytest.mark.guarantee("G6")
    async def test_a_wait_for_a_signal_is_given_up_at_its_time_in_another_process(
        self, opened: Open, upstream: Counting
    ) -> None:
        step = {"id": "w", "type": "wait", "signal": {"type": "go"}, "timeout_seconds": 3600, "on_timeout": "skip"}
        waiting = template("waiting", step, action("then", "read", what="x"))
        run = await (await opened(templates=(waiting,))).start("waiting")
        desk = await opened(templates=(waiting,))
        desk.clock.wait(3590)
        await desk.engine.settle()
        assert (await desk.queries.workflow(ANN, run.workflow_id)).blocked_by[0].what == "signal"
        desk.clock.wait(90_000)
        await desk.engine.settle()
        assert (await desk.queries.workflow(ANN, run.workflow_id)).status == "completed"
        assert len(upstream.calls()) == 1
        assert await desk.store.waiting_for("default", "go", "", 9) == []
        await desk.check_record()

    @pytest.mark.parametrize(
        "wait", [{"seconds": 3600}, {"signal": {"type": "go"}, "timeout_seconds": 3600}], ids=["time", "signal"]
    )
    async def test_what_is_cancelled_while_it_waits_never_goes_on(
        self, opened: Open, upstream: Counting, wait: dict[str, Any]
    ) -> None:
        waiting = template("waiting", {"id": "w", "type": "wait", **wait}, action("go", "read", what="x"))
        desk = await opened(templates=(waiting,))
        run = await desk.start("waiting")
        await desk.engine.settle()
        await Work(desk, run.workflow_id, "").cancel()
        desk.clock.wait(90_000)
        for each in (desk, await opened(templates=(waiting,))):
            await each.engine.settle()
        assert upstream.calls() == []
        assert (await desk.types(run.workflow_id))[-1] == "WORKFLOW_CANCELLED"
        assert await desk.store.next_wake() is None
        await desk.check_record()

    @pytest.mark.guarantee("G6")
    async def test_times_that_passed_while_nobody_drove_are_kept_at_once_and_once(
        self, opened: Open, upstream: Counting
    ) -> None:
        """Two engines run when they are all late: a date, a duration, a limit and an answer that nobody gave."""
        at = {"id": "w", "type": "wait", "until": "{{ trigger.at }}"}
        late = (
            template("date", at, action("go", "read", what="date")),
            template("while", {"id": "w", "type": "wait", "seconds": 60}, action("go", "read", what="while")),
            template(
                "limit",
                {"id": "w", "type": "wait", "signal": {"type": "s"}, "timeout_seconds": 60, "on_timeout": "skip"},
                action("go", "read", what="limit"),
            ),
            template("people", question(seconds=60, on_reject="continue"), action("go", "read", what="people")),
        )
        before = await opened(templates=late)
        given = {"at": rfc3339(before.clock.ms + 60_000)}
        runs = [await before.start(each.name, input=given) for each in late]
        await before.engine.settle()
        assert upstream.calls() == []
        before.clock.wait(7 * DAY)
        one, other = await opened(templates=late), await opened(templates=late)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.engine.run)
            tasks.start_soon(other.engine.run)
            with anyio.fail_after(60):
                for run in runs:
                    while (await one.queries.workflow(ANN, run.workflow_id)).status != "completed":  # noqa: ASYNC110
                        await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        assert sorted(call["what"] for call in upstream.calls()) == ["date", "limit", "people", "while"]
        assert await one.store.next_wake() is None
        await one.check_record()
