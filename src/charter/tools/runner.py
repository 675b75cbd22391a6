"""The only place where a tool runs. Failures come back as values.

The caller has made its intent durable before it comes here and records the outcome after. One call here is one request to
the upstream, never more: no listing, no retry. The pin is looked at once more just before the call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract
from opentelemetry.trace import get_current_span

from charter.manifests.definitions import governed_name
from charter.manifests.plain_text import plain
from charter.manifests.redaction import redact, redact_result
from charter.model.base import JsonObject
from charter.model.effect import Effect, EffectOutcome
from charter.model.fixture import Answers
from charter.model.outbound import SERVER
from charter.model.tool import ToolManifest
from charter.tools.failures import CallError
from charter.tools.http_lane import Progress
from charter.tools.outbound import FOR_GOOD, Outbound
from charter.tools.registry import Entry, Registry
from charter.tools.simulated import dry_run

IDEMPOTENCY_KEY: Final = "io.charter/idempotency-key"
TRACE_KEYS: Final = ("traceparent", "tracestate", "baggage")
CONNECTING_SECONDS: Final = 15.0
PREVIEW_SECONDS: Final = 10.0
MAX_PREVIEW: Final = 4_000
_WITHHELD: Final = "(No preview: the arguments or the preview's results are sensitive.)"
_NOT_ITS_OWN: Final = ("io.modelcontextprotocol/", "io.charter/")
"""Metadata of this one hop, and of Charter's own: an upstream's is not passed on."""


class Runner:
    """Runs effects on the registry's upstreams."""

    def __init__(self, registry: Registry, outbound: Outbound | None = None, fixtures: Answers | None = None) -> None:
        """``outbound`` runs Charter's own tools; without it they cannot be called. ``fixtures`` answer in dry runs."""
        self._registry, self._outbound, self._fixtures = registry, outbound, fixtures or {}

    async def run(
        self,
        effect: Effect,
        *,
        progress: Progress | None = None,
        input_responses: JsonObject | None = None,
        request_state: str | None = None,
        trace: Mapping[str, str] | None = None,
        capabilities: JsonObject | None = None,
    ) -> EffectOutcome:
        """Run the effect's call once and tell how it ended; see ``EffectOutcome`` for what each status means.

        Never raises, with one exception: a cancellation of the calling task passes through, after the upstream was
        told to stop. The caller must then record ``unknown`` (in a shielded scope), because the tool may have run.
        ``progress`` is awaited with (progress, total, message), never after this returns. ``trace`` holds W3C
        ``traceparent``, ``tracestate`` and ``baggage``; an active OpenTelemetry span goes before it. A legacy upstream
        that asks something back within a call gets "cancel"; on 2026-07-28 the question comes back as
        ``input_required``, and the answer goes in as ``input_responses`` and ``request_state`` of the next run.
        ``capabilities`` is what the caller's client can answer, told to upstreams of 2026-07-28 over HTTP; elsewhere, and
        without it, forms are announced.
        """
        started = time.perf_counter_ns()
        if effect.dry_run:
            return dry_run(effect, self._fixtures)
        if effect.tool.server == SERVER:
            return await self._own(effect, started)
        try:
            await self._connecting(effect.tool)
            entry = self._checked(effect.tool)
            with _within(trace), _Guarded(progress) as relay:
                raw = await entry.upstream.call(
                    effect.tool.upstream_name,
                    effect.arguments,
                    meta=_meta(effect, trace),
                    timeout=effect.tool.timeout_seconds,
                    progress=relay.send if progress is not None else None,
                    input_responses=input_responses,
                    request_state=request_state,
                    capabilities=capabilities,
                    still=lambda: self._checked(effect.tool),
                )
        except CallError as error:
            return _failed(error, _microseconds(started))
        return _outcome(raw, _microseconds(started))

    async def _own(self, effect: Effect, started: int) -> EffectOutcome:
        try:
            if self._outbound is None:
                raise CallError("not_run", "upstream_unavailable", "Charter's own tools are not configured here.")
            outcome = await self._outbound.run(effect)
        except CallError as error:
            failed = _failed(error, _microseconds(started))
            return failed.model_copy(update={"retryable": error.code not in FOR_GOOD})
        return outcome.model_copy(update={"duration_us": _microseconds(started)})

    async def preview(self, manifest: ToolManifest, arguments: JsonObject) -> str | None:
        """What the manifest's dry-run tool says the call would do, as plain text for an approver; None without one.

        Only a governed, pinned tool without side effects is called, and never with sensitive arguments. A preview that
        fails says so in its text: it is a help for deciding, not a condition of it.
        """
        if manifest.dry_run is None:
            return None
        entry = self._registry.find(governed_name(manifest.server, manifest.dry_run.tool))
        if entry is None or entry.manifest.side_effects != "none" or not entry.callable:
            return "(No preview: the preview tool is not available.)"
        wanted = {**arguments, **manifest.dry_run.arguments}
        if redact(manifest, arguments)[1] or redact(entry.manifest, wanted)[1] or entry.manifest.sensitive_results:
            return _WITHHELD
        timeout = min(PREVIEW_SECONDS, entry.manifest.timeout_seconds)
        try:
            raw = await entry.upstream.call(entry.manifest.upstream_name, wanted, meta={}, timeout=timeout)
        except CallError as error:
            return f"(No preview: {plain(error.message, limit=200)})"
        return _preview_text(entry.manifest, raw)

    async def _connecting(self, tool: ToolManifest) -> None:
        """Wait a while for an upstream whose very first connection is under way: Charter has just started."""
        entry = self._registry.find(tool.name)
        if entry is not None and entry.upstream.state == "connecting":
            await entry.upstream.wait_ready(min(CONNECTING_SECONDS, tool.timeout_seconds))

    def _checked(self, pinned: ToolManifest) -> Entry:
        entry = self._registry.find(pinned.name)
        if entry is None:
            raise CallError("not_run", "unknown_tool", f"{pinned.name} is no longer governed.")
        if entry.manifest.definition_hash != pinned.definition_hash:
            raise CallError("not_run", "tool_changed", f"{pinned.name} was pinned anew since this call was decided.")
        if entry.quarantine is not None:
            raise CallError("not_run", "tool_quarantined", f"{pinned.name} no longer matches its pin.")
        if entry.unavailable is not None:
            raise CallError("not_run", "upstream_unavailable", f"{pinned.name}: {entry.unavailable}.")
        return entry


