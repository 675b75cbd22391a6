"""The shipped policies keep what they promise: the tests beside them, and those of ``cases/``, as data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from charter.errors import InvalidInput
from charter.policies import PolicySet, load_policy_set, run_policy_tests, shipped_files, shipped_sources

CASES = Path(__file__).parent / "cases"


@cache
def documents() -> dict[str, Any]:
    texts = {name: text for name, text in shipped_files().items() if name.endswith(".test.yaml")}
    texts |= {path.name: path.read_text(encoding="utf-8") for path in sorted(CASES.glob("*.yaml"))}
    return {name: yaml.safe_load(text) for name, text in texts.items()}


@pytest.fixture(scope="module")
def shipped() -> PolicySet:
    return load_policy_set(shipped_sources())


@pytest.mark.parametrize(
    ("file", "test"),
    [(file, test["name"]) for file, document in documents().items() for test in document["tests"]],
)
def test_the_shipped_policies_decide_as_told(shipped: PolicySet, file: str, test: str) -> None:
    document = documents()[file]
    chosen = {**document, "tests": [case for case in document["tests"] if case["name"] == test]}
    [result] = run_policy_tests(shipped, {file: chosen})
    assert result.passed, result.problems


def test_every_shipped_policy_decides_some_case(shipped: PolicySet) -> None:
    seen = {name for result in run_policy_tests(shipped, documents()) for name in result.decision.policy_ids}
    assert set(shipped.policies) - seen == set()


def test_a_wrong_expectation_is_told_with_the_reason(shipped: PolicySet) -> None:
    document = {
        "tests": [
            {
                "name": "x",
                "facts": {
                    "principal": {"id": "a", "kind": "agent"},
                    "action": "audit.read",
                    "resource_type": "Ledger",
                    "resource_id": "default",
                },
                "expect": {"verdict": "permit"},
            }
        ]
    }
    [result] = run_policy_tests(shipped, {"my.test.yaml": document})
    assert not result.passed
    assert result.problems[0] == "verdict: expected permit, got deny"
    assert "No policy permits audit.read" in result.problems[1]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (None, "must be a mapping"),
        ({"tests": [], "surprise": 1}, "must be a mapping"),
        ({"tests": ["x"]}, "with a name"),
        ({"tests": [{"name": "x"}]}, "expect takes"),
        ({"tests": [{"name": "x", "expect": {"mood": "good"}}]}, "expect takes"),
        ({"tests": [{"name": "x", "expect": {"verdict": "deny"}, "when": 1}]}, "has name, facts and expect"),
        (
            {"tests": [{"name": "x", "facts": {"principal": "nobody"}, "expect": {"verdict": "deny"}}]},
            "has no 'nobody'",
        ),
        ({"tests": [{"name": "x", "facts": {"colour": "red"}, "expect": {"verdict": "deny"}}]}, "principal"),
    ],
)
def test_a_document_that_is_none_is_refused_by_name(shipped: PolicySet, document: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=r"my\.test\.yaml") as caught:
        run_policy_tests(shipped, {"my.test.yaml": document})
    assert told in caught.value.message
    assert caught.value.error_code == "policy_test_invalid"
