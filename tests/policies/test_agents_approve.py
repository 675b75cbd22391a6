"""The shipped example of agents that approve: off as it stands, and once uncommented it grants what it says and no more."""

from __future__ import annotations

import re
from typing import Any

import pytest

from charter.errors import Misconfigured
from charter.model.policy import ApprovalFacts, Facts
from charter.model.principal import Principal
from charter.policies import PolicySet, PolicySources, could_ever_of, evaluate, load_policy_set, shipped_sources
from tests.policies.build import OPEN, policies

AGENT = Principal(id="agent-2", kind="agent", roles=("agent-approver",), acts_for="rita")


def uncommented() -> PolicySources:
    """The starter set with the two policies that its authorise file shows as comments."""
    shipped = shipped_sources()
    (name,) = shipped.authorise
    blocks = re.findall(r'^// @id\("agent-.*\n(?:^// .+\n)*', shipped.authorise[name], re.MULTILINE)
    assert len(blocks) == 2
    more = "\n".join(re.sub(r"^// ?", "", block, flags=re.MULTILINE) for block in blocks)
    return PolicySources({**shipped.authorise, "authorise-more.cedar": more}, shipped.obligations)


@pytest.fixture(scope="module")
def granted() -> PolicySet:
    return load_policy_set(uncommented())


def decide(amounts: dict[str, int], by: Principal = AGENT, step: str = "agree", **more: Any) -> Facts:
    values: dict[str, Any] = {
        "approval_id": "appr_1",
        "risk": more.pop("risk", "medium"),
        "tool": None,
        "requested_by": "ann",
        "requested_by_kind": "human",
        "amounts": amounts,
        "works_here": more.pop("works_here", False),
    }
    return Facts(
        principal=by,
        action="approval.decide",
        resource_type="Approval",
        resource_id="appr_1",
        tenant="default",
        approval=ApprovalFacts.model_validate(values),
        template=more.pop("template", "refund@3"),
        step_id=step,
        channel="api",
        verdict="approve",
    )


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (decide({"cents": 10_000}), "permit"),
        (decide({"cents": 0, "other": 10**9}), "permit"),
        (decide({"cents": 10_001}), "deny"),
        (decide({"cents": -1}), "deny"),
        (decide({}), "deny"),
        (decide({"euros": 1}), "deny"),
        (decide({"cents": 1}, step="pay"), "deny"),
        (decide({"cents": 1}, template="payroll@1"), "deny"),
        (decide({"cents": 1}, risk="high"), "deny"),
        (decide({"cents": 1}, works_here=True), "deny"),
        (decide({"cents": 1}, AGENT.model_copy(update={"roles": ("approver",)})), "deny"),
        (decide({"cents": 1}, AGENT.model_copy(update={"kind": "service"})), "deny"),
        (decide({"cents": 1}, AGENT.model_copy(update={"tenant": "other"})), "deny"),
    ],
)
def test_the_example_grants_what_it_says_and_the_shipped_set_nothing(
    granted: PolicySet, facts: Facts, verdict: str
) -> None:
    assert evaluate(granted, facts).verdict == verdict
    assert evaluate(load_policy_set(shipped_sources()), facts).verdict == "deny"


def test_only_such_agents_could_ever_decide(granted: PolicySet) -> None:
    shipped = load_policy_set(shipped_sources())
    plain = AGENT.model_copy(update={"roles": ("agent",)})
    assert could_ever_of(granted, AGENT, "approval.decide")
    assert not could_ever_of(granted, plain, "approval.decide")
    assert not could_ever_of(shipped, AGENT, "approval.decide")


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("kind", ["agent", "service"])
def test_no_set_however_open_lets_an_agent_decide_without_the_role_or_on_its_own_work(kind: str) -> None:
    wide = policies(OPEN)
    by = AGENT.model_copy(update={"kind": kind, "roles": ("approver", "admin")})
    assert evaluate(wide, decide({}, by)).code == "not_a_person"
    assert evaluate(wide, decide({})).verdict == "permit"
    assert evaluate(wide, decide({}, works_here=True)).code == "self_approval"


ASK = '@id("x") @obligation("require_approval") {notes} permit (principal, action, resource) unless {{ {met} }};'


@pytest.mark.parametrize(
    ("notes", "met"),
    [
        ('@agents("true")', 'context.approved.contains("any:1")'),
        ("", 'context.approved.contains("any:1") || context.approved.contains("agents:1")'),
        ('@agents("true")', 'context.approved.contains("agents:1")'),
        ('@agents("yes")', 'context.approved.contains("any:1") || context.approved.contains("agents:1")'),
        ('@people("ann,bob")', 'context.approved.contains("any:1")'),
        ('@people("ann")', 'context.approved.contains("=ann+bob:1")'),
        ("", 'context.approved.contains("=ann:1")'),
        ('@escalate("PT1H")', 'context.approved.contains("any:1")'),
        ('@escalate("PT1H") @escalate_role("cfo")', 'context.approved.contains("any:1")'),
        ('@remind("PT1S")', 'context.approved.contains("any:1")'),
        ('@role("agents")', 'context.approved.contains("agents:1")'),
    ],
)
def test_an_obligation_whose_halves_disagree_does_not_load(notes: str, met: str) -> None:
    with pytest.raises(Misconfigured):
        policies(OPEN, ASK.format(notes=notes, met=met))
