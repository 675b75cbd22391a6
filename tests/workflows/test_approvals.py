"""People decide: who may, how many are needed, for how long, and on what exactly."""

from __future__ import annotations

import pytest

from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.approval import GrantBounds, Requirement
from charter.model.policy import Decision, Facts
from charter.workflows.quorum import still_needed
from tests.workflows.build import (
    AGENT,
    ANN,
    BOB,
    CAT,
    DAY,
    ENGINE,
    OTHER_AGENT,
    Run,
    asked,
    code_of,
    deny,
    permit,
    scripted,
    template,
    under,
)


def approved(by: str, *roles: str, channel: str = "cli") -> ev.ApprovalDecided:
    return ev.ApprovalDecided.model_validate(
        {
            "approval_id": "a",
            "decision": "approve",
            "decided_by": by,
            "decided_by_kind": "human",
            "roles": roles,
            "channel": channel,
            "digest": "d",
            "status": "pending",
        }
    )


def test_a_quorum_counts_distinct_people_of_the_role() -> None:
    two = (Requirement(role="finance", approvers=2),)
    assert still_needed(two, (approved("bob", "finance"), approved("bob", "finance")))[0].approvers == 1
    assert still_needed(two, (approved("bob", "finance"), approved("ann")))[0].approvers == 1
    assert still_needed(two, (approved("bob", "finance"), approved("cat", "finance"))) == ()


def test_a_channel_that_a_requirement_does_not_accept_does_not_count() -> None:
    strong = (Requirement(channels=("cli", "console")),)
    assert still_needed(strong, (approved("bob", channel="elicitation"),))[0].approvers == 1
    assert still_needed(strong, (approved("bob", channel="console"),)) == ()


def test_each_requirement_is_counted_for_itself() -> None:
    both = (Requirement(role="finance"), Requirement(role="legal"))
    assert [item.role for item in still_needed(both, (approved("bob", "finance"),))] == ["legal"]
    assert still_needed(both, (approved("bob", "finance", "legal"),)) == ()


def test_one_of_two_leaves_it_pending_and_names_who_is_missing() -> None:
    run = Run().start()
    _, approval_id = asked(run, "pay")
    first = run.answer(approval_id, by=BOB).reply
    assert (first.status, first.still_needed[0].approvers) == ("pending", 1)
    assert "1 person with role finance" in run.context().blocked_by[0].who
    assert run.answer(approval_id, by=CAT).reply.status == "approved"


def test_an_approval_by_somebody_without_the_role_is_recorded_and_does_not_count() -> None:
    run = Run().start()
    _, approval_id = asked(run, "pay")
    run.answer(approval_id, by=ANN)
    run.answer(approval_id, by=BOB)
    assert run.state.approvals[approval_id].status == "pending"


def test_nobody_counts_twice() -> None:
    run = Run().start()
    _, approval_id = asked(run, "pay")
    run.answer(approval_id, by=BOB)
    assert code_of(run.answer(approval_id, by=BOB)) == "already_decided_by_you"
    assert run.state.approvals[approval_id].status == "pending"


def test_who_approved_may_still_reject() -> None:
    run = Run().start()
    _, approval_id = asked(run, "pay")
    run.answer(approval_id, by=BOB)
    assert run.answer(approval_id, "reject", by=BOB).reply.status == "rejected"


@pytest.mark.parametrize("caller", [AGENT, OTHER_AGENT, ENGINE], ids=lambda caller: caller.id)
@pytest.mark.parametrize("verdict", ["approve", "reject", "request_more_info"])
def test_only_a_person_answers_for_a_person(caller: object, verdict: str) -> None:
    run = Run().start()
    _, approval_id = asked(run)
    draft = run.answer(approval_id, verdict, by=caller)  # type: ignore[arg-type]
    assert code_of(draft) == "agent_cannot_decide"
    assert run.types()[-1] == "COMMAND_REFUSED"
    assert run.state.approvals[approval_id].decisions == ()


def test_nobody_approves_their_own_action_whatever_the_policy_says() -> None:
    steps = {"id": "ok", "type": "approval", "question": "Go?"}
    run = under(Run(template(steps), starter=ANN), lambda facts: permit()).start()
    draft = run.answer(run.approval_id(), by=ANN)
    assert code_of(draft) == "own_action"
    assert run.steps() == {"ok": "open"}


def test_the_policy_has_its_say_on_who_decides_and_by_which_channel() -> None:
    def only_console(facts: Facts) -> Decision:
        if facts.action == "approval.decide" and facts.channel != "console":
            return deny("Decide in the console.", "weak_channel")
        return scripted(facts)

    run = under(Run(), only_console).start()
    _, approval_id = asked(run)
    draft = run.answer(approval_id, channel="elicitation")
    assert code_of(draft) == "weak_channel"
    assert [event.type for event in draft.events] == ["POLICY_DECISION"]
    assert run.answer(approval_id, channel="console").reply.status == "approved"


def test_no_answer_is_taken_without_a_policys_decision() -> None:
    run = Run().start()
    _, approval_id = asked(run)
    command = cmd.DecideApproval(approval_id=approval_id, decision="approve", channel="cli")
    assert code_of(run.decide(command, run.given(BOB))) == "no_decision"
    assert run.state.approvals[approval_id].status == "pending"


def test_a_person_decides_on_what_they_saw() -> None:
    run = Run().start()
    _, approval_id = asked(run)
    assert code_of(run.answer(approval_id, digest="sha256:another")) == "digest_mismatch"
    seen = run.state.approvals[approval_id].request.digest
    assert run.answer(approval_id, digest=seen).reply.status == "approved"


