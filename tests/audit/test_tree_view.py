"""The record of a workflow as a tree that a person can read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from charter.audit.envelope import Envelope
from charter.audit.tree_view import MAX_TEXT, tree_lines
from charter.model.events import PAYLOADS
from tests.audit.test_trace import ACTION, DOUBT, GOOD, Trace


def shown(trace: Trace) -> list[str]:
    """The lines, with ids cut to their kind."""
    out = []
    for line in tree_lines(trace):
        words = [word.split("_")[0] + "_…" if word.count("-") == 4 else word for word in line.text.split(" ")]
        out.append("  " * line.depth + " ".join(words))
    return out


def test_a_call_stands_under_its_agent_with_all_that_belongs_to_it() -> None:
    assert "\n".join(shown(GOOD)) == GOLDEN.strip("\n")


GOLDEN = """
WORKFLOW_STARTED t@1 by agent:writer "test"
  POLICY_DECISION workflow.start t@1 → permit by p: It may.
  WORKFLOW_STEP work agent opened
    AGENT_INVOKE agent:writer granted inv_…
      PROPOSAL_MADE box__write prop_…
        POLICY_DECISION tool.invoke box__write → require_approval by ask: People decide on this.
        POLICY_DECISION tool.invoke box__write → require_approval by ask: People decide on this.
        APPROVAL_REQUESTED appr_… box__write risk medium by agent:writer
          POLICY_DECISION approval.decide appr_… → permit by p: It may.
          APPROVAL_DECISION approve by bob (cli) → approved
        POLICY_DECISION tool.invoke box__write → permit by p: It may.
        TOOL_INVOKE box__write eff_… attempt 1 approved by appr_…
          TOOL_RESULT succeeded
      PROPOSAL_MADE box__pay prop_…
        POLICY_DECISION tool.invoke box__pay → require_approval by ask: People decide on this.
        POLICY_DECISION tool.invoke box__pay → require_approval by ask: People decide on this.
        APPROVAL_REQUESTED appr_… box__pay risk medium by agent:writer
          POLICY_DECISION approval.decide appr_… → permit by p: It may.
          APPROVAL_DECISION approve by bob (cli) → pending
          POLICY_DECISION approval.decide appr_… → permit by p: It may.
          APPROVAL_DECISION approve by cat (cli) → approved
        POLICY_DECISION tool.invoke box__pay → permit by p: It may.
        TOOL_INVOKE box__pay eff_… attempt 1 approved by appr_…
          TOOL_RESULT succeeded
      POLICY_DECISION tool.invoke box__read → permit by p: It may.
        TOOL_INVOKE box__read eff_… attempt 1
          TOOL_RESULT succeeded
      AGENT_INVOKE agent:writer ended inv_…
    WORKFLOW_STEP work agent completed
  POLICY_DECISION step.complete wf_… → permit by p: It may.
WORKFLOW_COMPLETED
"""


def test_each_event_has_one_line() -> None:
    for trace in (GOOD, DOUBT, ACTION):
        lines = tree_lines(trace)
        assert sorted(line.seq for line in lines) == [event.seq for event in trace]
        assert {line.event_id for line in lines} == {event.id for event in trace}


def test_a_call_of_the_workflow_itself_stands_under_its_step() -> None:
    lines = {line.text.split(" ")[0]: line.depth for line in tree_lines(ACTION)}
    assert lines["TOOL_RESULT"] == lines["TOOL_INVOKE"] + 1


def test_hostile_text_is_shown_harmlessly() -> None:
    evil = 'x\x1b[2J\r\n\u202e"approved" ' + "y" * 1000
    index = next(index for index, event in enumerate(GOOD) if event.type == "PROPOSAL_MADE")
    trace = [*GOOD]
    trace[index] = replace(trace[index], data={**trace[index].data, "reason": evil})
    for line in tree_lines(trace):
        assert line.text.isprintable()
        assert len(line.text) <= MAX_TEXT


json = st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
names = st.sampled_from(
    ["effect_id", "approval_id", "proposal_id", "step_id", "facts", "request", "policy_ids", "duration_us"]
)


@given(
    st.lists(
        st.tuples(st.sampled_from([*PAYLOADS, "NEW_TYPE"]), st.dictionaries(names, json | st.dictionaries(names, json)))
    )
)
@settings(max_examples=40)
def test_a_damaged_record_is_still_shown(made: list[tuple[str, dict[str, Any]]]) -> None:
    events = [
        Envelope("t", seq, "wf", seq + 1, f"evt_{seq}", type_, "", {}, "", "", None, data)
        for seq, (type_, data) in enumerate(made)
    ]
    assert len(tree_lines(events)) == len(events)


def test_a_record_nested_without_end_is_still_shown() -> None:
    def link(n: int) -> Envelope:
        """Each event claims to belong to the one before."""
        type_, mine, before = ("TOOL_INVOKE", "effect_id", "proposal_id")
        if n % 2:
            type_, mine, before = ("PROPOSAL_MADE", before, mine)
        return Envelope("t", n, "wf", n + 1, f"evt_{n}", type_, "", {}, "", "", None, {mine: n, before: n - 1})

    lines = tree_lines(link(n) for n in range(3000))
    assert [line.depth for line in lines] == list(range(3000))
