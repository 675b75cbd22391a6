"""Whatever happens to whatever workflow: it always says what it waits for, it comes to an end, and its record is in order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from charter.audit.trace import validate_trace
from charter.workflows import decide as rules
from charter.workflows import views
from tests.workflows.build import Run, envelopes
from tests.workflows.wandering import text, wander

ROOT = Path(__file__).parents[2]
SEEDS = [str(seed) for seed in (*range(100), 191)]
"""With the one of the first few hundred whose message is given up."""


def says_what_it_waits_for(run: Run) -> None:
    blockers = views.blocked_by(run.state)
    assert bool(blockers) == run.state.live
    assert all(item.who and item.detail and item.since for item in blockers)
    if run.state.moving and any(item.what == "engine" for item in blockers):
        assert rules.runnable_steps(run.state), blockers
    assert run.context().next_step


def goes_nowhere_without_a_yes(run: Run) -> None:
    """What needs an approval that failed and was skipped is left out, and so is what needs that."""
    types = {step.id: step.type for step in run.template.steps}
    for index, step in enumerate(run.template.steps):
        for need in run.template.needs_of(index) if step.id not in run.template.undoers else ():
            found = run.state.steps.get(need)
            if found is None or found.status != "skipped" or found.code is None:
                continue
            if types[need] == "approval" or found.code == "not_agreed":
                assert run.steps().get(step.id, "pending") in ("pending", "skipped")


EXAMPLES = 3000 if os.environ.get("CHARTER_HYPOTHESIS") == "search" else 120


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False))
def test_every_run_ends_or_waits_for_something_that_has_a_name(random: Random) -> None:
    run = wander(random, says_what_it_waits_for)
    goes_nowhere_without_a_yes(run)
    assert not run.state.live
    assert rules.wake_at(run.state) is None
    assert validate_trace(envelopes(run)) == ()
    assert run.refolded() == run.state
    assert not [item for item in run.state.approvals.values() if item.open]
    assert not [item for item in run.state.invocations.values() if item.status == "open"]
    assert not run.state.children


def test_the_seeds_wander_through_everything() -> None:
    """Else the proof below would be of little."""
    told = "".join(text(int(seed)) for seed in SEEDS)
    seen = ["COMPENSATION_STARTED", "CHILD_ENDED", "EFFECT_IN_DOUBT", "STEP_REVIEWED", "SIGNAL_DELIVERED", '"polling"']
    seen += ["CALLBACK_RECEIVED", "EFFECT_DEAD_LETTERED", "SIGNAL_SENT", "GATE_CHECKED", "EFFECT_RESOLVED"]
    seen += [f'"{status}"' for status in ("retrying", "awaiting", "submitted", "review", "returned", "reopened")]
    seen += ["undo:", '"not_agreed"']
    assert [name for name in seen if name not in told] == []


def test_another_process_with_another_hash_seed_tells_the_same_histories_byte_for_byte() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "tests.workflows.wandering", *SEEDS],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "4242"},
        capture_output=True,
        check=True,
        text=True,
        encoding="utf-8",
    )
    assert found.stdout == "".join(text(int(seed)) for seed in SEEDS)
