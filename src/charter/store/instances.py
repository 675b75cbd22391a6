"""Which server processes live: each holds an OS lock on a file of its own, which ends with it, however it ends.

Needs no heartbeat and no clock. All processes must be on one machine, as SQLite's write-ahead log demands anyway.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from charter.errors import Conflict, InvalidInput

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Instances:
    """Lock files in one directory, one a living process."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}

    def enlist(self, instance: str) -> None:
        """Declare ``instance`` alive until this process ends or ``close``. Raises ``Conflict`` when it is taken."""
        if instance in self._held:
            return
        path = self._path(instance)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._sweep()
        for _ in range(100):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            if _try_lock(descriptor) and _is_the_file(descriptor, path):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                self._held[instance] = descriptor
                return
            os.close(descriptor)  # somebody looks whether it is dead, or has just removed it: again
        raise Conflict(f"Another process runs as instance {instance}.", code="instance_taken")

    def take(self, name: str) -> bool:
        """The same as ``enlist``, and False when it is taken."""
        try:
            self.enlist(name)
        except Conflict:
            return False
        return True

    def alive(self, instance: str) -> bool:
        """Is there a living process of this name? Removes the file of a dead one."""
        path = self._path(instance)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            if not _try_lock(descriptor):
                return True
            if _is_the_file(descriptor, path):
                path.unlink()
            return False
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Leave: the files are removed, then the locks go."""
        for instance, descriptor in self._held.items():
            self._path(instance).unlink(missing_ok=True)
            os.close(descriptor)
        self._held.clear()

    def _path(self, instance: str) -> Path:
        if not _NAME.fullmatch(instance):
            raise InvalidInput("An instance's name has letters, digits, '.', '_' and '-'.", code="bad_instance")
        return self._directory / f"{instance}.lock"

    def _sweep(self) -> None:
        for path in self._directory.glob("*.lock"):
            self.alive(path.stem)


def _is_the_file(descriptor: int, path: Path) -> bool:
    """Is the open file still the one of this name? It may have been removed between opening and locking."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        """An exclusive lock of the open file, not of the process: it also holds between two stores in one process."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
