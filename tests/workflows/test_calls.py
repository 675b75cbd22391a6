"""Tool calls: proposed, asked about, invoked once."""

from __future__ import annotations

import pytest

from charter.errors import InvalidInput
from charter.gate.preparing import check_same_call
from charter.model import commands as cmd
from charter.model.approval import Requirement
from charter.workflows.draft import digest_of
from charter.workflows.quorum import who
from tests.workflows.build import ANN, BOB, CAT, DAY, Run, ask, asked, code_of, deny, effect_of, permit, tool, under


def test_a_permitted_call_runs_at_once_with_its_intent_and_decision_on_record() -> None:
    run = Run().start()
    draft = run.invoke("read", {"name": "a"})
    assert [event.type for event in draft.events] == ["POLICY_DECISION", "TOOL_INVOKE"]
    effect = effect_of(draft)
    assert (effect.attempt, effect.idempotency_key) == (1, effect.effect_id)
    assert effect.arguments == {"name": "a"}
    assert run.state.invocations[run.invocation_id].calls_used == 1


def test_a_call_that_ended_leaves_nothing_in_the_state() -> None:
    run = Run().start()
    before = run.state
    run.outcome(effect_of(run.invoke("read")).effect_id)
    assert (run.state.effects, run.state.proposals, run.state.approvals) == ({}, {}, {})
    assert before.steps == run.state.steps


def test_a_denied_call_is_on_record_and_says_why() -> None:
    run = Run().start()
    draft = run.invoke("drop")
    assert code_of(draft) == "forbidden"
    assert run.types()[-1] == "POLICY_DECISION"
    assert draft.effect is None


def test_a_proposal_answers_with_the_decision_and_the_next_step() -> None:
    run = Run().start()
    view = run.propose("write", {"text": "a"}, "needed").reply
    assert (view.decision, view.code) == ("require_approval", "approval_required")
    assert "request_approval" in view.next_step
    assert "invoke_tool" in run.propose("read", {}).reply.next_step
    assert run.propose("drop", {}).reply.decision == "deny"


def test_invoking_without_the_approval_makes_the_proposal_and_runs_nothing() -> None:
    run = Run().start()
    draft = run.invoke("write", {"text": "a"})
    assert (draft.reply.status, draft.effect) == ("pending_approval", None)
    assert draft.reply.proposal_id in run.state.proposals
    assert "TOOL_INVOKE" not in run.types()


def test_people_are_asked_once_for_a_proposal() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    again = run.request(proposal_id)
    assert again.reply.approval_id == approval_id
    assert again.events == []
    assert run.types().count("APPROVAL_REQUESTED") == 1


def test_the_same_open_call_proposed_again_is_the_same_proposal() -> None:
    run = Run().start()
    first = run.propose("write", {"text": "a"}).reply.proposal_id
    assert run.propose("write", {"text": "a"}, again=first).reply.proposal_id == first
    assert run.types().count("PROPOSAL_MADE") == 1


def test_an_approved_call_runs_once() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    effect = effect_of(run.invoke(proposal_id=proposal_id))
    assert run.state.approvals[approval_id].status == "used"
    assert run.state.approvals[approval_id].used_by == effect.effect_id
    assert ("approval", approval_id, effect.effect_id) in run.claims
    for attempt in range(2):
        replay = run.invoke(proposal_id=proposal_id)
        assert (code_of(replay), replay.effect) == ("already_used", None)
        if not attempt:
            run.outcome(effect.effect_id)
    assert run.types().count("TOOL_INVOKE") == 1


def test_nobody_is_asked_about_a_proposal_that_has_run() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    run.outcome(effect_of(run.invoke(proposal_id=proposal_id)).effect_id)
    assert code_of(run.request(proposal_id)) == "already_used"
    assert run.types().count("APPROVAL_REQUESTED") == 1


def test_before_the_approval_nothing_runs_and_the_answer_names_who_is_missing() -> None:
    run = Run().start()
    proposal_id, _ = asked(run, "pay", {"amount": 5})
    draft = run.invoke(proposal_id=proposal_id)
    assert draft.reply.status == "pending_approval"
    assert "2 people with role finance" in draft.reply.next_step


def test_a_rejected_proposal_neither_runs_nor_is_asked_about_again() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id, "reject", comment="too dear")
    for draft in (run.invoke(proposal_id=proposal_id), run.request(proposal_id)):
        assert code_of(draft) == "approval_rejected"
        assert "too dear" in str(draft.error)


def test_an_expired_approval_runs_nothing_and_may_be_asked_for_again() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    draft = run.wait(DAY).invoke(proposal_id=proposal_id)
    assert draft.effect is None
    assert run.state.approvals[approval_id].status == "expired"


def test_an_approval_may_be_used_until_its_last_instant() -> None:
    run = Run().start()
    run.policy = lambda facts: permit() if facts.approvals or facts.action != "tool.invoke" else ask(within=60)
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    assert run.wait(59.999).invoke(proposal_id=proposal_id).effect is not None


def test_an_expired_request_can_be_asked_anew_and_then_runs() -> None:
    run = Run().start()
    run.policy = lambda facts: permit() if facts.approvals or facts.action != "tool.invoke" else ask(within=60)
    proposal_id, first = asked(run)
    run.wait(60).advance()
    assert run.state.approvals[first].status == "expired"
    assert "request_approval" in run.invoke(proposal_id=proposal_id).reply.next_step
    second = run.request(proposal_id).reply.approval_id
    assert second != first
    run.answer(second)
    assert run.invoke(proposal_id=proposal_id).effect is not None


