"""Lists, newest first, page by page. A cursor holds the last row's time and id, so any page costs the same."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from charter.errors import InvalidInput
from charter.store.port import Filter, Page
from charter.store.sqlite.book import APPROVAL, EFFECT, WORKFLOW

MAX_PAGE = 1000


_MARKS = {"template": "@", "blocked_on": ":"}
_FIRST_PARTS = {
    "template": "substr(template, 1, instr(template, '@') - 1)",
    "blocked_on": "substr(blocked_on, 1, instr(blocked_on || ':', ':') - 1)",
}
"""These expressions are those of the indexes (0004_run_lists.sql, 0005_list_pairs.sql)."""
_NOT_NULL = {"blocked_on": " AND blocked_on IS NOT NULL"}
"""Their indexes leave the other rows out, and SQLite must be told that those do not matter."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A table that can be listed: its columns, what orders it, and what it can be filtered by."""

    table: str
    columns: tuple[str, ...]
    key: str
    time: str
    filters: frozenset[str]

    def query(self, tenant: str, where: Filter, page: Page) -> tuple[str, list[str | int]]:
        """The select for one page and its values; it asks for one row more than the page has."""
        if not 1 <= page.limit <= MAX_PAGE:
            raise InvalidInput(f"A page has 1 to {MAX_PAGE} rows.", code="bad_page")
        conditions, values = ["tenant = ?"], [tenant]
        for condition, value in _equal(self._wanted(where)):
            conditions.append(condition)
            values.append(value)
        for mark, moment in ((">=", where.started_after), ("<", where.started_before)):
            if moment is not None:
                conditions.append(f"{self.time} {mark} ?")
                values.append(moment)
        if page.after is not None:
            conditions.append(f"({self.time}, {self.key}) < (?, ?)")
            values.extend(_read_cursor(page.after))
        sql = (
            f"SELECT {', '.join(self.columns)} FROM {self.table} WHERE {' AND '.join(conditions)} "  # noqa: S608
            f"ORDER BY {self.time} DESC, {self.key} DESC LIMIT ?"
        )
        return sql, [*values, page.limit + 1]

    def cursor(self, row: tuple[str, ...]) -> str:
        """The opaque cursor of the page after ``row``."""
        last = [row[self.columns.index(self.time)], row[self.columns.index(self.key)]]
        return base64.urlsafe_b64encode(orjson.dumps(last)).rstrip(b"=").decode()

    def _wanted(self, where: Filter) -> dict[str, str]:
        named = {
            "status": where.status,
            "template": where.template,
            "owner": where.owner,
            "workflow_id": where.workflow_id,
            "blocked_on": where.blocked_on,
            **where.extra,
        }
        wanted = {name: value for name, value in named.items() if value is not None}
        if unknown := wanted.keys() - self.filters:
            raise InvalidInput(
                f"{self.table} cannot be filtered by {', '.join(sorted(unknown))}.",
                code="bad_filter",
                next_step=f"Filter by {', '.join(sorted(self.filters))}.",
            )
        return wanted


def _equal(wanted: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The conditions, so put that SQLite takes the index of a pair where there is one; a ``+`` keeps it off another."""
    for name, value in wanted.items():
        mark = _MARKS.get(name, "")
        whole = mark in value
        # A status says little beside what a run waits for.
        beside = wanted.keys() - ({name, "status"} if name == "blocked_on" else {name})
        if whole:
            yield f"{'+' if mark and beside else ''}{name} = ?", value
        if mark and (beside or not whole):
            yield f"{_FIRST_PARTS[name]} = ?{_NOT_NULL.get(name, '')}", value.partition(mark)[0]


def _read_cursor(text: str) -> tuple[str, str]:
    try:
        time, key = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if type(time) is str and type(key) is str:
            return time, key
    except (ValueError, TypeError, binascii.Error):
        pass
    raise InvalidInput("The cursor is not one that a list gave.", code="bad_cursor", next_step="List from the start.")


WORKFLOWS = Listing(
    "workflows",
    WORKFLOW,
    "workflow_id",
    "started_at",
    frozenset(("status", "template", "owner", "workflow_id", "blocked_on", "purpose", "case_id")),
)
APPROVALS = Listing(
    "approvals",
    APPROVAL,
    "approval_id",
    "requested_at",
    frozenset(("status", "owner", "workflow_id", "tool", "risk", "requested_by")),
)
EFFECTS = Listing(
    "effects",
    EFFECT,
    "effect_id",
    "updated_at",
    frozenset(("status", "workflow_id", "tool", "instance")),
)
