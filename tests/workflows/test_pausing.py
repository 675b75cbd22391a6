"""A paused run begins nothing; what people and tools answer is recorded, and what became due is due when it goes on."""

from __future__ import annotations

from charter.workflows import decide as rules
from tests.workflows.build import Run, asked, code_of, effect_of, template

READ = {"id": "go", "type": "action", "tool": "box__read"}


def test_a_paused_run_runs_no_step_and_says_who_resumes_it() -> None:
    run = Run(template(READ)).start()
    run.hold(True)
    assert rules.runnable_steps(run.state) == []
    assert rules.wake_at(run.state) is None
    assert (run.context().status, run.context().blocked_by[0].what) == ("paused", "operator")
    run.hold(False)
    assert rules.runnable_steps(run.state) == ["go"]
    assert run.context().status == "running"


def test_outcomes_and_answers_are_recorded_and_open_nothing_until_it_is_resumed() -> None:
    run = Run(
        template(READ, {"id": "ok", "type": "approval", "question": "?", "needs": []}, READ | {"id": "end"})
    ).start()
    effect = effect_of(run.run_step("go"))
    run.hold(True)
    run.outcome(effect.effect_id)
    run.answer(run.approval_id())
    assert run.steps() == {"go": "completed", "ok": "completed"}
    run.hold(False)
    assert run.steps()["end"] == "open"


def test_agents_run_nothing_new_while_it_is_paused_and_may_then() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.hold(True)
    assert code_of(run.invoke("read")) == "workflow_paused"
    run.answer(approval_id)
    assert code_of(run.invoke(proposal_id=proposal_id)) == "workflow_paused"
    run.hold(False)
    assert run.invoke(proposal_id=proposal_id).effect is not None


def test_the_last_step_done_while_paused_completes_the_run_when_it_is_resumed() -> None:
    run = Run().start()
    run.hold(True)
    run.complete({"n": 1})
    assert run.state.status == "paused"
    run.hold(False)
    assert run.state.status == "completed"


def test_a_timer_that_came_due_fires_once_when_it_is_resumed() -> None:
    run = Run(template({"id": "w", "type": "wait", "seconds": 60}, {"id": "work", "type": "agent"})).start()
    run.hold(True)
    assert run.wait(600).advance().events == []
    run.hold(False)
    assert run.steps() == {"w": "completed", "work": "open"}


def test_a_signal_after_its_time_does_not_end_a_wait_that_a_pause_kept_open() -> None:
    step = {"id": "w", "type": "wait", "signal": {"type": "go"}, "timeout_seconds": 60}
    run = Run(template(step)).start()
    run.hold(True)
    assert run.wait(60).signal("go").events == []
    run.hold(False)
    assert run.state.status == "rejected"


def test_pausing_twice_and_resuming_what_runs_are_refused_and_an_ended_run_is_over() -> None:
    run = Run().start()
    assert code_of(run.hold(False)) == "not_now"
    run.hold(True)
    assert code_of(run.hold(True)) == "not_now"
    run.cancel()
    assert run.state.status == "cancelled"
    assert code_of(run.hold(False)) == "workflow_ended"