def test_what_was_approved_no_longer_suffices_under_a_stricter_policy_set() -> None:
    run = Run().start()
    proposal_id, first = asked(run)
    run.answer(first)
    stricter = under(
        run, lambda facts: permit() if len(facts.approvals) > 1 or facts.action != "tool.invoke" else ask(2)
    )
    waiting = stricter.invoke(proposal_id=proposal_id).reply
    assert waiting.status == "pending_approval"
    assert "request_approval" in waiting.next_step
    second = stricter.request(proposal_id).reply.approval_id
    assert stricter.state.approvals[first].status == "withdrawn"
    stricter.answer(second, by=BOB)
    stricter.answer(second, by=CAT)
    assert stricter.invoke(proposal_id=proposal_id).effect is not None


def test_a_policy_that_permits_by_now_withdraws_the_question() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    easier = under(run, lambda facts: permit())
    assert easier.invoke(proposal_id=proposal_id).effect is not None
    assert easier.state.approvals[approval_id].status == "withdrawn"
    assert all(not event.data.approval_ids for event in easier.log if event.type == "TOOL_INVOKE")


def test_a_policy_that_denies_by_now_stops_an_approved_call() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    closed = under(run, lambda facts: deny(code="quarantined"))
    assert code_of(closed.invoke(proposal_id=proposal_id)) == "quarantined"
    assert closed.state.approvals[approval_id].status == "approved"


def test_outside_its_invocations_time_a_call_is_denied() -> None:
    run = Run().start()
    assert code_of(run.wait(DAY).invoke("read")) == "no_invocation"


def test_the_digest_covers_every_part_of_the_call() -> None:
    run = Run().start()
    call = run.call(ANN, "write", {"text": "a"}, invocation="inv_1")
    digests = {digest_of(run.state, call, "salt"), digest_of(run.state, call, "pepper")}
    digests.add(digest_of(run.state, run.call(ANN, "write", {"text": "b"}, invocation="inv_1"), "salt"))
    digests.add(digest_of(run.state, run.call(ANN, "write", {"text": "a"}, invocation="inv_2"), "salt"))
    digests.add(digest_of(run.state, run.call(ANN, "pay", {"text": "a"}, invocation="inv_1"), "salt"))
    run.tools["box__write"] = tool("write", version="2")
    digests.add(digest_of(run.state, run.call(ANN, "write", {"text": "a"}, invocation="inv_1"), "salt"))
    other = Run().wait(1).start()
    digests.add(digest_of(other.state, call, "salt"))
    assert len(digests) == 7


def test_a_proposal_and_a_call_that_are_sent_together_must_agree() -> None:
    run = Run().start()
    proposal_id = run.propose("write", {"text": "a"}).reply.proposal_id
    proposal = run.state.proposals[proposal_id]
    sent = cmd.InvokeTool(workflow_id="w", agent_invocation_id="i", proposal_id=proposal_id)
    check_same_call(proposal, sent.model_copy(update={"arguments": {"text": "a"}}), proposal.made.digest)
    with pytest.raises(InvalidInput, match="exact call") as changed:
        check_same_call(proposal, sent.model_copy(update={"arguments": {"text": "b"}}), "sha256:other")
    assert changed.value.error_code == "proposal_mismatch"
    with pytest.raises(InvalidInput, match="not box__pay"):
        check_same_call(proposal, sent.model_copy(update={"tool": "box__pay"}), proposal.made.digest)


def test_sensitive_arguments_are_sealed_and_never_in_an_event() -> None:
    run = Run(sensitive=True).start()
    draft = run.propose("write", {"text": "hunter2"})
    assert [item.content["arguments"] for item in draft.secrets] == [{"text": "hunter2"}]
    assert draft.events[0].data.salt is None
    direct = run.invoke("read", {"text": "hunter2"})
    assert effect_of(direct).arguments == {"text": "hunter2"}
    assert "hunter2" not in "".join(event.data.model_dump_json() for event in run.log)


def test_a_dry_run_is_fixed_at_the_start_and_marks_every_effect() -> None:
    run = Run(dry_run=True).start()
    assert effect_of(run.invoke("read")).dry_run


def test_requirements_read_as_words() -> None:
    two = Requirement(role="finance", approvers=2, channels=("cli", "console"))
    assert who((two, Requirement())) == "2 people with role finance (by cli, console) and 1 person"
    assert who(()) == "a person"


def test_a_question_from_a_reviewer_is_answered_by_a_new_proposal_with_a_better_reason() -> None:
    run = Run().start()
    first, approval_id = asked(run)
    run.answer(approval_id, "request_more_info", comment="which customer?")
    assert run.state.approvals[approval_id].status == "pending"
    assert "which customer?" in run.context().blocked_by[0].detail
    second = run.propose("write", {"text": "a"}, "for customer 12", again=first).reply
    assert second.proposal_id != first
    assert run.state.approvals[approval_id].status == "withdrawn"
    assert code_of(run.invoke(proposal_id=first)) == "proposal_replaced"
    assert code_of(run.request(first)) == "proposal_replaced"
    run.answer(run.request(second.proposal_id).reply.approval_id)
    assert run.invoke(proposal_id=second.proposal_id).effect is not None
