"""A run of the decider by hand: what the gate does around it, without the gate, and a policy that a test can read.

The scripted policy: ``read`` is permitted; ``write`` needs one person; ``pay`` needs two of role finance; ``drop`` is denied.
A call outside a live invocation is denied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from charter.audit.envelope import Envelope
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.canonical import canonical
from charter.model.effect import Effect, EffectOutcome
from charter.model.ids import Mint
from charter.model.policy import Action, Decision, Facts, Obligation
from charter.model.principal import Channel, Principal, service
from charter.model.signal import Signal
from charter.model.template import ActionStep, ExternalStep, NotificationStep, Template
from charter.model.times import rfc3339
from charter.model.tool import ToolManifest
from charter.workflows import decide as rules
from charter.workflows import facts, gate_steps, views
from charter.workflows.approval_state import ApprovalState
from charter.workflows.draft import Call, Draft, Given
from charter.workflows.outbound import call_of
from charter.workflows.state import ProposalState, State, fold
from charter.workflows.steps import step_named

AGENT = Principal(id="agent:writer", kind="agent", acts_for="ann")
OTHER_AGENT = Principal(id="agent:other", kind="agent")
ANN = Principal(id="ann", kind="human")
BOB = Principal(id="bob", kind="human", roles=("finance",))
CAT = Principal(id="cat", kind="human", roles=("finance",))
ENGINE = service("engine", "default")
START_MS = 1_800_000_000_000
DAY = 86_400

Policy = Callable[[Facts], Decision]


def permit() -> Decision:
    return Decision(verdict="permit", reason="It may.", code="permitted", policy_ids=("p",), policy_set_hash="set-1")


def deny(reason: str = "It may not.", code: str = "forbidden") -> Decision:
    return Decision(verdict="deny", reason=reason, code=code, policy_ids=("f",), policy_set_hash="set-1")


def ask(approvers: int = 1, role: str | None = None, within: int = DAY, channels: tuple[Channel, ...] = ()) -> Decision:
    obligation = Obligation(
        name="require_approval",
        policy_id="ask",
        role=role,
        approvers=approvers,
        within_seconds=within,
        channels=channels,
    )
    return Decision(
        verdict="require_approval",
        reason="People decide on this.",
        code="approval_required",
        policy_ids=("ask",),
        obligations=(obligation,),
        policy_set_hash="set-1",
    )


def scripted(asked: Facts) -> Decision:
    """The policy of this module's text."""
    if asked.action != "tool.invoke":
        return permit()
    own_step = asked.principal.kind == "service" and asked.tool_allowed
    if not (asked.workflow_live and (asked.invocation_live or own_step) and asked.tool_allowed):
        return deny("There is no live invocation for it.", "no_invocation")
    tool = asked.resource_id.rpartition("__")[2]
    if tool == "read":
        return permit()
    if tool == "write":
        return permit() if asked.approvals else ask()
    if tool == "pay":
        finance = {item.approver for item in asked.approvals if "finance" in item.roles}
        return permit() if len(finance) >= 2 else ask(2, "finance")
    return deny()


def tool(name: str, *, idempotent: bool = False, version: str = "1") -> ToolManifest:
    return ToolManifest(
        name=f"box__{name}",
        server="box",
        upstream_name=name,
        input_schema={"type": "object"},
        definition_hash=f"sha256:{name}-{version}",
        risk="low" if name == "read" else "medium",
        idempotent=idempotent,
    )


TOOLS = {item.name: item for item in (tool("read", idempotent=True), tool("write"), tool("pay"), tool("drop"))}


def template(*steps: dict[str, Any], output: Any = None) -> Template:
    listed = steps or ({"id": "work", "type": "agent", "allowed_tools": ["*"]},)
    return Template.model_validate({"name": "t", "version": "1", "steps": list(listed), "output": output})


SESSION = template()

NOTHING = State(workflow_id="", tenant="default")


