"""A real web site on loopback, for tests of what Charter sends out: it keeps what it is asked and answers as told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Says:
    """An answer. ``raw`` bytes go out as they are, then the connection is closed; a body that is no bytes goes as JSON."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None


Answers = Callable[[Asked], Says]


class Site:
    """Set ``answers`` to what it shall say; ``asked`` are the requests so far, in order."""

    def __init__(self, answers: Answers | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.answers: Answers = answers or (lambda _: Says())
        self.asked: list[Asked] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, body)
                site.asked.append(asked)
                self.say(site.answers(asked))

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

            def say(self, says: Says) -> None:
                self.close_connection = True
                if says.raw is not None:
                    self.wfile.write(says.raw)
                    return
                content = says.body if isinstance(says.body, bytes) else orjson.dumps(says.body)
                self.send_response(says.status)
                kind = {} if isinstance(says.body, bytes) else {"content-type": "application/json"}
                for name, value in {**kind, "content-length": str(len(content)), **says.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that has enough hangs up

        self.server = Quiet(("127.0.0.1", 0), Handler)
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port: int = self.server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@contextmanager
def site(answers: Answers | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site for as long as the block lasts."""
    found = Site(answers, tls)
    try:
        yield found
    finally:
        found.close()
