"""The same commands give the same events, in this process, in another one, and whatever the hash seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.workflows.story import FLOW, text, told

ROOT = Path(__file__).parents[2]


def test_the_story_comes_to_its_end_and_has_every_kind_of_event_in_it() -> None:
    run = told()
    assert run.state.status == "completed"
    assert run.state.output["result"] == {"written": True}
    assert set(run.steps()) == {step.id for step in FLOW.steps}
    assert {"EFFECT_IN_DOUBT", "EFFECT_RESOLVED", "APPROVAL_CLOSED", "TOOL_RESULT"} <= set(run.types())
    assert run.refolded() == run.state


def test_the_same_given_gives_the_same_events() -> None:
    assert text() == text()


@pytest.mark.parametrize("seed", ["0", "1", "4242"])
def test_another_process_with_another_hash_seed_gives_them_byte_for_byte(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    found = subprocess.run(
        [sys.executable, "-m", "tests.workflows.story"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=True,
        text=True,
        encoding="utf-8",
    )
    assert found.stdout == text()
