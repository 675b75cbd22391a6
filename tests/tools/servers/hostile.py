"""An upstream that misbehaves on its pipes as only a process can. No MCP library: it writes what it likes.

The first argument is the era (``auto`` or ``legacy``), the second a file with the tools that it lists, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

out, err = sys.stdout.buffer, sys.stderr.buffer
MEGA = 1024 * 1024
TOOLS = [
    {"name": name, "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}
    for name in ("echo", "flood", "endless", "stray", "deep", "torn", "notice", "noise", "orphan", "deaf", "code")
]


def send(message: Any) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def answer(id_: Any, text: str) -> None:
    result = {"resultType": "complete", "content": [{"type": "text", "text": text}]}
    send({"jsonrpc": "2.0", "id": id_, "result": result})


def flood(id_: Any, given: dict[str, Any]) -> None:
    """One answer of so many megabytes, its members in the order of one SDK or the other."""
    first, last = b'{"jsonrpc":"2.0","id":%d,' % id_, b"}"
    if given.get("order") == "typescript":
        first, last = b"{", b',"jsonrpc":"2.0","id":%d}' % id_
    out.write(first + b'"result":{"content":[{"type":"text","text":"')
    for _ in range(given["megabytes"]):
        out.write(b"x" * MEGA)
    out.write(b'"}]}' + last + b"\n")
    out.flush()


def endless(id_: Any, given: dict[str, Any]) -> None:
    """A line that never ends."""
    while True:
        out.write(b"x" * 65536)


def stray(id_: Any, given: dict[str, Any]) -> None:
    """Prints to its standard output as many programs do, then answers."""
    out.write(b"\n\n\r\nstarting, the password is hunter2\n\xff\xfe\n[1]\n{}\n" + b"x" * given["bytes"] + b"\n")
    answer(id_, "after")


def deep(id_: Any, given: dict[str, Any]) -> None:
    """An answer nested so deep."""
    levels = given["levels"]
    out.write(b'{"jsonrpc":"2.0","id":%d,"result":' % id_ + b'{"a":' * levels + b"1" + b"}" * levels + b"}\n")
    out.flush()


def torn(id_: Any, given: dict[str, Any]) -> None:
    """An answer that is no JSON."""
    out.write(b'{"jsonrpc":"2.0","id":%d,"result":{"content":[\xff\n' % id_)
    out.flush()


def notice(id_: Any, given: dict[str, Any]) -> None:
    """Huge messages that are no answers and carry the number of one, then the answer."""
    big = "x" * given["bytes"]
    send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": big}})
    send({"method": "sampling/createMessage", "params": {"data": big}, "jsonrpc": "2.0", "id": id_})
    answer(id_, "after")


def noise(id_: Any, given: dict[str, Any]) -> None:
    """Megabytes on standard error, then the answer."""
    for _ in range(given["megabytes"]):
        err.write(b"x" * MEGA)
    err.write(b"the end of it")
    err.flush()
    answer(id_, "after")


def orphan(id_: Any, given: dict[str, Any]) -> None:
    """Leave a process behind that holds all pipes and hears no SIGTERM, and go."""
    code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    left = subprocess.Popen([sys.executable, "-c", code], stdin=sys.stdin, stdout=subprocess.PIPE)
    assert left.stdout is not None
    left.stdout.readline()
    holder = subprocess.Popen(["sleep", "600"])  # holds this process's standard output
    Path(given["file"]).write_text(f"{left.pid} {holder.pid}")
    os._exit(3)


def deaf(id_: Any, given: dict[str, Any]) -> None:
    """Read nothing more, hear no SIGTERM, stay."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answer(id_, str(os.getpid()))
    while True:
        time.sleep(600)


def code(id_: Any, given: dict[str, Any]) -> None:
    send({"jsonrpc": "2.0", "id": id_, "error": {"code": given["code"], "message": "mine"}})


def main() -> None:
    era, listed = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()) if len(sys.argv) > 2 else TOOLS
    around = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if era == "auto" else {}
    for line in sys.stdin.buffer:
        message = json.loads(line)
        id_, method, given = message.get("id"), message.get("method"), message.get("params") or {}
        if method == "server/discover" and era == "auto":
            found = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **around}
            send({"jsonrpc": "2.0", "id": id_, "result": found})
        elif method == "initialize":
            who = {"name": "hostile", "version": "1"}
            hello = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": who}
            send({"jsonrpc": "2.0", "id": id_, "result": hello})
        elif method == "tools/list":
            send({"jsonrpc": "2.0", "id": id_, "result": {"tools": listed, **around}})
        elif method == "tools/call" and given["name"] == "echo":
            answer(id_, str(given["arguments"].get("value")))
        elif method == "tools/call":
            globals()[given["name"]](id_, given["arguments"])
        elif id_ is not None:
            send({"jsonrpc": "2.0", "id": id_, "error": {"code": -32601, "message": "no such method"}})


if __name__ == "__main__":
    main()
