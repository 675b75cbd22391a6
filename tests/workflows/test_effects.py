"""Effects: at most once unless idempotent, never lost in silence, and a person has the last word on a doubt."""

from __future__ import annotations

import pytest

from charter.errors import InvalidInput, Unavailable
from charter.model import commands as cmd
from charter.workflows import decide as rules
from tests.workflows.build import DAY, ENGINE, Run, asked, code_of, effect_of, template, tool

ACTION = {"id": "go", "type": "action", "tool": "box__read", "arguments": {"name": "{{ trigger.name }}"}}


def running(run: Run) -> str:
    """A ``write`` that is under way; the tool is not idempotent."""
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    return effect_of(run.invoke(proposal_id=proposal_id)).effect_id


def test_after_a_crash_an_idempotent_tool_runs_again_under_the_same_key() -> None:
    run = Run().start()
    first = effect_of(run.invoke("read"))
    run.instance = "srv_2"
    again = effect_of(run.recover(first.effect_id))
    assert (again.effect_id, again.idempotency_key) == (first.effect_id, first.idempotency_key)
    assert again.attempt == 2
    assert run.state.effects[first.effect_id].invoke.instance == "srv_2"
    assert run.state.invocations[run.invocation_id].calls_used == 1


def test_after_a_crash_any_other_tool_is_in_doubt_and_does_not_run() -> None:
    run = Run().start()
    effect_id = running(run)
    draft = run.recover(effect_id)
    assert draft.effect is None
    assert run.state.effects[effect_id].status == "in_doubt"
    assert run.context().blocked_by[0].what == "effect_in_doubt"


def test_recovering_twice_or_for_another_process_changes_nothing() -> None:
    run = Run().start()
    effect_id = effect_of(run.invoke("read")).effect_id
    assert run.recover(effect_id, dead="srv_other").events == []
    run.instance = "srv_2"
    run.recover(effect_id)
    assert run.recover(effect_id).events == []


def test_an_ended_run_retries_nothing() -> None:
    run = Run().start()
    effect_id = effect_of(run.invoke("read")).effect_id
    run.cancel()
    assert run.recover(effect_id).effect is None
    assert run.state.effects[effect_id].status == "in_doubt"


def test_a_lost_answer_is_a_doubt_and_the_answer_may_still_come() -> None:
    run = Run().start()
    effect_id = running(run)
    run.outcome(effect_id, "unknown")
    assert run.state.effects[effect_id].status == "in_doubt"
    assert run.outcome(effect_id, "unknown").events == []
    run.outcome(effect_id, "succeeded")
    assert run.state.effects == {}


def test_an_outcome_of_another_attempt_or_of_nothing_is_not_taken() -> None:
    run = Run().start()
    effect_id = effect_of(run.invoke("read")).effect_id
    run.recover(effect_id)
    assert code_of(run.outcome(effect_id, attempt=1)) == "not_found"
    assert code_of(run.outcome("eff_none")) == "not_found"
    assert run.outcome(effect_id, attempt=2).error is None
    assert code_of(run.outcome(effect_id, attempt=2)) == "not_found"


@pytest.mark.parametrize("resolution", ["ran", "did_not_run"])
def test_a_persons_finding_ends_the_doubt(resolution: str) -> None:
    run = Run().start()
    effect_id = running(run)
    run.outcome(effect_id, "unknown")
    run.resolve(effect_id, resolution)
    assert run.state.effects == {}
    assert run.log[-1].data.resolved_by == "bob"


def test_a_person_may_have_it_run_again() -> None:
    run = Run().start()
    effect_id = running(run)
    run.outcome(effect_id, "unknown")
    effect = effect_of(run.resolve(effect_id, "retry"))
    assert (effect.effect_id, effect.attempt) == (effect_id, 2)
    run.outcome(effect_id, attempt=2)
    assert run.state.effects == {}
    assert [item.status for item in run.state.approvals.values()] == ["used"]


def test_only_a_doubt_can_be_resolved_and_only_in_a_live_run_retried() -> None:
    run = Run().start()
    effect_id = running(run)
    assert code_of(run.resolve(effect_id, "ran")) == "not_in_doubt"
    run.outcome(effect_id, "unknown")
    run.cancel()
    assert code_of(run.resolve(effect_id, "retry")) == "cannot_retry"
    assert run.resolve(effect_id, "ran").error is None


# -- effects of the workflow's own steps


def test_an_action_step_waits_for_the_engine_and_its_output_goes_on() -> None:
    run = Run(template(ACTION, output={"found": "{{ steps.go.output.text }}"})).start({"name": "a"})
    assert rules.runnable_steps(run.state) == ["go"]
    assert rules.wake_at(run.state) == run.now
    effect = effect_of(run.run_step("go"))
    assert effect.arguments == {"name": "a"}
    assert rules.runnable_steps(run.state) == []
    run.outcome(effect.effect_id, output={"text": "hello"})
    assert (run.state.status, run.state.output) == ("completed", {"found": "hello"})


