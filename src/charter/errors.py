"""One tree of errors. Every error has a stable code, says what to do next, and carries no secret.

Doors translate: MCP renders them as tool errors with ``structuredContent``, HTTP as RFC 9457 problem JSON,
the command line as two lines and an exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class CharterError(Exception):
    """The root. ``code`` is stable over releases; ``next_step`` tells a person or an agent what to do."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    default_next_step: ClassVar[str] = "Try again; if it stays, ask the operator to look at the server's log."

    def __init__(
        self,
        message: str,
        *,
        next_step: str | None = None,
        detail: Mapping[str, Any] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step or self.default_next_step
        self.detail: dict[str, Any] = dict(detail or {})
        self.error_code = code or self.code

    def as_json(self) -> dict[str, Any]:
        """The structured form that every door shows: ``code``, ``message``, ``next_step``, ``detail``."""
        out: dict[str, Any] = {
            "code": self.error_code,
            "message": self.message,
            "next_step": self.next_step,
        }
        if self.detail:
            out["detail"] = self.detail
        return out


class InvalidInput(CharterError):
    """What was sent does not have the shape or the values it must have. Nothing was changed."""

    code = "invalid_input"
    status = 422
    default_next_step = "Correct the named fields and send the request again."


class NotFound(CharterError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"
    status = 404
    default_next_step = "Check the identifier; list what exists with get_workflow or describe_tools."


class Unauthenticated(CharterError):
    """No credential, or one that does not verify."""

    code = "unauthenticated"
    status = 401
    default_next_step = "Send a valid bearer token; `charter token issue` makes one for local use."


class Denied(CharterError):
    """A policy, or the absence of one, says no."""

    code = "denied"
    status = 403
    default_next_step = "Read the reason; do something that the policy permits, or ask the operator."


class Refused(CharterError):
    """The workflow's state does not allow this command now. The refusal is on record."""

    code = "refused"
    status = 409
    default_next_step = "Call get_workflow to see the state and what you may do now."


class Conflict(CharterError):
    """Somebody else changed the same thing first."""

    code = "conflict"
    status = 409
    default_next_step = "Read the current state and decide again."


class Unavailable(CharterError):
    """A part that is needed (an upstream, the store) does not answer now."""

    code = "unavailable"
    status = 503
    default_next_step = "Wait a little and try again."


class Misconfigured(CharterError):
    """The configuration, a manifest, a template or a policy does not hold together."""

    code = "misconfigured"
    status = 500
    default_next_step = "Correct the named file and start again."


class IntegrityError(CharterError):
    """The ledger does not verify: something was changed, dropped or forged."""

    code = "integrity"
    status = 500
    default_next_step = "Stop, keep the files as they are, and compare with an exported checkpoint."
