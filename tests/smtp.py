"""A mail server on loopback (RFC 5321, as much as is needed), for tests: it keeps what it is given and answers as told."""

from __future__ import annotations

import base64
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any


@dataclass
class MailBox:
    """``replies`` by command (``MAIL``, ``RCPT``, ``DATA``, ``.``, ``AUTH``) replace the good ones; ``hang up`` ends."""

    port: int = 0
    replies: dict[str, str] = field(default_factory=dict)
    got: list[tuple[str, list[str], Message]] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    logins: list[str] = field(default_factory=list)


class _Conversation(socketserver.StreamRequestHandler):
    box: MailBox
    tls: ssl.SSLContext | None

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self) -> None:
        self.say("220 here")
        self.sender, self.to = "", list[str]()
        while line := self.rfile.readline().decode().strip():
            verb, _, rest = line.partition(" ")
            self.box.seen.append(verb.upper())
            told = self.box.replies.get(verb.upper())
            if told == "hang up":
                return
            if told is not None:
                self.say(told)
            else:
                getattr(self, f"on_{verb.lower()}", self.on_rset)(rest)
            if verb.upper() == "QUIT":
                return

    def on_ehlo(self, _rest: str) -> None:
        self.say("250-here")
        if self.tls is not None and not isinstance(self.connection, ssl.SSLSocket):
            self.say("250-STARTTLS")
        self.say("250 AUTH PLAIN")

    def on_starttls(self, _rest: str) -> None:
        if self.tls is None:
            self.say("502 no")
            return
        self.say("220 go")
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)

    def on_auth(self, rest: str) -> None:
        self.box.logins.append(base64.b64decode(rest.split(" ")[1]).decode())
        self.say("235 in")

    def on_mail(self, rest: str) -> None:
        self.sender, self.to = rest[5:].split(">", maxsplit=1)[0].lstrip("<"), []
        self.say("250 ok")

    def on_rcpt(self, rest: str) -> None:
        self.to.append(rest[3:].split(">", maxsplit=1)[0].lstrip("<"))
        self.say("250 ok")

    def on_data(self, _rest: str) -> None:
        self.say("354 go on")
        self._data(self.sender, self.to)

    def on_quit(self, _rest: str) -> None:
        self.say("221 bye")

    def on_rset(self, _rest: str) -> None:
        self.say("250 ok")

    def _data(self, sender: str, to: list[str]) -> None:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        told = self.box.replies.get(".")
        if told is None or told == "hang up":
            self.box.got.append((sender, list(to), message_from_bytes(b"".join(lines))))
        if told == "hang up":
            self.connection.shutdown(socket.SHUT_RDWR)  # to close it would wait for the files made of it
        else:
            self.say(told or "250 taken")


@contextmanager
def mail_box(tls: ssl.SSLContext | None = None) -> Iterator[MailBox]:
    """A mail server for as long as the block lasts; with ``tls`` it offers STARTTLS."""
    box = MailBox()

    class Handler(_Conversation):
        def handle(self) -> None:
            with suppress(OSError, ValueError):  # the other side has enough, or we hung up
                super().handle()

        def finish(self) -> None:
            with suppress(OSError, ValueError):
                super().finish()
            self.connection.close()

    Handler.box, Handler.tls = box, tls

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = allow_reuse_address = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        box.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield box
        finally:
            server.shutdown()
            thread.join()