@contextmanager
def _within(trace: Mapping[str, str] | None) -> Iterator[None]:
    """Make the caller's trace the parent of the upstream's span, where no span of this process is active."""
    if not trace or get_current_span().get_span_context().is_valid:
        yield
        return
    token = attach(extract(trace))
    try:
        yield
    finally:
        detach(token)


class _Guarded:
    """Passes progress on while the call runs; what arrives after its result is dropped, as MCP asks."""

    __slots__ = ("_open", "_progress")

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._open = progress, False

    def __enter__(self) -> _Guarded:
        self._open = True
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False

    async def send(self, progress: float, total: float | None, message: str | None) -> None:
        if self._open and self._progress is not None:
            await self._progress(progress, total, message)


def _microseconds(started: int) -> int:
    return (time.perf_counter_ns() - started) // 1000


def _meta(effect: Effect, trace: Mapping[str, str] | None) -> JsonObject:
    meta: JsonObject = {IDEMPOTENCY_KEY: effect.idempotency_key}
    if trace:
        meta |= {key: trace[key] for key in TRACE_KEYS if key in trace}
    return meta


def _outcome(raw: JsonObject, duration_us: int) -> EffectOutcome:
    if raw.get("resultType") == "input_required":
        return EffectOutcome.model_construct(status="succeeded", input_required=raw, duration_us=duration_us)
    content = raw.get("content")
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        error = CallError("answered", "upstream_bad_result", "The upstream's result is not a valid MCP result.")
        return _failed(error, duration_us)
    meta = raw.get("_meta")
    # Built without validation: the blocks are passed on as they came, and this is the hot path.
    return EffectOutcome.model_construct(
        status="succeeded",
        is_error=raw.get("isError") is True,
        content=tuple(content),
        structured=raw.get("structuredContent"),
        meta={key: value for key, value in meta.items() if not key.startswith(_NOT_ITS_OWN)} or None if meta else None,
        duration_us=duration_us,
    )


def _failed(error: CallError, duration_us: int) -> EffectOutcome:
    message = plain(error.message, limit=500)
    if error.certainty == "answered":
        content: tuple[JsonObject, ...] = ({"type": "text", "text": message},)
        return EffectOutcome(
            status="succeeded",
            is_error=True,
            content=content,
            meta=_rpc_meta(error),
            error_code=error.code,
            error_message=message,
            duration_us=duration_us,
        )
    return EffectOutcome(
        status="failed" if error.certainty == "not_run" else "unknown",
        is_error=True,
        meta=_rpc_meta(error),
        error_code=error.code,
        error_message=message,
        duration_us=duration_us,
    )


def _rpc_meta(error: CallError) -> JsonObject | None:
    """The upstream's own JSON-RPC error, for a door that passes it on."""
    if error.rpc_code is None:
        return None
    return {"io.charter/upstream-error": {"code": error.rpc_code, "message": error.message, "data": error.data}}


def _preview_text(manifest: ToolManifest, raw: JsonObject) -> str:
    content: Any = raw.get("content")
    blocks, structured, _ = redact_result(manifest, content if isinstance(content, list) else (), None)
    structured = raw.get("structuredContent")
    texts = [str(block.get("text", "")) for block in blocks if isinstance(block, dict) and block.get("type") == "text"]
    if isinstance(structured, dict):
        # A diff reads better as itself than inside JSON.
        texts = [value for key in ("diff", "preview") if isinstance(value := structured.get(key), str)] or texts
    text = "\n".join(texts).strip() or "(The preview is empty: nothing would change.)"
    return ("The preview failed: " if raw.get("isError") is True else "") + plain(text, limit=MAX_PREVIEW)
