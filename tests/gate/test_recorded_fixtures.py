"""Fixtures recorded from a run: a dry run with them goes the way that the run went, and no secret is among them."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import InvalidInput
from charter.manifests.recorded_fixtures import Recording, recorded
from charter.model.fixture import Fixture
from charter.model.tool import ToolManifest
from charter.server.fixture_file import in_file, read_fixtures
from charter.tools.connecting import Sources
from charter.tools.registry import Registry
from charter.tools.runner import Runner
from tests.gate.conftest import Open
from tests.gate.test_secrets import SECRET, TOOL
from tests.guarantees.upstream import Counting, Governed
from tests.guarantees.world import BOB, OPS, Desk, template

pytestmark = pytest.mark.anyio


def action(step_id: str, tool: str, **more: Any) -> dict[str, Any]:
    return {"id": step_id, "type": "action", "tool": f"counter__{tool}", **more}


READ = action("look", "read", arguments={"what": "x"})
REFUSED = action("refused", "refuse", on_failure="skip", retry={"attempts": 2, "backoff_seconds": 0})
POLLED = {
    "id": "until",
    "type": "wait",
    "on_timeout": "skip",
    "poll": {"tool": "counter__read", "arguments": {"what": "y"}, "until": "false", "every_seconds": 60, "attempts": 3},
}
FLOW = template("flow", READ, REFUSED, POLLED, output="{{ steps.look.output }}")


async def gone(desk: Desk, name: str, *, dry_run: bool = False) -> str:
    """A run that has come as far as it does."""
    run = await desk.start(name, dry_run=dry_run)
    for _ in range(4):
        await desk.engine.settle()
        desk.clock.wait(61)
    return str(run.workflow_id)


async def told(desk: Desk, workflow_id: str, manifests: tuple[ToolManifest, ...]) -> Recording:
    return recorded(await desk.queries.events(OPS, workflow_id), {tool.name: tool for tool in manifests})


async def test_a_dry_run_goes_the_way_of_the_run_that_was_recorded(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting, tmp_path: Any
) -> None:
    desk = await opened(templates=(FLOW,))
    real = await gone(desk, "flow")
    called = len(upstream.calls())
    found = await told(desk, real, tools[0].all())
    assert (set(found.answers), found.left_out) == ({"flow/look", "flow/refused", "flow/until"}, ())
    words = "Error executing tool refuse: The book is closed."
    assert found.answers["flow/refused"] == Fixture(error=words, code="tool_error"), "each try was answered so"
    assert found.answers["flow/until"] == Fixture(output={"result": "this is y"})
    file = tmp_path / "fixtures.yaml"
    file.write_text(in_file(found.answers))
    runner = Runner(Registry(tuple, Sources({})), None, read_fixtures(file))
    again = await opened(templates=(FLOW,), runner=runner)
    dry = await gone(again, "flow", dry_run=True)
    assert len(upstream.calls()) == called, "no tool was called"

    async def way(workflow_id: str) -> list[Any]:
        events = [event.data for event in await again.events(workflow_id) if event.type == "WORKFLOW_STEP"]
        return [(data["step_id"], data["status"], data.get("output"), data.get("code")) for data in events]

    assert [item[:2] for item in await way(dry)] == [item[:2] for item in await way(real)]
    assert [item for item in await way(dry) if item[0] != "until"] == [
        item for item in await way(real) if item[0] != "until"
    ]
    with pytest.raises(InvalidInput) as refusal:
        await told(again, dry, tools[0].all())
    assert refusal.value.error_code == "dry_run_recorded"


async def secret_run(desk: Desk) -> str:
    run = await desk.start("secret")
    await desk.engine.settle()
    request = (await desk.last(run.workflow_id, "APPROVAL_REQUESTED"))["request"]
    await desk.decide(str(request["approval_id"]), by=BOB)
    await desk.engine.settle()
    return str(run.workflow_id)


@pytest.mark.guarantee("G8")
async def test_what_is_withheld_entirely_gives_no_fixture(
    opened: Open, tools: tuple[Governed, Runner], upstream: Counting
) -> None:
    step = {"id": "use", "type": "action", "tool": TOOL, "arguments": {"password": SECRET, "note": "mine"}}
    desk = await opened(templates=(template("secret", step),))
    run = await secret_run(desk)
    found = await told(desk, run, tools[0].all())
    assert found.answers == {}
    assert [(item.name, "withheld entirely" in item.why) for item in found.left_out] == [("secret/use", True)]
    assert (await told(desk, run, ())).left_out[0].why.startswith(f"{TOOL} is not governed here")


@pytest.mark.guarantee("G8")
@pytest.mark.parametrize(
    ("pointers", "schema", "output", "why"),
    [
        (("/what",), {"properties": {"what": {"type": "string"}}}, {"what": "simulated"}, None),
        (("/what",), {"type": "object"}, {"what": "(withheld)"}, None),
        (("/what",), {"properties": {"what": {"enum": ["a", "b"]}}}, {"what": "a"}, None),
        (("/what",), {"properties": {"what": {"type": "string", "pattern": "^[0-9]+$"}}}, None, "does not fit"),
        (("",), {"type": "object"}, None, "withheld entirely"),
        ((), {"required": ["more"]}, None, "does not fit"),
        (("/other",), None, None, "withheld entirely"),
    ],
)
async def test_the_manifest_of_now_says_what_is_in_a_fixture(
    desk: Desk,
    tools: tuple[Governed, Runner],
    pointers: tuple[str, ...],
    schema: dict[str, Any] | None,
    output: Any,
    why: str | None,
) -> None:
    """Also of a run whose record has more in the clear."""
    found = tools[0].find("counter__read")
    assert found is not None
    changed = found.model_copy(update={"sensitive_results": pointers, "output_schema": schema})
    events = [
        ("WORKFLOW_STARTED", {"template": "flow@1"}),
        ("WORKFLOW_STEP", {"step_id": "look", "status": "opened"}),
        ("TOOL_INVOKE", {"effect_id": "e", "step_id": "look", "tool": found.name}),
        (
            "TOOL_RESULT",
            {"effect_id": "e", "status": "succeeded", "output": {"what" if schema else "text": SECRET}},
        ),
    ]
    made = recorded([{"type": type_, "data": data} for type_, data in events], {found.name: changed})
    assert SECRET not in in_file(made.answers) or not pointers
    if why is None:
        assert made.answers == {"flow/look": Fixture(output=output)}
    else:
        assert made.answers == {}
        assert why in made.left_out[0].why


async def test_what_agents_called_is_not_on_record_and_is_said(desk: Desk, tools: tuple[Governed, Runner]) -> None:
    work = await desk.session()
    await work.invoke("counter__read", what="x")
    found = await told(desk, work.workflow_id, tools[0].all())
    assert found.answers == {}
    assert [item.name for item in found.left_out] == ["counter__read"]


def of_tries(*outputs: Any) -> list[dict[str, Any]]:
    events = [("WORKFLOW_STARTED", {"template": "flow@1"})]
    for number, output in enumerate(outputs):
        status = "opened" if number == 0 else "reopened"
        events.append(("WORKFLOW_STEP", {"step_id": "look", "status": status}))
        events.append(("TOOL_INVOKE", {"effect_id": f"e{number}", "step_id": "look", "tool": "counter__read"}))
        if isinstance(output, tuple):
            events.append(output)
        else:
            result = {"effect_id": f"e{number}", "status": "succeeded", "output": output}
            events.append(("TOOL_RESULT", result))
    return [{"type": type_, "data": data} for type_, data in events]


def test_each_try_has_its_own_answer_and_the_last_stands_for_those_after_it(tools: tuple[Governed, Runner]) -> None:
    manifests = {tool.name: tool for tool in tools[0].all()}
    a, b = {"result": "a"}, {"result": "b"}
    answers = recorded(of_tries(a, b, b, b), manifests).answers
    assert answers == {"flow/look": (Fixture(output=a), Fixture(output=b))}
    doubt = ("EFFECT_IN_DOUBT", {"effect_id": "e0", "reason": "Cut off."})
    answers = recorded(of_tries(doubt, b), manifests).answers
    assert answers == {"flow/look": (Fixture(error="Cut off.", code="in_doubt", ran="unknown"), Fixture(output=b))}
    large = {"too_large": True, "bytes": 5}
    found = recorded(of_tries(a, large), manifests)
    assert (found.answers, [item.name for item in found.left_out]) == ({}, ["flow/look"]), "all of the list, or none"
