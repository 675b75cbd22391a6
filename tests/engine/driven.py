"""What the scenarios of engines are made of: steps, questions, and people who say yes."""

from __future__ import annotations

from typing import Any

from charter.store.port import Batch, Filter, Page
from tests.guarantees.world import DAY, Desk, template


def action(id: str, tool: str, more: dict[str, Any] | None = None, /, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "type": "action", "tool": f"counter__{tool}", "arguments": arguments, **(more or {})}


def question(id: str = "ask", seconds: int = DAY, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "approval", "question": "Go on?", "expires_after_seconds": seconds, **more}


CHAIN = template(
    "chain",
    action("look", "read", what="{{ trigger.what }}"),
    action("keep", "write_idempotent", what="{{ trigger.what }}", value="{{ steps.look.output.result }}"),
    question(),
    action("pay", "charge", account="{{ trigger.what }}", cents=7),
    output="{{ steps.pay.output.result }}",
)


async def pending(desk: Desk) -> list[Any]:
    return (await desk.store.approvals("default", Filter(status="pending"), Page()))[0]


async def agree_to_everything(desk: Desk) -> None:
    """People say yes until nobody is asked any more."""
    await desk.engine.settle()
    while rows := await pending(desk):
        for row in rows:
            await desk.decide(row.approval_id)
        await desk.engine.settle()


class Writes:
    """The durable writes on a run's record from now on, or on all runs', each as the types of its events."""

    def __init__(self, desk: Desk, workflow_id: str = "wf_") -> None:
        self._append, self._workflow_id = desk.store.append, workflow_id
        self.seen: list[list[str]] = []
        desk.store.append = self._counted  # type: ignore[method-assign]

    async def _counted(self, batch: Batch) -> Any:
        if batch.stream.startswith(self._workflow_id):
            self.seen.append([event.type for event in batch.events])
        return await self._append(batch)

    def before_effects(self) -> list[int]:
        """For each effect of a step how many writes it took from the event that led to it, that event's own included."""
        found, since = [], 0
        for types in self.seen:
            since = 1 if _LEADS_ON.intersection(types) else since + 1
            found += [since] * types.count("TOOL_INVOKE")
        return found


_LEADS_ON = frozenset(("TOOL_RESULT", "APPROVAL_DECISION", "SIGNAL_DELIVERED", "CALLBACK_RECEIVED"))


async def attempts(desk: Desk, workflow_id: str) -> int:
    return (await desk.types(workflow_id)).count("TOOL_INVOKE")
