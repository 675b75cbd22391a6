"""Guarantees 1, 2, 4 and 9, as far as the evaluator holds them: default deny, forbid wins, errors deny, walls stand."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.model.policy import ApprovalFacts, Approved, Facts, ToolFacts
from charter.model.principal import Principal
from charter.policies import PolicySet, evaluate, evaluate_trial, load_policy_set, shipped_sources
from tests.policies.build import AGENT, DELETE, OPEN, READ, WRITE, call, manifest, policies

SHIPPED = load_policy_set(shipped_sources(), [manifest(READ.name, path={"type": "string"})])
NOTHING = policies("")

ids = st.sampled_from(["alice", "bob", "agent-1", "charter:engine", "", "ü\n\"'", "\ud800"])
tenants = st.sampled_from(["default", "other"])
roles = st.lists(
    st.sampled_from(["admin", "operator", "approver", "auditor", "charter", "finance_manager"]), max_size=3
).map(tuple)
principals = st.builds(
    Principal,
    id=ids,
    kind=st.sampled_from(["human", "agent", "service"]),
    tenant=tenants,
    roles=roles,
    acts_for=st.none() | ids,
)
tools = st.builds(
    ToolFacts,
    name=st.sampled_from([READ.name, WRITE.name, "new__tool"]),
    server=st.just("casebook"),
    risk=st.sampled_from(["low", "medium", "high"]),
    side_effects=st.sampled_from(["none", "reversible", "irreversible"]),
    idempotent=st.booleans(),
    quarantined=st.booleans(),
    roles=roles,
)
channels = st.sampled_from(["elicitation", "prompt", "cli", "console", "api", "template"])
approvals = st.builds(
    ApprovalFacts,
    approval_id=st.sampled_from(["appr_1", "appr_2"]),
    risk=st.sampled_from(["low", "medium", "high"]),
    tool=st.none() | st.just(WRITE.name),
    requested_by=ids,
    requested_by_kind=st.sampled_from(["agent", "human"]),
    owner=st.none() | ids,
    roles=roles,
)
approved = st.builds(
    Approved,
    approver=ids,
    roles=roles,
    channel=channels,
    kind=st.none() | st.sampled_from(["human", "agent", "service"]),
)
facts = st.builds(
    Facts,
    principal=principals,
    action=st.sampled_from(
        [
            *(["tool.invoke"] * 6),
            *(["approval.decide"] * 3),
            "grant.give",
            "workflow.start",
            "workflow.read",
            "step.complete",
        ]
    ),
    resource_type=st.sampled_from(["Tool", "Tool", "Approval", "Workflow", "Template", "Ledger"]),
    resource_id=st.sampled_from([READ.name, WRITE.name, "new__tool", "appr_1", "wf_1"]),
    tenant=tenants,
    tool=st.none() | tools,
    approval=st.none() | approvals,
    workflow_id=st.none() | st.just("wf_1"),
    workflow_live=st.booleans(),
    workflow_owner=st.none() | ids,
    agent_invocation_id=st.none() | st.just("inv_1"),
    invocation_live=st.booleans(),
    tool_allowed=st.booleans(),
    dry_run=st.booleans(),
    calls_used=st.sampled_from([0, 5, 10, 2**70]),
    calls_budget=st.sampled_from([0, 10]),
    approvals=st.lists(approved, max_size=3).map(tuple),
    grant_id=st.none() | st.just("grant_1"),
    channel=st.none() | channels,
    verdict=st.none() | st.sampled_from(["approve", "reject"]),
)


@given(facts)
@settings(max_examples=300, deadline=None)
def test_whatever_is_asked_the_walls_stand(request: Facts) -> None:
    decision = evaluate(SHIPPED, request)
    assert decision.policy_set_hash == SHIPPED.hash
    assert decision.reason
    if decision.verdict == "deny":
        assert decision.next_step
        return
    assert request.principal.tenant == request.tenant
    assert decision.policy_ids
    if request.action == "tool.invoke":
        assert request.tool is not None
        assert request.workflow_id is not None
        assert request.workflow_live
        assert request.tool_allowed
        assert not request.tool.quarantined
        if request.principal.kind != "service":
            assert request.agent_invocation_id is not None
            assert request.invocation_live
            assert request.calls_used < request.calls_budget
        executes = all(obligation.name != "dry_run" for obligation in decision.obligations)
        plain = request.tool.risk == "low" and request.tool.side_effects == "none"
        if decision.verdict == "permit" and executes and not plain:
            high = request.tool.risk == "high" or request.tool.side_effects == "irreversible"
            people = [a for a in request.approvals if a.approver != request.principal.id and a.kind in (None, "human")]
            assert people or (request.grant_id and not high)
    if request.action in ("approval.decide", "grant.give"):
        assert request.principal.kind == "human"
    if request.action == "approval.decide":
        assert request.approval is not None
        assert request.approval.requested_by != request.principal.id


SETS = [
    (open_, obliging)
    for open_ in (
        "permit (principal, action, resource) when { context has workflow_id };",
        "permit (principal, action, resource); forbid (principal, action, resource) when { context.calls_used > 1 };",
        "forbid (principal, action, resource) when { context.calls_used + 9223372036854775807 > 0 };"
        "permit (principal, action, resource);",
    )
    for obliging in (
        '@obligation("dry_run") permit (principal, action, resource) when { context.dry_run };',
        '@obligation("dry_run") permit (principal, action, resource) when { context.calls_used + 9223372036854775807 > 0 };',
        "",
    )
]


@given(facts, st.sampled_from(SETS))
@settings(max_examples=300, deadline=None)
def test_one_pass_over_both_sets_says_what_two_passes_say(request: Facts, texts: tuple[str, str]) -> None:
    """Set A alone decides whether; set B alone says what it takes; an error of A, or of B where A permits, denies."""
    first, second = (identified(text, name) for text, name in zip(texts, "ab", strict=True))
    together = evaluate(once(first, second), request)
    alone = evaluate(once(first, ""), request)
    if alone.verdict == "deny":
        assert (together.code, together.reason, together.policy_ids) == (alone.code, alone.reason, alone.policy_ids)
        return
    obliging = evaluate(once(OPEN, second), request)
    if obliging.code == "policy_error":
        assert together.code == "policy_error"
    else:
        assert together.verdict == "permit"
        assert together.obligations == obliging.obligations


once = cache(policies)
"""There are few sets and many questions."""


def identified(text: str, prefix: str) -> str:
    """The policies with an id each."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    return "\n".join(f'@id("{prefix}{number}") {part};' for number, part in enumerate(parts))


