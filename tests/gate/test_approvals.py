"""People decide: who may, through what, on exactly what they saw, and what follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from charter.errors import CharterError, Denied, InvalidInput, NotFound, Refused
from charter.model import commands as cmd
from charter.model.effect import Effect, EffectOutcome
from charter.model.principal import Channel, Principal
from charter.model.tool import DryRun, Quarantine, ToolManifest
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import AGENT, ANN, BOB, CAT, OPS, OTHER_AGENT, Desk, Work, template

pytestmark = pytest.mark.anyio

STRANGER = Principal(id="sam", kind="human")
CHARGE = {"account": "acme", "cents": 5}
WRITE = {"what": "a", "value": "1"}


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize(
    ("tool", "arguments", "by", "channel", "allowed"),
    [
        ("counter__write_idempotent", WRITE, ANN, "elicitation", True),  # her agent, medium risk, her own client
        ("counter__write_idempotent", WRITE, BOB, "prompt", True),
        ("counter__write_idempotent", WRITE, STRANGER, "cli", False),
        ("counter__charge", CHARGE, ANN, "elicitation", False),  # high risk: the client's yes proves too little
        ("counter__charge", CHARGE, ANN, "api", False),  # the agent's process may hold her token
        ("counter__charge", CHARGE, ANN, "cli", True),
        ("counter__charge", CHARGE, BOB, "prompt", False),
        ("counter__charge", CHARGE, BOB, "api", True),
        ("counter__charge", CHARGE, AGENT, "cli", False),
        ("counter__charge", CHARGE, OTHER_AGENT, "cli", False),
        ("counter__charge", CHARGE, Principal(id="svc", kind="service", roles=("approver",)), "cli", False),
    ],
)
async def test_who_may_decide_what_through_which_channel(
    desk: Desk, tool: str, arguments: dict[str, Any], by: Principal, channel: Channel, allowed: bool
) -> None:
    work = await desk.session()
    proposal_id, approval_id = await work.asked(tool, **arguments)
    if allowed:
        assert (await desk.decide(approval_id, by=by, channel=channel)).status == "approved"
        return
    with pytest.raises(Denied) as denied:
        await desk.decide(approval_id, by=by, channel=channel)
    assert denied.value.next_step
    assert (await work.run(proposal_id)).status == "pending_approval"
    types = await desk.types(work.workflow_id)
    assert "APPROVAL_DECISION" not in types


@pytest.mark.guarantee("G4")
async def test_a_person_who_asked_cannot_decide(desk: Desk) -> None:
    """Also not with every role, and also not where the run is their own."""
    boss = Principal(id="boss", kind="human", roles=("approver", "admin", "operator"))
    work = await desk.session(by=boss)
    proposal_id, approval_id = await work.asked("counter__write_idempotent", **WRITE)
    for decision in ("approve", "edit", "reject"):
        more: dict[str, Any] = {"edited_arguments": WRITE} if decision == "edit" else {}
        with pytest.raises(Denied) as denied:
            await desk.decide(approval_id, decision, by=boss, **more)
        assert denied.value.error_code == "own_action"
    assert (await work.run(proposal_id)).status == "pending_approval"
    await desk.decide(approval_id, by=BOB)
    assert (await work.run(proposal_id)).status == "succeeded"
    await desk.check_record()


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("spelling", ["Boss", "BOSS", "\uff42\uff4f\uff53\uff53"])
async def test_another_spelling_of_a_name_is_the_same_person(desk: Desk, spelling: str) -> None:
    boss = Principal(id="boss", kind="human", roles=("approver",))
    work = await desk.session(by=boss)
    proposal_id, approval_id = await work.asked("counter__write_idempotent", **WRITE)
    with pytest.raises(Denied) as denied:
        await desk.decide(approval_id, by=boss.model_copy(update={"id": spelling}))
    assert denied.value.error_code == "own_action"
    assert (await work.run(proposal_id)).status == "pending_approval"


@pytest.mark.guarantee("G3")
async def test_a_decision_on_something_else_than_what_was_seen_is_refused(desk: Desk) -> None:
    work = await desk.session()
    _, approval_id = await work.asked("counter__charge", **CHARGE)
    with pytest.raises(Refused) as refused:
        await desk.decide(approval_id, digest="sha256:" + "0" * 64)
    assert refused.value.error_code == "digest_mismatch"
    view = await desk.queries.approval(BOB, approval_id)
    assert (await desk.decide(approval_id, digest=view.request.digest)).status == "approved"
    for late in ("approve", "reject"):
        with pytest.raises(Refused) as again:
            await desk.decide(approval_id, late, by=CAT)
        assert again.value.error_code == "already_decided"


@pytest.mark.guarantee("G3")
async def test_an_edit_is_a_new_call_evaluated_and_asked_about_anew(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id, approval_id = await work.asked("counter__charge", **CHARGE)
    edited = await desk.decide(approval_id, "edit", edited_arguments={"account": "acme", "cents": 1})
    assert edited.decision_of_replacement.verdict == "require_approval"
    with pytest.raises(Refused) as refused:
        await work.run(proposal_id)
    assert refused.value.error_code == "proposal_replaced"
    new = edited.replacement_proposal_id
    assert (await work.run(new)).status == "pending_approval"
    replacement = next(b.approval_id for b in (await work.context()).blocked_by if b.approval_id)
    assert replacement != approval_id
    await desk.decide(replacement, by=CAT)
    assert (await work.run(new)).status == "succeeded"
    assert [(call["account"], call["cents"]) for call in upstream.calls()] == [("acme", 1)]
    await desk.check_record()


class Previewed(Governed):
    """The tools, of which charging has a preview."""

    def __init__(self, tools: Governed) -> None:
        self._tools = tools

    def find(self, name: str) -> ToolManifest | None:
        found = self._tools.find(name)
        if found is None or name != "counter__charge":
            return found
        return found.model_copy(update={"dry_run": DryRun(tool="read")})

    def quarantine(self, name: str) -> Quarantine | None:
        return self._tools.quarantine(name)

    def all(self) -> tuple[ToolManifest, ...]:
        return self._tools.all()


class Previewing:
    """A runner whose previews say what they are of, and take a while: the run goes on meanwhile."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.meanwhile: Callable[[], Awaitable[Any]] | None = None

    async def run(self, effect: Effect, **_: Any) -> EffectOutcome:
        return EffectOutcome(status="succeeded")

    async def preview(self, manifest: ToolManifest, arguments: Any) -> str | None:
        self.asked.append(arguments)
        if self.meanwhile is not None:
            await self.meanwhile()
        return f"would charge {arguments['cents']}"


