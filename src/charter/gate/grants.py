"""Standing grants: their caps, and those for a whole case, which live on the case's own stream.

A grant for one workflow is part of that run's state. One for a case is used by several runs at once, so each use claims the
next free number of the grant in the same commit as the call's intent; two runs can never take the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from charter.errors import InvalidInput, NotFound
from charter.gate.loading import event_of
from charter.manifests.arguments import compile_schema
from charter.manifests.limiting import unknown_keyword
from charter.model import commands as cmd
from charter.model import events as ev
from charter.model.approval import GrantBounds
from charter.model.base import JsonObject
from charter.model.plain_text import one_line
from charter.model.policy import Decision, Facts
from charter.model.principal import Principal
from charter.model.times import later, unix_ms_of
from charter.store.port import AlreadyClaimed, Claim, Store
from charter.workflows.calls import denied
from charter.workflows.draft import policy_event
from charter.workflows.state import State

if TYPE_CHECKING:
    from charter.gate.gate import Gate
    from charter.gate.parts import CallContext, Limits


@dataclass(frozen=True, slots=True)
class Use:
    """The grant that covers a call; ``claim`` is its next free use, None for a workflow's own grant."""

    grant_id: str
    given_by: str
    claim: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Ahead:
    """What goes before a call that is looked at as one of several: calls of its invocation, and uses of each grant."""

    calls: int = 0
    grants: Mapping[str, int] = field(default_factory=dict)


NOTHING_AHEAD: Final = Ahead()
SCOPE: Final = "grant_use"
"""Of the claims of a case's grants: each use once."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A grant as lists show it."""

    given: ev.GrantGiven
    uses_left: int
    revoked: bool


def use_key(grant_id: str, use: int) -> str:
    """The claim's key of one use."""
    return f"{grant_id}:{use}"


def case_stream(case_id: str) -> str:
    """The stream of a case's grants."""
    return f"case:{case_id}"


def covers(bounds: GrantBounds, tool: str, arguments: JsonObject, now: str) -> bool:
    """True when a grant's bounds cover a call now."""
    if bounds.tool != tool or now >= bounds.expires_at:
        return False
    return compile_schema(bounds.arguments, what="The grant's bounds").accepts(arguments)


def check_case(command: cmd.GiveGrant, state: State) -> None:
    """Raise ``InvalidInput`` (``grant_bounds``) when the grant is for another case than its workflow's."""
    case_id = command.bounds.case_id
    if case_id is not None and case_id != state.case_id:
        raise InvalidInput(f"Workflow {state.workflow_id} does not belong to case {case_id!r}.", code="grant_bounds")


def check_bounds(command: cmd.GiveGrant, now: str, limits: Limits) -> cmd.GiveGrant:
    """The command with its times normalised. Raises ``InvalidInput`` (``grant_too_wide``, ``grant_bounds``)."""
    bounds = command.bounds
    try:
        expires_at = later(bounds.expires_at, 0)
        compile_schema(bounds.arguments, what="The grant's bounds")
    except (ValueError, InvalidInput) as error:
        raise InvalidInput(f"The grant's bounds do not hold together: {error}", code="grant_bounds") from None
    if (name := unknown_keyword(bounds.arguments)) is not None:
        raise InvalidInput(
            f"The grant's bounds say {one_line(name)!r}, which is no keyword of JSON Schema and would limit nothing.",
            code="grant_bounds",
            next_step='To limit an argument, name it under properties: {"properties": {"NAME": {"maximum": 5}}, '
            '"required": ["NAME"]}.',
        )
    if bounds.uses > limits.grant_uses or unix_ms_of(expires_at) > unix_ms_of(later(now, limits.grant_seconds)):
        raise InvalidInput(
            f"A standing grant is for at most {limits.grant_uses} calls and {limits.grant_seconds // 3600} hours.",
            code="grant_too_wide",
            next_step="Narrow it, or raise the caps in the [grants] section of charter.toml.",
        )
    return command.model_copy(update={"bounds": bounds.model_copy(update={"expires_at": expires_at})})