def test_what_is_decided_is_decided() -> None:
    run = Run().start()
    _, approval_id = asked(run)
    run.answer(approval_id, "reject")
    draft = run.answer(approval_id, "approve", by=CAT)
    assert code_of(draft) == "already_decided"
    assert "bob" in str(draft.error)


def test_an_answer_that_comes_too_late_does_not_count() -> None:
    run = Run().start()
    _, approval_id = asked(run)
    draft = run.wait(DAY).answer(approval_id)
    assert code_of(draft) == "already_decided"
    assert run.state.approvals[approval_id].status == "expired"


def test_an_answer_to_no_approval_is_not_found() -> None:
    run = Run().start()
    command = cmd.DecideApproval(approval_id="appr_none", decision="approve", channel="cli")
    draft = run.decide(command, run.given(BOB))
    assert (code_of(draft), draft.events) == ("not_found", [])


def test_an_edit_is_a_new_call_that_is_decided_on_anew() -> None:
    run = Run().start()
    first, approval_id = asked(run, "write", {"text": "a"})
    reply = run.answer(approval_id, "edit", edited={"text": "b"}).reply
    second = reply.replacement_proposal_id
    old, new = run.state.proposals[first].made, run.state.proposals[second].made
    assert new.replaces == first
    assert new.digest != old.digest
    assert new.proposed_by == AGENT
    assert run.state.approvals[approval_id].status == "edited"
    assert run.state.approvals[approval_id].decisions[-1].replacement_proposal_id == second
    assert code_of(run.invoke(proposal_id=first)) == "proposal_replaced"
    assert run.invoke(proposal_id=second).reply.status == "pending_approval"
    run.answer(run.approval_id())
    assert run.invoke(proposal_id=second).effect is not None


def test_an_edit_that_the_policy_permits_needs_no_second_answer() -> None:
    run = Run().start()
    _, approval_id = asked(run)
    easy = under(run, lambda facts: permit())
    second = easy.answer(approval_id, "edit", edited={"text": "b"}).reply.replacement_proposal_id
    assert easy.invoke(proposal_id=second).effect is not None


def test_an_edit_that_the_policy_denies_asks_nobody() -> None:
    run = Run().start()
    _, approval_id = asked(run)
    strict = under(run, lambda facts: deny() if facts.action == "tool.invoke" else permit())
    reply = strict.answer(approval_id, "edit", edited={"text": "b"}).reply
    assert reply.decision_of_replacement.verdict == "deny"
    assert "It may not." in reply.next_step
    assert not [item for item in strict.state.approvals.values() if item.status == "pending"]


def test_sealed_arguments_cannot_be_edited_unseen() -> None:
    run = Run(sensitive=True).start()
    _, approval_id = asked(run)
    assert code_of(run.answer(approval_id, "edit", edited={"text": "b"})) == "edit_not_allowed"


@pytest.mark.parametrize("end", ["cancel", "complete"])
def test_an_ended_run_withdraws_what_was_asked_and_what_was_approved(end: str) -> None:
    run = Run().start()
    pending = asked(run, "pay")[1]
    granted, used = asked(run, "write")
    run.answer(used)
    run.cancel() if end == "cancel" else run.complete("done")
    assert {run.state.approvals[key].status for key in (pending, used)} == {"withdrawn"}
    assert code_of(run.answer(pending)) == "already_decided"
    assert run.invoke(proposal_id=granted).effect is None


# -- standing grants


def bounds(uses: int = 2) -> GrantBounds:
    return GrantBounds(tool="box__write", arguments={}, uses=uses, expires_at="2030-01-01T00:00:00.000Z")


def give(run: Run) -> str:
    command = cmd.GiveGrant(workflow_id=run.state.workflow_id, bounds=bounds(), channel="cli")
    return str(run.decide(command, run.given(BOB, **run.run_facts(BOB, "grant.give"))).reply)


def use(run: Run, grant_id: str) -> None:
    call = run.call(AGENT, "write", {}, invocation=run.invocation_id, grant_id=grant_id)
    command = cmd.InvokeTool(workflow_id=run.state.workflow_id, agent_invocation_id=run.invocation_id)
    run.decide(command, run.given(AGENT, call=call))


def test_a_grant_is_used_up_call_by_call_and_each_call_names_it() -> None:
    run = Run().start()
    grant_id = give(run)
    easy = under(run, lambda facts: permit())
    use(easy, grant_id)
    use(easy, grant_id)
    assert easy.state.grants[grant_id].uses_left == 0
    assert [event.data.grant_id for event in easy.log if event.type == "TOOL_INVOKE"] == [grant_id, grant_id]


def test_a_grant_can_be_taken_back_once() -> None:
    run = Run().start()
    grant_id = give(run)
    command = cmd.RevokeGrant(workflow_id=run.state.workflow_id, grant_id=grant_id)
    run.decide(command, run.given(BOB, **run.run_facts(BOB, "grant.revoke")))
    assert run.state.grants[grant_id].revoked
    assert code_of(run.decide(command, run.given(BOB, **run.run_facts(BOB, "grant.revoke")))) == "not_found"


def test_a_grant_that_the_policy_forbids_is_not_given() -> None:
    run = under(Run().start(), lambda facts: deny(code="too_risky"))
    command = cmd.GiveGrant(workflow_id=run.state.workflow_id, bounds=bounds(), channel="cli")
    draft = run.decide(command, run.given(BOB, **run.run_facts(BOB, "grant.give")))
    assert (code_of(draft), run.state.grants) == ("too_risky", {})


def test_an_ended_run_takes_no_grant() -> None:
    run = Run().start()
    run.cancel()
    command = cmd.GiveGrant(workflow_id=run.state.workflow_id, bounds=bounds(), channel="cli")
    assert code_of(run.decide(command, run.given(BOB, **run.run_facts(BOB, "grant.give")))) == "workflow_ended"