async def test_an_edited_call_is_shown_with_its_own_preview(opened: Open, tools: tuple[Governed, Runner]) -> None:
    runner = Previewing()
    desk = await opened(tools=Previewed(tools[0]), runner=runner)
    work = await desk.session()
    _, approval_id = await work.asked("counter__charge", **CHARGE)
    edit: dict[str, Any] = {"edited_arguments": {"account": "acme", "cents": 1}}
    with pytest.raises(Denied):
        await desk.decide(approval_id, "edit", by=STRANGER, **edit)
    assert [asked["cents"] for asked in runner.asked] == [5], "who may not edit has nothing called"
    runner.meanwhile = lambda: work.propose("counter__read", what="a")  # would wait for ever if the run was locked
    await desk.decide(approval_id, "edit", **edit)
    replacement = next(b.approval_id for b in (await work.context()).blocked_by if b.approval_id)
    view = await desk.queries.approval(CAT, replacement)
    assert view.request.preview == "would charge 1"
    await desk.check_record()


@pytest.mark.guarantee("G10")
async def test_an_edit_that_the_tool_s_schema_refuses_changes_nothing(desk: Desk) -> None:
    work = await desk.session()
    _, approval_id = await work.asked("counter__charge", **CHARGE)
    before = await desk.whole_log()
    for arguments in (None, {"account": "acme", "cents": "all"}):
        with pytest.raises(InvalidInput):
            await desk.decide(approval_id, "edit", edited_arguments=arguments)
    assert await desk.whole_log() == before


@pytest.mark.guarantee("G8")
async def test_a_call_with_secrets_cannot_be_edited(desk: Desk) -> None:
    work = await desk.session()
    _, approval_id = await work.asked("counter__secret_echo", password="hunter2", note="x")
    with pytest.raises(Refused) as refused:
        await desk.decide(approval_id, "edit", edited_arguments={"password": "other", "note": "x"})
    assert refused.value.error_code == "edit_not_allowed"


