"""Running an effect once its intent is durable, and putting its outcome on record."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from charter.errors import CharterError, Denied, NotFound, Refused, Unavailable
from charter.gate.parts import NO_CONTEXT, CallContext
from charter.gate.results import recordable, settled, stored_result
from charter.gate.spans import Attr
from charter.gate.uninterrupted import uninterrupted
from charter.manifests.plain_text import plain
from charter.model import commands as cmd
from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.ids import Mint
from charter.model.principal import Principal, service
from charter.model.reply import ToolOutcome, WorkflowStepResult
from charter.workflows import decide as rules
from charter.workflows.draft import Call, Draft, Secret
from charter.workflows.facts import invocation_live
from charter.workflows.outbound import judged
from charter.workflows.state import State, StepState
from charter.workflows.steps import step_named
from charter.workflows.views import context

if TYPE_CHECKING:
    from charter.gate.gate import Gate, Then

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 600
"""How long a caller may take to answer what the upstream asks: as long as a sealed request state lives."""

IDEMPOTENT_TRIES = 2
"""How often an idempotent tool is run under one key when its answer was lost, before a person is asked."""


def is_charter(principal: Principal) -> bool:
    """Whether Charter itself asks: its engine, or its runner."""
    return principal.kind == "service" and "charter" in principal.roles


def only_charter(principal: Principal) -> None:
    """The engine's own commands take no other caller."""
    if not is_charter(principal):
        raise Denied("Only Charter itself sends this.", code="not_for_callers")


def with_preview(call: Call, preview: str | None) -> Call:
    """The call with what its dry run answered, as harmless text."""
    return replace(call, preview=plain(preview) if preview is not None else None)


