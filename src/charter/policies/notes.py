"""What the annotations of a policy may say, checked once when the set is loaded.

Set A (authorise): ``@id``, ``@reason``, ``@mode``, and on a forbid ``@code`` and ``@next``.
Set B (obligations): ``@id``, ``@obligation``, ``@reason``, ``@mode`` and what the obligation takes:

* ``require_approval``: ``@role`` (any person if absent), ``@approvers`` (1 to 16), ``@within`` (ISO 8601, default ``PT24H``),
  ``@channels`` (comma-separated), ``@people`` (comma-separated: only these count), ``@agents("true")``: an agent's decision
  that set A permits counts too (add ``agents:1`` to the condition), ``@edit("false")``: nobody changes the call, ``@remind``
  (ISO 8601: people are reminded, again and again), ``@escalate`` (ISO 8601) with ``@escalate_role``: when others are asked
  too (add ``ROLE:1`` to the condition);
* ``redact``: ``@fields`` (comma-separated JSON pointers);
* ``rate_limit``: ``@calls`` and ``@within``;
* ``dry_run``: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from cedarpy import pst

from charter.errors import Misconfigured
from charter.model.policy import Obligation
from charter.model.principal import Channel

Part = Literal["authorise", "obligations"]

MAX_APPROVERS = 16
_MAX_SECONDS = 366 * 86_400
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ROLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_POINTER = re.compile(r"(/[^/,]+)*")
_DURATION = re.compile(
    r"P(?!$)(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9})S)?)?", re.ASCII
)
_SECONDS = (604_800, 86_400, 3_600, 60, 1)

_TAKES: Mapping[str, frozenset[str]] = {
    "require_approval": frozenset(
        {"role", "approvers", "within", "channels", "people", "agents", "edit", "remind", "escalate", "escalate_role"}
    ),
    "redact": frozenset({"fields"}),
    "rate_limit": frozenset({"calls", "within"}),
    "dry_run": frozenset(),
}
_NEEDS: Mapping[str, frozenset[str]] = {"redact": frozenset({"fields"}), "rate_limit": frozenset({"calls", "within"})}
_COMMON = frozenset({"id", "reason", "mode"})


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy of a loaded set: its nodes and what its annotations say."""

    id: str
    file: str
    part: Part
    template: pst.Template
    reason: str | None = None
    code: str | None = None
    next_step: str | None = None
    log_only: bool = False
    obligation: Obligation | None = None

    @property
    def effect(self) -> str:
        """``permit``, ``forbid``, or for set B the obligation's name."""
        return self.obligation.name if self.obligation else str(self.template.effect)


def read(file: str, part: Part, template: pst.Template) -> Policy:
    """The policy behind these nodes. Raises ``Misconfigured`` (``policy_annotation``) naming file, policy and mend."""
    notes = dict(template.annotations)
    name = notes.get("id", "")
    if not _ID.fullmatch(name):
        raise wrong(file, name or template.id, 'it has no usable @id (letters, digits, ". _ : / -")', 'Add @id("…").')
    fail = _Failure(file, name)
    obligation = _obligation(notes, template.effect, fail) if part == "obligations" else None
    allowed = _COMMON | _allowed(part, template.effect, obligation)
    unknown = sorted(set(notes) - allowed)
    if unknown:
        raise fail(f"@{unknown[0]} means nothing here", f"Known here: {', '.join('@' + a for a in sorted(allowed))}.")
    if notes.get("mode", "enforce") not in ("enforce", "log_only"):
        raise fail("@mode is neither enforce nor log_only", 'Write @mode("log_only") or leave it out.')
    if "code" in notes and not _CODE.fullmatch(notes["code"]):
        raise fail("@code is not a stable code", 'Use lower-case words, as in @code("tool_not_allowed").')
    return Policy(
        id=name,
        file=file,
        part=part,
        template=replace(template, id=name),  # decisions name policies by @id
        reason=notes.get("reason"),
        code=notes.get("code"),
        next_step=notes.get("next"),
        log_only=notes.get("mode") == "log_only",
        obligation=obligation,
    )


@dataclass(frozen=True, slots=True)
class _Failure:
    """Makes the error for one policy."""

    file: str
    policy_id: str

    def __call__(self, problem: str, mend: str) -> Misconfigured:
        return wrong(self.file, self.policy_id, problem, mend)


