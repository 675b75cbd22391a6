"""What a decision is made of: what is given to it, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from charter.errors import CharterError
from charter.model import events as ev
from charter.model.approval import ShownField
from charter.model.base import JsonObject, Model
from charter.model.digests import call_digest
from charter.model.effect import Effect
from charter.model.ids import Mint
from charter.model.outbound import SERVER
from charter.model.policy import Decision, Facts
from charter.model.principal import Principal
from charter.model.template import Template
from charter.model.tool import ToolManifest
from charter.workflows.state import State, apply


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, prepared: validated, redacted by its manifest, and evaluated."""

    manifest: ToolManifest
    arguments: JsonObject
    redacted: JsonObject
    sensitive: bool
    step_id: str
    agent_invocation_id: str | None
    facts: Facts
    decision: Decision
    proposal_id: str | None = None
    grant_id: str | None = None
    grant_claim: tuple[str, str] | None = None
    grant_given_by: str | None = None
    grant_for: tuple[str, ...] = ()
    shown: tuple[ShownField, ...] = ()
    preview: str | None = None
    reason: str = ""
    shadow: JsonObject | None = None

    @property
    def grant_use(self) -> int | None:
        """Which use of a case's grant this is, from 0."""
        return int(self.grant_claim[1].rpartition(":")[2]) if self.grant_claim else None


@dataclass(frozen=True, slots=True)
class Member:
    """One proposal of a batch: the call that it stands for, or why there is none."""

    proposal_id: str
    call: Call | None = None
    problem: CharterError | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """Everything that a decision may not find out for itself: time, ids, who asks, what the policy said."""

    now: str
    mint: Mint
    principal: Principal
    instance: str
    template: Template
    call: Call | None = None
    members: tuple[Member, ...] = ()
    facts: Facts | None = None
    decision: Decision | None = None
    workflow_link: str = ""
    schema_problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What the JSON Schemas of a gate's checks say of the artifacts handed in, by check; empty for those that accept them."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Something to be sealed beside the log under ``ref``."""

    ref: str
    content: JsonObject


@dataclass(frozen=True, slots=True)
class Withheld:
    """What of a run's input is not for the record (JSON pointers), and the input as it is ``shown`` there."""

    pointers: tuple[str, ...]
    shown: JsonObject


@dataclass(slots=True)
class Draft:
    """Collects the events of one command; ``state`` is always the state after them. Sealed content and claims go with them.
    ``abandoned``: the caller went away while it was put on record. ``command_id``: of the command behind it, if another.
    ``then``: the commands that follow in the same commit, each decided on the state that the one before it left."""

    state: State
    given: Given
    events: list[ev.Event] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)
    claims: list[tuple[str, str, str]] = field(default_factory=list)
    effect: Effect | None = None
    error: CharterError | None = None
    reply: Any = None
    abandoned: BaseException | None = None
    command_id: str | None = None
    then: list[Draft] = field(default_factory=list)

    @property
    def last(self) -> State:
        """The state after the whole commit."""
        return self.then[-1].state if self.then else self.state

    def emit(self, event_type: str, data: Model) -> None:
        """Put one more event on record."""
        event = ev.Event(type=event_type, time=self.given.now, data=data)
        self.state = apply(self.state, event)
        self.events.append(event)

    def refuse(self, command: str, error: CharterError, **names: Any) -> None:
        """Put a refusal on record and answer with the error."""
        self.emit(
            "COMMAND_REFUSED",
            ev.CommandRefused(
                command=command,
                code=error.error_code,
                message=error.message,
                next_step=error.next_step,
                **names,
            ),
        )
        self.error = error

    def key_of(self, call: Call) -> str | None:
        """The attempts of an outbound step share one key, by which the other side knows that they are one request."""
        step = self.state.steps.get(call.step_id) if call.manifest.server == SERVER else None
        return step.key if step is not None else None

    def policy(self, facts: Facts, decision: Decision, **names: Any) -> None:
        """Put a policy decision on record."""
        self.emit("POLICY_DECISION", policy_event(facts, decision, **names))


def policy_event(facts: Facts, decision: Decision, **names: Any) -> ev.PolicyDecision:
    """The record of one decision; ``names`` are its optional fields."""
    return ev.PolicyDecision(
        action=facts.action,
        verdict=decision.verdict,
        code=decision.code,
        reason=decision.reason,
        policy_ids=decision.policy_ids,
        obligations=decision.obligations,
        policy_set_hash=decision.policy_set_hash,
        errors=decision.errors,
        next_step=decision.next_step,
        facts=facts,
        **names,
    )


def digest_of(state: State, call: Call, salt: str) -> str:
    """The digest of a call with this salt."""
    return call_digest(
        tenant=state.tenant,
        workflow_id=state.workflow_id,
        agent_invocation_id=call.agent_invocation_id,
        tool=call.manifest.name,
        definition_hash=call.manifest.definition_hash,
        arguments=call.arguments,
        salt=salt,
    )
