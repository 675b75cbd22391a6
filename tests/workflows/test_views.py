"""What a caller sees: where the run is, what they may do, and who it waits for. There is always a name."""

from __future__ import annotations

from charter.workflows import views
from tests.workflows.build import AGENT, BOB, DAY, OTHER_AGENT, Run, asked, effect_of, template


def test_an_agent_sees_what_it_may_do_and_how() -> None:
    run = Run(template({"id": "work", "type": "agent", "allowed_tools": ["box__*"], "calls": 3})).start()
    run.invoke("read")
    seen = run.context()
    assert (seen.status, seen.current_step, seen.allowed_tools) == ("running", "work", ("box__*",))
    assert seen.invocations[0].calls_left == 2
    assert run.invocation_id in seen.next_step
    assert "complete_step" in seen.next_step
    assert seen.steps == {"work": "open"}
    assert seen.actor == {"kind": "agent", "id": "agent:writer", "acts_for": "ann"}


def test_of_two_open_steps_each_says_its_own_tools() -> None:
    steps = ({"id": name, "type": "agent", "needs": [], "allowed_tools": [f"box__{name}"]} for name in ("read", "pay"))
    seen = Run(template(*steps)).start().context()
    assert [(item.step_id, item.allowed_tools) for item in seen.invocations] == [
        ("read", ("box__read",)),
        ("pay", ("box__pay",)),
    ]
    assert seen.allowed_tools == ("box__read", "box__pay")
    assert all(f"{item.agent_invocation_id} for step {item.step_id!r}" in seen.next_step for item in seen.invocations)


def test_somebody_else_sees_whom_the_run_waits_for() -> None:
    run = Run().start()
    seen = run.context(OTHER_AGENT)
    assert (seen.status, seen.invocations) == ("running", ())
    assert [(item.what, item.who) for item in seen.blocked_by] == [("agent", AGENT.id)]
    assert AGENT.id in seen.next_step


def test_people_come_before_machines_among_those_who_block() -> None:
    run = Run().start()
    asked(run)
    effect_of(run.invoke("read"))
    assert [item.what for item in run.context().blocked_by] == ["approval", "effect", "agent"]
    assert run.context().approval_required
    assert views.listed_as(run.state)[1] == "approval:1 person"


def test_a_ready_step_waits_for_the_engine() -> None:
    run = Run(template({"id": "go", "type": "action", "tool": "box__read"})).start()
    assert [(item.what, item.who) for item in run.context(BOB).blocked_by] == [("engine", "charter")]


def test_an_expired_invocation_may_not_be_used_and_an_ended_run_blocks_on_nobody() -> None:
    run = Run().start()
    assert run.wait(DAY).context().invocations == ()
    run.advance()
    seen = run.context()
    assert (seen.status, seen.blocked_by, views.listed_as(run.state)[1]) == ("failed", (), None)
    assert "start another" in seen.next_step


def test_a_step_that_has_not_opened_is_pending() -> None:
    run = Run(template({"id": "a", "type": "agent"}, {"id": "b", "type": "agent"})).start()
    assert run.context().steps == {"a": "open", "b": "pending"}
