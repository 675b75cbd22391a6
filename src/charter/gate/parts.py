"""What the gate works with, handed in by the composition root: nothing here reads a clock, a file or the environment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from opentelemetry.trace import Span
from opentelemetry.util.types import AttributeValue

from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.policy import Action, Decision, Facts
from charter.model.principal import Principal
from charter.model.template import Template
from charter.model.tool import Quarantine, ToolManifest
from charter.store.port import NewEvent, Store
from charter.store.sealing import Sealer

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Told as the upstream tells it: progress, total or None, message or None."""


TRIES = 16
"""How often a command is decided again when the run moves under it; then the caller is told to try later."""


class Evaluator(Protocol):
    """The policy sets in force. ``shadow`` says what a candidate set would decide, or None when there is none."""

    @property
    def policy_set_hash(self) -> str: ...

    def evaluate(self, facts: Facts) -> Decision: ...

    def shadow(self, facts: Facts, decision: Decision) -> JsonObject | None: ...

    def could_ever(self, facts: Facts) -> bool: ...

    def could_ever_of(self, principal: Principal, action: Action) -> bool: ...


class Tools(Protocol):
    """The governed tools."""

    def find(self, name: str) -> ToolManifest | None: ...

    def quarantine(self, name: str) -> Quarantine | None: ...

    def all(self) -> tuple[ToolManifest, ...]: ...


class ToolRunner(Protocol):
    """``tools.runner``, the only place where a tool runs."""

    async def run(
        self,
        effect: Effect,
        *,
        progress: Progress | None = None,
        input_responses: JsonObject | None = None,
        request_state: str | None = None,
        trace: Mapping[str, str] | None = None,
        capabilities: JsonObject | None = None,
    ) -> EffectOutcome: ...

    async def preview(self, manifest: ToolManifest, arguments: JsonObject) -> str | None: ...


class Templates(Protocol):
    """The published workflow definitions."""

    def latest(self, name: str) -> tuple[Template, str]:
        """The newest version of ``name``, or exactly ``name@version``, with its hash. Raises ``NotFound``."""
        ...

    def for_signal(self, type: str) -> tuple[Template, ...]:
        """The newest version of each template that a signal of this type may start."""
        ...

    def scheduled(self) -> tuple[Template, ...]:
        """The newest version of each template that is started at times."""
        ...


class Tracing(Protocol):
    """``server.telemetry``, or silence. Spans are for viewing; the events are the record."""

    def inner_span(
        self, name: str, attributes: Mapping[str, AttributeValue | None] | None = None
    ) -> AbstractContextManager[Span]: ...

    def command_span(
        self, command: str, attributes: Mapping[str, AttributeValue | None], workflow_id: str | None
    ) -> AbstractContextManager[Span]: ...

    def tool_span(self, tool: str, attributes: Mapping[str, AttributeValue | None]) -> AbstractContextManager[Span]: ...

    def annotate(self, attributes: Mapping[str, AttributeValue | None], workflow_id: str | None = None) -> None: ...

    def decided(self, decision: Decision, *, action: str, span: Span | None = None) -> None: ...

    def call_took(self, seconds: float, *, command: str, error: str | None = None) -> None: ...

    def upstream_took(
        self, seconds: float, *, server: str, tool: str, outcome: str, error: str | None = None
    ) -> None: ...

    def committed(self, stream: str, events: Sequence[NewEvent]) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Larger results than ``result_bytes`` are sealed beside the log; every ``snapshot_every`` events a fold is cached.

    ``batch_at_once``: how many calls of one batch run at a time.
    """

    result_bytes: int = 256 * 1024
    output_bytes: int = 64 * 1024
    snapshot_every: int = 200
    cached_workflows: int = 2_000
    grant_uses: int = 100
    grant_seconds: int = 86_400
    batch_at_once: int = 4


@dataclass(slots=True)
class Parts:
    """Everything that a gate needs. ``clock`` gives milliseconds since 1970, ``entropy`` 32 random bytes.

    ``unavailable`` says why a tool cannot be called now although nothing forbids it, where that is known.
    """

    store: Store
    sealer: Sealer
    evaluator: Evaluator
    tools: Tools
    runner: ToolRunner
    templates: Templates
    clock: Callable[[], int]
    entropy: Callable[[], bytes]
    instance: str
    tracing: Tracing
    unavailable: Callable[[str], str | None] = lambda _tool: None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class CallContext:
    """What travels beside a command: where it came from, how to tell of progress, and which of an upstream's questions
    its client can answer (MCP client capabilities as JSON; None where there is no client)."""

    trace_id: str | None = None
    trace: Mapping[str, str] | None = None
    progress: Progress | None = None
    capabilities: JsonObject | None = None


NO_CONTEXT = CallContext()
