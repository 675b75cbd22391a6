"""Chooses the store by its URL."""

from __future__ import annotations

from charter.errors import Misconfigured
from charter.store.port import Store


def open_store(url: str) -> Store:
    """The store that ``url`` names, not yet opened: ``await store.open()``.

    ``sqlite:PATH``, ``sqlite:///ABSOLUTE/PATH`` or a plain path. Raises ``Misconfigured`` for anything else.
    """
    scheme, colon, rest = url.partition(":")
    if scheme in ("postgres", "postgresql"):
        raise Misconfigured(
            "The Postgres store is not built yet.",
            code="store_not_built",
            next_step="Name an SQLite file: sqlite:PATH.",
        )
    if not colon or len(scheme) == 1:  # a drive letter is no scheme
        rest = url
    elif scheme != "sqlite":
        raise _bad_url()
    if rest.startswith("//"):
        rest = rest[2:]
    if not rest or rest.startswith(":"):
        raise _bad_url()
    from charter.store.sqlite import SqliteStore

    return SqliteStore(rest)


def _bad_url() -> Misconfigured:
    # The URL itself stays out of the text: it may hold a password.
    return Misconfigured(
        "The store's URL is not one that Charter knows.", code="store_url", next_step="Write sqlite:PATH."
    )
