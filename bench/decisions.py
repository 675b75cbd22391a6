"""What a decision costs beside the bare Cedar pass that it is made of, measured in turns in one run.

The target: ``evaluate`` takes at most 1.5 times its one ``cedarpy.is_authorized`` call with parsed handles, p50.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cedarpy
import orjson

from charter.model.policy import Facts, ToolFacts
from charter.model.principal import Principal
from charter.model.tool import ToolManifest
from charter.policies import PolicySet, evaluate, load_policy_set
from charter.policies.shipped import shipped_sources

TARGET = 1.5
ROUNDS = 3_000
TOOLS = 100
CONTEXT = ("workflow_live", "invocation_live", "tool_allowed", "dry_run")


def _tools() -> list[ToolManifest]:
    schema = {
        "type": "object",
        "properties": {"path": {"type": "string"}, "text": {"type": "string"}},
        "required": ["path", "text"],
    }
    return [
        ToolManifest(
            name=f"casebook__tool_{index}",
            server="casebook",
            upstream_name=f"tool_{index}",
            input_schema=schema,
            definition_hash="sha256:0",
        )
        for index in range(TOOLS)
    ]


def _facts(call: int) -> Facts:
    """A permitted read; each call is of another workflow."""
    tool = ToolFacts(
        name=f"casebook__tool_{call % TOOLS}", server="casebook", risk="low", side_effects="none", idempotent=True
    )
    return Facts(
        principal=Principal(id="agent-1", kind="agent", tenant="acme", roles=("writer",), acts_for="alice"),
        action="tool.invoke",
        resource_type="Tool",
        resource_id=tool.name,
        tenant="acme",
        tool=tool,
        workflow_id=f"wf_{call}",
        workflow_live=True,
        workflow_owner="alice",
        agent_invocation_id=f"inv_{call}",
        invocation_live=True,
        template="governed-session@1",
        step_id="work",
        purpose="Answer the customer",
        tool_allowed=True,
        calls_used=call,
        calls_budget=10_000_000,
        input={"path": "a/b.md", "text": "hello"},
    )


def _bare(policies: PolicySet, facts: Facts) -> Callable[[], Any]:
    """The pass alone: the request and the entities are made beforehand."""
    active = policies.active
    passes = active.passes("tool.invoke")
    both = passes.both
    context = facts.model_dump(include={*CONTEXT, *passes.spoken.read, *passes.spoken.asked}, exclude_none=True)
    context |= {"approved": [], "granted": False, "within_budget": True}
    action = f"tool.invoke:{facts.resource_id}"
    group = {"type": "Charter::Action", "id": "tool.invoke"}
    tool = facts.tool.model_dump() if facts.tool else {}
    entities = cedarpy.Entities.from_json_str(
        orjson.dumps(
            [
                {
                    "uid": {"type": "Charter::Agent", "id": facts.principal.id},
                    "attrs": facts.principal.model_dump(exclude={"kind"}),
                    "parents": [],
                },
                {
                    "uid": {"type": "Charter::Tool", "id": facts.resource_id},
                    "attrs": {**tool, "id": facts.resource_id, "tenant": facts.tenant},
                    "parents": [],
                },
                {"uid": group, "attrs": {}, "parents": []},
                {"uid": {"type": "Charter::Action", "id": action}, "attrs": {}, "parents": [group]},
            ]
        ).decode()
    )
    request = {
        "principal": {"type": "Charter::Agent", "id": facts.principal.id},
        "action": {"type": "Charter::Action", "id": action},
        "resource": {"type": "Charter::Tool", "id": facts.resource_id},
        "context": orjson.dumps(context).decode(),
    }

    def the_pass() -> None:
        assert cedarpy.is_authorized(request, both, entities, active.schema).allowed

    return the_pass


def _percentile(samples: list[int], share: float) -> float:
    """Microseconds."""
    return sorted(samples)[int(len(samples) * share)] / 1_000


def run() -> dict[str, Any]:
    """Microseconds of a decision and of its bare pass, p50 and p99, and their ratio."""
    policies = load_policy_set(shipped_sources(), _tools())
    calls = [_facts(call) for call in range(ROUNDS)]
    bares = [_bare(policies, facts) for facts in calls]
    for facts, bare in zip(calls[:200], bares, strict=False):
        assert evaluate(policies, facts).verdict == "permit"
        bare()
    ours: list[int] = []
    theirs: list[int] = []
    again: list[int] = []
    for facts, bare in zip(calls, bares, strict=True):
        policies.active.ask.cache_clear()  # type: ignore[attr-defined]  # no decision here may come from memory
        start = time.perf_counter_ns()
        evaluate(policies, facts)
        middle = time.perf_counter_ns()
        bare()
        theirs.append(time.perf_counter_ns() - middle)
        ours.append(middle - start)
        start = time.perf_counter_ns()
        evaluate(policies, facts.model_copy(update={"calls_used": facts.calls_used + 1}))
        again.append(time.perf_counter_ns() - start)
    ratio = _percentile(ours, 0.5) / _percentile(theirs, 0.5)
    return {
        "name": "decisions",
        "policies": len(policies.policies),
        "tools": TOOLS,
        "evaluate_p50_us": round(_percentile(ours, 0.5), 1),
        "evaluate_p99_us": round(_percentile(ours, 0.99), 1),
        "again_p50_us": round(_percentile(again, 0.5), 1),
        "bare_p50_us": round(_percentile(theirs, 0.5), 1),
        "bare_p99_us": round(_percentile(theirs, 0.99), 1),
        "ratio_p50": round(ratio, 3),
        "target": TARGET,
        "met": ratio <= TARGET,
    }


if __name__ == "__main__":
    print(orjson.dumps(run(), option=orjson.OPT_INDENT_2).decode())
