"""A run is pinned to its definition, and a published version is immutable, over restarts too."""

from __future__ import annotations

import pytest

from charter.errors import Conflict, NotFound
from charter.model.template import Template
from charter.store.port import Filter, Page
from tests.gate.conftest import Open
from tests.guarantees.upstream import Counting
from tests.guarantees.world import AGENT, OPS, template

pytestmark = pytest.mark.anyio

FIRST = template("filing", {"id": "work", "type": "agent", "allowed_tools": ["*"]})
CHANGED = template("filing", {"id": "work", "type": "agent", "allowed_tools": []})
NEXT = template("filing", {"id": "work", "type": "agent", "allowed_tools": []}, version="2")


async def test_a_changed_definition_needs_a_new_version(opened: Open) -> None:
    before = await opened(templates=(FIRST,))
    run = await before.start("filing")
    after = await opened(templates=(CHANGED,))
    with pytest.raises(Conflict) as caught:
        await after.start("filing")
    assert caught.value.error_code == "template_immutable"
    assert "published/" in caught.value.next_step, "which file, and what to do"
    assert "new version" in caught.value.next_step
    versioned = await opened(templates=(NEXT,))
    assert (await versioned.start("filing")).template == "filing@2"
    assert (await versioned.queries.workflow(AGENT, run.workflow_id)).template == "filing@1"


def reading(version: str, what: str) -> Template:
    """Reads something when a second has passed."""
    wait = {"id": "w", "type": "wait", "seconds": 1}
    read = {"id": "go", "type": "action", "tool": "counter__read", "arguments": {"what": what}}
    return template("reading", wait, read, version=version)


@pytest.mark.guarantee("G6")
@pytest.mark.parametrize("later", [(reading("2", "new"),), ()], ids=["another version", "removed"])
async def test_a_run_keeps_its_template_whatever_becomes_of_the_file(
    opened: Open, upstream: Counting, later: tuple[Template, ...]
) -> None:
    """It goes on as it began in a process that never saw that version, and is shown and verified to its end."""
    before = await opened(templates=(reading("1", "old"),))
    run = await before.start("reading")
    pinned = (await before.queries.state(OPS, run.workflow_id)).template_hash
    after = await opened(templates=later)
    if later:
        other = await after.start("reading")
        assert other.template == "reading@2"
    else:
        with pytest.raises(NotFound):
            await after.start("reading")
    after.clock.wait(2)
    await after.engine.settle()
    shown = await after.queries.workflow(OPS, run.workflow_id)
    assert (shown.template, shown.status) == ("reading@1", "completed")
    assert (await after.queries.state(OPS, run.workflow_id)).template_hash == pinned
    assert sorted(call["what"] for call in upstream.calls()) == (["new", "old"] if later else ["old"])
    rows, _ = await after.queries.workflows(OPS, Filter(template="reading@1"), Page())
    assert [row.workflow_id for row in rows] == [run.workflow_id]
    await after.check_record()
