"""``charter audit verify``: the whole log against the signed checkpoints and the rules; or a file, with only the key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import anyio.from_thread
import anyio.to_thread
import orjson
import typer

from charter.audit.envelope import parse_leaf
from charter.audit.findings import Finding, Report
from charter.cli.audit import commands
from charter.cli.failing import INTEGRITY, tell
from charter.cli.output import Json, note, print_json, say
from charter.cli.session import run
from charter.errors import CharterError, IntegrityError, InvalidInput

if TYPE_CHECKING:
    from charter.audit.checkpoint import VerifierKey
    from charter.audit.envelope import Envelope
    from charter.audit.verify import SizedNote
    from charter.gate.rechecking import Recheck
    from charter.server.app import Charter
    from charter.server.keys import Keys as KeyRing
    from charter.store.port import StoredEvent

PAGE = 1024
_MOST = 20
_MENDS = {
    "list_differs": "The log is whole. Find out who wrote to the database; `charter audit rebuild` makes the lists anew.",
    "sealed_missing": "The log is whole; put the bytes back from a backup, and find out who wrote to the database.",
    "sealed_damaged": "The log is whole; put the bytes back from a backup, and find out who wrote to the database.",
    "template_changed": "The log is whole; restore the database from a backup: runs of this template cannot go on.",
}

Keys = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="VKEY|FILE", help="A trusted public key, as `audit key` prints it, or its file."),
]


@commands.command("verify")
def verify(
    workflow_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORKFLOW]",
            help="The rules of this run alone; the log is verified whole all the same, what stands beside it is not.",
        ),
    ] = None,
    export: Annotated[Path | None, typer.Option("--export", help="A file of `audit export`; needs only --key.")] = None,
    proof: Annotated[Path | None, typer.Option("--proof", help="A file of `audit prove`; needs only --key.")] = None,
    keys: Keys = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option("--checkpoints", help="Checkpoints kept elsewhere, to compare with.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify: order, hashes, signed checkpoints, the rules of every run. Exit code 3 names the first bad event.

    It is the log of one tenant: the configured one (`tenant` in charter.toml). For another set the environment variable
    CHARTER_TENANT.
    """
    trusted = [_key(text) for text in keys or ()]
    if proof is not None:
        report = _verify_proof(proof, trusted)
    elif export is not None:
        report = _verify_file(export, trusted, workflow_id)
    else:
        report = _verify_own(workflow_id, trusted, checkpoints or [])
    _tell(report, as_json)


def _key(text: str) -> str:
    """A vkey, or the file that holds it."""
    return text if text.count("+") >= 2 else Path(text).read_text(encoding="utf-8").strip()


# -- online


def _verify_own(workflow_id: str | None, trusted: list[str], extra: Sequence[Path]) -> Report:
    return run(lambda charter: _verify_store(charter, workflow_id, trusted, extra))


async def _verify_store(charter: Charter, workflow_id: str | None, trusted: list[str], extra: Sequence[Path]) -> Report:
    tenant = charter.settings.tenant
    report, streams, recheck = await verify_log(charter, trusted, extra)
    if workflow_id is not None and workflow_id not in streams and report.ok:
        raise InvalidInput(f"There is no workflow {workflow_id} in the log.", code="unknown_workflow")
    if not report.ok:
        return report
    found = await recheck.finish() if workflow_id is None else []
    if not recheck.astray:  # else the runs cannot be read as they were written
        wanted = [workflow_id] if workflow_id is not None else sorted(streams)
        found += await anyio.to_thread.run_sync(_rules_online, charter, tenant, wanted)
    return replace(report, findings=tuple(found))


async def verify_log(charter: Charter, trusted: list[str], extra: Sequence[Path]) -> tuple[Report, set[str], Recheck]:
    """The log itself: order, hashes, checkpoints. Its workflows, and what has seen the events for what stands beside it."""
    from charter.audit.checkpoint import VerifierKey, origin_of
    from charter.audit.verify import LogVerifier, SizedNote
    from charter.cli.notes_elsewhere import notes_elsewhere
    from charter.gate.rechecking import Recheck

    tenant, store = charter.settings.tenant, charter.store
    vkeys = [VerifierKey.parse(text) for text in trusted] or charter.keys.verifiers(tenant)
    elsewhere = notes_elsewhere(charter, extra, await store.tenants())  # first: a note is in the store before it leaves
    stored = await store.checkpoints(tenant)
    notes = [*(SizedNote(text, size) for size, text in stored), *elsewhere.sized()]
    trouble: list[Finding] = [] if trusted else too_late(charter.keys, tenant, notes)
    trouble += elsewhere.missing({size for size, _ in stored}, vkeys, origin_of(tenant))
    try:
        head = await store.head(tenant)
    except CharterError as error:
        trouble.append(Finding("head_mismatch", f"The store's head cannot be read: {error.message}"))
        head = None
    verifier = LogVerifier(tenant, vkeys, notes=notes, head=(head.size, head.root) if head else None)
    recheck = Recheck(charter.gate.parts, tenant)
    streams = await _feed(charter, verifier, recheck, head.size if head else None, trouble)
    report = verifier.finish()
    notices = elsewhere.notices if stored else (*elsewhere.notices, *await _unsigned(charter, report))
    return replace(report, findings=(*trouble, *report.findings), notices=notices), streams, recheck


