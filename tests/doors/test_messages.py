"""What is no JSON-RPC message of MCP's, at every door of it: a short answer that says what is wrong and what to do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from mcp.shared.message import SessionMessage

from charter.errors import InvalidInput
from charter.model.json_text import MAX_NESTING, exact_json, read_json
from charter.server.json_rpc import refusal_of
from charter.server.stdio import CheckedLines
from tests.doors.test_call_lane import (
    LANE,
    META,
    TRANSPORT,
    VERSION,
    Taken,
    ids,
    message,
    post,
    taken,
)
from tests.doors.test_http import Served, keys, served
from tests.support import Harness

pytestmark = pytest.mark.anyio
__all__ = ["ids", "keys", "served", "taken"]

PARSE, INVALID, PARAMS = -32700, -32600, -32602
PING = '{"jsonrpc": "2.0", "id": 7, "method": "ping"%s}'
WRONG: list[tuple[str, bytes, int, int | None, str]] = [
    ("nothing", b"", PARSE, None, "JSON"),
    ("cut off", b'{"jsonrpc": "2.0", "id": 7,', PARSE, None, "goes wrong at"),
    ("not UTF-8", b'{"jsonrpc": "2.0", "id": 7, "method": "\xff"}', PARSE, None, "UTF-8"),
    ("UTF-16", PING.replace("%s", "").encode("utf-16"), PARSE, None, "UTF-8"),
    ("half a pair", b'{"jsonrpc": "2.0", "id": 7, "method": "\\ud800"}', PARSE, None, "surrogate"),
    ("NaN", (PING % ', "params": {"a": NaN}').encode(), PARSE, None, "NaN"),
    ("Infinity", (PING % ', "params": {"a": -Infinity}').encode(), PARSE, None, "-Infinity"),
    ("a huge number", (PING % ', "params": {"a": 1e400}').encode(), PARSE, None, "IEEE 754"),
    ("a huge integer", (PING % f', "params": {{"a": {"9" * 5000}}}').encode(), PARSE, None, "digits"),
    ("very deep", (PING % f', "params": {"[" * 100_000}').encode(), INVALID, None, "deeper"),
    ("deep", (PING % f', "params": {{"a": {"[" * 150 + "]" * 150}}}').encode(), INVALID, 7, "deeper"),
    ("a batch", f"[{PING % ''}]".encode(), INVALID, None, "Batches"),
    ("an empty batch", b"[]", INVALID, None, "Batches"),
    ("a text", b'"ping"', INVALID, None, "object"),
    ("null", b"null", INVALID, None, "object"),
    ("no version", b'{"id": 7, "method": "ping"}', INVALID, 7, '"jsonrpc"'),
    ("another version", b'{"jsonrpc": "1.0", "id": 7, "method": "ping"}', INVALID, 7, '"jsonrpc"'),
    *(
        (f"id {text}", b'{"jsonrpc": "2.0", "id": %b, "method": "ping"}' % text.encode(), INVALID, None, '"id"')
        for text in ("null", "true", "1.5", "{}", "[7]", "9007199254740992", "1e3")
    ),
    ("no method", b'{"jsonrpc": "2.0", "id": 7}', INVALID, 7, '"method"'),
    ("a method of another kind", b'{"jsonrpc": "2.0", "id": 7, "method": 7}', INVALID, 7, '"method"'),
    ("a request without an id", b'{"jsonrpc": "2.0", "method": "tools/call", "params": {}}', INVALID, None, "no id"),
    ("a notification with an id", PING.replace("ping", "notifications/x").encode() % b"", INVALID, 7, "notification"),
    ("params by place", (PING % ', "params": [1]').encode(), PARAMS, 7, '"params"'),
    ("params of another kind", (PING % ', "params": 3').encode(), PARAMS, 7, '"params"'),
    ("question and answer", (PING % ', "result": {}').encode(), INVALID, 7, "either"),
    ("twins around", (PING % ', "id": 8').encode(), INVALID, None, "'id' is given twice"),
    ("twins within", (PING % ', "params": {"a": 1, "b": 2, "a": 3}').encode(), INVALID, 7, "'a' is given twice"),
    ("twins in disguise", (PING % ', "params": {"a": 1, "\\u0061": 3}').encode(), INVALID, 7, "'a' is given twice"),
]
each_wrong = pytest.mark.parametrize(
    ("body", "code", "request_id", "says"), [item[1:] for item in WRONG], ids=[item[0] for item in WRONG]
)
OWN_CODES = {"json_invalid", "json_duplicate_key", "json_too_deep", "jsonrpc_invalid"}


def told(answer: Any, code: int, request_id: int | None, says: str) -> None:
    """The answer has this code and id, is short, and has nothing of a library's in it."""
    error = answer["error"]
    assert (answer["jsonrpc"], answer["id"], error["code"]) == ("2.0", request_id, code)
    assert says in error["message"]
    assert error["data"]["code"] in OWN_CODES
    assert error["data"]["next_step"] in error["message"]
    assert len(error["message"]) < 250
    assert not any(word in error["message"].lower() for word in ("pydantic", "validation error", "traceback", "input_"))


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(("accept", "version"), [(LANE, VERSION), (TRANSPORT, VERSION), (LANE, "2025-06-18")])
async def test_over_http_in_both_eras(served: Served, taken: Taken, accept: str, version: str) -> None:
    for _, body, code, request_id, says in WRONG:
        answer = await post(served, accept, body, mcp_protocol_version=version, mcp_name="x")
        assert answer.status_code == 400
        told(answer.json(), code, request_id, says)
    assert taken.calls == 0
    nobody = await post(served, accept, WRONG[0][1], authorization="Bearer none", mcp_protocol_version=version)
    assert nobody.status_code == 401, "who may not ask is told no more than that"


