"""A subscriber at a URL: CloudEvents in the JSON format, signed as Standard Webhooks says, through the guarded client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import orjson

from charter.engine.outbox import UndeliveredError
from charter.errors import CharterError
from charter.gate.outgoing import Outgoing
from charter.model.signal import cloud_event
from charter.tools.egress import GuardedClient
from charter.tools.failures import CallError
from charter.tools.webhooks import signed_headers
from charter.workflows.outgoing import wanted

MEDIA_TYPE = "application/cloudevents+json"
MOST_PATIENCE = 3600.0
"""A receiver's ``Retry-After`` counts for at most so many seconds."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """``secrets`` gives the signing secrets, the newest first; ``clock`` milliseconds since 1970; ``spread`` 0 to 1, by chance.

    ``types``: patterns of what it wants. A pause doubles from ``first_pause`` to ``longest_pause`` seconds.
    """

    name: str
    url: str
    types: tuple[str, ...]
    secrets: Callable[[], Sequence[str]]
    client: GuardedClient
    clock: Callable[[], int]
    spread: Callable[[], float]
    attempts: int = 10
    seconds: float = 15.0
    first_pause: float = 1.0
    longest_pause: float = 900.0

    def pause(self, attempt: int) -> float:
        """With a spread, so that receivers that were down together are not all asked together."""
        doubled = self.first_pause * 2.0 ** min(attempt - 1, 30)
        return float(min(doubled, self.longest_pause) * (0.75 + self.spread() / 2))

    async def deliver(self, tenant: str, item: Outgoing) -> bool:
        """One attempt. Only a 2xx counts; 410 means that the receiver wants no more of this one."""
        if not wanted(item.signal.type, self.types):
            return False
        body = orjson.dumps(cloud_event(item.signal))
        try:
            signed = signed_headers(self.secrets(), item.signal.id, self.clock() // 1000, body)
            answer = await self.client.send(
                "POST", self.url, headers={"content-type": MEDIA_TYPE, **signed}, body=body, seconds=self.seconds
            )
        except CallError as error:
            raise UndeliveredError(f"{error.code}: {error.message}") from None
        except CharterError as error:
            raise UndeliveredError(f"{error.error_code}: {error.message}") from None
        if 200 <= answer.status < 300:
            return True
        patience = _seconds(answer.headers.get("retry-after", ""), self.clock())
        raise UndeliveredError(f"HTTP {answer.status}", retry_after=patience, final=answer.status == HTTPStatus.GONE)


def _seconds(text: str, now_ms: int) -> float:
    """``Retry-After`` (RFC 9110, section 10.2.3) in seconds; 0 for none, and for what is neither seconds nor a date."""
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MOST_PATIENCE)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    left = (moment.astimezone(UTC) - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds()
    return min(max(left, 0.0), MOST_PATIENCE)