async def _unsigned(charter: Charter, report: Report) -> list[str]:
    """A log without any checkpoint that is older than a server would have left it: none was signed, or all were deleted."""
    from charter.model.times import unix_ms_of

    first = await charter.store.log(charter.settings.tenant, 0, 1) if report.ok else []
    waits = charter.settings.audit.checkpoint_seconds * 1000
    if not first or charter.gate.parts.clock() - unix_ms_of(parse_leaf(first[0].leaf).time) <= waits:
        return []
    return [
        "No checkpoint of this log is in the store. If a server has run with it, they were deleted; "
        "compare with one that was kept elsewhere (--checkpoints)."
    ]


async def _feed(
    charter: Charter, verifier: Any, recheck: Recheck, size: int | None, trouble: list[Finding]
) -> set[str]:
    """All events up to the head that was read before; rows beyond it as well, unless a server has added them since."""
    tenant, store, streams, at = charter.settings.tenant, charter.store, set[str](), 0
    while rows := await _page(charter, at, trouble):
        if size is not None and rows[-1].seq >= size and (await store.head(tenant)).size > rows[-1].seq:
            rows = [row for row in rows if row.seq < size]  # written while we read
            if not rows:
                break
        hashes = await _stored_hashes(charter, rows[0].seq, rows[-1].seq + 1)
        verifier.feed(rows, hashes)
        await recheck.see(rows)
        streams.update(row.stream for row in rows if row.stream.startswith("wf_"))
        at = rows[-1].seq + 1
    return streams


