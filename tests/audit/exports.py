"""Whole files of exports, put together line by line as ``charter audit export`` does, and taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from charter.audit.export import Header, Proven, end_line, leaf_line, note_line, proof_line, read_line


def write_log(header: Header, notes: Iterable[bytes], leaves: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a whole log's file."""
    found = list(leaves)
    yield header.line()
    yield from map(note_line, notes)
    yield from map(leaf_line, found)
    yield end_line(len(found))


def write_workflow(header: Header, notes: Iterable[bytes], events: Iterable[Proven]) -> Iterator[bytes]:
    """The lines of one workflow's file."""
    found = list(events)
    yield header.line()
    yield from map(note_line, notes)
    for event in found:
        yield leaf_line(event.leaf)
        yield proof_line(event)
    yield end_line(len(found))


def read_leaves(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The exact bytes of the events."""
    return (leaf for line in lines if (leaf := read_line(line).leaf) is not None)
