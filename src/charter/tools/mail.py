"""Sends one e-mail over SMTP (RFC 5321), and says whether it may have been taken."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from typing import Final, Literal

import anyio

from charter.model.plain_text import one_line
from charter.tools.failures import CallError

Security = Literal["starttls", "tls", "none"]
_PASSING: Final = range(400, 500)
"""Replies that say: not now."""


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where e-mail is handed in. ``recipients``: addresses and ``*@domain``; nobody else is written to."""

    host: str
    port: int
    sender: str
    security: Security = "starttls"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    recipients: tuple[str, ...] = ()
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def check(self, addresses: Sequence[str]) -> None:
        """Raises ``CallError`` (``not_run``, ``recipient_refused``) for an address that is none, or not allowed."""
        for address in addresses:
            name, plain = parseaddr(address)
            local, at, domain = plain.rpartition("@")
            whole = (
                not name
                and plain == address
                and at
                and local
                and domain
                and address.isascii()
                and address.isprintable()
            )
            if not whole or any(char in address for char in ' ,;:<>()[]\\"'):
                raise CallError("not_run", "recipient_refused", "A recipient is no plain e-mail address.")
            allowed = {item.lower() for item in self.recipients}
            if not allowed & {plain.lower(), f"*@{domain.lower()}", "*"}:
                raise CallError(
                    "not_run",
                    "recipient_refused",
                    "A recipient is not among those that may be written to (`[email] recipients`).",
                )

    def message(self, to: Sequence[str], subject: str, text: str, message_id: str, unix_seconds: float) -> EmailMessage:
        """The message. Its id is the same each time it is sent, so that what arrives twice can be told."""
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = self.sender, ", ".join(to), one_line(subject)
        mail["Date"] = formatdate(unix_seconds)
        mail["Message-ID"] = f"<{message_id}@{parseaddr(self.sender)[1].rpartition('@')[2] or 'charter'}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text)
        return mail

    async def send(self, mail: EmailMessage, to: Sequence[str], seconds: float) -> int:
        """How many recipients took it: all of them, or it is a ``CallError`` and none did.

        ``not_run``: it was certainly not taken (``mail_unreachable``, ``mail_refused``, ``mail_not_now``). ``unknown``
        (``mail_lost``): the connection broke after it had been handed over.
        """
        return await anyio.to_thread.run_sync(self._send, mail, list(to), seconds)

    def _send(self, mail: EmailMessage, to: list[str], seconds: float) -> int:
        handed_over = False
        try:
            with self._connected(seconds) as server:
                _expect(server.mail(parseaddr(self.sender)[1]))
                for address in to:
                    _expect(server.rcpt(address))
                handed_over = True
                _expect(server.data(mail.as_bytes(policy=mail.policy.clone(linesep="\r\n"))))
                handed_over = False
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code) from None
        except (OSError, smtplib.SMTPException) as error:  # time-outs are OSErrors
            if handed_over:
                raise CallError(
                    "unknown", "mail_lost", "The connection broke while the mail was handed over."
                ) from None
            raise CallError(
                "not_run", "mail_unreachable", f"The mail server cannot be reached ({type(error).__name__})."
            ) from None
        return len(to)

    def _connected(self, seconds: float) -> smtplib.SMTP:
        context = self.tls or ssl.create_default_context()
        if self.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(self.host, self.port, timeout=seconds, context=context)
        else:
            server = smtplib.SMTP(self.host, self.port, timeout=seconds)
        try:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, self.password or "")
            else:
                server.ehlo_or_helo_if_needed()
        except BaseException:
            server.close()
            raise
        return server


def _expect(reply: tuple[int, bytes]) -> None:
    if not 200 <= reply[0] < 300:
        raise smtplib.SMTPResponseException(*reply)


def _refused(code: int) -> CallError:
    """The reply's text stays out: it may repeat an address or what was sent."""
    if code in _PASSING:
        return CallError("not_run", "mail_not_now", f"The mail server does not take it now (SMTP {code}).")
    return CallError("not_run", "mail_refused", f"The mail server refuses it (SMTP {code}).")