@dataclass
class Run:
    """One run: ``state`` now, ``log`` all its events. A method is one command, as the gate would hand it in."""

    template: Template = SESSION
    policy: Policy = scripted
    tools: dict[str, ToolManifest] = field(default_factory=lambda: dict(TOOLS))
    starter: Principal = AGENT
    state: State = NOTHING
    log: list[ev.Event] = field(default_factory=list)
    claims: list[tuple[str, str, str]] = field(default_factory=list)
    now_ms: int = START_MS
    commands: int = 0
    instance: str = "srv_1"
    dry_run: bool = False
    sensitive: bool = False
    server: str = "box"

    # -- around the decider

    @property
    def now(self) -> str:
        return rfc3339(self.now_ms)

    def wait(self, seconds: float) -> Run:
        self.now_ms += int(seconds * 1000)
        return self

    def given(self, principal: Principal, **more: Any) -> Given:
        self.commands += 1
        mint = Mint(self.now_ms, self.commands.to_bytes(8, "big"))
        return Given(self.now, mint, principal, self.instance, self.template, **more)

    def kept(self, draft: Draft) -> Draft:
        self.log += draft.events
        self.claims += draft.claims
        self.state = draft.state
        return draft

    def decide(self, command: cmd.Command, given: Given, **more: Any) -> Draft:
        return self.kept(rules.decide(self.state, command, given, **more))

    def run_facts(self, principal: Principal, action: Action) -> dict[str, Any]:
        found = facts.workflow_facts(self.state, principal, action)
        return {"facts": found, "decision": self.policy(found)}

    def call(
        self,
        principal: Principal,
        name: str,
        arguments: dict[str, Any],
        *,
        proposal: ProposalState | None = None,
        invocation: str | None = None,
        step_id: str | None = None,
        grant_id: str | None = None,
    ) -> Call:
        """A prepared call."""
        manifest = self.tools[f"{self.server}__{name}"]
        found = self.state.invocations.get(invocation or "")
        step = step_id or (found.step_id if found else "")
        approval = self.state.approvals.get(proposal.approval_id or "") if proposal else None
        asked = facts.call_facts(
            self.state,
            principal,
            manifest,
            now=self.now,
            quarantined=False,
            step_id=step,
            agent_invocation_id=invocation,
            arguments=arguments,
            approval=approval,
            grant_id=grant_id,
        )
        return Call(
            manifest=manifest,
            arguments=arguments,
            redacted={"secret": "***"} if self.sensitive else arguments,
            sensitive=self.sensitive,
            step_id=step,
            agent_invocation_id=invocation,
            facts=asked,
            decision=self.policy(asked),
            proposal_id=proposal.made.proposal_id if proposal else None,
            grant_id=grant_id,
        )

    # -- the commands

    def start(self, given_input: dict[str, Any] | None = None, key: str | None = None) -> Run:
        command = cmd.StartWorkflow(
            template="t", input=given_input or {}, purpose="test", idempotency_key=key, dry_run=self.dry_run
        )
        found = Facts(
            principal=self.starter,
            action="workflow.start",
            resource_type="Template",
            resource_id=self.template.ref,
            tenant="default",
        )
        given = self.given(self.starter, facts=found, decision=permit())
        state = State(workflow_id=given.mint.new("workflow"), tenant="default")
        self.kept(rules.start(state, command, given, template_hash="sha256:t"))
        return self

    def propose(self, name: str, arguments: dict[str, Any], reason: str = "", again: str | None = None) -> Draft:
        invocation = self.invocation_id
        command = cmd.ProposeAction(
            workflow_id=self.state.workflow_id,
            agent_invocation_id=invocation,
            tool=f"{self.server}__{name}",
            arguments=arguments,
            reason=reason,
        )
        proposal = self.state.proposals.get(again or "")
        call = self.call(AGENT, name, arguments, proposal=proposal, invocation=invocation)
        return self.decide(command, self.given(AGENT, call=call))

    def request(self, proposal_id: str) -> Draft:
        command = cmd.RequestApproval(
            workflow_id=self.state.workflow_id, agent_invocation_id=self.invocation_id, proposal_id=proposal_id
        )
        return self.decide(command, self.given(AGENT, call=self.call_of(proposal_id)))

    def call_of(self, proposal_id: str, principal: Principal = AGENT) -> Call:
        proposal = self.state.proposals[proposal_id]
        made = proposal.made
        name = made.tool.rpartition("__")[2]
        invocation = made.agent_invocation_id
        return self.call(
            principal, name, made.arguments, proposal=proposal, invocation=invocation, step_id=made.step_id
        )

    def invoke(
        self, name: str | None = None, arguments: dict[str, Any] | None = None, *, proposal_id: str | None = None
    ) -> Draft:
        invocation = self.invocation_id
        command = cmd.InvokeTool(
            workflow_id=self.state.workflow_id, agent_invocation_id=invocation, proposal_id=proposal_id
        )
        if proposal_id:
            call = self.call_of(proposal_id)
        else:
            call = self.call(AGENT, name or "read", arguments or {}, invocation=invocation)
        return self.decide(command, self.given(AGENT, call=call))

    def answer(
        self,
        approval_id: str,
        decision: Any = "approve",
        by: Principal = BOB,
        *,
        edited: dict[str, Any] | None = None,
        comment: str | None = None,
        digest: str | None = None,
        channel: Channel = "cli",
    ) -> Draft:
        command = cmd.DecideApproval(
            approval_id=approval_id,
            decision=decision,
            channel=channel,
            comment=comment,
            digest=digest,
            edited_arguments=edited,
        )
        approval = self.state.approvals[approval_id]
        found = facts.decide_facts(self.state, by, approval, command.channel, command.decision)
        with_call = edited is not None and approval.request.proposal_id is not None
        call = self.edited_call(approval, edited or {}) if with_call else None
        return self.decide(command, self.given(by, facts=found, decision=self.policy(found), call=call))

    def delegate(self, approval_id: str, to: str, by: Principal = BOB) -> Draft:
        command = cmd.DelegateApproval(approval_id=approval_id, to=to, channel="cli")
        found = facts.delegate_facts(self.state, by, self.state.approvals[approval_id], "cli", to)
        return self.decide(command, self.given(by, facts=found, decision=self.policy(found)))

    def edited_call(self, approval: ApprovalState, arguments: dict[str, Any]) -> Call:
        made = self.state.proposals[approval.request.proposal_id or ""].made
        return self.call(
            made.proposed_by,
            made.tool.rpartition("__")[2],
            arguments,
            invocation=made.agent_invocation_id,
            step_id=made.step_id,
        )

    def outcome(
        self, effect_id: str, status: Any = "succeeded", *, attempt: int = 1, output: Any = None, is_error: bool = False
    ) -> Draft:
        command = cmd.RecordOutcome(
            workflow_id=self.state.workflow_id,
            effect_id=effect_id,
            attempt=attempt,
            outcome=EffectOutcome(status=status, is_error=is_error),
        )
        return self.decide(command, self.given(ENGINE), result={"output": output})

    def recover(self, effect_id: str, dead: str = "srv_1") -> Draft:
        command = cmd.RecoverEffect(workflow_id=self.state.workflow_id, effect_id=effect_id, dead_instance=dead)
        return self.decide(command, self.given(ENGINE, call=self.call_of_effect(effect_id)))

    def call_of_effect(self, effect_id: str) -> Call | None:
        effect = self.state.effects.get(effect_id)
        if effect is None:
            return None
        made = effect.invoke
        name, invocation = made.tool.rpartition("__")[2], made.agent_invocation_id
        return self.call(ENGINE, name, made.arguments, invocation=invocation, step_id=made.step_id)

    def resolve(self, effect_id: str, resolution: Any, output: Any = None, by: Principal = BOB) -> Draft:
        command = cmd.ResolveEffect(
            workflow_id=self.state.workflow_id, effect_id=effect_id, resolution=resolution, output=output
        )
        given = self.given(by, call=self.call_of_effect(effect_id), **self.run_facts(by, "effect.resolve"))
        return self.decide(command, given)

    def complete(self, output: Any = None, summary: str = "", invocation: str | None = None) -> Draft:
        command = cmd.CompleteStep(
            workflow_id=self.state.workflow_id,
            agent_invocation_id=invocation or self.invocation_id,
            output=output,
            summary=summary,
        )
        return self.decide(command, self.given(AGENT, **self.run_facts(AGENT, "step.complete")))

    def cancel(self, reason: str = "") -> Draft:
        command = cmd.CancelWorkflow(workflow_id=self.state.workflow_id, reason=reason)
        return self.decide(command, self.given(ANN, **self.run_facts(ANN, "workflow.cancel")))

    def advance(self) -> Draft:
        return self.decide(cmd.AdvanceWorkflow(workflow_id=self.state.workflow_id), self.given(ENGINE))

    def run_step(self, step_id: str) -> Draft:
        """The engine runs an action step: its arguments are filled in, and its open proposal goes with it."""
        step = step_named(self.template, step_id)
        if isinstance(step, ExternalStep | NotificationStep):  # which tool it is does not matter here
            text = step.url if isinstance(step, ExternalStep) else step.email.text if step.email else ""
            step = ActionStep(id="any", type="action", tool="box__read", arguments={"name": text})
        asked, filled = call_of(step, gate_steps.scope_of(self.state, self.template, step_id), "")
        proposal = rules.step_proposal(self.state, step_id)
        arguments = proposal.made.arguments if proposal else filled
        call = self.call(ENGINE, asked.rpartition("__")[2], arguments, proposal=proposal, step_id=step_id)
        command = cmd.RunStep(workflow_id=self.state.workflow_id, step_id=step_id)
        return self.decide(command, self.given(ENGINE, call=call))

    def review(self, step_id: str, resolution: Any, output: Any = None, by: Principal = BOB) -> Draft:
        command = cmd.ReviewStep(
            workflow_id=self.state.workflow_id, step_id=step_id, resolution=resolution, output=output
        )
        return self.decide(command, self.given(by, **self.run_facts(by, "step.review")))

    def retry(self, by: Principal = BOB) -> Draft:
        command = cmd.RetryWorkflow(workflow_id=self.state.workflow_id)
        return self.decide(command, self.given(by, **self.run_facts(by, "workflow.retry")))

    def hold(self, pause: bool, by: Principal = BOB) -> Draft:
        held = cmd.PauseWorkflow if pause else cmd.ResumeWorkflow
        command: cmd.Command = held(workflow_id=self.state.workflow_id)
        return self.decide(command, self.given(by, **self.run_facts(by, "workflow.pause")))

    def callback(self, step_id: str, body: Any = None, id_: str = "m1") -> Draft:
        command = cmd.DeliverCallback(workflow_id=self.state.workflow_id, step_id=step_id, message_id=id_, body=body)
        return self.decide(command, self.given(ENGINE))

    def signal(self, type_: str, data: Any = None, id_: str = "s1", source: str = "test") -> Draft:
        signal = Signal(id=id_, source=source, type=type_, data=data)
        return self.decide(cmd.DeliverSignal(workflow_id=self.state.workflow_id, signal=signal), self.given(BOB))

    # -- looking

    @property
    def invocation_id(self) -> str:
        """The open invocation, else the last one."""
        listed = list(self.state.invocations.values())
        opened = [item for item in listed if item.status == "open"]
        return (opened or listed)[-1].agent_invocation_id

    def approval_id(self, status: str = "pending") -> str:
        return next(key for key, item in self.state.approvals.items() if item.status == status)

    def types(self) -> list[str]:
        return [event.type for event in self.log]

    def steps(self) -> dict[str, str]:
        return {key: item.status for key, item in self.state.steps.items()}

    def context(self, principal: Principal = AGENT) -> Any:
        return views.context(self.state, self.template, principal, self.now)

    def refolded(self) -> State:
        """The state from the log alone, each event having passed through JSON as the store keeps it."""
        first = State(workflow_id=self.state.workflow_id, tenant=self.state.tenant)
        return fold(first, (stored(event) for event in self.log))


