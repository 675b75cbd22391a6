"""The tables are the rules: what they do not allow cannot be folded, and the docs draw exactly them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from charter.errors import IntegrityError
from charter.model import events as ev
from charter.workflows import machine
from charter.workflows.state import State, fold
from tests.workflows.build import Run, asked, effect_of

DOCS = Path(__file__).parents[2] / "docs" / "workflows.md"
FINAL = {
    "workflow": {"completed", "cancelled", "rejected"},
    "step": {"rejected", "expired"},  # what is completed, skipped or failed may be done again
    "invocation": {"ended", "expired", "revoked"},
    "approval": {"rejected", "edited", "expired", "withdrawn", "used"},
    "effect": {"ended"},
    "child": {"ended"},
}


@pytest.mark.parametrize("name", machine.TABLES)
def test_every_status_can_be_reached_and_only_final_ones_have_no_way_on(name: str) -> None:
    table = machine.TABLES[name]
    first = {"step": "pending"}.get(name, "new")
    reached = {first}
    for _ in table:
        reached |= {target for (source, _), target in table.items() if source in reached}
    everywhere = {status for (source, _), target in table.items() for status in (source, target)}
    assert everywhere == reached
    assert everywhere - {source for source, _ in table} == FINAL[name]


def test_the_page_draws_exactly_the_tables() -> None:
    drawn = re.findall(r"```mermaid\n(stateDiagram-v2\n.*?)\n```", DOCS.read_text("utf-8"), re.DOTALL)
    assert drawn == [machine.mermaid(name) for name in machine.TABLES]


def test_every_event_type_folds_or_belongs_to_no_run() -> None:
    from charter.workflows.state import _APPLY

    assert set(ev.PAYLOADS) - set(_APPLY) == {
        "TOOL_PINNED",
        "TEMPLATE_PUBLISHED",
        "SIGNAL_RECEIVED",
        "SEALED_ERASED",
        "LISTS_REBUILT",
        "KEY_ROTATED",
        "SIGNAL_UNDELIVERED",
        "SIGNAL_RESENT",
        "SCHEDULE_SET",
        "SCHEDULE_FIRED",
        "SCHEDULE_MISSED",
    }


def test_a_log_that_charter_did_not_write_is_found() -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    effect_of(run.invoke(proposal_id=proposal_id))
    fresh = State(workflow_id=run.state.workflow_id, tenant="default")
    assert fold(fresh, run.log) == run.state
    for index, event in enumerate(run.log):
        if event.type == "POLICY_DECISION":  # it changes nothing: the audit's trace validator looks at it
            continue
        twice = [*run.log[: index + 1], event, *run.log[index + 1 :]]
        with pytest.raises(IntegrityError):
            fold(fresh, twice)


@pytest.mark.parametrize("dropped", ["WORKFLOW_STARTED", "APPROVAL_REQUESTED", "APPROVAL_DECISION"])
def test_a_log_with_an_event_left_out_does_not_fold(dropped: str) -> None:
    run = Run().start()
    proposal_id, approval_id = asked(run)
    run.answer(approval_id)
    run.invoke(proposal_id=proposal_id)
    run.complete()
    with pytest.raises(IntegrityError):
        fold(
            State(workflow_id=run.state.workflow_id, tenant="default"),
            [event for event in run.log if event.type != dropped],
        )
