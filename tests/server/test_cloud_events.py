"""CloudEvents in and out: what the specification allows is taken, everything else is refused whole and by name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.errors import InvalidInput
from charter.model.canonical import canonical
from charter.model.signal import Signal, cloud_event
from charter.server.cloud_events import BATCH, EVENT, read, signal_of

NOW = "2026-11-21T10:00:00.000Z"
PAID = {"specversion": "1.0", "id": "1", "source": "/billing", "type": "invoice.paid"}


def test_every_attribute_comes_in() -> None:
    event = {
        **PAID,
        "subject": "no 7",
        "time": "2026-11-21T10:04:00+00:00",
        "dataschema": "urn:invoice",
        "datacontenttype": "application/json; charset=utf-8",
        "correlationid": "case-1",
        "causationid": "cmd-1",
        "partitionkey": "p",
        "sequence": 7,
        "data": {"no": 7},
    }
    signal = signal_of(event, NOW)
    assert signal.model_dump() == {
        "id": "1",
        "source": "/billing",
        "type": "invoice.paid",
        "subject": "no 7",
        "time": "2026-11-21T10:04:00+00:00",
        "data": {"no": 7},
        "dataschema": "urn:invoice",
        "correlation_id": "case-1",
        "causation_id": "cmd-1",
        "extensions": {"partitionkey": "p", "sequence": 7},
        "depth": 0,
    }
    assert cloud_event(signal) == {**event, "datacontenttype": "application/json"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"specversion": "0.3"},
        {"specversion": 1.0},
        {"id": ""},
        {"id": None},
        {"id": 7},
        {"source": ""},
        {"type": "two words"},
        {"type": "paid\n"},
        {"subject": "x\u202ey"},
        {"time": "yesterday"},
        {"time": "2026-11-21"},
        {"time": "2026-11-21T10:00:00"},
        {"time": "2026-11-21T10:06:00Z"},
        {"time": 1_800_000_000},
        {"datacontenttype": "application/xml"},
        {"data_base64": "AA=="},
        {"Camel": "x"},
        {"with_underscore": "x"},
        {"depth": {"x": 1}},
        {"number": 2**40},
        {"number": 1.5},
        {f"e{number}": "x" for number in range(30)},
        {"id": "x" * 501},
    ],
)
@pytest.mark.guarantee("G10")
def test_what_is_no_event_is_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        signal_of({**PAID, **wrong}, NOW)
    assert caught.value.error_code == "cloudevent_invalid"
    assert len(caught.value.message) < 300


def test_a_source_cannot_set_how_deep_it_stands() -> None:
    """``depth`` is an extension like any other: Charter's own count is not an attribute."""
    signal = signal_of({**PAID, "depth": 4}, NOW)
    assert (signal.depth, signal.extensions) == (0, {"depth": 4})


def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    two = [PAID, {**PAID, "id": "2"}]
    assert [each.id for each in _many(read(f"{BATCH}; charset=utf-8", {}, orjson.dumps(two), NOW))] == ["1", "2"]
    assert read(BATCH, {}, b"[]", NOW) == []
    for bad in ([PAID, {"specversion": "1.0"}], PAID, [PAID] * 101):
        with pytest.raises(InvalidInput):
            read(BATCH, {}, orjson.dumps(bad), NOW)


def test_binary_mode() -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/b%20x", "ce-type": "paid", "ce-correlationid": "c"}
    signal = read("application/json", headers, b'{"no":7}', NOW)
    assert isinstance(signal, Signal)
    assert (signal.source, signal.data, signal.correlation_id) == ("/b x", {"no": 7}, "c")
    assert isinstance(read("", headers, b"", NOW), Signal)
    for media, more, body in (
        ("text/plain", {}, b"x"),
        ("application/json", {"ce-data": "x"}, b"{}"),
        ("application/json", {}, b"{"),
    ):
        with pytest.raises(InvalidInput):
            read(media, {**headers, **more}, body, NOW)


def test_another_media_type_is_not_ours() -> None:
    assert read("application/json", {}, orjson.dumps(PAID), NOW) is None


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda x: st.lists(x, max_size=3)))
def test_anything_else_is_refused_clearly(value: Any) -> None:
    with pytest.raises(InvalidInput):
        read(EVENT, {}, orjson.dumps(str(value)), NOW)
    with pytest.raises(InvalidInput):
        signal_of({**PAID, "id": [value]}, NOW)


def _many(found: list[Signal] | Signal | None) -> list[Signal]:
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("media", [EVENT, "application/json"])
def test_data_that_can_be_read_in_two_ways_is_refused(media: str) -> None:
    body = orjson.dumps({**PAID, "data": {"amount": 1}} if media == EVENT else {"amount": 1})
    headers = {"ce-specversion": "1.0"} | {f"ce-{name}": str(value) for name, value in PAID.items() if name != "data"}
    with pytest.raises(InvalidInput, match="'amount' is given twice") as caught:
        read(media, {} if media == EVENT else headers, body.replace(b'"amount":1', b'"amount":1,"amount":1000'), NOW)
    assert caught.value.error_code == "json_duplicate_key"


@pytest.mark.parametrize("number", ["123456789012345678901234567890", "-9007199254740992", "18446744073709551615"])
def test_an_integer_that_would_be_changed_is_refused_as_in_a_call(number: str) -> None:
    whole = orjson.dumps({**PAID, "data": {"x": 0, "text": "1234567890123456789"}}).replace(
        b'"x":0', b'"x":%b' % number.encode()
    )

    def take() -> None:
        taken = read(EVENT, {}, whole, NOW)
        assert isinstance(taken, Signal)
        canonical(taken.data)  # which the gate does first of all

    with pytest.raises(InvalidInput, match="an integer is beyond 2\\^53 - 1") as caught:
        take()
    assert caught.value.error_code == "json_not_canonical"


@pytest.mark.parametrize(
    "number", ["9007199254740991", "-9007199254740991", "1.5e300", "1234567890.1234567890123456789"]
)
def test_other_long_numbers_are_taken(number: str) -> None:
    whole = orjson.dumps({**PAID, "data": {"x": 0}}).replace(b'"x":0', b'"x":%b' % number.encode())
    taken = read(EVENT, {}, whole, NOW)
    assert isinstance(taken, Signal)
    assert taken.data == {"x": orjson.loads(number)}