def stored(event: ev.Event) -> ev.Event:
    """The event after the store: written as canonical JSON without defaults, and read again."""
    data = event.data.model_dump(mode="json", exclude_defaults=True)
    canonical(data)
    return replace_data(event, data)


def replace_data(event: ev.Event, data: dict[str, Any]) -> ev.Event:
    return ev.Event(type=event.type, time=event.time, data=ev.parse_payload(event.type, data))


def envelopes(run: Run) -> list[Envelope]:
    """The run's events as they would stand in the ledger."""
    return [
        Envelope(
            v=1,
            tenant=run.state.tenant,
            seq=number,
            stream=run.state.workflow_id,
            version=number + 1,
            id=f"evt_{number}",
            type=event.type,
            time=event.time,
            actor={"kind": "service", "id": "test"},
            causation_id="cmd_1",
            correlation_id=run.state.workflow_id,
            data=event.data.model_dump(mode="json", exclude_defaults=True),
            trace_id=None,
        )
        for number, event in enumerate(run.log)
    ]


def asked(run: Run, name: str = "write", arguments: dict[str, Any] | None = None) -> tuple[str, str]:
    """A proposal that people have been asked about: its id and the approval's."""
    proposal_id = run.propose(name, arguments or {"text": "a"}).reply.proposal_id
    return proposal_id, run.request(proposal_id).reply.approval_id


def effect_of(draft: Draft) -> Effect:
    """The effect that a draft hands out."""
    assert draft.effect is not None
    return draft.effect


def code_of(draft: Draft) -> str | None:
    """The stable code of the draft's error."""
    return draft.error.error_code if draft.error else None


def under(run: Run, policy: Policy) -> Run:
    """The same run under another policy set."""
    return replace(run, policy=policy, log=list(run.log), claims=list(run.claims))