def test_an_action_step_runs_once() -> None:
    run = Run(template(ACTION)).start({"name": "a"})
    run.run_step("go")
    assert run.run_step("go").events == []


@pytest.mark.parametrize(("on_failure", "status"), [("fail_workflow", "failed"), ("skip", "completed")])
@pytest.mark.parametrize("how", ["failed", "is_error", "did_not_run"])
def test_a_failed_action_does_what_its_step_says(on_failure: str, status: str, how: str) -> None:
    run = Run(template({**ACTION, "on_failure": on_failure})).start({"name": "a"})
    effect_id = effect_of(run.run_step("go")).effect_id
    if how == "did_not_run":
        run.outcome(effect_id, "unknown")
        run.resolve(effect_id, "did_not_run")
    else:
        run.outcome(effect_id, "failed" if how == "failed" else "succeeded", is_error=how == "is_error")
    assert run.state.status == status


def test_a_person_may_supply_the_output_of_an_action_in_doubt() -> None:
    run = Run(template(ACTION, output="{{ steps.go.output }}")).start({"name": "a"})
    effect_id = effect_of(run.run_step("go")).effect_id
    run.outcome(effect_id, "unknown")
    assert run.state.live
    run.resolve(effect_id, "ran", output={"text": "by hand"})
    assert (run.state.status, run.state.output) == ("completed", {"text": "by hand"})


def test_an_action_that_needs_approval_waits_for_people_and_then_runs() -> None:
    run = Run(template({**ACTION, "tool": "box__write"})).start({"name": "a"})
    assert run.run_step("go").effect is None
    assert rules.runnable_steps(run.state) == []
    assert run.context().blocked_by[0].what == "approval"
    run.answer(run.approval_id())
    assert rules.runnable_steps(run.state) == ["go"]
    assert effect_of(run.run_step("go")).arguments == {"name": "a"}
    assert run.types().count("APPROVAL_REQUESTED") == 1


def test_an_action_edited_by_a_reviewer_runs_as_edited() -> None:
    run = Run(template({**ACTION, "tool": "box__write"})).start({"name": "a"})
    run.run_step("go")
    run.answer(run.approval_id(), "edit", edited={"name": "b"})
    run.answer(run.approval_id())
    assert effect_of(run.run_step("go")).arguments == {"name": "b"}


def test_a_rejected_or_unanswered_action_ends_the_run_as_rejected() -> None:
    for how in ("reject", "wait"):
        run = Run(template({**ACTION, "tool": "box__write"})).start({"name": "a"})
        run.run_step("go")
        run.answer(run.approval_id(), "reject") if how == "reject" else run.wait(DAY).advance()
        assert run.state.status == "rejected"
        assert run.steps() == {"go": "rejected" if how == "reject" else "expired"}


def test_an_approved_action_that_nobody_ran_in_time_is_over_even_if_the_engine_comes_then() -> None:
    run = Run(template({**ACTION, "tool": "box__write"})).start({"name": "a"})
    run.run_step("go")
    run.answer(run.approval_id())
    assert run.wait(DAY).run_step("go").effect is None
    assert run.state.status == "rejected"


def test_an_action_that_the_policy_denies_fails_its_step() -> None:
    run = Run(template({**ACTION, "tool": "box__drop"})).start({"name": "a"})
    run.run_step("go")
    assert (run.state.status, run.steps()) == ("failed", {"go": "failed"})


def test_an_outcome_that_comes_after_the_end_is_recorded_and_moves_nothing() -> None:
    run = Run(template(ACTION)).start({"name": "a"})
    effect_id = effect_of(run.run_step("go")).effect_id
    run.cancel()
    run.outcome(effect_id, output=1)
    assert run.types()[-1] == "TOOL_RESULT"
    assert run.state.status == "cancelled"


def test_two_tools_with_one_name_and_another_definition_are_two_calls() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    before = run.state.approvals[approval_id].request.digest
    run.tools["box__write"] = tool("write", version="2")
    assert run.propose("write", {"text": "a"}).reply.digest != before
    assert run.state.proposals[proposal_id].made.definition_hash == "sha256:write-1"


def test_a_call_that_cannot_be_prepared_fails_its_step_but_an_absence_is_waited_for() -> None:
    run = Run(template(ACTION)).start({})
    command = cmd.RunStep(workflow_id=run.state.workflow_id, step_id="go")
    with pytest.raises(Unavailable):
        rules.unprepared(run.state, command, run.given(ENGINE), Unavailable("The store does not answer."))
    draft = run.kept(rules.unprepared(run.state, command, run.given(ENGINE), InvalidInput("No such field.")))
    assert draft.error is None
    assert (run.state.status, run.state.steps["go"].code) == ("failed", "invalid_input")


def test_any_other_command_that_cannot_be_prepared_is_its_callers_error() -> None:
    run = Run().start()
    command = cmd.CancelWorkflow(workflow_id=run.state.workflow_id)
    with pytest.raises(InvalidInput):
        rules.unprepared(run.state, command, run.given(ENGINE), InvalidInput("No."))
