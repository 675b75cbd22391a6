"""A signal: a fact from outside or inside that wakes what waits for it. The attributes are those of CloudEvents 1.0."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from charter.model.base import Json, JsonObject, Model, Name, ShortText

Attribute = Annotated[str, StringConstraints(min_length=1, max_length=500)]
ExtensionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,40}$")]

DATA_BYTES: Final = 64 * 1024
DATA_DEPTH: Final = 32
"""A signal carries at most so much, as canonical JSON, and so deep."""
OWN_SOURCE: Final = "urn:charter:"
"""How the source of every signal that Charter itself sends begins."""
_OWN_TYPES: Final = ("workflow.", "approval.")


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
    dataschema: ShortText | None = None
    correlation_id: Attribute | None = Field(default=None, description="What belongs together (`correlationid`).")
    causation_id: Attribute | None = Field(default=None, description="What it follows from (`causationid`).")
    extensions: dict[ExtensionName, bool | int | ShortText] = Field(
        default_factory=dict, max_length=20, description="Further CloudEvents attributes, as they came."
    )
    depth: int = Field(default=0, ge=0, description="How many starts by signals lie behind it; Charter counts.")

    def shown(self) -> dict[str, Any]:
        """What expressions and later steps read of it."""
        return self.model_dump(mode="json", exclude={"depth"})


RENAMED: Final = {"correlationid": "correlation_id", "causationid": "causation_id"}
"""What CloudEvents calls an attribute, and what it is called here."""


def cloud_event(signal: Signal) -> JsonObject:
    """A signal in the JSON format of CloudEvents."""
    out: JsonObject = {"specversion": "1.0", "id": signal.id, "source": signal.source, "type": signal.type}
    named = {"subject": "subject", "time": "time", "dataschema": "dataschema", **RENAMED}
    out |= {name: value for name, field in named.items() if (value := getattr(signal, field)) is not None}
    out |= signal.extensions
    if signal.data is not None:
        out |= {"datacontenttype": "application/json", "data": signal.data}
    return out


def reserved(type_: str, source: str) -> bool:
    """True for what Charter alone may say: that a run, a step or an approval of its own has moved."""
    return type_.startswith(_OWN_TYPES) or source.lower().startswith(OWN_SOURCE)