@given(facts)
@settings(max_examples=100, deadline=None)
def test_without_policies_everything_is_denied(request: Facts) -> None:
    assert evaluate(NOTHING, request).verdict == "deny"


@given(facts)
@settings(max_examples=100, deadline=None)
def test_even_where_everything_is_permitted_the_floor_holds(request: Facts) -> None:
    decision = evaluate(policies_open(), request)
    if decision.verdict != "deny":
        assert request.principal.tenant == request.tenant
        assert request.action != "tool.invoke" or (request.workflow_id is not None and request.workflow_live)
        assert request.action not in ("approval.decide", "grant.give") or request.principal.kind == "human"


_OPEN_SET = policies(OPEN)


def policies_open() -> PolicySet:
    return _OPEN_SET


REQUIRED = [
    "workflow_id",
    "workflow_live",
    "agent_invocation_id",
    "invocation_live",
    "tool_allowed",
    "calls_budget",
    "tool",
]


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_call_with_anything_missing_is_denied(missing: str) -> None:
    whole = call().model_dump(exclude_unset=True)
    assert evaluate(SHIPPED, Facts(**{**whole, "input": {}})).verdict == "permit"
    del whole[missing]
    assert evaluate(SHIPPED, Facts(**whole)).verdict == "deny"


def test_forbid_wins() -> None:
    both = policies(OPEN + '@id("no") @reason("No.") @code("no_way") forbid (principal, action, resource);')
    decision = evaluate(both, call())
    assert (decision.verdict, decision.code, decision.policy_ids) == ("deny", "no_way", ("no",))
    assert decision.reason == "No. (policy no)"


def test_the_first_forbid_of_the_text_says_why() -> None:
    first_and_second = policies(
        OPEN
        + '@id("z-first") @reason("First.") @code("first") @next("Do this.") forbid (principal, action, resource);'
        + '@id("a-second") @reason("Second.") @code("second") forbid (principal, action, resource);'
    )
    decision = evaluate(first_and_second, call())
    assert (decision.code, decision.next_step) == ("first", "Do this.")
    assert decision.policy_ids == ("z-first", "a-second")


OVERFLOW = "context.calls_used + 9223372036854775807 > 0"


@pytest.mark.parametrize(
    ("authorise", "obligations"),
    [
        (OPEN + f'@id("broken") forbid (principal, action, resource) when {{ {OVERFLOW} }};', ""),
        (OPEN + f'@id("broken") permit (principal, action, resource) when {{ {OVERFLOW} }};', ""),
        (OPEN, f'@id("broken") @obligation("dry_run") permit (principal, action, resource) when {{ {OVERFLOW} }};'),
    ],
    ids=["a forbid", "a permit", "an obligation"],
)
def test_an_error_in_any_policy_denies(authorise: str, obligations: str) -> None:
    decision = evaluate(policies(authorise, obligations), call(calls_used=3))
    assert (decision.verdict, decision.code) == ("deny", "policy_error")
    assert decision.errors == ("broken (overflow)",)
    assert "9223372036854775807" not in str(decision.model_dump())


