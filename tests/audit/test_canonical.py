"""Canonical JSON is RFC 8785, whichever road is taken inside."""

from __future__ import annotations

import enum
import math
import uuid
from typing import Any

import orjson
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.errors import InvalidInput
from charter.model.canonical import MAX_DEPTH, canonical, digest

# Everything that JSON knows and several things that it does not: all of Unicode, lone surrogates, all floats.
odd_characters = st.sampled_from("\x00\x1f\x7f\u2028\ue000\uffff\U00010000\U0001f600\ud800")
texts = st.text(st.characters(codec=None) | odd_characters)
odd_numbers = st.sampled_from([2**53 - 1, 2**53, -(2**53), -0.0, 1.0, 2.0**53, 1e21])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | odd_numbers
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


def reference(value: Any) -> bytes | None:
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        return None


def ours(value: Any) -> bytes | None:
    try:
        return canonical(value)
    except InvalidInput as error:
        return None if error.error_code == "json_not_canonical" else b"another refusal"


@given(values)
@settings(max_examples=200)
def test_it_gives_the_bytes_of_the_reference_or_refuses_with_it(value: Any) -> None:
    assert ours(value) == reference(value)


@given(st.dictionaries(texts, st.integers(0, 9), min_size=2))
def test_keys_are_ordered_by_utf_16(value: dict[str, int]) -> None:
    assert ours(value) == reference(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1.0, "a": -0.0}, b'{"a":0,"b":1}'),
        ([1e21, 1e-7, 0.1, 333333333.33333329], b"[1e+21,1e-7,0.1,333333333.3333333]"),
        ({"\U0001f600": 1, "\ufb33": 2}, '{"\U0001f600":1,"\ufb33":2}'.encode()),
        ('\x00\x08\x09\n\x0c\r\x1f\x7f"\\/', b'"\\u0000\\b\\t\\n\\f\\r\\u001f\x7f\\"\\\\/"'),
        ((1, (2,)), b"[1,[2]]"),
        ({}, b"{}"),
        (2**53 - 1, b"9007199254740991"),
    ],
)
def test_known_answers(value: Any, expected: bytes) -> None:
    assert canonical(value) == expected


class Colour(enum.Enum):
    RED = "red"


class Plain:
    pass


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        [None, math.nan],
        {"a": -math.inf},
        2**53,
        -(2**53),
        "\ud800",
        {"\udfff": 1},
        {1: "a"},
        {None: 1},
        b"bytes",
        {1, 2},
        uuid.UUID(int=7),
        Colour.RED,
        {"a": [Colour.RED]},
        orjson.Fragment(b"not json"),
        Plain(),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],  # the same name in every process
)
def test_what_has_no_canonical_form_is_refused_with_a_next_step(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        canonical(value)
    assert caught.value.error_code == "json_not_canonical"
    assert "as strings" in caught.value.next_step


def nested(depth: int, inner: Any = 1) -> Any:
    for level in range(depth):
        inner = {"k": inner} if level % 2 else [inner]
    return inner


def test_nesting_has_a_limit_that_holds_for_every_road() -> None:
    assert canonical(nested(MAX_DEPTH)) == rfc8785.dumps(nested(MAX_DEPTH))
    assert canonical(nested(MAX_DEPTH, 0.5)) == rfc8785.dumps(nested(MAX_DEPTH, 0.5))
    assert canonical([[]] * 500) == rfc8785.dumps([[]] * 500), "wide is not deep"
    for inner in (1, 0.5, "\U0001f600"):
        for depth in (MAX_DEPTH + 1, 300, 5000):
            with pytest.raises(InvalidInput) as caught:
                canonical(nested(depth, inner))
            assert caught.value.error_code == "json_too_deep"


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop += [loop, loop]
    with pytest.raises(InvalidInput) as caught:
        canonical(loop)
    assert caught.value.error_code == "json_too_deep"


def test_an_error_does_not_repeat_the_value() -> None:
    with pytest.raises(InvalidInput) as caught:
        canonical({"password": "hunter2\ud800", "n": 12345678901234567890})
    assert "hunter2" not in str(caught.value)
    assert "1234567890" not in str(caught.value)


def test_a_digest_is_the_hash_of_the_canonical_bytes() -> None:
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1})
    assert digest({}) == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
