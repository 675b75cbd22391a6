"""One ``charter init`` for all; each test works on a copy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.recorded import Recorded, record
from tests.cli.support import Project, charter, copied


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "project"
    done = charter("init", str(folder), "--person", "ann", cwd=folder.parent)
    assert done.code == 0, done.both
    return folder


@pytest.fixture
def project(initialised: Path, tmp_path: Path) -> Project:
    return copied(initialised, tmp_path / "project")


@pytest.fixture(scope="session")
def record_made(initialised: Path, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Made once; tests that change anything take ``recorded``."""
    return record(copied(initialised, tmp_path_factory.mktemp("record") / "project"))


@pytest.fixture
def recorded(record_made: Recorded, tmp_path: Path) -> Recorded:
    """A copy of its own, record and all."""
    project = copied(record_made.project.folder, tmp_path / "project")
    return replace(record_made, project=project)
