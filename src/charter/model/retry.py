"""How often what failed is tried again, and after what time."""

from __future__ import annotations

from pydantic import Field

from charter.model.base import Model


class Retry(Model):
    """How often a failed attempt is made again: after ``backoff_seconds``, and twice as long each time."""

    attempts: int = Field(ge=1, le=20, description="How many attempts there are in all.")
    backoff_seconds: int = Field(default=1, ge=0, description="The wait before the second attempt; it doubles.")
    max_backoff_seconds: int = Field(default=3600, ge=0, description="No wait is longer.")
    jitter_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Up to so much of each wait is taken off at random, so that not all come at once.",
    )

    def wait_after(self, attempt: int, per_mille: int = 0) -> int:
        """Milliseconds between this attempt, counted from 1, and the next; ``per_mille`` (0 to 999) is the chance handed in."""
        doubled: int = self.backoff_seconds * 2 ** (attempt - 1)
        wait = min(doubled, self.max_backoff_seconds) * 1000
        return wait - wait * self.jitter_percent * per_mille // 100_000


class HttpRetry(Retry):
    """As ``Retry``, with jitter; a ``Retry-After`` of the other side is honoured up to a day."""

    jitter_percent: int = Field(
        default=50,
        ge=0,
        le=100,
        description="Up to so much of each wait is taken off at random, so that not all come at once.",
    )
