"""A signal: a fact from outside or inside that wakes what waits for it. The attributes are those of CloudEvents 1.0."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from charter.model.base import Json, Model, Name, ShortText

Attribute = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Signal(Model):
    """``source`` and ``id`` together name it: the same pair again is the same signal, delivered again."""

    id: Attribute
    source: Attribute
    type: Name
    subject: ShortText | None = None
    time: ShortText | None = Field(
        default=None, description="When it happened, as its source says; not when it came in."
    )
    data: Json = None