class Wire:
    """Lines that came, as an asynchronous file gives them."""

    def __init__(self, *lines: bytes) -> None:
        self.lines = lines

    async def __aiter__(self) -> Any:
        for line in self.lines:
            yield line + b"\n"


@each_wrong
@pytest.mark.guarantee("G10")
async def test_over_stdio_the_next_line_is_read_all_the_same(
    body: bytes, code: int, request_id: int | None, says: str
) -> None:
    if b"\n" in body or not body:
        return
    good, answers = (PING % "").encode(), list[Any]()
    lines = CheckedLines(Wire(body, b"", good))  # type: ignore[arg-type]

    async def keep(sent: SessionMessage) -> None:
        answers.append(json.loads(sent.message.model_dump_json(by_alias=True, exclude_unset=True)))

    lines.answer = keep
    assert [line async for line in lines] == [good.decode() + "\n"]
    assert len(answers) == 1
    told(answers[0], code, request_id, says)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc": "2.0", "id": "x", "method": "ping", "params": null}',
        b'{"jsonrpc": "2.0", "id": -9007199254740991, "method": "ping"}',
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        b'{"jsonrpc": "2.0", "id": 0, "result": {}}',
        b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -1, "message": "no", "data": [1]}}',
        b'{"jsonrpc": "2.0", "id": 0, "method": "tools/call", "params": {"a": {"x": 1}, "b": {"x": 1}}}',
        '{"jsonrpc": "2.0", "id": 0, "method": "x", "params": {"a": "\U0001f9d1"}}'.encode(),
        b'{"jsonrpc": "2.0", "id": 0, "method": "x", "params": {"a": "\\ud83e\\uddd1 \\\\ud800"}}',
        b'{"jsonrpc": "2.0", "id": 0, "method": "x", "params": {"a": 123456789012345678901234567890}}',
    ],
)
def test_messages_pass(body: bytes) -> None:
    assert refusal_of(body) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc": "2.0", "id": 1, "result": {}, "error": {}}',
        b'{"jsonrpc": "2.0", "result": {}}',
        b'{"jsonrpc": "2.0", "id": 1, "result": []}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": true, "message": "x"}}',
        b'{"jsonrpc": "2.0", "id": 1, "error": {"code": 1}}',
    ],
)
def test_answers_that_are_none(body: bytes) -> None:
    refusal = refusal_of(body)
    assert refusal is not None
    assert refusal.code == INVALID


