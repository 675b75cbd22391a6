"""A leaf is the canonical JSON of its envelope, however it is put together."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from charter.audit.envelope import draft_leaf, leaf_bytes, parse_leaf
from charter.errors import IntegrityError, InvalidInput
from charter.model.canonical import canonical
from tests.audit.logs import Event, event

texts = st.text(st.characters(codec="utf-8"))
scalars = st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | st.floats(allow_nan=False) | texts
data = st.dictionaries(
    texts,
    st.recursive(
        scalars.filter(lambda value: value not in (float("inf"), float("-inf"))),
        lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
        max_leaves=8,
    ),
)
events = st.builds(Event, texts, texts, texts, st.dictionaries(texts, texts), data, texts, texts, st.none() | texts)
places = st.tuples(texts, texts, st.integers(0, 2**53 - 1), st.integers(1, 2**53 - 1))


def as_json(place: tuple[str, str, int, int], made: Event) -> dict[str, Any]:
    tenant, stream, seq, version = place
    out = {
        "v": 1,
        "tenant": tenant,
        "seq": seq,
        "stream": stream,
        "version": version,
        "id": made.id,
        "type": made.type,
        "time": made.time,
        "actor": made.actor,
        "causation_id": made.causation_id,
        "correlation_id": made.correlation_id,
        "data": made.data,
    }
    return out if made.trace_id is None else {**out, "trace_id": made.trace_id}


@given(places, events)
def test_a_leaf_is_the_canonical_json_of_its_members(place: tuple[str, str, int, int], made: Event) -> None:
    assert leaf_bytes(*place, made) == rfc8785.dumps(as_json(place, made))


@given(places, events)
def test_data_made_canonical_beforehand_is_spliced_in(place: tuple[str, str, int, int], made: Event) -> None:
    spliced = draft_leaf(place[0], place[1], made, canonical(made.data)).leaf(*place[2:])
    assert spliced == leaf_bytes(*place, made)


@given(places, events)
def test_a_leaf_reads_back(place: tuple[str, str, int, int], made: Event) -> None:
    leaf = leaf_bytes(*place, made)
    read = parse_leaf(leaf)
    assert (read.tenant, read.stream, read.seq, read.version) == place
    assert (read.id, read.type, read.trace_id, read.actor) == (made.id, made.type, made.trace_id, made.actor)
    assert canonical(read.as_json()) == leaf


GOOD = leaf_bytes("acme", "wf_1", 7, 3, event(7))


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"{",
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b'"seq":7', b'"seq":7.0'),
        GOOD.replace(b'"seq":7', b'"seq":"7"'),
        GOOD.replace(b'"seq":7', b'"seq":true'),
        GOOD.replace(b'"v":1', b'"v":2'),
        GOOD.replace(b'"v":1,', b""),
        GOOD.replace(b'"version":3', b'"version":3,"x":1'),
        GOOD.replace(b'"version":3', b'"version":3,"version":3'),
        GOOD.replace(b'"seq":7', b'"seq":9007199254740993'),
        GOOD.replace(b"acme", b"\\u0061cme"),
        canonical({**orjson.loads(GOOD), "data": []}),
        canonical({**orjson.loads(GOOD), "trace_id": None}),
        b"[" * 100_000,
    ],
)
def test_bytes_that_are_no_canonical_envelope_are_refused(leaf: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse_leaf(leaf)
    assert caught.value.error_code == "bad_leaf"


def test_large_doubles_in_data_read_back_as_themselves() -> None:
    made = Event("e", "T", "t", {}, {"n": 2.0**60, "m": -(2.0**53), "small": 2**53 - 1}, "c", "c", None)
    assert parse_leaf(leaf_bytes("t", "s", 0, 1, made)).data == made.data


def test_an_event_without_canonical_form_is_refused() -> None:
    for bad in ("\ud800",):
        with pytest.raises(InvalidInput):
            leaf_bytes("t", bad, 0, 1, event(0))


def test_the_deepest_data_that_is_taken_reads_back() -> None:
    """The envelope adds a level; a leaf that was written must never look tampered with."""
    deep: Any = {"x": 1}
    for _ in range(62):
        deep = {"x": deep}
    leaf = leaf_bytes("t", "s", 0, 1, event(0, deep=deep))
    assert parse_leaf(leaf).data["deep"] == deep
