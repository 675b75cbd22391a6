"""The trace validator: does the record of one workflow obey the rules that Charter enforced when it ran?

The tree proves that nobody changed the record; this proves that the record is of a governed run. It knows only the
events, and is written apart from the decider on purpose: a mistake in the one is not repeated in the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from charter.audit.envelope import Envelope
from charter.audit.findings import Finding
from charter.audit.trace_approvals import Invocation, Run
from charter.audit.trace_calls import Calls
from charter.audit.trace_children import Children
from charter.audit.trace_phases import Phases
from charter.audit.trace_undoing import Undoing
from charter.model import events as ev
from charter.model import signal_events as sev

TRACE_RULES = {
    "starts_first": "WORKFLOW_STARTED is the first event, and the only one of its kind.",
    "one_workflow": "All events are of one tenant and one workflow, in the order of their sequence numbers.",
    "versions_without_gap": "Versions count from 1 without a gap.",
    "nothing_after_the_end": "After the run's end only what was under way may still be told, and refusals.",
    "step_opened_first": "A step is opened once, before anything happens in it, and ends once.",
    "retry_in_time": "A step that failed is tried again after its time, and not before.",
    "wait_in_time": "A wait ends after its time, and not before.",
    "poll_by_calls": "A wait that polls asks again after its pause, and ends by an answer or by its limit.",
    "child_by_its_step": "A run that a step starts is announced by it first, and ends once; the step ends as it did.",
    "undone_in_reverse": "Before a run ends without its result, what it did is undone, the last first, and nothing is begun.",
    "retried_by_somebody": "A failed run goes on because a named person said so, from the steps that had failed.",
    "review_by_a_person": "A step in review goes on as a named person said.",
    "signal_ends_a_wait": "A signal is delivered to an open wait of its type, which ends with it.",
    "callback_ends_a_wait": "A step that waits to be called back ends when it was, or fails; a callback is taken once.",
    "signal_by_its_step": "A signal is sent by an open signal step.",
    "nothing_new_while_paused": "A paused run opens no step and begins no call.",
    "gate_open_first": "Work that was handed in completes its step only when the gate was found open.",
    "again_by_a_way_back": "A step is done again only where the run went back, on record and counted.",
    "branch_as_decided": "A condition is true or false, and no step of the branch that it left out is opened.",
    "invocation_granted_first": "A tool call names an invocation that was granted, is open, and allows the tool.",
    "call_within_step": "A tool call happens in an open step; without an invocation, in a step that makes calls.",
    "permit_before_call": "Each tool call follows a policy decision that permits this exact call, used once.",
    "proposal_used_once": "A proposal runs at most once, and runs as it was made.",
    "effect_attempts": "Attempts count up; unless a person said so, a tool runs again only if it may be repeated.",
    "result_once": "An attempt ends at most once, and only after it began.",
    "approval_requested_first": "People decide on what was asked, once each request.",
    "approval_same_digest": "Request, decision and call are about the same digest.",
    "approval_not_closed": "Nobody decides on, or uses, a request that is closed or expired.",
    "approval_by_another_person": "People decide, or an agent with its reasoning, and nobody decides on their own action.",
    "approval_handed_on": "A part in a decision is handed on once, not to the requester nor in a circle, and then it is gone.",
    "approval_in_order": "The next are asked, reminded and asked instead when it is their turn or time, each once.",
    "approval_duties_separate": "Nobody lets two steps pass that are not for the same person, by answers or grants.",
    "approval_quorum": "A request is approved when each of its requirements is met by distinct people.",
    "approval_used_once": "An approval is good for one call.",
    "grant_by_another_person": "A standing grant covers no call of the person who gave it, and the call says who that is.",
    "grant_within_bounds": "A call under a standing grant is within its tool, uses and time, and it was not revoked.",
    "known_event": "Every event has a known type and a payload of its shape.",
}

_AFTER_THE_END = frozenset(
    (
        *("TOOL_RESULT", "EFFECT_IN_DOUBT", "EFFECT_RESOLVED", "COMMAND_REFUSED", "POLICY_DECISION", "PROPOSAL_MADE"),
        *("CHILD_STARTED", "CHILD_ENDED", "PARENT_TOLD"),
    )
)
_REVIEWS = {"retry": "reopened", "skip": "skipped", "supply": "completed", "fail": "failed"}
_STEP_ENDS = frozenset(("completed", "failed", "skipped", "rejected", "expired"))


def validate_trace(events: Iterable[Envelope]) -> tuple[Finding, ...]:
    """What is against the rules in one workflow's events, given in their order; ``rule`` is a key of TRACE_RULES.

    A run that has not ended yet is judged as far as it went.
    """
    trace = _Trace()
    for event in events:
        trace.see(event)
    return tuple(trace.findings)


@dataclass(slots=True)
class _Trace:
    """Reads events one by one. ``run`` is what the calls need to know of the rest."""

    findings: list[Finding] = field(default_factory=list)
    run: Run = field(default_factory=Run)
    left_out: set[str] = field(default_factory=set)
    left_out_by: dict[str, set[str]] = field(default_factory=dict)
    again_at: dict[str, str] = field(default_factory=dict)
    paused: bool = False
    retried: set[str] = field(default_factory=set)
    waits: dict[str, str] = field(default_factory=dict)
    timeouts: dict[str, str] = field(default_factory=dict)
    reviewed: dict[str, str] = field(default_factory=dict)
    called_back: set[str] = field(default_factory=set)
    before: Envelope | None = None
    now: Envelope | None = None
    calls: Calls = field(init=False)
    children: Children = field(init=False)
    undoing: Undoing = field(init=False)
    phases: Phases = field(init=False)

    def __post_init__(self) -> None:
        self.calls = Calls(self.run, self.say)
        self.children = Children(self.say)
        self.undoing = Undoing(self.run, self.say)
        self.phases = Phases(self.run, self.say)

    def say(self, rule: str, text: str) -> None:
        """One more finding, at the event being read."""
        assert self.now is not None
        self.findings.append(Finding(rule, text, self.now.seq, self.now.id))

    def see(self, event: Envelope) -> None:
        """Read the next event."""
        self.now = event
        self._check_place(event)
        self.run.time = event.time
        try:
            data: Any = ev.parse_payload(event.type, event.data)
        except (KeyError, ValidationError):
            self.say("known_event", f"{event.type} is unknown, or its payload has another shape.")
        else:
            self._check_life(event.type, getattr(data, "effect_id", ""))
            begins = getattr(data, "attempt", 0) == 1 and event.type == "TOOL_INVOKE"
            if self.paused and (begins or getattr(data, "status", "") in ("opened", "granted")):
                self.say("nothing_new_while_paused", f"{event.type} comes while the run is paused.")
            handler = _HANDLERS.get(event.type)
            if handler is not None:
                handler(self, data)
            else:
                self.calls.see(event.type, data)
        self.before = event

    def _check_place(self, event: Envelope) -> None:
        before = self.before
        expected = 1 if before is None else before.version + 1
        if event.version != expected:
            self.say("versions_without_gap", f"Version {expected} is missing: this event has {event.version}.")
        if before is None:
            return
        if (event.tenant, event.stream) != (before.tenant, before.stream) or event.seq <= before.seq:
            self.say("one_workflow", f"The event is number {event.seq} of {event.tenant}, {event.stream}.")

    def _check_life(self, type_: str, effect_id: str) -> None:
        run = self.run
        if type_ in ("TOOL_INVOKE", "EFFECT_DEAD_LETTERED") and self.calls.is_letter(effect_id):
            return  # a message that was given up, and that a person has sent again, leaves after the run's end too
        if not run.started and type_ != "WORKFLOW_STARTED":
            self.say("starts_first", f"{type_} comes before WORKFLOW_STARTED.")
            run.started = True  # say it once
        if run.ended and type_ not in _AFTER_THE_END and (type_, run.ended) != ("WORKFLOW_RETRIED", "WORKFLOW_FAILED"):
            self.say("nothing_after_the_end", f"{type_} comes after {run.ended}.")

    def on_started(self, _data: ev.WorkflowStarted) -> None:
        if self.run.started:
            self.say("starts_first", "The workflow starts a second time.")
        self.run.started = True

    def on_ended(self, data: ev.WorkflowEnded) -> None:
        assert self.now is not None
        self.undoing.on_ended(self.now.type, data)
        self.run.ended = self.run.ended or self.now.type

    def on_retried(self, data: ev.WorkflowRetried) -> None:
        if not data.by or any(self.run.steps.get(step_id) != "failed" for step_id in data.steps):
            self.say("retried_by_somebody", "The run goes on from steps that had not failed, or nobody said so.")
        self.run.ended = ""
        self.paused = False
        self.retried.update(data.steps)
        self.retried.update(step_id for step_id, status in self.run.steps.items() if status == "opened")

    def on_undoing(self, data: ev.CompensationStarted) -> None:
        self.paused = False
        self.undoing.on_begun(data)

    def on_paused(self, _data: ev.WorkflowHeld) -> None:
        self.paused = True

    def on_resumed(self, _data: ev.WorkflowHeld) -> None:
        self.paused = False

    def on_step(self, data: ev.WorkflowStep) -> None:
        before = self.run.steps.get(data.step_id)
        self.phases.on_step(data, before)
        if data.status == "again":
            self._take_back(data.step_id)
            return
        self.run.steps[data.step_id] = "opened" if data.status in ("reopened", "returned") else data.status
        self.run.step_types[data.step_id] = data.step_type
        if before == "review":
            self._check_review(data)
        elif before == "retrying" and not (self._again(data) or self._given_up(data)):
            self.say("retry_in_time", f"Step {data.step_id} is {data.status} and was to be tried again.")
        self.undoing.on_step(data)
        self._check_kind(data, before)
        if data.status in ("retrying", "polling"):
            self.again_at[data.step_id] = data.until or ""
        if data.timeout_at is not None:
            self.timeouts[data.step_id] = data.timeout_at
        self._check_order(data, before)

    def _check_kind(self, data: ev.WorkflowStep, before: str | None) -> None:
        if data.step_type == "approval" and data.status == "completed" and isinstance(data.output, dict):
            self.left_out.update(name for name in data.output.get("left_out", ()) if isinstance(name, str))
        if data.step_type == "condition" and data.status == "completed":
            self._check_branch(data)
        if data.step_type == "external":
            self._check_callback(data, before)
        if data.step_type == "workflow":
            self.children.on_step(data, supplied=before == "review")
        if data.polls is not None:
            self.run.polled.add(data.step_id)
        if data.step_id in self.run.polled:
            self._check_poll(data, before)
        elif data.step_type == "wait":
            self._check_wait(data, before)

    def _check_callback(self, data: ev.WorkflowStep, before: str | None) -> None:
        if data.status == "opened" or before == "review":
            self.called_back.discard(data.step_id)
        elif before == "awaiting" and data.status == "completed" and data.step_id not in self.called_back:
            self.say("callback_ends_a_wait", f"Step {data.step_id} ends, and was not called back.")

    def on_callback(self, data: ev.CallbackReceived) -> None:
        step_id = data.step_id
        open_ = self.run.steps.get(step_id) in ("opened", "retrying", "awaiting")
        if not open_ or self.run.step_types.get(step_id) != "external" or step_id in self.called_back:
            self.say("callback_ends_a_wait", f"Step {step_id} is called back, and does not wait for it.")
        self.called_back.add(step_id)

    def _take_back(self, step_id: str) -> None:
        """The step is as if it had never been; what a condition left out is decided anew."""
        self.run.steps.pop(step_id, None)
        self.again_at.pop(step_id, None)
        self.waits.pop(step_id, None)
        self.called_back.discard(step_id)
        self.left_out.difference_update(self.left_out_by.pop(step_id, ()))

    def _check_order(self, data: ev.WorkflowStep, before: str | None) -> None:
        if data.status == "opened":
            if data.step_id in self.left_out:
                self.say("branch_as_decided", f"Step {data.step_id} is opened, and a condition left it out.")
            if before is not None:
                self.say("step_opened_first", f"Step {data.step_id} is opened again.")
        elif data.status == "reopened" and data.step_id in self.retried:
            self.retried.discard(data.step_id)
        elif before in _STEP_ENDS:
            self.say("step_opened_first", f"Step {data.step_id} ends a second time, as {data.status}.")
        elif before is None and data.status not in ("skipped", "failed", "review"):
            self.say("step_opened_first", f"Step {data.step_id} is {data.status} and was never opened.")
        elif data.status == "reopened" and before == "opened":
            self.say("step_opened_first", f"Step {data.step_id} is opened again.")

    def _again(self, data: ev.WorkflowStep) -> bool:
        return data.status == "reopened" and self.run.time >= self.again_at.get(data.step_id, "")

    def _given_up(self, data: ev.WorkflowStep) -> bool:
        """Its time is over: the end of all attempts."""
        timeout = self.timeouts.get(data.step_id)
        return data.status != "reopened" and timeout is not None and self.run.time >= timeout

    def _check_poll(self, data: ev.WorkflowStep, before: str | None) -> None:
        if before == "polling" and not (self._again(data) or self._given_up(data)):
            self.say("poll_by_calls", f"Step {data.step_id} is {data.status} and was to ask again at its time.")
        ran = self.run.called.pop(data.step_id, None)
        if data.status == "completed" and ran != "succeeded" and before != "review":
            self.say("poll_by_calls", f"Step {data.step_id} ends, and its tool gave no answer.")

    def _check_wait(self, data: ev.WorkflowStep, before: str | None) -> None:
        step_id = data.step_id
        if data.status in ("opened", "reopened"):
            self.again_at[step_id] = data.until or data.timeout_at or ""
            self.waits[step_id] = data.waits_for or ""
        elif before == "review":
            return  # as a person said
        elif data.status == "completed" and self.waits.get(step_id):
            self.say("signal_ends_a_wait", f"Step {step_id} ends, and no signal was delivered to it.")
        elif step_id in self.again_at and self.run.time < self.again_at[step_id] and not self._delivered(step_id):
            self.say("wait_in_time", f"Step {step_id} ends before its time.")

    def _delivered(self, step_id: str) -> bool:
        return self.waits.get(step_id) is None

    def on_signal(self, data: ev.SignalDelivered) -> None:
        open_ = self.run.steps.get(data.step_id) == "opened" and data.signal.type == self.waits.get(data.step_id)
        if not open_:
            self.say("signal_ends_a_wait", f"A signal is delivered to step {data.step_id}, which does not wait for it.")
        timeout = self.again_at.get(data.step_id)
        if timeout and self.run.time >= timeout:
            self.say("wait_in_time", f"Step {data.step_id} is woken after its time.")
        self.waits.pop(data.step_id, None)

    def on_sent(self, data: sev.SignalSent) -> None:
        if self.run.steps.get(data.step_id) != "opened" or self.run.step_types.get(data.step_id) != "signal":
            self.say("signal_by_its_step", f"A signal is sent by step {data.step_id}, which is no open signal step.")

    def _check_review(self, data: ev.WorkflowStep) -> None:
        if _REVIEWS.get(self.reviewed.pop(data.step_id, "")) != data.status:
            self.say("review_by_a_person", f"Step {data.step_id} is {data.status}, and nobody said so in review.")

    def on_reviewed(self, data: ev.StepReviewed) -> None:
        if data.reviewed_by_kind != "human" or self.run.steps.get(data.step_id) != "review":
            self.say("review_by_a_person", f"{data.reviewed_by} may not review step {data.step_id}.")
        self.reviewed[data.step_id] = data.resolution

    def _check_branch(self, data: ev.WorkflowStep) -> None:
        output = data.output if isinstance(data.output, dict) else {}
        value, left_out = output.get("value"), output.get("left_out")
        if not isinstance(value, bool) or output.get("branch") != ("if_true" if value else "if_false"):
            self.say("branch_as_decided", f"Condition {data.step_id} takes a branch that is not its value's.")
        if isinstance(left_out, list):
            self.left_out_by[data.step_id] = {name for name in left_out if isinstance(name, str)}
            self.left_out.update(self.left_out_by[data.step_id])

    def on_agent(self, data: ev.AgentInvoke) -> None:
        known = self.run.invocations.get(data.agent_invocation_id)
        if data.status == "granted":
            if known is not None:
                self.say("invocation_granted_first", f"{data.agent_invocation_id} is granted a second time.")
            if self.run.steps.get(data.step_id) != "opened":
                self.say("step_opened_first", f"An agent is invoked for step {data.step_id}, which is not open.")
            self.run.invocations[data.agent_invocation_id] = Invocation(
                data.step_id, data.allowed_tools, data.expires_at, data.forbidden_tools, data.agent
            )
        elif known is None or not known.open:
            self.say("invocation_granted_first", f"{data.agent_invocation_id} ends and was not open.")
        elif data.status == "claimed":
            if known.agent != "*":
                self.say(
                    "invocation_granted_first", f"{data.agent_invocation_id} is claimed and was not for any agent."
                )
            known.agent = data.agent
        else:
            known.open = False


_HANDLERS: dict[str, Callable[[_Trace, Any], None]] = {
    "WORKFLOW_STARTED": _Trace.on_started,
    "WORKFLOW_STEP": _Trace.on_step,
    "STEP_REVIEWED": _Trace.on_reviewed,
    "COMPENSATION_STARTED": _Trace.on_undoing,
    "WORKFLOW_RETRIED": _Trace.on_retried,
    "CHILD_STARTED": lambda trace, data: trace.children.on_started(data),
    "CHILD_ENDED": lambda trace, data: trace.children.on_ended(data),
    "WORKFLOW_PAUSED": _Trace.on_paused,
    "WORKFLOW_RESUMED": _Trace.on_resumed,
    "SIGNAL_DELIVERED": _Trace.on_signal,
    "CALLBACK_RECEIVED": _Trace.on_callback,
    "SIGNAL_SENT": _Trace.on_sent,
    "AGENT_INVOKE": _Trace.on_agent,
    "GATE_CHECKED": lambda trace, data: trace.phases.on_gate(data),
    "PHASE_WENT_BACK": lambda trace, data: trace.phases.on_back(data),
    **dict.fromkeys(ev.ENDINGS, _Trace.on_ended),
}
