"""See :mod:`charter.model.plain_text`, which the decider needs too; here for those who know it by this name."""

from __future__ import annotations

from charter.model.plain_text import fenced, look_alikes, one_line, plain

__all__ = ["fenced", "look_alikes", "one_line", "plain"]
