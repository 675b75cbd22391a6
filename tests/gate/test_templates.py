"""A run is pinned to its definition, and a published version is immutable, over restarts too."""

from __future__ import annotations

import pytest

from charter.errors import Conflict
from tests.gate.conftest import Open
from tests.guarantees.world import AGENT, template

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
    assert "new version" in caught.value.next_step
    versioned = await opened(templates=(NEXT,))
    assert (await versioned.start("filing")).template == "filing@2"
    assert (await versioned.queries.workflow(AGENT, run.workflow_id)).template == "filing@1"
