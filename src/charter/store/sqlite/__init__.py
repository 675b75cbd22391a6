"""The store in one SQLite file: one writer with group commit, readers beside it."""

from charter.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
