"""``charter audit prove|export``: what others need to verify with only the public key."""

from __future__ import annotations

import os
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from charter.cli.audit import commands
from charter.cli.ledger import demand_audit, find_stored
from charter.cli.output import note, print_json
from charter.cli.session import As, Roles, TokenFile, run_as, who
from charter.errors import IntegrityError, InvalidInput
from charter.model.principal import Principal

if TYPE_CHECKING:
    from charter.server.app import Charter

PROOF_VERSION = 1
PAGE = 1000


def path_of(texts: list[str]) -> list[bytes]:
    """The hashes of an inclusion proof from their base64."""
    return [b64decode(text, validate=True) for text in texts]


async def covering(charter: Charter, tenant: str, size: int) -> tuple[int, bytes]:
    """The latest checkpoint when it covers ``size`` events; else one that is signed now."""
    kept = await charter.store.checkpoints(tenant)
    if not kept or kept[-1][0] < size:
        await charter.checkpointer.checkpoint(tenant)
        kept = await charter.store.checkpoints(tenant)
    if not kept or kept[-1][0] < size:
        raise IntegrityError("The log is shorter than its own events say.", code="truncated")
    return kept[-1]


async def inclusion(charter: Charter, tenant: str, seq: int, size: int) -> list[bytes]:
    """The inclusion proof of event ``seq`` in the tree of the first ``size``."""
    from charter.audit.merkle import inclusion_plan

    plan = inclusion_plan(seq, size)
    return plan.build(await charter.store.tree_nodes(tenant, plan.wanted))


@commands.command("prove")
def prove(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="Its id, evt_…, or its sequence number.")],
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Print as JSON the proof that an event is in the log that the latest checkpoint signs."""

    async def work(charter: Charter, caller: Principal) -> dict[str, Any]:
        demand_audit(charter, caller)
        return await _proof(charter, caller.tenant, event)

    print_json(run_as(who(as_name, role, token_file), work))


async def _proof(charter: Charter, tenant: str, event: str) -> dict[str, Any]:
    from charter.audit.checkpoint import verify_checkpoint
    from charter.audit.merkle import leaf_hash, verify_inclusion

    stored = await find_stored(charter, tenant, event)
    size, text = await covering(charter, tenant, stored.seq + 1)
    path = await inclusion(charter, tenant, stored.seq, size)
    found = verify_checkpoint(text, charter.keys.verifiers(tenant))
    signed, vkey = found.checkpoint, str(found.signed_by[0])
    if not verify_inclusion(leaf_hash(stored.leaf), stored.seq, size, path, signed.root):
        raise IntegrityError(f"Event {stored.seq} ({stored.id}) is not the one that the checkpoint covers.")
    return {
        "charter_proof": PROOF_VERSION,
        "tenant": tenant,
        "event_id": stored.id,
        "seq": stored.seq,
        "leaf": stored.leaf.decode(),
        "leaf_hash": leaf_hash(stored.leaf).hex(),
        "size": size,
        "path": [b64encode(step).decode() for step in path],
        "checkpoint": text.decode(),
        "vkey": vkey,
    }


@commands.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; - is standard output.", allow_dash=True)],
    workflow: Annotated[str | None, typer.Option("--workflow", help="Only this workflow, each event proven.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
    as_name: As = None,
    role: Roles = None,
    token_file: TokenFile = None,
) -> None:
    """Write the log, or one workflow of it, as a file that anybody verifies with only the public key."""
    to_stdout = str(file) == "-"
    if not to_stdout and file.exists() and not force:
        raise InvalidInput(f"{file} is there already.", next_step="Name another file, or give --force.")

    async def work(charter: Charter, caller: Principal) -> int:
        if workflow is None:
            demand_audit(charter, caller)
        else:
            await charter.queries.state(caller, workflow, "audit.read")
        return await _write(charter, caller.tenant, workflow, None if to_stdout else file)

    count = run_as(who(as_name, role, token_file), work)
    if not to_stdout:
        note(f"{count} lines in {file}.")
        note(f"Next: charter audit verify --export {file} --key VKEY   (charter audit key prints the VKEY)")


async def _write(charter: Charter, tenant: str, workflow: str | None, file: Path | None) -> int:
    """Whole or not at all."""
    if file is None:
        return await _lines_into(charter, tenant, workflow, sys.stdout.buffer)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("wb") as out:
            count = await _lines_into(charter, tenant, workflow, out)
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)
    return count


async def _lines_into(charter: Charter, tenant: str, workflow: str | None, out: Any) -> int:
    count = 0
    async for line in _lines(charter, tenant, workflow):
        out.write(line)
        count += 1
    out.flush()
    return count


async def _lines(charter: Charter, tenant: str, workflow: str | None) -> AsyncIterator[bytes]:
    from charter.audit.export import Header, end_line, note_line

    head = await charter.store.head(tenant)
    if head.size == 0:
        raise InvalidInput("The log is empty.", code="empty_log")
    size, _ = await covering(charter, tenant, head.size)
    yield Header(tenant, workflow, tuple(map(str, charter.keys.verifiers(tenant)))).line()
    for at, text in await charter.store.checkpoints(tenant):
        # Of one workflow only the checkpoint that its proofs lead to is needed.
        if at == size or (workflow is None and at < size):
            yield note_line(text)
    count = 0
    part = _workflow_lines(charter, tenant, workflow, size) if workflow else _log_lines(charter, tenant, size)
    async for line, is_leaf in part:
        count += is_leaf
        yield line
    yield end_line(count)


async def _log_lines(charter: Charter, tenant: str, size: int) -> AsyncIterator[tuple[bytes, bool]]:
    from charter.audit.export import leaf_line

    at = 0
    while at < size and (rows := await charter.store.log(tenant, at, min(PAGE, size - at))):
        for row in rows:
            yield leaf_line(row.leaf), True
        at = rows[-1].seq + 1


async def _workflow_lines(charter: Charter, tenant: str, stream: str, size: int) -> AsyncIterator[tuple[bytes, bool]]:
    from charter.audit.export import Proven, leaf_line, proof_line

    after = 0
    while rows := await charter.store.load(tenant, stream, after, PAGE):
        for row in rows:
            if row.seq >= size:
                return
            path = await inclusion(charter, tenant, row.seq, size)
            yield leaf_line(row.leaf), True
            yield proof_line(Proven(row.leaf, row.seq, size, path)), False
        after = rows[-1].version
