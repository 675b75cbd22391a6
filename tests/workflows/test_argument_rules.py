"""Rules for arguments: what they let through, and how one might try to get past them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.model.phase import ArgumentRule
from charter.workflows.argument_rules import broken


def rule(kind: str, *allowed: str, forbidden: tuple[str, ...] = (), optional: bool = False) -> ArgumentRule:
    return ArgumentRule.model_validate(
        {
            "tool": "fs__*",
            "argument": "a",
            "kind": kind,
            "allowed": allowed or None,
            "forbidden": forbidden,
            "optional": optional,
        }
    )


def passes(found: ArgumentRule, value: Any) -> bool:
    return broken((found,), "fs__write", {"a": value}) is None


TESTS = rule("path", "tests/**/*.py", "**/*.test.*", forbidden=("src/**/*", ".env*"))


@pytest.mark.parametrize("path", ["tests/a.py", "tests/x/y/a.py", "a.test.ts", "web/a.test.ts", "./tests//a.py"])
def test_paths_within(path: str) -> None:
    assert passes(TESTS, path)


@pytest.mark.parametrize(
    "path",
    [
        "a.py",
        "src/a.test.js",
        "SRC/a.test.js",
        "ｓrc/a.test.js",
        "tests/../src/a.py",
        "/tests/a.py",
        "~/tests/a.py",
        "tests\\a.py",
        "C:/tests/a.test.x",
        "tests/a\n.py",
        "tests/a\u200b.py",
        "tests/.env.py",
        "",
        ".",
        "tests/" + "a" * 5000 + ".py",
    ],
)
def test_paths_outside(path: str) -> None:
    assert not passes(TESTS, path)


@pytest.mark.parametrize("value", [None, 5, True, {"path": "tests/a.py"}, [], ["tests/a.py", 5], ["tests/a.py", "b"]])
def test_what_is_no_text_or_not_all_within(value: Any) -> None:
    assert not passes(TESTS, value)


def test_every_path_of_a_list_must_be_within() -> None:
    assert passes(TESTS, ["tests/a.py", "tests/b.py"])


def test_an_argument_may_be_left_out_only_where_the_rule_says_so() -> None:
    assert broken((rule("path", "a"),), "fs__write", {}) is not None
    assert broken((rule("path", "a", optional=True),), "fs__write", {}) is None


def test_forbidding_what_a_folder_holds_forbids_the_folder() -> None:
    found = rule("path", forbidden=(".git/**/*", "lib/**"))
    assert not any(passes(found, path) for path in (".git", ".GIT/config", "lib", "lib/a"))
    assert passes(found, "a/lib")


NPM = rule("command", "pytest", "npm test", forbidden=("git", "rm -rf"))


@pytest.mark.parametrize("command", ["pytest", "pytest -q tests", "npm   test --watch", "pytest 'a b'"])
def test_commands_that_begin_as_allowed(command: str) -> None:
    assert passes(NPM, command)


@pytest.mark.parametrize(
    "command",
    [
        "npm run test",
        "pytests",
        "pytest; ls",
        "pytest && ls",
        "pytest | sh",
        "pytest $(ls)",
        "pytest `ls`",
        "pytest > a",
        "pytest\nls",
        "pytest 'a",
        "PATH=. pytest",
        "pytest git",
        ["pytest"],
    ],
)
def test_commands_that_do_more(command: Any) -> None:
    assert not passes(NPM, command)


@pytest.mark.parametrize(
    "command", ["ls && git push", "bash -c 'g\"i\"t push'", "/usr/bin/git x", "rm    -rf /", "GIT x"]
)
def test_forbidden_commands_wherever_they_stand(command: str) -> None:
    assert not passes(rule("command", forbidden=("git", "rm -rf")), command)


def test_a_forbidden_word_within_another_is_none() -> None:
    assert passes(rule("command", forbidden=("git",)), "digit gitk")


@pytest.mark.parametrize(("text", "fine"), [("abc", True), ("abc\n", False), ("abcX", False), ("", False)])
def test_a_pattern_matches_the_whole_text(text: str, fine: bool) -> None:
    assert passes(rule("pattern", "[a-z]+"), text) is fine


def test_a_pattern_that_would_be_a_bomb_elsewhere_is_answered() -> None:
    assert not passes(rule("pattern", "(a+)+"), "a" * 4000 + "b")
    assert not passes(rule("path", "*a" * 40), "a" * 3000 + "/b")


def test_a_rule_that_cannot_be_judged_is_broken() -> None:
    assert not passes(rule("pattern", "(a"), "a")


def test_the_reason_never_quotes_the_value() -> None:
    assert "hunter2" not in str(broken((TESTS,), "fs__write", {"a": "hunter2"}))


def test_other_tools_are_not_concerned() -> None:
    assert broken((TESTS,), "web__get", {}) is None


@given(st.text(max_size=40))
def test_no_path_that_passes_leaves_the_folder(path: str) -> None:
    if passes(rule("path", "**"), path):
        assert not path.startswith(("/", "~", "\\"))
        assert ".." not in path.replace("\\", "/").split("/")
