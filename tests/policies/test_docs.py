"""What docs/policies.md shows, runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from charter.policies import evaluate, load_policy_set, run_policy_tests, shipped_sources
from charter.policies.schema import RESOURCES
from tests.policies.build import OPEN, READ, call, manifest, policies

TEXT = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def test_the_policies_load_and_decide() -> None:
    note = READ.model_copy(update={"name": "casebook__read_note", "tags": ("payment",)})
    tool = manifest(note.name, path={"type": "string", "_required": True})
    loaded = policies(OPEN + "".join(_blocks("cedar")), "".join(_blocks("cedar-obligations")), tool)
    assert evaluate(loaded, call(note, input={"path": "secret/x"})).code == "path_forbidden"
    assert evaluate(loaded, call(note, input={"path": "x"})).policy_ids == ("payments-need-two",)


def test_the_tests_pass() -> None:
    [block] = _blocks("yaml")
    results = run_policy_tests(load_policy_set(shipped_sources()), {"docs.test.yaml": yaml.safe_load(block)})
    assert [result.problems for result in results] == [()]


def test_every_action_is_in_the_table() -> None:
    for action, resources in RESOURCES.items():
        [row] = [line for line in TEXT.splitlines() if line.startswith("| `") and f"`{action}`" in line]
        assert all(resource in row for resource in resources), action