def wrong(file: str, policy_id: str, problem: str, mend: str) -> Misconfigured:
    """The error that names file, policy, what is wrong and how to mend it."""
    return Misconfigured(
        f"{file}: policy {policy_id}: {problem}.",
        code="policy_annotation",
        next_step=mend,
        detail={"file": file, "policy_id": policy_id},
    )


def _allowed(part: Part, effect: str, obligation: Obligation | None) -> frozenset[str]:
    if obligation is not None:
        return frozenset({"obligation"}) | _TAKES[obligation.name]
    return frozenset({"code", "next"}) if part == "authorise" and effect == "forbid" else frozenset()


def _obligation(notes: Mapping[str, str], effect: str, fail: _Failure) -> Obligation:
    if effect != "permit":
        raise fail("a policy of the obligations set must be a permit: it says that an obligation applies", "Move it.")
    name = notes.get("obligation", "")
    if name not in _TAKES:
        raise fail(f"@obligation is {name!r}", f"Known: {', '.join(sorted(_TAKES))}.")
    missing = sorted(_NEEDS.get(name, frozenset()) - set(notes))
    if missing:
        raise fail(f"{name} needs @{missing[0]}", f'Add @{missing[0]}("…").')
    if ("escalate" in notes) != ("escalate_role" in notes):
        raise fail("@escalate says when, @escalate_role whom to ask then", "Give both, or neither.")
    values: dict[str, Any] = {"name": name, "policy_id": notes["id"], "reason": notes.get("reason")}
    for note, text in notes.items():
        if note in _READERS and note in _TAKES[name]:
            field, reader = _READERS[note]
            try:
                values[field] = reader(text)
            except ValueError as error:
                raise fail(f"@{note} is {text[:80]!r}", f"{error}.") from None
    return Obligation(**values)


def duration(text: str) -> int:
    """Seconds of an ISO 8601 duration in weeks, days, hours, minutes and seconds; ``ValueError`` for anything else."""
    found = _DURATION.fullmatch(text)
    total = sum(int(n) * s for n, s in zip(found.groups(), _SECONDS, strict=True) if n) if found else 0
    if not 1 <= total <= _MAX_SECONDS:
        raise ValueError('Write an ISO 8601 duration of at most 366 days, as in "PT24H" or "P7D"')
    return total


def _count(highest: int) -> Callable[[str], int]:
    def read_count(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 7 and 1 <= int(text) <= highest):
            raise ValueError(f"Write a whole number from 1 to {highest}")
        return int(text)

    return read_count


def channels(text: str, between: str = ",") -> tuple[Channel, ...]:
    """The channels of a list; ``ValueError`` names the known ones."""
    known: dict[str, Channel] = {channel: channel for channel in get_args(Channel)}
    names = [part.strip() for part in text.split(between)]
    if not all(name in known for name in names):
        raise ValueError(f"Known channels: {', '.join(known)}")
    return tuple(known[name] for name in names)


def role(text: str) -> str:
    """A role's name; ``any`` is taken, it means any person."""
    if not _ROLE.fullmatch(text) or text in ("any", "agents"):
        raise ValueError("Write a role's name of letters, digits, '.', '_', '-'; leave @role out for any person")
    return text


def people(text: str, between: str = ",") -> tuple[str, ...]:
    """People's ids in a list; ``ValueError`` for an empty one."""
    names = tuple(part.strip() for part in text.split(between))
    if not all(names) or any(len(name) > 200 for name in names):
        raise ValueError("Write people's ids with a comma between them")
    return names


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError('Write "true" or "false"')
    return text == "true"


def _reminder(text: str) -> int:
    seconds = duration(text)
    if seconds < 60:
        raise ValueError("Write at least a minute, as in PT4H")
    return seconds


def _pointers(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if not all(name and _POINTER.fullmatch(name) for name in names):
        raise ValueError('Write JSON pointers, as in "/password,/card/number"')
    return names


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "role": ("role", role),
    "approvers": ("approvers", _count(MAX_APPROVERS)),
    "within": ("within_seconds", duration),
    "channels": ("channels", channels),
    "people": ("people", people),
    "agents": ("agents", _flag),
    "edit": ("edit", _flag),
    "remind": ("remind_seconds", _reminder),
    "escalate": ("escalate_seconds", duration),
    "escalate_role": ("escalate_role", role),
    "fields": ("fields", _pointers),
    "calls": ("calls", _count(1_000_000)),
}
