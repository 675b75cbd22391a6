"""Other people's documents, read unmodified into the one native model.

Which form a document has is seen from its own words: ``phases`` is a contract, ``workflow`` the signal form, ``trigger_type``
or steps with a ``config`` the index-based one. Everything else is the native form, and not for this room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from charter.manifests.dialects.bindings import NONE, Bindings
from charter.manifests.dialects.contract import Contract
from charter.manifests.dialects.indexed import Indexed
from charter.manifests.dialects.reading import Node, Notes, Unbound, UnreadableError
from charter.manifests.dialects.signalled import Signalled
from charter.manifests.finding import Finding
from charter.model.base import Json, JsonObject

Form = Literal["indexed", "signal", "contract"]
_READERS: dict[Form, Callable[..., Indexed | Signalled | Contract]] = {
    "indexed": Indexed,
    "signal": Signalled,
    "contract": Contract,
}


@dataclass(frozen=True, slots=True)
class Translated:
    """A document in native form. ``places``: where the parts of it come from, by JSON pointers; ``native`` is None when errors
    among the findings say why it has none."""

    form: Form
    native: JsonObject | None
    places: dict[str, str]
    findings: tuple[Finding, ...]
    unbound: tuple[Unbound, ...]

    def place(self, pointer: str) -> str:
        """The place in the document of a part of the native form: its own, or that of the nearest one around it."""
        while pointer not in self.places:
            if not pointer:
                return ""
            pointer = pointer.rpartition("/")[0]
        return self.places[pointer]


def form_of(value: Json) -> Form | None:
    """Whose form a document has; None for the native one."""
    if not isinstance(value, dict):
        return None
    if "phases" in value:
        return "contract"
    if isinstance(value.get("workflow"), dict) and "steps" not in value:
        return "signal"
    steps = value.get("steps")
    listed = steps if isinstance(steps, list) else []
    if (
        "trigger_type" in value
        or "trigger_config" in value
        or any(isinstance(s, dict) and "config" in s for s in listed)
    ):
        return "indexed"
    return None


def translate(value: Json, form: Form, bindings: Bindings = NONE) -> Translated:
    """The document in native form, with everything that its author should know."""
    notes = Notes()
    native: JsonObject | None = None
    places: dict[str, str] = {}
    try:
        root = Node(value, "", notes, {"indexed": "a workflow", "signal": "a workflow", "contract": "a contract"}[form])
        reader = _READERS[form](root, bindings, notes)
        places = reader.places
        native = reader.read()
    except UnreadableError:
        native = None
    if any(item.level == "error" for item in notes.findings):
        native = None
    return Translated(form, native, places, tuple(notes.findings), tuple(notes.unbound))