def test_an_answer_is_taken_only_where_the_server_asks() -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "result": {}}'
    assert refusal_of(body) is None
    refusal = refusal_of(body, answers=False)
    assert refusal is not None
    assert "inputResponses" in refusal.error.next_step


@pytest.mark.guarantee("G3")
@pytest.mark.parametrize("accept", [LANE, TRANSPORT])
async def test_a_call_whose_text_can_be_read_in_two_ways_is_not_made(
    charter: Harness, served: Served, ids: dict[str, str], taken: Taken, accept: str
) -> None:
    before = await charter.types(ids["workflow_id"])
    body = json.dumps(message("casebook__read_note", {**ids, "name": "case-1"}))
    twice = body.replace('"name": "case-1"', '"name": "case-2", "name": "case-1"').encode()
    answer = (await post(served, accept, twice, mcp_name="casebook__read_note")).json()
    told(answer, INVALID, 7, "'name' is given twice")
    assert answer["error"]["data"]["code"] == "json_duplicate_key"
    assert taken.calls == 0
    assert await charter.types(ids["workflow_id"]) == before


@pytest.mark.parametrize("version", [VERSION, "2025-06-18"])
async def test_parameters_of_another_form_are_named(served: Served, version: str) -> None:
    headers = {"mcp_protocol_version": version, "mcp_name": "x"}
    if version != VERSION:
        hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        opened = await post(
            served, LANE, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, **headers
        )
        headers["mcp_session_id"] = opened.headers["mcp-session-id"]
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await post(served, LANE, ready, **headers)).status_code == 202
    params = {"name": "x", "arguments": [1], "_meta": META if version == VERSION else {}}
    answer = await post(served, LANE, {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}, **headers)
    text = answer.text.partition("data: ")[2] or answer.text
    error = json.loads(text)["error"]
    assert error["code"] == PARAMS
    assert error["data"]["detail"]["fields"] == ["params.arguments"]
    assert "arguments" in error["message"]
    assert "Input should" not in error["message"]


def deep_list(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a": 1, "a": 1}', "json_duplicate_key"),
        ('[{"b": {"": 1, "": 2}}]', "json_duplicate_key"),
        ('{"\\ud83e\\uddd1": 1, "\U0001f9d1": 2}', "json_duplicate_key"),
        ("\ufeff{}", "json_invalid"),
        ("[1,]", "json_invalid"),
        ("NaN", "json_invalid"),
        ("1e999", "json_invalid"),
        ('"\\ud800"', "json_invalid"),
        ('"\ud800"', "json_invalid"),
        ("9" * 5000, "json_invalid"),
        (deep_list(MAX_NESTING + 1), "json_too_deep"),
        (deep_list(100_000), "json_too_deep"),
    ],
)
def test_json_that_two_readers_could_take_for_two_things_is_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_json(text)
    assert caught.value.error_code == code
    assert len(caught.value.message) < 200


def test_json_keeps_each_digit_and_exact_json_takes_only_what_has_a_digest() -> None:
    assert read_json("[12345678901234567890, -0, 1.5, 1e2]") == [12345678901234567890, 0, 1.5, 100.0]
    assert read_json(deep_list(MAX_NESTING)) != []
    assert exact_json("[9007199254740991, -9007199254740991]") == [2**53 - 1, 1 - 2**53]
    for text in ("9007199254740992", "-9007199254740992", "9" * 5000):
        with pytest.raises(InvalidInput) as caught:
            exact_json(text)
        assert caught.value.error_code == "json_not_canonical"
