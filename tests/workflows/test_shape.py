"""The shape of the state, as snapshots keep it, has a number, and nobody changes the one without the other."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from charter.model.canonical import digest
from charter.workflows.state import SHAPE, State

PINNED = (6, "sha256:b237115ae8862083db9b259fb86261b4ad5ef4e4989aa4772f777ee9b4a2113c")
"""``SHAPE``, and the digest of the schema that goes with it."""


def bare(schema: Any) -> Any:
    """The schema without what people read in it."""
    if isinstance(schema, dict):
        members = {
            key: item for key, item in schema.items() if key not in ("description", "title") or isinstance(item, dict)
        }
        return {key: bare(item) for key, item in members.items()}
    return [bare(item) for item in schema] if isinstance(schema, list) else schema


def test_another_shape_has_another_number() -> None:
    """After a change of what a State is made of, raise SHAPE in workflows/state.py, and pin both here anew."""
    assert (SHAPE, digest(bare(TypeAdapter(State).json_schema()))) == PINNED