class CaseGrants:
    """Gives, revokes and finds the grants of cases."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def give(
        self, principal: Principal, command: cmd.GiveGrant, facts: Facts, decision: Decision, ctx: CallContext
    ) -> str:
        """Put it on the case's stream, if the policy lets this person give it."""
        _, mint = self._gate.moment()
        grant_id = mint.new("grant")
        given = ev.GrantGiven(
            grant_id=grant_id,
            bounds=command.bounds,
            given_by=principal.id,
            roles=principal.roles,
            channel=command.channel,
            comment=command.comment,
        )
        await self._record(principal, command.bounds.case_id or "", "GRANT_GIVEN", given, facts, decision, ctx)
        return grant_id

    async def revoke(
        self,
        principal: Principal,
        command: cmd.RevokeGrant,
        case_id: str,
        facts: Facts,
        decision: Decision,
        ctx: CallContext,
    ) -> str:
        """Take it back, and the next use with it: a call that has looked before and is recorded after this finds it gone.

        Raises ``NotFound``.
        """
        store, grant_id = self._gate.parts.store, command.grant_id
        while True:
            given = (await live_grants(store, principal.tenant, case_id)).get(grant_id)
            if given is None:
                raise NotFound(f"There is no live grant {grant_id}.")
            used = await _used(store, principal.tenant, grant_id, given.bounds.uses)
            revoked = ev.GrantRevoked(
                grant_id=grant_id,
                revoked_by=principal.id,
                comment=command.comment,
                grant_use=used if used < given.bounds.uses else None,
            )
            try:
                await self._record(principal, case_id, "GRANT_REVOKED", revoked, facts, decision, ctx)
            except AlreadyClaimed:  # a call took that use meanwhile: there are fewer left each time
                continue
            return grant_id

    async def _record(
        self,
        principal: Principal,
        case_id: str,
        kind: str,
        data: Any,
        facts: Facts,
        decision: Decision,
        ctx: CallContext,
    ) -> None:
        events = [ev.Event(type="POLICY_DECISION", time="", data=policy_event(facts, decision))]
        claims: tuple[Claim, ...] = ()
        if decision.verdict == "permit":
            events.append(ev.Event(type=kind, time="", data=data))
            if isinstance(data, ev.GrantRevoked) and data.grant_use is not None:
                claims = (Claim(SCOPE, use_key(data.grant_id, data.grant_use), data.grant_id),)
        await self._gate.record_outside(principal, events, ctx, stream=case_stream(case_id), claims=claims)
        if decision.verdict != "permit":
            raise denied(decision)


async def standing_grants(store: Store, state: State) -> list[Standing]:
    """The grants of a run, then those of its case, in the order in which they were given."""
    found = [Standing(item.given, item.uses_left, item.revoked) for item in state.grants.values()]
    if state.case_id is None:
        return found
    events = [event_of(stored) for stored in await store.load(state.tenant, case_stream(state.case_id))]
    revoked: dict[str, ev.GrantRevoked] = {
        item.data.grant_id: item.data for item in events if item.type == "GRANT_REVOKED"
    }
    for given in (item.data for item in events if item.type == "GRANT_GIVEN"):
        back = revoked.get(given.grant_id)
        used = await _used(store, state.tenant, given.grant_id, given.bounds.uses)
        used = used if back is None or back.grant_use is None else back.grant_use
        found.append(Standing(given, given.bounds.uses - used, back is not None))
    return found


async def live_grants(store: Store, tenant: str, case_id: str) -> dict[str, ev.GrantGiven]:
    """The case's grants that were not taken back."""
    live: dict[str, ev.GrantGiven] = {}
    for stored in await store.load(tenant, case_stream(case_id)):
        event = event_of(stored)
        if event.type == "GRANT_GIVEN":
            live[event.data.grant_id] = event.data
        elif event.type == "GRANT_REVOKED":
            live.pop(event.data.grant_id, None)
    return live


async def find_use(
    store: Store,
    state: State,
    tool: str,
    arguments: JsonObject,
    now: str,
    counts: Callable[[ev.GrantGiven], bool],
    ahead: Ahead = NOTHING_AHEAD,
) -> Use | None:
    """The first grant, of the run or of its case, that covers this call, has a use left, and ``counts`` for it.

    A case's name is the caller's own word, so a run of that name draws only on grants of who may decide in that run.
    """
    for grant_id, grant in state.grants.items():
        left = grant.uses_left - ahead.grants.get(grant_id, 0)
        fits = not grant.revoked and left > 0 and covers(grant.bounds, tool, arguments, now)
        if fits and counts(grant.given):
            return Use(grant_id, grant.given.given_by)
    if state.case_id is None:
        return None
    for grant_id, given in (await live_grants(store, state.tenant, state.case_id)).items():
        if covers(given.bounds, tool, arguments, now) and counts(given):
            used = await _used(store, state.tenant, grant_id, given.bounds.uses) + ahead.grants.get(grant_id, 0)
            if used < given.bounds.uses:
                return Use(grant_id, given.given_by, (SCOPE, use_key(grant_id, used)))
    return None


async def _used(store: Store, tenant: str, grant_id: str, most: int) -> int:
    """How many uses are claimed; they are taken in order, so halving finds it."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if await store.claimed(tenant, SCOPE, use_key(grant_id, middle)) is None:
            high = middle
        else:
            low = middle + 1
    return low
