"""What is not a sound policy set does not load, and the error names file, policy and mend."""

from __future__ import annotations

import subprocess
import sys

import pytest

from charter.errors import CharterError, InvalidInput, Misconfigured
from charter.policies import PolicySources, load_policy_set, shipped_sources
from charter.policies.notes import duration
from tests.policies.build import OPEN, WALL, manifest, policies

BODY = "permit (principal, action, resource);"
ASK = '@id("ask") @obligation("require_approval") permit (principal, action, resource)'
UNLESS = 'unless { context.approved.contains("any:1") };'


def wrapped(condition: str) -> str:
    return f'@id("x") permit (principal, action, resource) when {{ {condition} }};'


HOSTILE = {
    "brackets": wrapped("(" * 800 + "true" + ")" * 800),
    "sets": wrapped("[" * 65 + "]" * 65 + ".isEmpty()"),
    "and": wrapped(" && ".join(["true"] * 5000)),
    "plus": wrapped("+".join(["1"] * 5000) + " == 1"),
    "if": wrapped("if true then true else " * 5000 + "true"),
    "members": wrapped("context" + ".a" * 5000),
    "index": wrapped("context" + '["a"]' * 5000),
    "closing first": ")" * 100 + wrapped("(" * 800 + "true" + ")" * 800),
    "behind a comment": '// " \n' + wrapped("(" * 800 + "true" + ")" * 800),
    "behind a string": '@doc("//")' + wrapped("(" * 800 + "true" + ")" * 800),
    "like": wrapped(" || ".join(['principal.id like "a*"'] * 300)),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_text_that_would_crash_the_parser_never_reaches_it(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"authorise\.cedar") as caught:
        policies(text)
    assert caught.value.error_code == "policy_too_deep"


def test_the_caps_leave_the_parser_room() -> None:
    """In a process of its own, because what this test would find is a crash."""
    at_the_cap = [
        wrapped("(" * 62 + "true" + ")" * 62),
        wrapped(" && ".join(["true"] * 390)),
        wrapped("if true then true else " * 390 + "true"),
        wrapped("!(" * 60 + " && ".join(["true"] * 250) + ")" * 60),
    ]
    code = f"""
from charter.errors import CharterError
from charter.policies import PolicySources, load_policy_set
for text in {at_the_cap!r}:
    try:
        load_policy_set(PolicySources({{"authorise.cedar": text}}))
    except CharterError as error:
        assert error.error_code == "policy_syntax", error
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "alive", done.stderr[-500:]


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    text = "//" + "(" * 800 + "\n" + wrapped('principal.id == "' + "(" * 800 + '"')
    assert policies(text).policies.keys() == {"x"}


def test_too_much_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="256 KiB"):
        policies("//" + "x" * 256 * 1024)


AUTHORISE = [
    (BODY, "policy_annotation", "@id"),
    ('@id("") ' + BODY, "policy_annotation", "@id"),
    ('@id("a b") ' + BODY, "policy_annotation", "@id"),
    ('@id("x") @colour("red") ' + BODY, "policy_annotation", "@colour"),
    ('@id("x") @code("nope") ' + BODY, "policy_annotation", "@code"),
    ('@id("x") @obligation("dry_run") ' + BODY, "policy_annotation", "@obligation"),
    ('@id("x") @mode("maybe") ' + BODY, "policy_annotation", "@mode"),
    ('@id("x") @code("Not A Code") forbid (principal, action, resource);', "policy_annotation", "@code"),
    ('@id("x") ' + BODY + ' @id("x") ' + BODY, "policy_duplicate_id", "same @id"),
    ("permit permit", "policy_syntax", "not a Cedar policy"),
    ("\ud800", "policy_syntax", "not a Cedar policy"),
    ('@id("x") permit (principal == ?principal, action, resource);', "policy_template", "?principal"),
    (wrapped("principal.shoe_size == 3"), "policy_invalid", "shoe_size"),
    (wrapped('context.workflow_id == "x"'), "policy_invalid", "workflow_id"),
    (wrapped('resource.risk == "low"'), "policy_invalid", "risk"),
    ('@id("x") permit (principal, action == Charter::Action::"tool.smash", resource);', "policy_invalid", "tool.smash"),
    (wrapped("context.approved.contains(principal.id)"), "policy_annotation", "literal"),
    (wrapped("context.approved.isEmpty()"), "policy_annotation", "containsAll"),
    (wrapped('context.approved.contains("any")'), "policy_annotation", "any:1"),
    (wrapped('context.approved.contains("any@carrier-pigeon:1")'), "policy_annotation", "Known channels"),
    (wrapped('context.approved.contains("any:17")'), "policy_annotation", "16"),
]


@pytest.mark.parametrize(("text", "code", "told"), AUTHORISE, ids=[text[:50] for text, _, _ in AUTHORISE])
def test_set_a_is_checked(text: str, code: str, told: str) -> None:
    with pytest.raises(CharterError) as caught:
        policies(text)
    error = caught.value
    assert error.error_code == code
    assert error.message.startswith("authorise.cedar: ")
    assert told in f"{error.message} {error.next_step}"
    assert error.next_step


OBLIGATIONS = [
    ('@id("x") ' + BODY, "@obligation"),
    ('@id("x") @obligation("sing") ' + BODY, "sing"),
    ('@id("x") @obligation("dry_run") forbid (principal, action, resource);', "must be a permit"),
    ('@id("x") @obligation("dry_run") @role("a") ' + BODY, "@role"),
    ('@id("x") @obligation("dry_run") @next("a") ' + BODY, "@next"),
    ('@id("x") @obligation("redact") ' + BODY, "@fields"),
    ('@id("x") @obligation("redact") @fields("password") ' + BODY, "JSON pointers"),
    ('@id("x") @obligation("rate_limit") @calls("3") ' + BODY, "@within"),
    ('@id("x") @obligation("rate_limit") @calls("0") @within("PT1H") ' + BODY, "whole number"),
    ('@id("x") @obligation("rate_limit") @calls("3") @within("1 hour") ' + BODY, "ISO 8601"),
    (f'@approvers("many") {ASK} {UNLESS}', "whole number"),
    (f'@approvers("17") {ASK} {UNLESS}', "whole number"),
    (f'@role("any") {ASK} {UNLESS}', "role's name"),
    (f'@channels("cli,smoke") {ASK} {UNLESS}', "Known channels"),
    (f"{ASK};", '"any:1"'),
    (f'@role("fm") @approvers("2") {ASK} {UNLESS}', '"fm:2"'),
    (f'@channels("cli") {ASK} {UNLESS}', '"any@cli:1"'),
    (f'{ASK} unless {{ context.approved.contains("any@strong:1") }};', '"any:1"'),
    (f'{ASK} unless {{ context.approved.contains("any:2") }};', '"any:1"'),
]


@pytest.mark.parametrize(("text", "told"), OBLIGATIONS, ids=[text[:60] for text, _ in OBLIGATIONS])
def test_set_b_is_checked(text: str, told: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        policies(OPEN, text)
    error = caught.value
    assert error.error_code == "policy_annotation"
    assert error.message.startswith("obligations.cedar: policy ")
    assert told in f"{error.message} {error.next_step}"


def test_an_obligation_that_nobody_carries_out_does_not_load() -> None:
    quota = '@id("q") @obligation("rate_limit") @calls("3") @within("PT1H") '
    with pytest.raises(Misconfigured, match="policy q: nothing here carries out the obligation rate_limit") as caught:
        load_policy_set(PolicySources({}, {"obligations.cedar": quota + BODY}))
    assert caught.value.error_code == "obligation_not_carried_out"
    load_policy_set(PolicySources({}, {"obligations.cedar": '@mode("log_only") ' + quota + BODY}))
    load_policy_set(PolicySources({}, {"obligations.cedar": quota + BODY}), carried_out=frozenset({"rate_limit"}))


def test_ids_are_unique_over_both_sets() -> None:
    with pytest.raises(Misconfigured, match=r"authorise\.cedar has a policy with the same @id"):
        policies(OPEN, '@id("open") @obligation("dry_run") ' + BODY)


def test_files_say_by_name_which_set_they_are_of() -> None:
    sources = PolicySources.from_files(
        {"policies/authorise-mail.cedar": WALL, "policies/authorise.cedar": OPEN, "policies/obligations.cedar": ""}
    )
    assert list(sources.authorise) == ["policies/authorise-mail.cedar", "policies/authorise.cedar"]
    assert list(sources.obligations) == ["policies/obligations.cedar"]
    with pytest.raises(Misconfigured, match=r"my\.cedar"):
        PolicySources.from_files({"my.cedar": ""})


def test_the_hash_is_of_the_texts() -> None:
    shipped = shipped_sources()
    assert shipped.hash() == load_policy_set(shipped).hash == load_policy_set(shipped, [manifest("a__b")]).hash
    assert shipped.hash().startswith("sha256:")
    moved = PolicySources({**shipped.authorise, "authorise-2.cedar": "// one more file"}, shipped.obligations)
    assert moved.hash() != shipped.hash()
    assert PolicySources({}, {"a.cedar": ""}).hash() != PolicySources({"a.cedar": ""}, {}).hash()


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT24H", 86_400), ("P7D", 604_800), ("P1W", 604_800), ("P1DT2H3M4S", 93_784), ("PT90S", 90)]
)
def test_durations_are_iso_8601(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "P1DT", "PT0S", "1H", "PT1.5H", "-PT1H", "P1Y", "P367D", "PT١H"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 8601"):
        duration(text)
