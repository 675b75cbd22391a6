"""Verify an exported file with only the public key. See :mod:`charter.audit.export` for the format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import orjson

from charter.audit.checkpoint import VerifierKey, origin_of
from charter.audit.envelope import Envelope, has_members, parse_leaf
from charter.audit.export import Header, Line, Proven, read_header, read_line, read_proof
from charter.audit.findings import Finding, Findings, Report
from charter.audit.merkle import leaf_hash, verify_inclusion
from charter.audit.verify import LogVerifier, SizedNote, trusted_checkpoints
from charter.errors import CharterError, InvalidInput
from charter.model.canonical import canonical

_PAGE = 1024


def verify_export(lines: Iterable[bytes], trusted: Iterable[str | VerifierKey]) -> Report:
    """Verify a file, given as its lines, as a stream.

    ``trusted`` are public keys (vkeys) of the log. Raises ``InvalidInput`` when there is no key or no header; all
    else is a finding. A whole log must be covered by checkpoints to its end. Of a workflow each event must be
    proven and the versions have no gap from 1 on; that no later event was left out, only the whole log can show.
    """
    keys = [VerifierKey.parse(key) if isinstance(key, str) else key for key in trusted]
    if not keys:
        raise InvalidInput("Name at least one public key (vkey) to trust.", code="no_trusted_key")
    reading = iter(lines)
    header = read_header(next(reading, b""))
    reader = _Reader(reading)
    report = _log(header, reader, keys) if header.workflow_id is None else _workflow(header, reader, keys)
    return replace(report, findings=(*report.findings, *reader.trouble))


class _Reader:
    """Reads checkpoints, then leaves with what follows each; keeps what is wrong with the file itself."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self.trouble: list[Finding] = []
        self.notes: list[SizedNote] = []
        self.count = 0
        self._ahead = self._next()
        while (note := self._note()) is not None:
            self.notes.append(SizedNote(note))
            self._ahead = self._next()

    def _next(self) -> Line | None:
        line = next(self._lines, None)
        if line is None:
            self.say("it has no end, so it was cut off.")
            return None
        try:
            return read_line(line)
        except InvalidInput as error:
            self.say(error.message)
            return None

    def _note(self) -> bytes | None:
        value = self._ahead.value if self._ahead else None
        note = value.get("checkpoint") if value else None
        return note.encode("utf-8", "replace") if isinstance(note, str) else None

    def say(self, text: str) -> None:
        """Keep what is wrong with the file here."""
        self.trouble.append(Finding("export_malformed", f"The export, after {self.count} events: {text}"))

    def items(self) -> Iterator[Line]:
        """Leaves and proofs, up to the end line."""
        item = self._ahead
        while item is not None and (item.value is None or "leaves" not in item.value):
            self.count += item.leaf is not None
            yield item
            item = self._next()
        if item is not None and item.value is not None:
            if item.value["leaves"] != self.count:
                self.say(f"it says that it has {item.value['leaves']!r}.")
            if next(self._lines, None) is not None:
                self.say("there are lines after its end.")


@dataclass(frozen=True, slots=True)
class _Row:
    """A leaf's own word for where it stands, which the verifier compares with where it does stand."""

    tenant: str
    stream: str
    seq: int
    version: int
    id: str
    type: str
    time: str
    leaf: bytes


def _row(leaf: bytes, expected: int, tenant: str) -> _Row:
    """A row for the verifier; a leaf that cannot be read is taken to stand where one is expected, and is found there."""
    try:
        e = orjson.loads(leaf)
        if not has_members(e) or canonical(e) != leaf:
            e = parse_leaf(leaf).as_json()
    except (CharterError, ValueError):
        return _Row(tenant, "", expected, 0, "", "", "", leaf)
    return _Row(e["tenant"], e["stream"], e["seq"], e["version"], e["id"], e["type"], e["time"], leaf)


def _log(header: Header, reader: _Reader, keys: Sequence[VerifierKey]) -> Report:
    verifier = LogVerifier(header.tenant, keys, notes=reader.notes, deep=False)
    page: list[_Row] = []
    expected = 0
    for item in reader.items():
        if item.leaf is None:
            reader.say("a line has no event.")
            continue
        row = _row(item.leaf, expected, header.tenant)
        expected = row.seq + 1
        page.append(row)
        if len(page) == _PAGE:
            verifier.feed(page)
            page = []
    verifier.feed(page)
    return _uncovered(verifier.finish())


def _uncovered(report: Report) -> Report:
    """Events that no signature vouches for could have been written by anybody."""
    if report.covered == report.size or report.first_bad is not None:
        return report
    text = f"No valid checkpoint covers events {report.covered} to {report.size - 1}."
    finding = Finding("uncovered", text, report.covered, last_seq=report.size - 1)
    return replace(report, findings=(finding, *report.findings))


def _workflow(header: Header, reader: _Reader, keys: Sequence[VerifierKey]) -> Report:
    found = Findings()
    roots = trusted_checkpoints(reader.notes, keys, origin_of(header.tenant), found, whole=False)
    version = last_seq = proven = 0
    for event in _pairs(reader):
        try:
            envelope = parse_leaf(event.leaf)
        except CharterError as error:
            found.add(Finding("leaf_bytes", error.message, event.seq))
            continue
        if not _proves(event, envelope, roots):
            text = "The event's inclusion proof does not lead to a signed checkpoint."
            found.add(Finding("proof_invalid", text, envelope.seq, envelope.id))
        else:
            proven += 1
        if (envelope.tenant, envelope.stream) != (header.tenant, header.workflow_id):
            text = f"The event is of {envelope.tenant}, {envelope.stream}."
            found.add(Finding("row_mismatch", text, envelope.seq, envelope.id))
        if envelope.version != version + 1 or envelope.seq < last_seq:
            text = f"The workflow goes from version {version} to {envelope.version}."
            found.add(Finding("version_gap", text, envelope.seq, envelope.id))
        version, last_seq = envelope.version, envelope.seq
    return Report(header.tenant, reader.count, None, proven, len(roots), found.ordered(), found.more)


def _proves(event: Proven, envelope: Envelope, roots: dict[int, bytes]) -> bool:
    root = roots.get(event.size)
    if root is None or event.seq != envelope.seq:
        return False
    return verify_inclusion(leaf_hash(event.leaf), event.seq, event.size, event.path, root)


def _pairs(reader: _Reader) -> Iterator[Proven]:
    """Each leaf with the proof after it; a leaf without one has an empty proof, which proves nothing."""
    leaf: bytes | None = None
    for item in reader.items():
        if item.leaf is not None:
            if leaf is not None:
                yield Proven(leaf, -1, -1, ())
            leaf = item.leaf
        elif leaf is not None and item.value is not None:
            try:
                yield read_proof(item.value, leaf)
            except InvalidInput as error:
                reader.say(error.message)
                yield Proven(leaf, -1, -1, ())
            leaf = None
        else:
            reader.say("a proof follows no event.")
    if leaf is not None:
        yield Proven(leaf, -1, -1, ())
