"""The approval step in full: who counts and in which order, what follows a no or nobody's answer, and what time brings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.audit.trace import validate_trace
from charter.errors import InvalidInput
from charter.manifests.templates import load_template
from charter.model import events as ev
from charter.model.approval import Requirement
from charter.model.principal import Principal
from charter.workflows import decide as rules
from charter.workflows.quorum import still_needed
from tests.workflows.build import (
    AGENT,
    ANN,
    BOB,
    CAT,
    DAY,
    OTHER_AGENT,
    Run,
    ask,
    asked,
    code_of,
    envelopes,
    permit,
    under,
)
from tests.workflows.build import template as made

DAN = Principal(id="dan", kind="human", roles=("legal",))
EVE = Principal(id="eve", kind="human", roles=("finance", "legal"))
BOSS = Principal(id="boss", kind="human", roles=("cfo",))
REVIEWER = Principal(id="agent:reviewer", kind="agent", roles=("agent-approver",), acts_for="rita")
FINANCE, LEGAL, CFO = {"role": "finance"}, {"role": "legal"}, {"role": "cfo"}
HOUR = 3600


def agree(id_: str = "agree", **more: Any) -> dict[str, Any]:
    return {"id": id_, "type": "approval", "question": "Go?", **more}


def run_of(*steps: dict[str, Any], separation: str = "roles", starter: Principal = ANN, **input_: Any) -> Run:
    found = made(*steps).model_copy(update={"separation_of_duties": separation})
    return Run(found, starter=starter).start(input_)


def lawful(run: Run) -> None:
    """The log folds to the same state, and the validator of traces, which counts for itself, finds nothing."""
    assert run.refolded() == run.state
    assert validate_trace(envelopes(run)) == ()


# -- who counts


def test_only_the_named_people_count() -> None:
    run = run_of(agree(requirements=[{"people": ["Bob", "cat"], "approvers": 2}]))
    assert "2 people of Bob, cat" in run.context().blocked_by[0].who
    run.answer(run.approval_id(), by=DAN)
    assert run.answer(run.approval_id(), by=BOB).reply.still_needed[0].approvers == 1
    assert run.answer(run.approval_id(), by=CAT).reply.status == "approved"
    lawful(run)


def test_role_and_people_together_mean_both() -> None:
    run = run_of(agree(requirements=[{"role": "legal", "people": ["bob", "dan"]}]))
    run.answer(run.approval_id(), by=BOB)
    assert run.answer(run.approval_id(), by=DAN).reply.status == "approved"
    lawful(run)


def test_one_person_with_both_roles_is_one_person_unless_the_template_allows_it() -> None:
    both = agree(requirements=[FINANCE, LEGAL])
    strict = run_of(both)
    assert strict.answer(strict.approval_id(), by=EVE).reply.status == "pending"
    assert strict.answer(strict.approval_id(), by=BOB).reply.status == "approved"
    lawful(strict)
    loose = run_of(both, separation="none")
    assert loose.answer(loose.approval_id(), by=EVE).reply.status == "approved"
    lawful(loose)


def answer_of(name: str, roles: frozenset[str]) -> ev.ApprovalDecided:
    return ev.ApprovalDecided(
        approval_id="a",
        decision="approve",
        decided_by=name,
        decided_by_kind="human",
        roles=tuple(sorted(roles)),
        channel="cli",
        digest="d",
        status="pending",
    )


ROLES = st.sampled_from(["a", "b", "c"])
PEOPLE = st.dictionaries(st.sampled_from("pqrstu"), st.frozensets(ROLES), max_size=6)
NEEDS = st.lists(st.builds(Requirement, role=ROLES, approvers=st.integers(1, 2)), min_size=1, max_size=3)


def can_be_met(left: list[str], people: list[frozenset[str]]) -> bool:
    """By trying everything."""
    if not left:
        return True
    return any(
        left[0] in roles and can_be_met(left[1:], people[:index] + people[index + 1 :])
        for index, roles in enumerate(people)
    )


@settings(max_examples=150, deadline=None)
@given(PEOPLE, NEEDS, st.randoms(use_true_random=False))
def test_one_part_each_is_met_exactly_when_people_can_be_shared_out(people: Any, needs: Any, random: Any) -> None:
    answers = [answer_of(name, roles) for name, roles in people.items()]
    random.shuffle(answers)
    left = still_needed(tuple(needs), tuple(answers), one_part_each=True)
    places = [item.role for item in needs for _ in range(item.approvers)]
    assert (left == ()) == can_be_met(places, list(people.values()))


# -- duties that stay separate


TWO = (agree("first", requirements=[FINANCE]), agree("second", requirements=[LEGAL]))


def test_nobody_passes_two_steps_that_are_meant_for_two_roles_even_with_both() -> None:
    run = run_of(*TWO)
    run.answer(run.approval_id(), by=EVE)
    assert code_of(run.answer(run.approval_id(), by=EVE)) == "duties_separate"
    run.answer(run.approval_id(), by=BOB)  # without the role: recorded, and does not count
    assert run.steps() == {"first": "completed", "second": "open"}
    run.answer(run.approval_id(), by=DAN)
    assert run.state.status == "completed"
    lawful(run)


def test_where_the_template_allows_it_they_need_both_roles() -> None:
    run = run_of(*TWO, separation="none")
    run.answer(run.approval_id(), by=EVE)
    run.answer(run.approval_id(), by=BOB)
    assert run.state.status == "running", "bob holds one of the roles"
    run.answer(run.approval_id(), by=EVE)
    assert run.state.status == "completed"
    lawful(run)


def test_a_step_may_name_the_steps_that_it_is_distinct_from_and_both_ways() -> None:
    for first, second in (({}, {"distinct_from": ["first"]}), ({"distinct_from": ["second"]}, {})):
        run = run_of(agree("first", needs=[], **first), agree("second", needs=[], **second), separation="none")
        one, other = run.state.approvals
        run.answer(one, by=BOB)
        assert code_of(run.answer(other, by=BOB)) == "duties_separate"
        run.answer(other, by=CAT)
        assert run.state.status == "completed"
        lawful(run)


def test_an_empty_distinct_from_opts_one_step_out_and_all_means_every_step() -> None:
    opted = run_of(TWO[0], {**TWO[1], "distinct_from": []})
    for _ in TWO:
        opted.answer(opted.approval_id(), by=EVE)
    assert opted.state.status == "completed"
    every = run_of(agree("first"), agree("second"), separation="all")
    every.answer(every.approval_id(), by=BOB)
    assert code_of(every.answer(every.approval_id(), by=BOB)) == "duties_separate"
    lawful(opted)
    lawful(every)


def test_a_call_that_the_policy_asks_about_is_such_a_step_too() -> None:
    def legal_pays(facts: Any) -> Any:
        if facts.action == "tool.invoke" and not any("legal" in item.roles for item in facts.approvals):
            return ask(1, "legal")
        return permit()

    pay = {"id": "pay", "type": "action", "tool": "box__pay"}
    run = under(run_of(agree("first", requirements=[FINANCE]), pay), legal_pays)
    run.answer(run.approval_id(), by=EVE)
    run.run_step("pay")
    assert code_of(run.answer(run.approval_id(), by=EVE)) == "duties_separate"
    run.answer(run.approval_id(), by=DAN)
    assert run.run_step("pay").effect is not None
    lawful(run)


# -- in sequence


def test_in_a_sequence_the_next_are_asked_when_the_ones_before_agree() -> None:
    run = run_of(agree(order="sequence", requirements=[FINANCE, LEGAL]))
    approval_id = run.approval_id()
    assert run.context().blocked_by[0].who == "1 person with role finance, then 1 person with role legal"
    assert code_of(run.answer(approval_id, by=DAN)) == "not_your_turn"
    draft = run.answer(approval_id, by=EVE)
    assert [event.type for event in draft.events][-1] == "APPROVAL_TURN"
    assert draft.events[-1].data.asked[0].role == "legal"
    assert code_of(run.answer(approval_id, by=EVE)) == "already_decided_by_you"
    assert run.answer(approval_id, by=DAN).reply.status == "approved"
    lawful(run)


def test_who_comes_later_may_say_no_at_once() -> None:
    run = run_of(agree(order="sequence", requirements=[FINANCE, LEGAL]))
    run.answer(run.approval_id(), "reject", by=DAN)
    assert run.state.status == "rejected"
    lawful(run)


# -- a no, and nobody's answer


@pytest.mark.parametrize(
    ("more", "status", "step"),
    [
        ({}, "rejected", "rejected"),
        ({"on_reject": "fail"}, "failed", "failed"),
        ({"on_reject": "continue"}, "completed", "completed"),
    ],
)
def test_the_template_says_what_a_no_means(more: dict[str, Any], status: str, step: str) -> None:
    run = run_of(agree(**more))
    run.answer(run.approval_id(), "reject", comment="too much")
    assert (run.state.status, run.steps()["agree"]) == (status, step)
    if status == "completed":
        output = {"decision": "reject", "decided_by": "bob", "comment": "too much", "timed_out": False}
        assert run.state.steps["agree"].output == output
    lawful(run)


@pytest.mark.parametrize(("verdict", "ran", "left"), [("approve", "yes", "no"), ("reject", "no", "yes")])
def test_a_decision_may_choose_a_branch(verdict: str, ran: str, left: str) -> None:
    run = run_of(
        agree(on_reject="continue", if_approved=["yes"], if_rejected=["no"]),
        agree("yes", needs=["agree"]),
        agree("no", needs=["agree"]),
    )
    run.answer(run.approval_id(), verdict)
    assert run.steps() == {"agree": "completed", ran: "open", left: "skipped"}
    assert "'agree'" in (run.state.steps[left].reason or "")
    lawful(run)


@pytest.mark.parametrize(
    ("more", "status", "step"),
    [
        ({}, "rejected", "expired"),
        ({"on_timeout": "fail"}, "failed", "failed"),
        ({"on_reject": "fail"}, "failed", "failed"),
        ({"on_reject": "continue"}, "completed", "completed"),
        ({"on_reject": "continue", "on_timeout": "fail"}, "failed", "failed"),
    ],
)
def test_nobodys_answer_is_a_no_unless_the_template_says_otherwise(
    more: dict[str, Any], status: str, step: str
) -> None:
    run = run_of(agree(expires_after_seconds=HOUR, **more))
    assert rules.wake_at(run.state) == run.state.approvals[run.approval_id()].request.expires_at
    run.wait(HOUR).advance()
    assert (run.state.status, run.steps()["agree"]) == (status, step)
    if status == "completed":
        assert run.state.steps["agree"].output["timed_out"] is True
    lawful(run)


PAY = {"id": "pay", "type": "action", "tool": "box__write"}


@pytest.mark.parametrize(
    ("more", "status", "step"),
    [
        ({}, "rejected", "rejected"),
        ({"on_reject": "fail"}, "failed", "failed"),
        ({"on_reject": "fail", "on_failure": "skip"}, "completed", "skipped"),
        ({"on_reject": "fail", "on_failure": "human_review"}, "running", "review"),
        ({"on_reject": "fail", "retry": {"attempts": 3}}, "failed", "failed"),
        ({"on_reject": "continue"}, "completed", "skipped"),
    ],
)
def test_a_no_to_an_action_follows_the_template_too(more: dict[str, Any], status: str, step: str) -> None:
    run = run_of({**PAY, **more})
    run.run_step("pay")
    run.answer(run.approval_id(), "reject")
    assert (run.state.status, run.steps()["pay"]) == (status, step)
    assert rules.runnable_steps(run.state) == []
    assert "TOOL_INVOKE" not in run.types()
    lawful(run)


def test_an_edited_action_does_not_end_the_run() -> None:
    run = run_of(PAY)
    run.run_step("pay")
    run.answer(run.approval_id(), "edit", edited={"text": "less"})
    assert run.steps() == {"pay": "open"}
    run.answer(run.approval_id(), by=CAT)
    effect = run.run_step("pay").effect
    assert effect is not None
    assert effect.arguments == {"text": "less"}
    lawful(run)


# -- what time brings


def test_people_are_reminded_once_each_time_and_late_ones_are_not_made_up_for() -> None:
    run = run_of(agree(remind_after_seconds=HOUR, requirements=[{"role": "finance", "approvers": 2}]))
    approval_id = run.approval_id()
    for number in (1, 2):
        run.wait(HOUR).advance()
        assert run.advance().events == []
        assert run.state.approvals[approval_id].reminders == number
    run.wait(5 * HOUR).advance()
    assert run.types().count("APPROVAL_REMINDED") == 3
    run.answer(approval_id, by=BOB)
    run.wait(HOUR).advance()
    assert run.log[-1].data.still_needed[0].approvers == 1
    run.answer(approval_id, by=CAT)
    assert rules.wake_at(run.state) is None
    lawful(run)


def test_reminders_end_before_the_log_is_full_of_them() -> None:
    run = run_of(agree(remind_after_seconds=60, expires_after_seconds=10 * DAY))
    for _ in range(150):
        run.wait(60).advance()
    assert run.types().count("APPROVAL_REMINDED") == 100
    assert rules.wake_at(run.state) == run.state.approvals[run.approval_id()].expires_at


def escalating(**more: Any) -> dict[str, Any]:
    return agree(requirements=[{"role": "finance", "approvers": 2}], **more)


def test_after_a_while_others_are_asked_too_and_their_yes_is_enough() -> None:
    run = run_of(escalating(escalations=[{**CFO, "after_seconds": HOUR}]))
    approval_id = run.approval_id()
    run.answer(approval_id, by=BOB)
    assert code_of(run.answer(approval_id, by=BOSS)) == "not_your_turn"
    run.wait(HOUR).advance()
    assert run.advance().events == []
    assert "or instead 1 person with role cfo" in run.context().blocked_by[0].who
    assert run.answer(approval_id, by=BOSS).reply.status == "approved"
    lawful(run)


def test_those_who_were_asked_first_may_still_answer_or_not_as_the_template_says() -> None:
    for may, status in ((True, "approved"), (False, "pending")):
        run = run_of(escalating(escalations=[{**CFO, "after_seconds": HOUR, "earlier_may_answer": may}]))
        approval_id = run.approval_id()
        run.answer(approval_id, by=BOB)
        run.wait(HOUR).advance()
        run.answer(approval_id, by=CAT)
        assert run.state.approvals[approval_id].status == status
        if not may:
            assert run.log[-1].data.code == "escalated"
            run.answer(approval_id, by=BOSS)
        assert run.state.status == "completed"
        lawful(run)


def test_who_approved_before_approves_again_for_those_to_whom_it_was_escalated() -> None:
    both = Principal(id="fay", kind="human", roles=("finance", "cfo"))
    run = run_of(escalating(escalations=[{**CFO, "after_seconds": HOUR}]))
    approval_id = run.approval_id()
    run.answer(approval_id, by=both)
    assert code_of(run.answer(approval_id, by=both)) == "already_decided_by_you"
    run.wait(HOUR).advance()
    assert run.state.approvals[approval_id].status == "pending"
    assert run.answer(approval_id, by=both).reply.status == "approved"
    lawful(run)


def test_when_time_is_over_others_have_time_of_their_own_and_then_it_is_over() -> None:
    last = {**CFO, "expires_after_seconds": 2 * HOUR}
    step = escalating(expires_after_seconds=HOUR, on_timeout="escalate", escalations=[last])
    run = run_of(step)
    run.wait(3 * HOUR).advance()  # late: they have their time from when they are asked
    assert run.state.approvals[run.approval_id()].status == "pending"
    run.wait(HOUR)
    assert run.answer(run.approval_id(), by=BOSS).reply.status == "approved"
    lawful(run)
    silent = run_of(step)
    silent.wait(HOUR).advance()
    silent.wait(2 * HOUR).advance()
    assert (silent.state.status, silent.steps()["agree"]) == ("rejected", "expired")
    lawful(silent)


def test_an_answer_that_comes_before_the_engine_looks_meets_the_same_request() -> None:
    run = run_of(escalating(escalations=[{**CFO, "after_seconds": HOUR}]))
    run.wait(2 * HOUR)  # nothing has woken the run
    assert run.answer(run.approval_id(), by=BOSS).reply.status == "approved"
    assert "APPROVAL_ESCALATED" in run.types()
    lawful(run)


def test_a_waits_end_and_an_approvals_timeout_are_two_clocks() -> None:
    run = run_of(
        {"id": "calm", "type": "wait", "seconds": 2 * HOUR, "needs": []},
        agree(needs=[], expires_after_seconds=HOUR, on_reject="continue", remind_after_seconds=HOUR // 2),
    )
    run.wait(HOUR // 2).advance()
    assert (run.types()[-1], run.steps()) == ("APPROVAL_REMINDED", {"calm": "open", "agree": "open"})
    run.wait(HOUR // 2).advance()
    assert run.steps() == {"calm": "open", "agree": "completed"}
    run.wait(HOUR).advance()
    assert run.steps() == {"calm": "completed", "agree": "completed"}
    lawful(run)


# -- editing what a step shows


EDITABLE = agree(edit=True, show={"cents": "{{ trigger.cents }}", "to": "acme"}, amounts=["cents"])


def test_an_edited_step_is_a_new_revision_and_its_values_are_the_output() -> None:
    run = run_of(EDITABLE, cents=500)
    first = run.approval_id()
    reply = run.answer(first, "edit", edited={"cents": 400, "to": "acme"}).reply
    second = reply.replacement_approval_id
    request = run.state.approvals[second].request
    assert (request.revision, request.replaces, request.amounts) == (2, first, {"cents": 400})
    assert request.digest != run.state.approvals[first].request.digest
    assert code_of(run.answer(first)) == "already_decided"
    run.answer(second, by=CAT)
    output = run.state.steps["agree"].output
    assert (output["values"], output["approved_by"]) == ({"cents": 400, "to": "acme"}, ["cat"])
    lawful(run)


@pytest.mark.parametrize("edited", [{}, {"cents": 1}, {"cents": 1, "to": "x", "more": 1}, {"cents": "1", "to": "x"}])
def test_an_edit_keeps_the_labels_and_the_kind_of_amounts(edited: dict[str, Any]) -> None:
    run = run_of(EDITABLE, cents=500)
    before = run.state
    with pytest.raises(InvalidInput):
        run.answer(run.approval_id(), "edit", edited=edited)
    assert run.state == before


def test_a_step_that_does_not_allow_it_is_not_edited() -> None:
    run = run_of(agree(show={"cents": 5}))
    assert code_of(run.answer(run.approval_id(), "edit", edited={"cents": 1})) == "edit_not_allowed"


@pytest.mark.parametrize("cents", ["500", 500.0, None, True, 2**63])
def test_an_amount_that_is_no_whole_number_fails_the_step_and_asks_nobody(cents: Any) -> None:
    run = run_of(EDITABLE, cents=cents)
    assert run.state.status == "failed"
    assert run.state.steps["agree"].code == "amount_invalid"
    assert run.state.approvals == {}


def test_an_amount_that_is_not_there_fails_the_step() -> None:
    assert run_of(EDITABLE).state.status == "failed"


# -- delegation


def test_a_delegate_decides_in_somebodys_stead_and_with_their_role() -> None:
    run = run_of(agree(requirements=[FINANCE]))
    approval_id = run.approval_id()
    run.delegate(approval_id, "dan")
    assert code_of(run.answer(approval_id, by=BOB)) == "handed_over"
    draft = run.answer(approval_id, by=DAN)
    assert draft.reply.status == "approved"
    decision = run.state.approvals[approval_id].decisions[-1]
    assert (decision.on_behalf_of, "finance" in decision.roles) == (("bob",), True)
    lawful(run)


def test_a_named_persons_part_can_be_handed_on_twice() -> None:
    run = run_of(agree(requirements=[{"people": ["bob"]}]))
    approval_id = run.approval_id()
    run.delegate(approval_id, "dan")
    run.delegate(approval_id, "eve", by=DAN)
    assert run.answer(approval_id, by=EVE).reply.status == "approved"
    assert run.state.approvals[approval_id].decisions[-1].on_behalf_of == ("dan", "bob")
    lawful(run)


def test_who_handed_their_part_over_may_still_say_no() -> None:
    run = run_of(agree(requirements=[FINANCE]))
    run.delegate(run.approval_id(), "dan")
    run.answer(run.approval_id(), "reject", by=BOB)
    assert run.state.status == "rejected"
    lawful(run)


@pytest.mark.parametrize(
    ("by", "to", "code"),
    [
        (BOB, "ann", "own_action"),  # started the run
        (BOB, "nobody at all", "no_such_person"),
        (BOB, "dan\u202e", "no_such_person"),  # what is shown is not what is there
        (BOB, "ANN", "own_action"),
        (BOB, "bob", "delegation_circle"),
        (DAN, "cat", "no_part"),
        (ANN, "bob", "own_action"),  # has no part, because it is her own
        (OTHER_AGENT, "bob", "agent_cannot_decide"),
        (REVIEWER, "bob", "agent_cannot_decide"),
    ],
)
def test_a_part_is_not_handed_to_or_by_just_anybody(by: Principal, to: str, code: str) -> None:
    run = run_of(agree(requirements=[FINANCE]))
    assert code_of(run.delegate(run.approval_id(), to, by=by)) == code
    assert run.state.approvals[run.approval_id()].delegations == ()
    lawful(run)


def test_a_chain_leads_back_to_nobody() -> None:
    run = Run().start()  # the agent acts for ann
    _, approval_id = asked(run, "pay")
    assert code_of(run.delegate(approval_id, "ann")) == "own_action"
    assert code_of(run.delegate(approval_id, AGENT.id)) == "own_action"
    run.delegate(approval_id, "dan")
    assert code_of(run.delegate(approval_id, "bob", by=DAN)) == "delegation_circle"
    assert code_of(run.delegate(approval_id, "dan")) == "handed_over"
    run.answer(approval_id, by=CAT)
    assert code_of(run.delegate(approval_id, "cat", by=DAN)) == "already_decided_by_them"
    assert run.answer(approval_id, by=DAN).reply.status == "approved"
    lawful(run)


def test_delegation_does_not_get_around_separate_duties() -> None:
    run = run_of(*TWO)
    run.answer(run.approval_id(), by=EVE)
    assert code_of(run.delegate(run.approval_id(), "cat", by=EVE)) == "duties_separate"
    run.delegate(run.approval_id(), "eve", by=DAN)
    assert code_of(run.answer(run.approval_id(), by=EVE)) == "duties_separate"
    lawful(run)


def test_two_parts_handed_to_one_person_are_one_approval() -> None:
    run = run_of(agree(requirements=[{"role": "finance", "approvers": 2}]))
    approval_id = run.approval_id()
    run.delegate(approval_id, "dan", by=BOB)
    run.delegate(approval_id, "dan", by=CAT)
    assert run.answer(approval_id, by=DAN).reply.still_needed[0].approvers == 1
    lawful(run)


def test_an_agent_takes_no_part_that_was_handed_over() -> None:
    run = run_of(agree(requirements=[FINANCE]))
    run.delegate(run.approval_id(), REVIEWER.id)
    run.answer(run.approval_id(), by=REVIEWER, comment="It looks fine.")
    assert run.state.status == "running"
    lawful(run)


# -- agents that the policy lets decide


def test_an_agents_decision_is_recorded_as_an_agents_with_its_reasoning() -> None:
    run = run_of(agree())
    approval_id = run.approval_id()
    assert code_of(run.answer(approval_id, by=REVIEWER)) == "reasoning_required"
    assert run.answer(approval_id, by=REVIEWER, comment="Within the limits.").reply.status == "approved"
    decision = run.state.approvals[approval_id].decisions[-1]
    assert (decision.decided_by_kind, decision.acts_for, decision.comment) == ("agent", "rita", "Within the limits.")
    lawful(run)


def test_an_agent_does_not_count_where_people_only_are_asked() -> None:
    run = run_of(agree(requirements=[{"people_only": True}]))
    run.answer(run.approval_id(), by=REVIEWER, comment="Fine.")
    assert run.state.status == "running"
    run.answer(run.approval_id(), by=BOB)
    assert run.state.status == "completed"
    lawful(run)


def test_an_agent_and_the_person_whom_it_serves_are_one() -> None:
    rita = Principal(id="rita", kind="human")
    run = run_of(agree(requirements=[{"approvers": 2}]))
    run.answer(run.approval_id(), by=REVIEWER, comment="Fine.")
    assert code_of(run.answer(run.approval_id(), by=rita)) == "already_decided_by_you"
    run.answer(run.approval_id(), by=BOB)
    assert run.state.status == "completed"
    lawful(run)


def test_an_agent_does_not_change_what_it_decides_on() -> None:
    run = run_of(EDITABLE, cents=5)
    edit = run.answer(run.approval_id(), "edit", by=REVIEWER, comment="Less.", edited={"cents": 1, "to": "acme"})
    assert code_of(edit) == "edit_not_allowed"


@pytest.mark.parametrize(
    ("starter", "works_here"),
    [
        (REVIEWER, False),
        (Principal(id="rita", kind="human"), False),
        (Principal(id="agent:x", kind="agent", acts_for="Rita"), False),
        (ANN, True),
    ],
)
def test_an_agent_decides_on_nothing_of_its_own_or_its_persons(starter: Principal, works_here: bool) -> None:
    work = {"id": "work", "type": "agent", "needs": [], "agent": "role:agent-approver"}
    run = run_of(*([work] if works_here else []), agree(needs=[]), starter=starter)
    assert code_of(run.answer(run.approval_id(), by=REVIEWER, comment="Fine.")) == "own_action"
    lawful(run)


# -- what is refused when the template is loaded


@pytest.mark.parametrize(
    "wrong",
    [
        "if_rejected: [b]",
        "on_timeout: escalate",
        "escalations: [{role: cfo}]",
        "{on_timeout: escalate, escalations: [{role: cfo, after_seconds: 5}]}",
        "escalations: [{after_seconds: 5}]",
        "escalations: [{role: cfo, after_seconds: 86400}]",
        "escalations: [{role: cfo, after_seconds: 9}, {role: ceo, after_seconds: 5}]",
        "requirements: [{people: [ann, Ann], approvers: 2}]",
        "amounts: [cents]",
        "remind_after_seconds: 1",
        "distinct_from: [nowhere]",
        "distinct_from: [a]",
        "{on_reject: continue, if_rejected: [nowhere]}",
    ],
)
def test_terms_that_do_not_hold_together_are_refused_at_load(wrong: str) -> None:
    fields = wrong.removeprefix("{").removesuffix("}") if wrong.startswith("{") else wrong
    text = f"name: t\nversion: '1'\nsteps:\n  - {{id: a, type: approval, question: Go?, {fields}}}\n"
    text += "  - {id: b, type: approval, question: Go?, needs: [a]}\n"
    with pytest.raises(InvalidInput):
        load_template(text, "t.yaml")