def step_result(draft: Draft, principal: Principal, step_id: str) -> WorkflowStepResult:
    """How a step ended and where the run went."""
    step = draft.state.steps.get(step_id, StepState())
    return WorkflowStepResult(
        workflow_id=draft.state.workflow_id,
        step_id=step_id,
        status=step.status,
        output=step.output,
        workflow=context(draft.state, draft.given.template, principal, draft.given.now),
    )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A call whose upstream asked its caller for input, and until when (milliseconds since 1970) the answer is awaited."""

    effect: Effect
    invocation_id: str
    until_ms: int


class Effects:
    """Runs effects for one gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._waiting: dict[str, _Waiting] = {}
        self._unrecorded: dict[str, tuple[Effect, EffectOutcome, Draft]] = {}

    async def call_for(self, state: State, principal: Principal, command: Any, now: str) -> Call | None:
        """The call that an engine's or operator's command needs: an effect's once more."""
        if isinstance(command, cmd.RecoverEffect | cmd.ResolveEffect):
            return await self._effect_call(state, principal, command.effect_id, now)
        return None

    async def step_call(self, state: State, principal: Principal, command: cmd.RunStep, now: str) -> Call:
        """The call that a step makes by itself. Raises what cannot be made, or not now."""
        template = await self._gate.templates.of(state.tenant, state.template_hash)
        step = step_named(template, command.step_id)
        proposal = rules.step_proposal(state, step.id)
        if proposal is not None:
            tool = proposal.made.tool
            arguments, _ = await self._gate.prepare.real_call(state.tenant, proposal)
        else:
            tool, arguments = await self._gate.withholding.call(state, template, step)
        return await self._gate.prepare.for_arguments(
            state, principal, tool, arguments, now, invocation_id=None, step_id=step.id
        )

    async def _effect_call(self, state: State, principal: Principal, effect_id: str, now: str) -> Call | None:
        """The same call again; None when its tool is gone, quarantined or defined differently now."""
        effect = state.effects.get(effect_id)
        if effect is None:
            return None
        invoked = effect.invoke
        arguments: JsonObject = invoked.arguments
        prepare = self._gate.prepare
        try:
            if invoked.sealed_ref is not None:
                arguments = (await prepare.secret(state.tenant, invoked.sealed_ref))["arguments"]
            call = await prepare.for_arguments(
                state,
                principal,
                invoked.tool,
                arguments,
                now,
                invocation_id=invoked.agent_invocation_id,
                step_id=invoked.step_id,
                match=False,
            )
        except CharterError:
            return None
        same = call.manifest.definition_hash == invoked.definition_hash
        quarantined = self._gate.parts.tools.quarantine(invoked.tool) is not None
        return call if same and not quarantined else None

    # -- running

    async def run(self, draft: Draft, principal: Principal, ctx: CallContext) -> Any:
        """Run the draft's effect and answer with its outcome on record."""
        return (await self.run_on(draft, ctx, None))[0]

    async def run_on(self, draft: Draft, ctx: CallContext, then: Then | None) -> tuple[Any, list[Draft]]:
        """Run the draft's effect; the reply with its outcome on record, and what ``then`` has begun in that commit."""
        effect = draft.effect
        if effect is None:
            raise NotFound("There is nothing to run.")
        outcome = await self._call(effect, draft, ctx)
        for _ in range(IDEMPOTENT_TRIES - 1):
            if outcome.status != "unknown" or not effect.tool.idempotent or effect.tool.side_effects == "none":
                break
            again, left = await uninterrupted(self._again(effect, ctx))
            effect, draft = again or (effect, draft)
            if again is None or left is not None:
                break
            outcome = await self._call(effect, draft, ctx)
        return await self._finished(effect, outcome, draft, ctx, then)

    async def _finished(
        self, effect: Effect, outcome: EffectOutcome, draft: Draft, ctx: CallContext, then: Then | None = None
    ) -> tuple[Any, list[Draft]]:
        """Put the outcome on record whatever becomes of the caller: it is the only one who knows it."""
        ended, left = await uninterrupted(self._finish(effect, outcome, draft, ctx, then))
        if left is not None:
            for each in ended[1]:
                await self.abandon(each, ctx)
            raise left
        return ended

    async def _call(self, effect: Effect, draft: Draft, ctx: CallContext, **rounds: Any) -> EffectOutcome:
        attributes = {Attr.WORKFLOW: effect.workflow_id, Attr.EFFECT: effect.effect_id, Attr.SERVER: effect.tool.server}
        tracing = self._gate.parts.tracing
        with tracing.tool_span(effect.tool.name, attributes):
            try:
                outcome = await self._gate.parts.runner.run(
                    effect, progress=ctx.progress, trace=ctx.trace, capabilities=ctx.capabilities, **rounds
                )
            except asyncio.CancelledError:
                lost = EffectOutcome(
                    status="unknown", error_code="cancelled", error_message="The caller cancelled the call."
                )
                await uninterrupted(self._finish(effect, lost, draft, ctx))
                raise
            except Exception as error:
                # The runner promises not to raise. Should it, the tool may have run all the same.
                logger.error("effect %s: the runner broke: %s", effect.effect_id, type(error).__name__)
                outcome = EffectOutcome(
                    status="unknown", error_code="runner_failed", error_message="Charter failed during the call."
                )
            tracing.upstream_took(
                outcome.duration_us / 1e6,
                server=effect.tool.server,
                tool=effect.tool.name,
                outcome=outcome.status,
                error=outcome.error_code or ("tool_error" if outcome.is_error else None),
            )
        return outcome

    async def abandon(self, draft: Draft, ctx: CallContext) -> None:
        """The caller went away before the effect was sent: it is on record that it never ran."""
        if draft.effect is not None:
            never = EffectOutcome(
                status="failed", error_code="cancelled", error_message="The caller went away before the call was sent."
            )
            await uninterrupted(self._finish(draft.effect, never, draft, ctx))

    async def _again(self, effect: Effect, ctx: CallContext) -> tuple[Effect, Draft] | None:
        """One attempt more of an idempotent effect whose answer was lost, on record before it runs."""
        command = cmd.RecoverEffect(
            workflow_id=effect.workflow_id, effect_id=effect.effect_id, dead_instance=self._gate.parts.instance
        )
        principal = service("runner", effect.tenant)

        async def make(state: State, now: str, mint: Mint) -> Draft:
            call = await self._effect_call(state, principal, effect.effect_id, now)
            given = await self._gate.given(state, principal, now, mint, call=call)
            return rules.decide(state, command, given)

        draft = await self._gate.transact(principal, effect.workflow_id, make, ctx)
        return (draft.effect, draft) if draft.effect is not None else None

    async def _finish(
        self, effect: Effect, outcome: EffectOutcome, draft: Draft, ctx: CallContext, then: Then | None = None
    ) -> tuple[Any, list[Draft]]:
        if outcome.input_required is not None:
            running = draft.state.effects.get(effect.effect_id)
            invocation_id = running.invoke.agent_invocation_id or "" if running else ""
            until = self._gate.parts.clock() + ANSWER_SECONDS * 1000
            self._waiting[effect.effect_id] = _Waiting(effect, invocation_id, until)
            return self._reply(effect, outcome, "input_required", None, 0), []
        outcome = judged(draft, effect, outcome)
        lost, outcome = outcome.status == "unknown", settled(effect, outcome)
        stored = stored_result(
            effect, outcome, self._gate.parts.limits.result_bytes, self._gate.parts.limits.output_bytes
        )
        command = cmd.RecordOutcome(
            workflow_id=effect.workflow_id,
            effect_id=effect.effect_id,
            attempt=effect.attempt,
            outcome=recordable(effect, outcome),
        )
        principal = service("runner", effect.tenant)

        async def make(state: State, now: str, mint: Mint) -> Draft:
            result = dict(stored.record)
            ref = mint.new("sealed") if stored.seal is not None else None
            if ref is not None:
                result["result_ref"] = ref
            given = await self._gate.given(state, principal, now, mint)
            made = rules.decide(state, command, given, result=result)
            if ref is not None and any(getattr(event.data, "result_ref", None) == ref for event in made.events):
                made.secrets.append(Secret(ref=ref, content=stored.seal or {}))
            return made

        try:
            recorded = await self._gate.transact(principal, effect.workflow_id, make, ctx, fresh=False, then=then)
        except Unavailable as error:
            self._unrecorded[effect.effect_id] = (effect, outcome, draft)
            raise Unavailable(
                f"{effect.tool.name} was called, and its outcome could not be put on record yet: {error.message}",
                code="outcome_not_recorded",
                next_step="Do not repeat the call. Charter keeps trying; get_workflow shows when it is settled.",
            ) from None
        ref = next((getattr(event.data, "result_ref", None) for event in recorded.events), None)
        status = {"unknown": "in_doubt", "failed": "failed"}.get(outcome.status, "succeeded")
        if effect.dry_run and status == "succeeded":
            status = "dry_run"
        next_step = _NEXT.get("harmless" if lost and status == "failed" else status, "")
        ref = ref if stored.too_large else None
        return self._reply(effect, outcome, status, ref, stored.record["result_bytes"], next_step), recorded.then

    async def record_left(self) -> None:
        """Try again to put on record what the store could not take. The engine calls it now and then."""
        for effect_id, left in list(self._unrecorded.items()):
            try:
                await self._finish(*left, NO_CONTEXT)
            except Unavailable:
                continue
            except CharterError as error:  # it was written after all, or somebody has settled it meanwhile
                logger.warning("effect %s: its outcome is not recorded: %s", effect_id, error.error_code)
            self._unrecorded.pop(effect_id, None)

    def _reply(
        self,
        effect: Effect,
        outcome: EffectOutcome,
        status: str,
        result_ref: str | None,
        size: int,
        next_step: str = "",
    ) -> ToolOutcome:
        content = () if result_ref else outcome.content
        return ToolOutcome(
            status=cast(Any, status),
            workflow_id=effect.workflow_id,
            effect_id=effect.effect_id,
            tool=effect.tool.name,
            is_error=outcome.is_error,
            content=content,
            structured=None if result_ref else outcome.structured,
            meta=None if result_ref else outcome.meta,
            result_ref=result_ref,
            result_bytes=size,
            input_required=outcome.input_required,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            next_step=next_step,
        )

    async def resume(
        self, principal: Principal, effect_id: str, responses: Any, request_state: str | None, ctx: CallContext
    ) -> Any:
        """The next round of an effect that waits for its caller's input; only its own caller may answer."""
        waiting = self._waiting.get(effect_id)
        if waiting is None:
            raise Refused(
                "This call no longer waits for input.",
                code="not_waiting",
                next_step="Call get_workflow to see where it is.",
            )
        effect, invocation_id = waiting.effect, waiting.invocation_id
        state = await self._gate.states.fresh(principal.tenant, effect.workflow_id)
        now, mint = self._gate.moment()
        if state is None or effect_id not in state.effects:
            raise Refused("This call no longer waits for input.", code="not_waiting")
        if not invocation_live(state, invocation_id, principal, now):
            raise Denied("The call that waits for this input is not yours, or its time is over.", code="not_yours")
        del self._waiting[effect_id]
        draft = Draft(state=state, given=await self._gate.given(state, principal, now, mint))
        outcome = await self._call(effect, draft, ctx, input_responses=responses, request_state=request_state)
        return (await self._finished(effect, outcome, draft, ctx))[0]

    async def give_up_waiting(self) -> None:
        """Calls whose caller never answered the upstream's question: nobody knows what the upstream did by then."""
        now = self._gate.parts.clock()
        for effect_id, waiting in [(key, item) for key, item in self._waiting.items() if now >= item.until_ms]:
            del self._waiting[effect_id]
            effect = waiting.effect
            state = await self._gate.states.fresh(effect.tenant, effect.workflow_id)
            if state is None or effect_id not in state.effects:
                continue
            now_text, mint = self._gate.moment()
            given = await self._gate.given(state, service("runner", effect.tenant), now_text, mint)
            lost = EffectOutcome(
                status="unknown",
                error_code="not_answered",
                error_message="The upstream asked its caller for input, and no answer came in time.",
            )
            await self._finish(effect, lost, Draft(state=state, given=given), NO_CONTEXT)


_NEXT = {
    "in_doubt": "Nobody knows whether the tool ran. Do not repeat the call; an operator finds out with `charter effects`.",
    "failed": "The tool did not run. Read the error; you may propose the call again.",
    "harmless": "Nothing was changed. You may make the call again.",
    "dry_run": "Nothing was executed: this workflow is a dry run.",
}
