"""Guarantees and tests are tied both ways: docs/guarantees.md lists exactly the tests that say that they hold one."""

from __future__ import annotations

import pytest

from tests.guarantees.page import held, listed, text_of

GUARANTEES = [f"G{number}" for number in range(1, 11)]


def test_the_page_has_the_ten_guarantees_and_no_other() -> None:
    assert list(listed()) == GUARANTEES


def test_every_marked_test_names_a_guarantee_of_the_page() -> None:
    assert set(held()) <= set(listed())


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_every_guarantee_has_tests_and_the_page_lists_exactly_them(guarantee: str) -> None:
    tests = held()[guarantee]
    assert tests, "a guarantee without a test is a promise"
    assert listed()[guarantee] == text_of(tests), "run `python -m tests.guarantees.page`"
