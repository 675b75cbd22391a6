"""``make demo`` without a terminal, as CI and a first look in a container run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_tells_its_whole_story(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(DEMO), "--yes", "--json", "--folder", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    story = done.stdout
    told = [
        "names none",  # the call outside any workflow, denied with its reason
        "A workflow starts",
        "# Welcome",  # the read
        "require_approval",
        "approve recorded for ann",
        "On disk: '# Case 12'",
        "has run already",  # the replay
        "the workflow is completed",
        "WORKFLOW_STARTED",
        "Everything verifies",
        "The database is",
    ]
    places = [story.find(text) for text in told]
    assert -1 not in places, f"not told: {[text for text, at in zip(told, places, strict=True) if at < 0]}\n{story}"
    assert places == sorted(places)
    end = json.loads(story.strip().splitlines()[-1])
    assert Path(end["database"]).exists()
