"""What all values share: frozen, no unknown fields, JSON in and out."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from charter.model.joiners import all_needed

Json = Any  # null, bool, number, string, list, object: JSON is Any by nature
JsonObject = dict[str, Any]


class Model(BaseModel):
    """A value: immutable, compared by content, unknown fields refused.

    A number that is not finite stays one when the value is dumped, so that ``canonical`` refuses it: pydantic would write
    null in its place, and the record would say something else than what was decided on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
# One line without anything that cannot be seen or turns the reading order around. All are written as ECMA 262 escapes, as
# JSON Schema wants patterns: the schemas that are served must be free of what the pattern keeps out.
LINE = r"^[^\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]*$"
FREE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]*$"
"""The same with zero-width joiners, which words of some scripts need; where they may stand no pattern can say."""
_ONE_LINE = "One line without control or invisible characters is required"
ShortText = Annotated[str, StringConstraints(max_length=500, pattern=LINE)]


def _joined_rightly(text: str) -> str:
    if not all_needed(text):
        raise ValueError(_ONE_LINE)
    return text


FreeLine = Annotated[str, StringConstraints(max_length=500, pattern=FREE_LINE), AfterValidator(_joined_rightly)]
"""One line that is meant for people, in any script."""

_COUNTED = re.compile(r"(?:Tuple|List) should have at (least|most) (\d+) items? after validation")


def in_words(message: str) -> str:
    """What pydantic says of a value, without a pattern that nobody can read or words about pydantic itself."""
    if LINE in message or FREE_LINE in message:
        return _ONE_LINE
    counted = _COUNTED.match(message)
    if counted is not None:
        amount = f"At {counted[1]} {counted[2]} {'is' if counted[2] == '1' else 'are'}"
        return f"{amount} {'required' if counted[1] == 'least' else 'taken'}"
    return message.removeprefix("Value error, ")


Id = Annotated[str, StringConstraints(max_length=200, pattern=r"^[!-~]*$")]
LongText = Annotated[str, StringConstraints(max_length=4000)]
