"""Python programs that start at once: forked from a process that has imported what they need.

``command("charter.cli", "serve")`` is a command line that does what ``python -m charter.cli serve`` does, in a process of
its own with its own streams, environment, folder and signals. Only the seconds are missing that the imports take. What
is proven about the start itself, or about ``kill -9``, starts the interpreter anew.

It names a launcher, which hands its streams to a process that was started once (:func:`_serve`) and forks there. The
launcher passes signals on and ends as the program ends; when it is killed, so is the program.
"""

# No import beyond the standard library, and few: the launcher runs this file.
from __future__ import annotations

import json
import os
import signal
import socket
import sys

MODULES = (
    "charter.bundled.casebook",
    "charter.cli.root",
    "charter.cli.serving",
    "charter.server.app",
    "charter.server.evaluator",
    "charter.server.http",
    "charter.server.mcp",
    "charter.tools.adding",
    "charter.tools.registry",
    "charter.tools.runner",
)
LOST = 255
"""The launcher's exit code where the program ended by a signal."""

_started: list[str] = []


def command(module: str, *arguments: str) -> list[str]:
    """As ``python -m module arguments``."""
    if not hasattr(os, "fork"):
        return [sys.executable, "-m", module, *arguments]
    if not _started:
        _started.append(_start())
    return [sys.executable, "-I", "-S", __file__, _started[0], module, *arguments]


def _start() -> str:
    """Start the process that forks; it ends with this one."""
    import atexit
    import shutil
    import subprocess
    import tempfile

    folder = tempfile.mkdtemp()
    place = os.path.join(folder, "forking")
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.forked", place], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )

    def end() -> None:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    assert process.stdout is not None
    with process.stdout as ready:
        assert ready.readline() == b"ready\n"
    return place


# -- the process that forks


def _serve(place: str) -> None:
    import gc
    import importlib
    import select

    for name in MODULES:
        importlib.import_module(name)
    gc.freeze()  # what is shared stays so
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen(64)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if listener.fileno() not in ready:  # the end of what started it
                return
            launcher, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _become(launcher)
            launcher.close()


def _become(launcher: socket.socket) -> None:
    """Be the program that the launcher asks for; does not come back."""
    import threading

    said, streams, _, _ = socket.recv_fds(launcher, 8, 3)
    size = int.from_bytes(said, "big")
    with launcher.makefile("rb") as told:
        asked = json.loads(told.read(size))
    launcher.sendall(os.getpid().to_bytes(8, "big"))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(
        signal.SIGHUP, signal.SIG_DFL
    )  # under nohup it would be ignored, and who ends it so would wait for ever
    threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()
    code = _run(asked)
    launcher.sendall(bytes([code & 255]))
    os._exit(code)


def _end_with(launcher: socket.socket) -> None:
    launcher.recv(1)
    os.kill(os.getpid(), signal.SIGKILL)


def _run(asked: dict[str, object]) -> int:
    import atexit
    import runpy
    import traceback
    import warnings

    os.chdir(str(asked["folder"]))
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[call-overload]
    sys.argv = sys.orig_argv = list(asked["argv"])  # type: ignore[call-overload]
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115 - for the process's life, as the next two
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1 if os.isatty(1) else -1)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, errors="backslashreplace")  # noqa: SIM115
    if os.environ.get("PYTHONWARNINGS") == "error":
        warnings.simplefilter("error")
    code = 0
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return code


# -- the launcher


def _launch(place: str, argv: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as program:
        program.connect(place)
        asked = json.dumps({"argv": argv, "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
        socket.send_fds(program, [len(asked).to_bytes(8, "big")], [0, 1, 2])
        program.sendall(asked)
        pid = int.from_bytes(program.recv(8), "big")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _frame: os.kill(pid, number))
        for stream in (0, 1, 2):  # who reads or writes at their other ends waits for the program alone
            os.close(stream)
        ended = program.recv(1)
        return ended[0] if ended else LOST


if __name__ == "__main__":
    if len(sys.argv) == 2:
        _serve(sys.argv[1])
    else:
        os._exit(_launch(sys.argv[1], sys.argv[2:]))
