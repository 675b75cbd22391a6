"""Random people, agents, clocks and crashes against one run; what must hold after every step is checked after every step."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from charter.audit.trace import validate_trace
from charter.workflows import decide as rules
from charter.workflows import views
from charter.workflows.draft import Draft
from tests.workflows.build import AGENT, ANN, BOB, CAT, DAY, OTHER_AGENT, TOOLS, Run, envelopes, template, tool

FLOW = template(
    {"id": "work", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": 3 * DAY},
    {
        "id": "look",
        "type": "action",
        "tool": "box__read",
        "needs": [],
        "on_failure": "human_review",
        "retry": {"attempts": 2, "backoff_seconds": 3600},
    },
    {
        "id": "ok",
        "type": "approval",
        "question": "Go?",
        "expires_after_seconds": 9 * DAY,
        "needs": ["look"],
        "if": "trigger.careful",
    },
    {
        "id": "word",
        "type": "wait",
        "needs": [],
        "signal": {"type": "word", "where": "signal.data.n > 1"},
        "timeout_seconds": 2 * DAY,
        "on_timeout": "skip",
    },
    {"id": "pause", "type": "wait", "seconds": 7200, "needs": ["look"]},
    {
        "id": "choose",
        "type": "condition",
        "needs": ["ok", "work", "pause", "word"],
        "expression": "steps.ok.status == 'completed'",
        "if_true": ["save"],
        "if_false": ["pay"],
    },
    {"id": "save", "type": "action", "tool": "box__write", "arguments": {"text": "end"}},
    {"id": "pay", "type": "action", "tool": "box__pay", "arguments": {"cents": 1}, "on_failure": "human_review"},
    output="{{ steps.work.output }}",
)
PEOPLE = st.sampled_from([AGENT, OTHER_AGENT, ANN, BOB, CAT])
NAMES = st.sampled_from(["read", "write", "pay", "drop"])
ARGUMENTS = st.sampled_from([{}, {"text": "a"}, {"text": "b"}])


class Governed(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        tools = {**TOOLS, "box__read": tool("read", idempotent=True)}
        self.run = Run(FLOW, tools=tools)
        self.retried: Counter[str] = Counter()
        self.ended_at: int | None = None

    @initialize(careful=st.sampled_from([True, True, False]))
    def start(self, careful: bool) -> None:
        self.run.start({"careful": careful})

    def pick(self, data: st.DataObject, keys: Any) -> str:
        return str(data.draw(st.sampled_from(sorted(keys))))

    def seen(self, draft: Draft) -> Draft:
        """A draft that says no changes nothing but the record of it, and hands out no effect."""
        if draft.error is not None:
            assert draft.effect is None
        return draft

    # -- agents

    @precondition(lambda self: self.run.state.invocations)
    @rule(name=NAMES, arguments=ARGUMENTS, reason=st.sampled_from(["", "why not", "because"]), data=st.data())
    def propose(self, name: str, arguments: dict[str, Any], reason: str, data: st.DataObject) -> None:
        same = [
            key
            for key, item in self.run.state.proposals.items()
            if item.made.tool == f"box__{name}"
            and item.made.arguments == arguments
            and item.made.agent_invocation_id
            and not (item.effect_id or item.replaced_by)
        ]
        self.seen(self.run.propose(name, arguments, reason, again=same[-1] if same else None))

    @precondition(lambda self: self.run.state.live)
    @rule(
        name=st.sampled_from(["write", "pay"]),
        people=st.lists(PEOPLE, max_size=3),
        then=st.sampled_from(["", "run", "run and crash"]),
    )
    def propose_ask_and_run(self, name: str, people: list[Any], then: str) -> None:
        """The usual way in one go, so that runs come far enough to be interesting."""
        proposal_id = self.run.propose(name, {"n": len(self.run.log)}).reply.proposal_id
        asked = self.seen(self.run.request(proposal_id))
        if asked.error is not None:
            return
        for person in people:
            if self.run.state.approvals[asked.reply.approval_id].status == "pending":
                self.run.answer(asked.reply.approval_id, by=person)
        if then:
            self.seen(self.run.invoke(proposal_id=proposal_id))
        if then == "run and crash":
            self.crash()

    @precondition(lambda self: any(p.made.agent_invocation_id for p in self.run.state.proposals.values()))
    @rule(data=st.data(), ask=st.booleans())
    def use_a_proposal(self, data: st.DataObject, ask: bool) -> None:
        key = self.pick(data, [k for k, p in self.run.state.proposals.items() if p.made.agent_invocation_id])
        self.seen(self.run.request(key) if ask else self.run.invoke(proposal_id=key))

    @rule(name=NAMES, arguments=ARGUMENTS)
    def invoke(self, name: str, arguments: dict[str, Any]) -> None:
        self.seen(self.run.invoke(name, arguments))

    @rule(output=st.sampled_from([None, {"n": 1}]), often=st.integers(0, 9))
    def complete(self, output: Any, often: int) -> None:
        if not often:
            self.seen(self.run.complete(output))

    # -- people

    @precondition(lambda self: self.run.state.approvals)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(["approve"] * 6 + ["request_more_info", "edit", "edit", "reject"]),
        by=PEOPLE,
        edited=ARGUMENTS,
    )
    def answer(self, data: st.DataObject, verdict: str, by: Any, edited: dict[str, Any]) -> None:
        opened = [key for key, item in self.run.state.approvals.items() if item.open]
        key = self.pick(data, opened or self.run.state.approvals)
        editable = self.run.state.approvals[key].request.proposal_id is not None
        draft = self.run.answer(key, verdict, by, edited=edited if verdict == "edit" and editable else None)
        if by.kind != "human":
            assert draft.error is not None

    @rule(often=st.integers(0, 19))
    def cancel(self, often: int) -> None:
        if not often:
            self.seen(self.run.cancel())

    @precondition(lambda self: self.run.state.effects)
    @rule(data=st.data(), resolution=st.sampled_from(["ran", "did_not_run", "retry"]))
    def resolve(self, data: st.DataObject, resolution: str) -> None:
        effect_id = self.pick(data, self.run.state.effects)
        if self.run.resolve(effect_id, resolution, output={"by": "hand"}).effect is not None:
            self.retried[effect_id] += 1

    @precondition(lambda self: "review" in self.run.steps().values())
    @rule(data=st.data(), resolution=st.sampled_from(["retry", "retry", "skip", "supply", "fail"]), by=PEOPLE)
    def review(self, data: st.DataObject, resolution: str, by: Any) -> None:
        step_id = self.pick(data, [key for key, status in self.run.steps().items() if status == "review"])
        draft = self.seen(self.run.review(step_id, resolution, output={"by": "hand"}, by=by))
        if by.kind != "human":
            assert self.run.steps()[step_id] == "review"
            assert draft.error is not None

    @rule(pause=st.sampled_from([True, False, False]), often=st.integers(0, 4))
    def hold(self, pause: bool, often: int) -> None:
        if not often or not pause:
            self.seen(self.run.hold(pause))

    @rule(type_=st.sampled_from(["word", "word", "other"]), data=st.sampled_from([None, {"n": 1}, {"n": 2}]))
    def signal(self, type_: str, data: Any) -> None:
        wanted = self.run.steps().get("word") == "open" and self.run.state.live and type_ == "word"
        late = wanted and self.run.now >= str(self.run.state.steps["word"].timeout_at)
        draft = self.seen(self.run.signal(type_, data, id_=f"s{len(self.run.log)}"))
        delivered = "SIGNAL_DELIVERED" in [event.type for event in draft.events]
        assert not delivered or (wanted and not late and data == {"n": 2})

    # -- Charter itself

    @precondition(lambda self: bool(rules.runnable_steps(self.run.state)))
    @rule()
    def run_step(self) -> None:
        self.seen(self.run.run_step(rules.runnable_steps(self.run.state)[0]))

    @precondition(lambda self: self.run.state.effects)
    @rule(data=st.data(), status=st.sampled_from(["succeeded", "failed", "unknown"]), is_error=st.booleans())
    def outcome(self, data: st.DataObject, status: str, is_error: bool) -> None:
        effect_id = self.pick(data, self.run.state.effects)
        attempt = self.run.state.effects[effect_id].invoke.attempt
        self.run.outcome(effect_id, status, attempt=attempt, is_error=is_error, output={"text": "x"})

    @precondition(lambda self: self.run.state.effects)
    @rule()
    def crash(self) -> None:
        dead, self.run.instance = self.run.instance, f"srv_{len(self.run.log)}"
        for effect_id in list(self.run.state.effects):
            self.run.recover(effect_id, dead=dead)

    @rule(seconds=st.sampled_from([1, 60, 3600, 3600, DAY // 2, DAY]))
    def time_goes_by(self, seconds: int) -> None:
        self.run.wait(seconds).advance()
        wake = rules.wake_at(self.run.state)
        assert wake is None or wake > self.run.now or rules.runnable_steps(self.run.state)

    # -- what must hold

    @invariant()
    def the_log_gives_the_state(self) -> None:
        assert self.run.refolded() == self.run.state

    @invariant()
    def a_live_run_names_who_blocks_it(self) -> None:
        blockers = views.blocked_by(self.run.state)
        assert bool(blockers) == self.run.state.live
        assert all(item.who and item.detail for item in blockers)
        if any(item.what == "engine" for item in blockers):
            assert rules.runnable_steps(self.run.state)
        assert self.run.context().next_step

    @invariant()
    def only_the_branch_that_was_taken_opens(self) -> None:
        steps = self.run.steps()
        decided = self.run.state.steps.get("choose")
        if decided is None or decided.status != "completed":
            assert not {"save", "pay"} & steps.keys()
        else:
            (left_out,) = decided.output["left_out"]
            assert steps.get(left_out, "skipped") == "skipped"

    @invariant()
    def an_approval_is_used_once_by_the_call_it_was_for(self) -> None:
        used: Counter[str] = Counter()
        for event in self.run.log:
            if event.type == "TOOL_INVOKE" and event.data.attempt == 1:
                used.update(event.data.approval_ids)
                for key in event.data.approval_ids:
                    assert self.run.state.approvals[key].request.digest == event.data.digest
        assert all(count == 1 for count in used.values())
        assert len([claim for claim in self.run.claims if claim[0] == "approval"]) == len(used)

    @invariant()
    def no_other_tool_than_an_idempotent_one_runs_again_by_itself(self) -> None:
        attempts: Counter[str] = Counter()
        for event in self.run.log:
            if event.type == "TOOL_INVOKE" and not event.data.idempotent:
                attempts[event.data.effect_id] += 1
        assert all(count <= 1 + self.retried[key] for key, count in attempts.items())

    @invariant()
    def what_needs_people_has_them(self) -> None:
        for event in self.run.log:
            if event.type != "TOOL_INVOKE" or event.data.tool not in ("box__write", "box__pay"):
                continue
            (key,) = event.data.approval_ids
            decided = [item for item in self.run.state.approvals[key].decisions if item.decision == "approve"]
            assert {item.decided_by_kind for item in decided} == {"human"}
            if event.data.tool == "box__pay":
                assert len({item.decided_by for item in decided if "finance" in item.roles}) >= 2
        assert not [event for event in self.run.log if event.type == "TOOL_INVOKE" and event.data.tool == "box__drop"]

    def teardown(self) -> None:
        """The validator of records, which was written apart from the decider, has nothing to say against any run."""
        assert validate_trace(envelopes(self.run)) == ()

    @invariant()
    def an_ended_run_stays_ended_and_leaves_nothing_to_use(self) -> None:
        if self.run.state.live:
            return
        if self.ended_at is None:
            self.ended_at = len(self.run.log)
        assert not [item for item in self.run.state.approvals.values() if item.open]
        assert not [item for item in self.run.state.invocations.values() if item.status == "open"]
        after = {event.type for event in self.run.log[self.ended_at :]}
        assert after <= {"COMMAND_REFUSED", "POLICY_DECISION", "TOOL_RESULT", "EFFECT_IN_DOUBT", "EFFECT_RESOLVED"} | {
            "PROPOSAL_MADE"
        }


Governed.TestCase.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestGoverned = Governed.TestCase
