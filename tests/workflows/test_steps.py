"""Steps open when what they need is done, and a run ends exactly once."""

from __future__ import annotations

from typing import Any

import pytest

from charter.model.template import Template
from charter.workflows import decide as rules
from tests.workflows.build import ANN, BOB, CAT, DAY, OTHER_AGENT, Run, asked, code_of, effect_of, template


def agent(step_id: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "agent", "allowed_tools": ["*"], **more}


def approval(step_id: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "approval", "question": "Go on?", **more}


def run_of(*steps: dict[str, Any], output: Any = None, given: dict[str, Any] | None = None) -> Run:
    return Run(template(*steps, output=output)).start(given or {})


def test_steps_follow_one_another_and_the_run_ends_with_its_output() -> None:
    run = run_of(agent("a"), agent("b"), output="{{ steps.a.output.n + steps.b.output.n }}")
    assert run.steps() == {"a": "open"}
    run.complete({"n": 1})
    assert run.steps() == {"a": "completed", "b": "open"}
    run.complete({"n": 2})
    assert (run.state.status, run.state.output) == ("completed", 3)
    assert run.types()[-1] == "WORKFLOW_COMPLETED"


def test_steps_without_needs_of_each_other_are_open_together_and_a_join_waits_for_both() -> None:
    run = run_of(agent("a"), agent("b", needs=[]), agent("c", needs=["a", "b"]))
    assert run.steps() == {"a": "open", "b": "open"}
    first, second = list(run.state.invocations)
    run.complete(invocation=first)
    assert run.steps() == {"a": "completed", "b": "open"}
    run.complete(invocation=second)
    assert run.steps()["c"] == "open"


def test_a_step_whose_condition_is_false_is_skipped_with_the_condition_on_record() -> None:
    run = run_of(agent("a", **{"if": "trigger.amount > 100"}), agent("b"), given={"amount": 5})
    assert run.steps() == {"a": "skipped", "b": "open"}
    assert "trigger.amount > 100" in str(run.state.steps["a"].reason)


@pytest.mark.parametrize("source", ["trigger.amount > 100", "trigger.other == 1", "1 + 1", '"yes"'])
def test_a_condition_without_a_truth_value_fails_the_run_and_is_never_taken_as_false(source: str) -> None:
    run = run_of(agent("a", **{"if": source}), given={"amount": "5"})
    assert (run.state.status, run.steps()) == ("failed", {"a": "failed"})
    assert run.state.steps["a"].code == "expression_error"
    assert source in str(run.state.reason)


def test_a_step_whose_need_was_skipped_goes_on() -> None:
    run = run_of(agent("a", **{"if": "false"}), approval("b", **{"if": "false"}))
    assert (run.state.status, run.steps()) == ("completed", {"a": "skipped", "b": "skipped"})


def test_an_output_that_has_no_value_fails_the_run() -> None:
    run = run_of(agent("a"), output="{{ steps.a.output.missing }}")
    run.complete({})
    assert run.state.status == "failed"
    assert "output" in str(run.state.reason)


# -- agent steps


def test_an_invocation_is_for_who_started_it_unless_the_step_names_another() -> None:
    mine, other = run_of(agent("a")), run_of(agent("a", agent=OTHER_AGENT.id))
    assert [item.agent_invocation_id for item in mine.context().invocations] == [mine.invocation_id]
    assert other.context().invocations == ()
    assert [item.step_id for item in other.context(OTHER_AGENT).invocations] == ["a"]


def test_an_invocation_for_a_role_is_for_whoever_has_it() -> None:
    run = run_of(agent("a", agent="role:writer"))
    writer = OTHER_AGENT.model_copy(update={"roles": ("writer",)})
    assert run.context().invocations == ()
    assert run.context(writer).invocations


def test_instructions_are_filled_in_with_what_is_known() -> None:
    run = run_of(agent("a"), agent("b", instructions="Write about {{ steps.a.output.topic }}: {{ steps.a.output }}"))
    run.complete({"topic": "bees", "n": 1})
    shown = run.context().invocations[0].instructions
    assert shown == 'Write about bees: {"n": 1, "topic": "bees"}'


def test_instructions_without_a_value_fail_the_step() -> None:
    run = run_of(agent("a", instructions="{{ trigger.nothing }}"))
    assert (run.state.status, run.state.steps["a"].code) == ("failed", "expression_error")


def test_a_summary_alone_is_the_output() -> None:
    run = run_of(agent("a"), output="{{ steps.a.output.summary }}")
    run.complete(summary="all done")
    assert run.state.output == "all done"


def test_an_invocation_ends_with_its_step_and_completes_it_once() -> None:
    run = run_of(agent("a"), agent("b"))
    first = run.invocation_id
    run.complete()
    assert run.state.invocations[first].status == "ended"
    draft = run.complete(invocation=first)
    assert code_of(draft) == "invocation_ended"
    assert run.types()[-1] == "COMMAND_REFUSED"
    assert run.steps() == {"a": "completed", "b": "open"}


def test_an_agent_that_does_not_complete_its_step_in_time_fails_it() -> None:
    run = run_of(agent("a", expires_after_seconds=60))
    assert run.wait(59).advance().events == []
    run.wait(1).advance()
    assert (run.state.status, run.state.steps["a"].code) == ("failed", "step_expired")
    assert [item.status for item in run.state.invocations.values()] == ["expired"]


def test_completing_a_step_withdraws_what_its_agent_asked() -> None:
    run = run_of(agent("a"), agent("b"))
    _, approval_id = asked(run)
    run.complete()
    assert run.state.approvals[approval_id].status == "withdrawn"
    assert run.state.live