async def _page(charter: Charter, at: int, trouble: list[Finding]) -> list[StoredEvent]:
    """The next rows. Where the file is damaged, fewer and fewer, so that the first event that cannot be read is named."""
    limit = PAGE
    while True:
        try:
            return await charter.store.log(charter.settings.tenant, at, limit)
        except CharterError as error:
            if limit == 1:
                trouble.append(Finding("leaf_bytes", f"It cannot be read: {error.message}", at))
                return []
            limit = max(1, limit // 8)


async def _stored_hashes(charter: Charter, start: int, end: int) -> list[bytes] | None:
    try:
        return await charter.store.leaf_hashes(charter.settings.tenant, start, end)
    except CharterError:
        return None  # a gap: the verifier names it from the rows themselves


def too_late(keys: KeyRing, tenant: str, notes: Sequence[SizedNote]) -> list[Finding]:
    """Checkpoints that only a retired key signed, and which are longer than the log was when it was retired."""

    return [
        Finding("checkpoint_invalid", f"The checkpoint of size {size} was signed by a key after it was retired.")
        for note in notes
        for retired in keys.retired
        if (size := _signed_size(note.note, retired.key(tenant))) is not None
        and retired.signed_too_late(tenant, size)
        and _signed_size(note.note, keys.signer(tenant).key) is None
    ]


def _signed_size(note: bytes, key: VerifierKey) -> int | None:
    from charter.audit.checkpoint import verify_checkpoint

    try:
        return verify_checkpoint(note, [key]).checkpoint.size
    except CharterError:
        return None


def _rules_online(charter: Charter, tenant: str, streams: Iterable[str]) -> list[Finding]:
    """In a thread, so that one run of any length is read page by page."""
    from charter.audit.trace import validate_trace

    def events(stream: str) -> Iterator[Envelope]:
        after = 0
        while rows := anyio.from_thread.run(charter.store.load, tenant, stream, after, PAGE):
            for row in rows:
                yield parse_leaf(row.leaf)
            after = rows[-1].version

    found: list[Finding] = []
    for stream in streams:
        try:
            found += validate_trace(events(stream))
        except CharterError as error:  # the store cannot even walk the stream
            found.append(Finding("version_gap", f"{stream}: {error.message}"))
    return sorted(found, key=lambda finding: finding.seq or 0)


# -- offline


def _verify_file(path: Path, trusted: list[str], workflow_id: str | None) -> Report:
    from charter.audit.export import read_header
    from charter.audit.offline import verify_export

    if not trusted:
        raise InvalidInput(
            "Name the public key to trust: --key.",
            code="no_trusted_key",
            next_step="`charter audit key` prints it where the log is kept; get it by another way than the file.",
        )
    with path.open("rb") as file:
        header = read_header(file.readline())
        if workflow_id is not None and header.workflow_id not in (None, workflow_id):
            raise InvalidInput(f"The file is of workflow {header.workflow_id}.", code="unknown_workflow")
        file.seek(0)
        report = verify_export(file, trusted)
        if not report.ok:
            return report
        return replace(report, findings=tuple(_rules_of_file(file, workflow_id)))


def _rules_of_file(file: IO[bytes], only: str | None) -> list[Finding]:
    from charter.audit.export import read_line
    from charter.audit.trace import validate_trace

    places: dict[str, list[int]] = {}
    file.seek(0)
    while line := file.readline():
        leaf = read_line(line).leaf
        stream = orjson.loads(leaf)["stream"] if leaf is not None else ""
        if stream.startswith("wf_") and only in (None, stream):
            places.setdefault(stream, []).append(file.tell() - len(line))

    def events(offsets: list[int]) -> Iterator[Envelope]:
        for offset in offsets:
            file.seek(offset)
            yield parse_leaf(read_line(file.readline()).leaf or b"")

    found = [finding for offsets in places.values() for finding in validate_trace(events(offsets))]
    return sorted(found, key=lambda finding: finding.seq or 0)


def _verify_proof(path: Path, trusted: list[str]) -> Report:
    from charter.audit.checkpoint import VerifierKey, origin_of, verify_checkpoint
    from charter.audit.merkle import leaf_hash, verify_inclusion
    from charter.cli.proving import path_of

    if not trusted:
        raise InvalidInput("Name the public key to trust: --key.", code="no_trusted_key")
    try:
        given = orjson.loads(path.read_bytes())
        leaf, note_text, steps = given["leaf"].encode(), given["checkpoint"].encode(), path_of(given["path"])
        seq = int(given["seq"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise InvalidInput("This is no proof as `audit prove` writes it.", code="proof_malformed") from None
    checkpoint = verify_checkpoint(note_text, [VerifierKey.parse(text) for text in trusted]).checkpoint
    envelope = parse_leaf(leaf)
    good = envelope.seq == seq and checkpoint.origin == origin_of(envelope.tenant)
    good = good and verify_inclusion(leaf_hash(leaf), seq, checkpoint.size, steps, checkpoint.root)
    findings = (
        () if good else (Finding("proof_invalid", "The proof does not lead to the checkpoint.", seq, envelope.id),)
    )
    return Report(envelope.tenant, 1, checkpoint.root, int(good), 1, findings)


# -- telling


def _tell(report: Report, as_json: bool) -> None:
    first = report.first_bad
    if as_json:
        print_json(
            {
                "ok": report.ok,
                "tenant": report.tenant,
                "events": report.size,
                "covered": report.covered,
                "checkpoints": report.checkpoints,
                "root": report.root.hex() if report.root is not None else None,
                "first_bad": first.as_json() if first else None,
                "findings": [finding.as_json() for finding in report.findings],
                "more": report.more,
                "notices": report.notices,
            }
        )
    else:
        _print(report)
    if report.ok:
        return
    worst = first or report.findings[0]
    error = IntegrityError(first_bad(worst) if first else worst.text)
    tell(error.message, _MENDS.get(worst.rule, error.next_step))
    raise typer.Exit(INTEGRITY)


def first_bad(finding: Finding) -> str:
    """The sentence that names the first bad event."""
    named = f" ({finding.event_id})" if finding.event_id else ""
    if finding.last_seq is not None and finding.last_seq != finding.seq:
        return f"The first bad event is one of number {finding.seq} to {finding.last_seq}: {finding.text}"
    return f"The first bad event is number {finding.seq}{named}: {finding.text}"


def _print(report: Report) -> None:
    say(f"{report.size} events of tenant {report.tenant}; {report.checkpoints} signed checkpoints match.")
    if report.root is not None:
        say(f"root {report.root.hex()}")
    for notice in report.notices:
        note(notice)
    for finding in report.findings[:_MOST]:
        where = "" if finding.seq is None else f" event {finding.seq}"
        say(f"✗ {finding.rule}{where}: {finding.text}")
    rest = len(report.findings) - _MOST + report.more
    if rest > 0:
        say(f"… and {rest} findings more")
    if report.ok:
        signed = "signatures, " if report.checkpoints else ""
        say(f"✓ Everything verifies: order, hashes, {signed}and the rules of every run.")
        if report.covered < report.size:
            note(
                f"Events {report.covered} to {report.size - 1} wait for the next checkpoint; "
                "`charter audit checkpoint` signs it now."
            )