async def test_a_person_may_ask_for_more_and_the_agent_answers_with_a_better_reason(
    desk: Desk, upstream: Counting
) -> None:
    work = await desk.session()
    proposal_id, approval_id = await work.asked("counter__charge", **CHARGE)
    await desk.decide(approval_id, "request_more_info", comment="Which invoice?")
    blocker = next(b for b in (await work.context()).blocked_by if b.what == "approval")
    assert "Which invoice?" in blocker.detail
    better = await work.propose("counter__charge", "Invoice 7 of acme", **CHARGE)
    assert better.proposal_id != proposal_id
    with pytest.raises(Refused):  # the first question was withdrawn
        await desk.decide(approval_id)
    asked = await work.ask(better.proposal_id)
    assert (await desk.queries.approval(BOB, asked.approval_id)).request.reason == "Invoice 7 of acme"
    await desk.decide(asked.approval_id)
    assert (await work.run(better.proposal_id)).status == "succeeded"
    assert len(upstream.calls()) == 1
    await desk.check_record()


@pytest.mark.guarantee("G3")
async def test_a_rejection_is_final_for_this_call(desk: Desk, upstream: Counting) -> None:
    work = await desk.session()
    proposal_id, approval_id = await work.asked("counter__charge", **CHARGE)
    await desk.decide(approval_id, "reject", comment="Not this month.")
    for attempt in (work.run(proposal_id), work.ask(proposal_id), work.invoke("counter__charge", **CHARGE)):
        with pytest.raises(Refused) as refused:
            await attempt
        assert refused.value.error_code == "approval_rejected"
        assert "Not this month." in refused.value.message
    assert upstream.calls() == []


@pytest.mark.guarantee("G3")
async def test_nobody_decides_on_or_uses_an_approval_after_its_time(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    long = template("long", {"id": "w", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": 30 * 86_400})
    desk = await opened(templates=(long,))
    started = await desk.start("long")
    work = Work(desk, started.workflow_id, started.invocations[0].agent_invocation_id)
    open_, open_approval = await work.asked("counter__charge", **CHARGE)
    used, used_approval = await work.asked("counter__charge", account="acme", cents=6)
    await desk.decide(used_approval)
    desk.clock.wait(86_400)
    with pytest.raises(CharterError):
        await desk.queries.check_decision(BOB, _approve(open_approval))
    with pytest.raises(Refused) as late:
        await desk.decide(open_approval)
    assert "expired" in late.value.message
    assert (await work.run(used)).status == "pending_approval"
    asked = await work.ask(used)
    assert asked.asked_now, "it may be asked about again"
    await desk.decide(asked.approval_id)
    assert (await work.run(used)).status == "succeeded"
    assert len(upstream.calls()) == 1
    assert open_ != used
    await desk.check_record()


def _approve(approval_id: str) -> Any:
    return cmd.DecideApproval(approval_id=approval_id, decision="approve", channel="cli")


@pytest.mark.guarantee("G4")
async def test_asking_whether_an_answer_would_be_taken_agrees_with_giving_it(desk: Desk) -> None:
    """A person is not asked in vain: the check before says what the gate says after."""
    work = await desk.session()
    for by in (ANN, BOB, STRANGER, AGENT, OPS):
        _, approval_id = await work.asked("counter__charge", account=by.id, cents=1)
        asked = await answer_of(desk.queries.check_decision(by, _approve(approval_id)))
        assert await answer_of(desk.decide(approval_id, by=by)) == asked


async def answer_of(attempt: Awaitable[Any]) -> str | None:
    """The error's code, or None."""
    try:
        await attempt
    except CharterError as error:
        return error.error_code
    return None


async def test_what_an_approver_sees_is_enough_to_decide(desk: Desk) -> None:
    work = await desk.session(purpose="settle invoices")
    await work.invoke("counter__read", what="invoice 7")
    _, approval_id = await work.asked("counter__charge", **CHARGE)
    view = await desk.queries.approval(BOB, approval_id)
    assert {field.label: field.value for field in view.request.shown} == {"account": "acme", "cents": "5"}
    assert "ran counter__read" in " ".join(view.history)
    assert (view.purpose, view.request.reason) == ("settle invoices", "because")
    assert view.request.policy_ids == ("approve-high-risk",)
    with pytest.raises(Denied):
        await desk.queries.approval(STRANGER, approval_id)
    with pytest.raises(NotFound):
        await desk.queries.approval(BOB, "appr_nobody")