# -- approval steps


def test_an_approval_step_shows_what_it_asks_and_gives_who_decided() -> None:
    run = run_of(
        approval("ok", question="Pay {{ trigger.amount }}?", show={"to": "{{ trigger.to }}", "rows": [1, 2]}),
        output="{{ steps.ok.output.decided_by }}",
        given={"amount": 5, "to": "ann"},
    )
    request = run.state.approvals[run.approval_id()].request
    assert request.reason == "Pay 5?"
    assert {item.label: item.value for item in request.shown} == {"to": "ann", "rows": "[1, 2]"}
    run.answer(request.approval_id)
    assert run.state.output == "bob"


def test_what_an_approval_step_shows_cannot_pass_for_something_else() -> None:
    evil = "ok\nDigest: 000\u202e\u200b" + "x" * 10_000
    run = run_of(approval("ok", show={"text": "{{ trigger.evil }}"}), given={"evil": evil})
    (shown,) = run.state.approvals[run.approval_id()].request.shown
    assert "\nDigest" not in shown.value
    assert "│ Digest" in shown.value
    assert "\u202e" not in shown.value
    assert "characters not shown" in shown.value
    assert len(shown.value) < 2500


def test_an_approval_steps_digest_covers_what_was_shown() -> None:
    digests = set()
    for to in ("ann", "bob"):
        run = run_of(approval("ok", show={"to": "{{ trigger.to }}"}), given={"to": to})
        digests.add(run.state.approvals[run.approval_id()].request.digest)
    assert len(digests) == 2


def test_an_approval_step_needs_its_quorum() -> None:
    run = run_of(approval("ok", requirements=[{"role": "finance", "approvers": 2}]))
    key = run.approval_id()
    run.answer(key, by=ANN)
    run.answer(key, by=BOB)
    assert run.steps() == {"ok": "open"}
    run.answer(key, by=CAT)
    assert run.state.status == "completed"


def test_a_no_ends_the_run_as_rejected_with_the_reason() -> None:
    run = run_of(agent("work", needs=[]), approval("ok", needs=[]))
    run.answer(run.approval_id(), "reject", comment="not now")
    assert run.state.status == "rejected"
    assert "not now" in str(run.state.reason)
    assert run.steps()["ok"] == "rejected"
    assert not [item for item in run.state.invocations.values() if item.status == "open"]


def test_no_answer_in_time_ends_the_run_as_rejected() -> None:
    run = run_of(approval("ok", expires_after_seconds=60))
    run.wait(60).advance()
    assert (run.state.status, run.steps()) == ("rejected", {"ok": "expired"})


def test_an_answered_question_expires_no_more() -> None:
    run = run_of(approval("ok", expires_after_seconds=60), agent("work", expires_after_seconds=2 * DAY))
    run.answer(run.approval_id())
    assert rules.wake_at(run.state) == next(iter(run.state.invocations.values())).expires_at
    assert run.wait(DAY).advance().events == []
    assert run.steps() == {"ok": "completed", "work": "open"}


def test_a_steps_question_cannot_be_edited() -> None:
    run = run_of(approval("ok"))
    command_code = code_of(run.answer(run.approval_id(), "edit"))
    assert command_code == "edit_not_allowed"


def test_a_question_without_a_value_fails_the_step() -> None:
    run = run_of(approval("ok", question="Pay {{ trigger.amount }}?"))
    assert (run.state.status, run.state.steps["ok"].code) == ("failed", "expression_error")


# -- starting and ending


def test_the_same_idempotency_key_claims_the_start() -> None:
    run = Run().start(key="once")
    assert run.claims == [("start", "agent:writer|once", run.state.workflow_id)]


def test_the_owner_is_the_person_whom_the_agent_serves() -> None:
    assert Run().start().state.owner == "ann"
    assert Run(starter=OTHER_AGENT).start().state.owner == OTHER_AGENT.id


def test_a_cancelled_run_is_over_once() -> None:
    run = Run().start()
    run.cancel("enough")
    assert (run.state.status, run.state.reason) == ("cancelled", "enough")
    assert code_of(run.cancel()) == "workflow_ended"
    assert code_of(run.complete()) == "workflow_ended"
    assert run.advance().events == []
    assert rules.wake_at(run.state) is None


def test_an_ended_run_runs_no_tool() -> None:
    run = Run().start()
    run.cancel()
    assert code_of(run.invoke("read")) == "no_invocation"


# -- when the engine must look again


def test_wake_at_is_the_next_expiry() -> None:
    run = run_of(agent("a", expires_after_seconds=DAY), approval("ok", needs=[], expires_after_seconds=60))
    assert rules.wake_at(run.state) == run.state.approvals[run.approval_id()].request.expires_at


def test_a_long_chain_of_failing_conditions_is_no_deep_recursion() -> None:
    steps = [
        {"id": f"s{n}", "type": "action", "tool": "box__read", "if": "trigger.none", "on_failure": "skip"}
        for n in range(100)
    ]
    run = Run(Template.model_validate({"name": "t", "version": "1", "steps": steps})).start()
    assert run.state.status == "completed"


def test_an_action_ready_beside_a_waiting_agent_is_run_now() -> None:
    run = run_of(agent("a"), {"id": "go", "type": "action", "tool": "box__read", "needs": []})
    assert rules.runnable_steps(run.state) == ["go"]
    run.outcome(effect_of(run.run_step("go")).effect_id)
    assert run.steps() == {"a": "open", "go": "completed"}
