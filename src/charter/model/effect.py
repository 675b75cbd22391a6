"""Side effects that a workflow has asked for, and how they ended."""

from __future__ import annotations

from typing import Literal

from charter.model.base import Json, JsonObject, Model
from charter.model.tool import ToolManifest

EffectStatus = Literal["running", "succeeded", "failed", "in_doubt", "resolved"]


class Effect(Model):
    """One tool call to run, outside any transaction, after its intent is durable.

    ``idempotency_key`` stays the same over retries. ``for_step``: the workflow's own call, whose result later
    steps read. ``template`` is the run's, ``number`` counts the step's tries or the agent's calls, from 1. ``arguments`` are
    the real ones; they never go to the log.
    """

    effect_id: str
    tenant: str
    workflow_id: str
    step_id: str
    tool: ToolManifest
    arguments: JsonObject
    idempotency_key: str
    attempt: int = 1
    dry_run: bool = False
    for_step: bool = False
    template: str = ""
    number: int = 1


class EffectOutcome(Model):
    """How a run of an effect ended, told by ``tools.runner``; failures are values, not exceptions.

    ``status``: ``succeeded`` (the upstream answered, perhaps with ``is_error``), ``failed`` (it certainly did not run:
    the request was never sent or the upstream refused it as a protocol error), ``unknown`` (it may or may not have run: the
    connection died, the time ran out, the caller cancelled).
    ``content`` are MCP content blocks as JSON, ``structured`` the structured content. ``retryable``: a step's ``retry`` may
    make another attempt; ``retry_after_seconds``: the other side asked to be left alone so long.
    """

    status: Literal["succeeded", "failed", "unknown"]
    is_error: bool = False
    content: tuple[JsonObject, ...] = ()
    structured: Json = None
    meta: JsonObject | None = None
    error_code: str | None = None
    error_message: str | None = None
    input_required: JsonObject | None = None
    duration_us: int = 0
    retryable: bool = True
    retry_after_seconds: int | None = None
