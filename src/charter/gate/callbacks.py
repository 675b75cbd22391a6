"""Callbacks come in: on record once, whatever the sender repeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charter.errors import InvalidInput
from charter.gate.outcomes import only_charter
from charter.gate.parts import CallContext
from charter.model import commands as cmd
from charter.model.canonical import canonical
from charter.model.ids import Mint
from charter.model.principal import Principal
from charter.workflows import callbacks as rules_of
from charter.workflows import decide as rules
from charter.workflows.draft import Draft
from charter.workflows.state import State

if TYPE_CHECKING:
    from charter.gate.gate import Gate

BODY_BYTES = 64 * 1024
BODY_DEPTH = 32


async def deliver(gate: Gate, principal: Principal, command: cmd.DeliverCallback, ctx: CallContext) -> str:
    """Give a verified callback to its step; answers with the message's id.

    Raises ``Denied``, ``InvalidInput`` (``callback_too_large``), ``NotFound``, and ``Refused`` (``callback_not_awaited``),
    which is on record.
    """
    only_charter(principal)
    if len(canonical(command.body, max_depth=BODY_DEPTH)) > BODY_BYTES:
        raise InvalidInput(f"The callback is larger than {BODY_BYTES // 1024} KiB.", code="callback_too_large")

    async def make(state: State, now: str, mint: Mint) -> Draft:
        given = await gate.given(state, principal, now, mint)
        if await gate.parts.store.claimed(state.tenant, "callback", rules_of.claim_key(command)) is not None:
            draft = Draft(state=state, given=given)
            draft.refuse(command.kind, rules_of.not_awaited(command.step_id))
            return draft
        return rules.decide(state, command, given)

    await gate.transact(principal, command.workflow_id, make, ctx)
    return command.message_id