@pytest.mark.parametrize(
    "request_",
    [
        call(tool=None, resource_id="x"),
        call(resource_id="another__tool"),
        call(resource_type="Workflow"),
        call(action="approval.decide", resource_type="Approval", resource_id="appr_1"),
        call(principal=Principal(id="\ud800", kind="agent")),
    ],
)
def test_what_cannot_be_asked_is_denied(request_: Facts) -> None:
    decision = evaluate(policies(OPEN), request_)
    assert (decision.verdict, decision.code) == ("deny", "policy_error")


@pytest.mark.parametrize("count", [2**63, 2**200])
def test_a_count_that_cedar_cannot_hold_is_denied_where_policies_read_it(count: int) -> None:
    reads = policies(OPEN + '@id("few") forbid (principal, action, resource) when { context.calls_budget < 3 };')
    assert evaluate(reads, call()).verdict == "permit"
    decision = evaluate(reads, call(calls_used=count))
    assert (decision.verdict, decision.code) == ("deny", "policy_error")


@given(st.lists(facts, min_size=2, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_what_was_answered_before_changes_no_answer(requests: list[Facts], data: st.DataObject) -> None:
    """A set that has answered much says of each request what a set says that was never asked."""
    order = data.draw(st.permutations([*requests, *requests]))
    for request in order:
        SHIPPED.active.ask.cache_clear()  # type: ignore[attr-defined]
        anew = evaluate(SHIPPED, request)
        for other in order:
            evaluate(SHIPPED, other)
        assert evaluate(SHIPPED, request) == anew


def test_a_call_that_comes_again_is_not_put_to_cedar_again_unless_its_arguments_are_judged() -> None:
    def asked_for(loaded: PolicySet, **changes: Any) -> int:
        before = loaded.active.ask.cache_info().misses  # type: ignore[attr-defined]
        assert evaluate(loaded, call(**changes)).verdict == "permit"
        return int(loaded.active.ask.cache_info().misses - before)  # type: ignore[attr-defined]

    unread = policies(OPEN, "", manifest(READ.name, path={"type": "string"}))
    assert [asked_for(unread, input={"path": path}, calls_used=used) for used, path in enumerate("aab")] == [1, 0, 0]
    assert asked_for(unread, dry_run=True) == 1

    reading = (
        OPEN
        + f"""@id("secrets") forbid (principal, action == Charter::Action::"tool.invoke:{READ.name}", resource)
        when {{ context.input has path && context.input.path like "secret/*" }};"""
    )
    read = policies(reading, "", manifest(READ.name, path={"type": "string"}))
    assert asked_for(read, input={"path": "open/a"}) == 0  # it is not remembered at all
    assert evaluate(read, call(input={"path": "secret/a"})).verdict == "deny"
    needs = policies(OPEN + '@id("inside") forbid (principal, action, resource) unless { context has workflow_id };')
    assert [asked_for(needs, workflow_id=name) for name in ("wf_1", "wf_2")] == [1, 0]
    assert evaluate(needs, call(workflow_id=None)).verdict == "deny"
    names = policies(OPEN + '@id("whole") forbid (principal, action, resource) unless { context == context };')
    assert [asked_for(names, workflow_id=name) for name in ("wf_1", "wf_3")] == [1, 1]
    of_one = OPEN + '@id("not-2") forbid (principal, action, resource) when { context.workflow_id == "wf_2" };'
    reading_it = policies(of_one.replace("when {", "when { context has workflow_id &&"))
    assert [asked_for(reading_it, workflow_id=name) for name in ("wf_1", "wf_3")] == [1, 1]
    assert evaluate(reading_it, call(workflow_id="wf_2")).verdict == "deny"
    counting = policies(OPEN + '@id("few") forbid (principal, action, resource) when { context.calls_used >= 2 };')
    assert [asked_for(counting, calls_used=used) for used in (0, 1, 0)] == [1, 1, 0]
    assert evaluate(counting, call(calls_used=2)).verdict == "deny"


def test_ids_are_data_and_never_policy_text() -> None:
    odd = '"; permit(principal, action, resource); //\n\u202e'
    decision = evaluate(SHIPPED, call(principal=Principal(id=odd, kind="agent"), workflow_live=False))
    assert decision.verdict == "deny"
    assert evaluate(SHIPPED, call(principal=Principal(id=odd, kind="agent"), input={})).verdict == "permit"


def test_log_only_policies_tell_and_do_not_act() -> None:
    trial = policies(OPEN + '@id("later") @mode("log_only") @reason("Soon.") forbid (principal, action, resource);')
    assert evaluate(trial, call()).verdict == "permit"
    would = evaluate_trial(trial, call())
    assert would is not None
    assert (would.verdict, would.policy_ids) == ("deny", ("later",))
    assert evaluate_trial(policies(OPEN), call()) is None


# ---- obligations are met by the right approvals only

TWO_MANAGERS = """
@id("two") @obligation("require_approval") @role("fm") @approvers("2") @within("PT4H") @reason("Two managers.")
permit (principal, action in Charter::Action::"tool.invoke", resource)
unless { context.approved.contains("fm:2") };
"""


def _by(name: str, *held: str, channel: str = "cli", kind: str | None = "human") -> Approved:
    return Approved.model_validate({"approver": name, "roles": held, "channel": channel, "kind": kind})


@pytest.mark.parametrize(
    ("given_", "met"),
    [
        ((), False),
        ((_by("bob", "fm"),), False),
        ((_by("bob", "fm"), _by("bob", "fm", channel="console")), False),
        ((_by("bob", "fm"), _by("carol", "clerk")), False),
        ((_by("bob", "fm"), _by("agent-1", "fm")), False),
        ((_by("bob", "fm"), _by("agent-2", "fm", channel="api", kind="agent")), False),
        ((_by("bob", "fm"), _by("charter:engine", "fm", channel="api", kind="service")), False),
        ((_by("bob", "fm"), _by("carol", "fm", channel="api", kind=None)), False),
        ((_by("bob", "fm"), _by("carol", "fm", channel="template")), False),
        ((_by("bob", "fm"), _by("carol", "fm", channel="api")), True),
        ((_by("bob", "fm"), _by("carol", "fm", channel="prompt", kind=None)), True),
        ((_by("bob", "fm"), _by("carol", "fm"), _by("dave", "fm")), True),
    ],
)
def test_two_managers_means_two_people_who_hold_the_role(given_: tuple[Approved, ...], met: bool) -> None:
    decision = evaluate(policies(OPEN, TWO_MANAGERS), call(approvals=given_))
    assert decision.verdict == ("permit" if met else "require_approval")
    if not met:
        [obligation] = decision.obligations
        assert (obligation.role, obligation.approvers, obligation.within_seconds) == ("fm", 2, 4 * 3600)
        assert decision.reason == "Two managers. (policy two)"
        assert decision.next_step


CONSOLE = """
@id("console") @obligation("require_approval") @channels("console,cli")
permit (principal, action in Charter::Action::"tool.invoke", resource)
unless { context.approved.contains("any@cli+console:1") };
"""


@pytest.mark.parametrize(("channel", "met"), [("cli", True), ("console", True), ("api", False), ("prompt", False)])
def test_an_obligation_may_name_its_channels(channel: str, met: bool) -> None:
    decision = evaluate(policies(OPEN, CONSOLE), call(approvals=(_by("bob", channel=channel),)))
    assert decision.verdict == ("permit" if met else "require_approval")


def test_all_obligations_of_a_permit_are_told() -> None:
    quota = """
    @id("mail-quota") @obligation("rate_limit") @calls("20") @within("PT1H")
    permit (principal is Charter::Agent, action in Charter::Action::"tool.invoke", resource);
    @id("mask") @obligation("redact") @fields("/password,/card/number")
    permit (principal, action in Charter::Action::"tool.invoke", resource);
    """
    decision = evaluate(policies(OPEN, quota), call())
    rate, mask = decision.obligations
    assert (rate.name, rate.calls, rate.within_seconds) == ("rate_limit", 20, 3600)
    assert (mask.name, mask.fields) == ("redact", ("/password", "/card/number"))
    assert decision.policy_ids == ("open", "mail-quota", "mask")


def test_a_grant_and_an_approval_are_alternatives_for_medium_risk_only() -> None:
    assert evaluate(SHIPPED, call(WRITE, grant_id="grant_1")).verdict == "permit"
    assert evaluate(SHIPPED, call(DELETE, grant_id="grant_1")).verdict == "require_approval"


def test_an_agent_is_the_requester_whoever_it_acts_for() -> None:
    owner = (_by("alice", channel="elicitation"),)
    assert AGENT.acts_for == "alice"
    assert evaluate(SHIPPED, call(WRITE, approvals=owner)).verdict == "permit"
