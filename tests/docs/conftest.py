"""One ``charter init`` for all pages that do not show their own; each page has a folder, a port and programs of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.support import quick
from tests.docs.running import Terminal
from tests.ports import free_port


@pytest.fixture(scope="session")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    terminal = Terminal(tmp_path_factory.mktemp("initialised"), free_port())
    done = terminal.do("charter init --person ann")
    assert done.code == 0, done
    return terminal.folder


@pytest.fixture
def terminal(tmp_path: Path, initialised: Path) -> Callable[[bool], Terminal]:
    """Opens the page's terminal; ``empty``: the page makes its own folder with ``charter init``."""

    def opened(empty: bool) -> Terminal:
        made = Terminal(tmp_path, free_port())
        if not empty:
            shutil.copytree(initialised, made.folder)
            tools = made.folder / "tools" / "casebook.tools.yaml"
            tools.write_text(quick(tools.read_text().replace(str(initialised), str(made.folder))))
        return made

    return opened
