"""What a manifest calls sensitive is nowhere: not in the record, not in a trace, not on an approver's screen."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.manifests.plain_text import fenced, look_alikes, one_line, plain
from charter.manifests.redaction import redact, redact_result, shown_fields
from charter.model.joiners import all_needed
from charter.model.tool import ShownArgument, ToolManifest
from tests.joined import JOINED, MISJOINED

MARK = {"$redacted": True}
SECRET = "Zq7-secret-Zq7"


def tool(**fields: Any) -> ToolManifest:
    return ToolManifest(
        name="a__b", server="a", upstream_name="b", input_schema={}, definition_hash="sha256:x", **fields
    )


@pytest.mark.parametrize(
    ("pointer", "value", "redacted"),
    [
        ("/password", {"password": SECRET, "user": "u"}, {"password": MARK, "user": "u"}),
        ("/card/number", {"card": {"number": SECRET, "name": "n"}}, {"card": {"number": MARK, "name": "n"}}),
        ("/items/*/token", {"items": [{"token": SECRET}, {"id": 1}]}, {"items": [{"token": MARK}, {"id": 1}]}),
        ("/by_name/*", {"by_name": {"a": SECRET, "b": SECRET}}, {"by_name": {"a": MARK, "b": MARK}}),
        ("/list/1", {"list": [1, SECRET]}, {"list": [1, MARK]}),
        ("/a~1b/c~0d", {"a/b": {"c~d": SECRET}}, {"a/b": {"c~d": MARK}}),
        ("", {"anything": SECRET}, MARK),
        ("/absent", {"user": "u"}, {"user": "u"}),
    ],
)
def test_a_pointer_withholds_what_it_names_and_no_more(pointer: str, value: Any, redacted: Any) -> None:
    original = json.dumps(value)
    assert redact(tool(sensitive_arguments=(pointer,)), value) == (redacted, pointer != "/absent")
    assert json.dumps(value) == original


@pytest.mark.parametrize(
    "shape", [SECRET, [SECRET], [{"number": SECRET}], {"number": SECRET}, {"number": {"x": SECRET}}]
)
def test_an_unexpected_shape_is_withheld_whole(shape: Any) -> None:
    redacted, hit = redact(tool(sensitive_arguments=("/card/number",)), {"card": shape})
    assert hit
    assert SECRET not in json.dumps(redacted)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["whole", "masked", "counted", "summarised"]), st.data())
def test_no_secret_appears_in_any_output(rest: Any, how: Any, data: st.DataObject) -> None:
    secret: Any = data.draw(st.sampled_from([SECRET, [SECRET], {"deep": {"er": SECRET}}, {SECRET: 1}]))
    arguments = {"password": secret, "list": [{"token": secret, "id": rest}], "rest": rest}
    pointers = ("/password", "/list/*/token")
    show = tuple(ShownArgument(pointer=p, how=how) for p in ("/password", "/list", "/list/0", "/list/*/token", ""))
    manifest = tool(sensitive_arguments=pointers, sensitive_results=pointers, show=show)
    redacted, hit = redact(manifest, arguments)
    content, structured, hit_result = redact_result(manifest, [{"type": "text", "text": str(arguments)}], arguments)
    fields = shown_fields(manifest, arguments)
    unlisted = shown_fields(manifest.model_copy(update={"show": ()}), arguments)
    assert hit
    assert hit_result
    assert SECRET not in repr((redacted, content, structured, fields, unlisted))


def test_every_block_of_a_sensitive_result_is_withheld_because_text_repeats_it() -> None:
    blocks = [{"type": "text", "text": SECRET}, {"type": "image", "data": SECRET, "mimeType": "image/png"}]
    content, structured, hit = redact_result(tool(sensitive_results=("/token",)), blocks, {"token": SECRET, "id": 1})
    assert hit
    assert structured == {"token": MARK, "id": 1}
    assert SECRET not in repr(content)
    assert "withheld" in content[0]["text"]


def test_a_result_that_nothing_calls_sensitive_is_unharmed() -> None:
    blocks = [{"type": "text", "text": "hello"}]
    assert redact_result(tool(), blocks, {"a": 1}) == (tuple(blocks), {"a": 1}, False)


def values(manifest: ToolManifest, arguments: dict[str, Any]) -> dict[str, str]:
    return {field.label: field.value for field in shown_fields(manifest, arguments)}


def test_each_way_of_showing() -> None:
    show = (
        ShownArgument(pointer="/to", label="Recipient"),
        ShownArgument(pointer="/iban", how="masked"),
        ShownArgument(pointer="/pin", how="masked"),
        ShownArgument(pointer="/body", how="counted"),
        ShownArgument(pointer="/lines", how="summarised"),
        ShownArgument(pointer="/lines/*/sum", label="Sums"),
        ShownArgument(pointer="/missing"),
    )
    arguments = {
        "to": "a@b.org",
        "iban": "DE02120300000000202051",
        "pin": "1234",
        "body": "one\ntwo",
        "lines": [{"sum": 1}, {"sum": 2}],
    }
    assert values(tool(show=show), arguments) == {
        "Recipient": "a@b.org",
        "iban": "••••••2051",
        "pin": "••••••",
        "body": "7 characters in 2 lines",
        "lines": '2 items: [{"sum":1},{"sum":2}]',
        "Sums": "[⏎\n│   1,⏎\n│   2⏎\n│ ]",
        "missing": "(not given)",
    }


def test_what_the_manifest_does_not_name_is_shown_too() -> None:
    shown = values(tool(show=(ShownArgument(pointer="/to"),)), {"to": "x", "bcc": "evil@example.org"})
    assert shown == {"to": "x", "bcc": "evil@example.org"}


def test_a_flood_of_arguments_is_counted() -> None:
    assert shown_fields(tool(), {f"k{n}": n for n in range(100)})[-1].value == "60 more arguments are not shown"


@pytest.mark.parametrize("text", MISJOINED)
def test_a_joiner_that_joins_nothing_is_taken_out_and_told(text: str) -> None:
    assert re.match(r"\[\d+ hidden characters? taken out", plain(text))
    assert all_needed(plain(text))


@given(
    st.text(
        alphabet="a\u0645\u0627\u094d\u0915\u0301\u200b\u200c\u200d\ufe0f\U0001f469\U0001f3fd\u2764 \n", max_size=20
    )
)
def test_whatever_joiners_are_left_join_something(text: str) -> None:
    assert all_needed(plain(text).replace("⏎\n│ ", "\n"))


def test_joiners_do_not_bring_back_a_pile_of_marks() -> None:
    pile = "\u0915" + "\u094d\u200d" * 50
    assert len(plain(pile)) < 80


@pytest.mark.parametrize(
    "hostile", ["\u202egpj.exe", "a\u200bb", "a\x1b[2Jb", "a\x00b", "\u2066x\u2069", "x\U000e0041", "a\ufe0f", "\u3164"]
)
def test_what_cannot_be_seen_is_taken_out_and_told(hostile: str) -> None:
    shown = plain(hostile)
    assert shown.startswith("[1 hidden character") or shown.startswith("[2 hidden character")
    assert not any(char in shown for char in hostile if not char.isascii() or not char.isprintable())


@given(st.text())
def test_shown_text_is_printable(text: str) -> None:
    for shown in (plain(text).replace("\n", ""), one_line(text)):
        assert shown.replace("\u200c", "").replace("\u200d", "").isprintable()


@pytest.mark.parametrize("word", ["p\u0430ypal", "\u0430\u0440\u0440\u04cf\u0435", "ΑΒΕ", "\uff50aypal", "𝐩𝐚𝐲"])
def test_letters_that_pass_for_others_are_named(word: str) -> None:
    assert look_alikes(f"to {word} now")
    assert "look-alike letters" in plain(word)
    assert plain(plain(word)) == plain(word), "said once, however many rooms it passes"
    assert plain(f"[look-alike letters in “paypal” (U+0041)] {word}").count("look-alike") == 2, "nobody says it for us"


@pytest.mark.parametrize(
    "text",
    [
        "Müller",
        "naïve café",
        "Привет мир",
        "日本語テキスト",
        "GmbHの契約",
        "Καλημέρα",
        "x²",
        *(text for _, text in JOINED),
    ],
)
def test_honest_text_of_other_languages_is_left_alone(text: str) -> None:
    assert plain(text) == text


def test_a_line_break_cannot_make_another_field() -> None:
    assert plain("ok\nApproved by: boss") == "ok⏎\n│ Approved by: boss"


def test_long_text_is_cut_in_the_middle_and_says_so() -> None:
    shown = plain("a" * 5000 + "END")
    assert shown.startswith("[cut: 5,003 characters in all]")
    assert shown.endswith("END")
    assert len(shown) < 2100
    assert "lines not shown" in plain("x\n" * 200)


@given(st.text(alphabet="`a\n", max_size=30))
def test_a_fence_cannot_be_closed_from_inside(text: str) -> None:
    first, *_, last = fenced(text).split("\n")
    assert last.strip("`") == ""
    assert first == last + "text"
    assert last not in text


@given(st.text(max_size=200))
def test_text_that_was_made_plain_keeps_one_bar_a_line_when_it_is_shown_again(text: str) -> None:
    once = plain("a\nb " + text)
    assert "│ │" not in plain(once) or "│ │" in once
