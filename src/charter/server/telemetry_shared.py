"""What the making of spans and their export share, apart from the SDK: a process that exports nothing does not load it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

MAX_TEXT: Final = 256
"""Characters of an attribute's text."""

chosen_ids: ContextVar[tuple[int, int] | None] = ContextVar("charter_span_ids", default=None)
"""The trace and span id that the next span gets; see ``telemetry_export.Ids``."""
