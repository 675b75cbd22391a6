"""Random people, agents, tenants, clocks, policies, definitions, crashes and restarts against the real gate and store.

After every step an auditor who shares no code with the product reads the new leaves of the ledger and compares them with what
the tools themselves counted: guarantees 1 to 6 and 9. At the end the ledger verifies and every trace obeys its rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from charter.errors import CharterError
from charter.gate import Limits
from charter.model import commands as cmd
from charter.model.approval import GrantBounds
from charter.model.base import JsonObject
from charter.model.policy import Action, Decision, Facts
from charter.model.principal import Principal, service
from charter.model.times import rfc3339
from charter.policies import PolicySet, PolicySources, could_ever, could_ever_of, evaluate, load_policy_set
from charter.policies.shipped import shipped_files
from tests.guarantees.auditor import Auditor, Rules
from tests.guarantees.scripted import KNOWN, MANIFESTS, WAYS, Box, Died, Fuse, FusedStore, Scripted
from tests.guarantees.world import DAY, Clock, Desk, desk_on, template

pytestmark = [
    pytest.mark.guarantee("G1"),
    pytest.mark.guarantee("G2"),
    pytest.mark.guarantee("G3"),
    pytest.mark.guarantee("G4"),
    pytest.mark.guarantee("G5"),
    pytest.mark.guarantee("G6"),
    pytest.mark.guarantee("G7"),
    pytest.mark.guarantee("G9"),
]

FLOW = template(
    "flow",
    {"id": "work", "type": "agent", "allowed_tools": ["box__*"], "expires_after_seconds": 5 * DAY},
    {"id": "save", "type": "action", "tool": "box__note", "arguments": {"n": 2}, "on_failure": "skip"},
    {
        "id": "sure",
        "type": "approval",
        "question": "Go on?",
        "expires_after_seconds": 2 * DAY,
        "distinct_from": ["save"],
    },
    {"id": "pay", "type": "action", "tool": "box__pay", "arguments": {"n": 8}},
)
OPEN = template("open", {"id": "work", "type": "agent", "allowed_tools": ["*"], "expires_after_seconds": 3 * DAY // 2})
NARROW = template("narrow", {"id": "work", "type": "agent", "allowed_tools": ["box__read", "box__pay"], "calls": 5})

PEOPLE = {
    "agent:a": Principal(id="agent:a", kind="agent", roles=("agent",), acts_for="ann"),
    "agent:b": Principal(id="agent:b", kind="agent", roles=("agent", "approver", "admin")),
    "ann": Principal(id="ann", kind="human"),
    "bob": Principal(id="bob", kind="human", roles=("approver",)),
    "cat": Principal(id="cat", kind="human", roles=("approver", "operator")),
    "sam": Principal(id="sam", kind="human"),
    "svc": Principal(id="svc", kind="service", roles=("charter", "approver", "admin")),
}
TENANTS = ("north", "south")
WHO = st.sampled_from(sorted(PEOPLE))
AGENTS = st.sampled_from(["agent:a"] * 4 + ["agent:b", "ann"])
DECIDERS = st.sampled_from(["ann", "bob", "cat"] * 3 + ["agent:a", "agent:b", "sam", "svc"])
TENANT = st.sampled_from(TENANTS)
TOOL = st.sampled_from([*sorted(KNOWN), "box__pay", "box__note"])
NUMBER = st.integers(0, 3)
CHANNEL = st.sampled_from(["cli"] * 8 + ["elicitation", "prompt", "api", "console"])
SEND = st.lists(st.sampled_from(WAYS), max_size=2)
FUSE = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5])

RISKY = st.sampled_from(["box__pay", "box__pay", "box__note", "box__write"])
ANSWERS = st.lists(st.tuples(DECIDERS, CHANNEL), min_size=1, max_size=3)

TWO = """
@id("two-people") @obligation("require_approval") @approvers("2") @reason("Two people agree.")
permit (principal, action in Charter::Action::"tool.invoke", resource)
when { resource.side_effects != "none" && !context.dry_run } unless { context.approved.contains("any:2") };
"""
NOTHING = '@id("no-tools") forbid (principal, action in Charter::Action::"tool.invoke", resource);'
ERRS = """
@id("stumbles") forbid (principal, action in Charter::Action::"tool.invoke", resource)
when { context.calls_budget + 9223372036854775807 > 0 };
"""
EXTRA = {"shipped": {}, "two": {"obligations_2.cedar": TWO}, "nothing": {"authorise_2.cedar": NOTHING}}
EXTRA["errs"] = {"authorise_2.cedar": ERRS}


@cache
def policy_set(name: str) -> PolicySet:
    files = {file: text for file, text in shipped_files().items() if file.endswith(".cedar")}
    return load_policy_set(PolicySources.from_files({**files, **EXTRA[name]}), MANIFESTS)


class Swapped:
    """The policy sets in force, of which there is another one now and then."""

    def __init__(self) -> None:
        self.name = "shipped"

    @property
    def policy_set_hash(self) -> str:
        return policy_set(self.name).hash

    def evaluate(self, facts: Facts) -> Decision:
        return evaluate(policy_set(self.name), facts)

    def shadow(self, _facts: Facts, _decision: Decision) -> JsonObject | None:
        return None

    def could_ever(self, facts: Facts) -> bool:
        return could_ever(policy_set(self.name), facts)

    def could_ever_of(self, principal: Principal, action: Action) -> bool:
        return could_ever_of(policy_set(self.name), principal, action)


class Governed(RuleBasedStateMachine):
    """``acknowledged`` is what callers were told; it must be on record whatever happens after."""

    commands: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.clock, self.box, self.policies = Clock(), Box(), Swapped()
        self.runner = Scripted(Fuse())
        roles = {name: who.roles for name, who in PEOPLE.items()}
        self.auditor = Auditor(KNOWN, roles, self.in_force())
        self.acknowledged: set[tuple[str, ...]] = set()
        self.runs: list[tuple[str, str, str]] = []
        self.proposals: list[tuple[str, str, str, str]] = []
        self.approvals: list[tuple[str, str]] = []
        self.grants: list[tuple[str, str, str]] = []
        self.open()
        for tenant, which in (("north", "open"), ("south", "open"), ("north", "flow")):
            self.begin(tenant, "agent:a", cmd.StartWorkflow(template=which, purpose="test", case_id="7"))

    # -- the process

    def open(self) -> None:
        """A new process on the same file; it settles what the one before left, unless it dies of that too."""
        self.boot()
        while True:
            with contextlib.suppress(Died):
                self.loop.run_until_complete(self.desk.engine.recover())
            if not self.runner.fuse.burnt:
                return
            self.close()
            self.boot()

    def boot(self) -> None:
        self.runner.fuse = FusedStore.fuse = Fuse()
        path = Path(self.folder.name) / "charter.sqlite"
        store = self.runner.store = FusedStore(path, synchronous="NORMAL")  # kill -9 is what happens here, no power cut
        self.process: AbstractAsyncContextManager[Desk] = desk_on(
            path,
            self.box,
            self.runner,
            self.clock,
            templates=(FLOW, NARROW, OPEN),
            policies=self.policies,  # type: ignore[arg-type]
            limits=Limits(snapshot_every=7, cached_workflows=3),
            store=store,
        )
        self.desk = self.loop.run_until_complete(self.process.__aenter__())

    def close(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(self.process.__aexit__(None, None, None))

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Carry it out as a caller would: the answer, or the error, or None when the process died."""
        Governed.commands += 1
        try:
            answer = self.loop.run_until_complete(work)
        except CharterError as error:
            answer = error
        except Died:
            answer = None
        if isinstance(answer, CharterError):
            assert answer.error_code
            assert answer.next_step
        if self.runner.fuse.burnt:
            self.restart()
            answer = None
        return answer

    def handle(self, tenant: str, who: str, command: cmd.Command) -> Any:
        principal = PEOPLE[who].model_copy(update={"tenant": tenant})
        return self.do(self.desk.gate.handle(principal, command))

    def in_force(self) -> Rules:
        return Rules(
            policy_hash=self.policies.policy_set_hash,
            asks=2 if self.policies.name == "two" else 1,
            open=self.policies.name in ("shipped", "two"),
            definitions={name: tool.definition_hash for name, tool in self.box.tools.items()},
            quarantined=set(self.box.quarantined),
        )

    def pick(self, data: st.DataObject, items: list[Any]) -> Any:
        """One of these, more often a newer one."""
        newest = len(items) - 1
        return items[newest - min(newest, data.draw(st.integers(0, 4)))]

    # -- agents

    @rule(
        tenant=TENANT,
        who=AGENTS,
        which=st.sampled_from(["open", "open", "flow", "narrow"]),
        case=st.sampled_from([None, "7"]),
        key=st.sampled_from([None, None, "k"]),
        dry_run=st.sampled_from([False] * 5 + [True]),
    )
    def start(self, tenant: str, who: str, which: str, case: str | None, key: str | None, dry_run: bool) -> None:
        command = cmd.StartWorkflow(template=which, purpose="test", case_id=case, idempotency_key=key, dry_run=dry_run)
        self.begin(tenant, who, command)

    def begin(self, tenant: str, who: str, command: cmd.StartWorkflow) -> None:
        answer = self.handle(tenant, who, command)
        if answer is None or isinstance(answer, CharterError):
            return
        self.acknowledged.add(("started", tenant, answer.workflow_id))
        self.runs += [(tenant, answer.workflow_id, item.agent_invocation_id) for item in answer.invocations]

    def ids(self, run: tuple[str, str, str]) -> dict[str, str]:
        return {"workflow_id": run[1], "agent_invocation_id": run[2]}

    def keep(self, tenant: str, run: tuple[str, str, str], view: Any) -> None:
        self.proposals.append((tenant, run[1], run[2], view.proposal_id))
        if view.approval_id:
            self.approvals.append((tenant, view.approval_id))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), who=AGENTS, tool=TOOL, n=NUMBER, reason=st.sampled_from(["why not", "because"]))
    def propose(self, data: st.DataObject, who: str, tool: str, n: int, reason: str) -> None:
        run = self.pick(data, self.runs)
        command = cmd.ProposeAction(**self.ids(run), tool=tool, arguments={"n": n}, reason=reason)
        view = self.handle(run[0], who, command)
        if view is not None and not isinstance(view, CharterError):
            self.keep(run[0], run, view)

    @precondition(lambda self: self.proposals)
    @rule(data=st.data(), who=AGENTS)
    def ask(self, data: st.DataObject, who: str) -> None:
        tenant, workflow_id, invocation, proposal = self.pick(data, self.proposals)
        ids = {"workflow_id": workflow_id, "agent_invocation_id": invocation}
        view = self.handle(tenant, who, cmd.RequestApproval(**ids, proposal_id=proposal))
        if view is not None and not isinstance(view, CharterError) and view.approval_id:
            self.approvals.append((tenant, view.approval_id))

    @precondition(lambda self: self.proposals)
    @rule(data=st.data(), who=AGENTS, ways=SEND, again=st.integers(1, 2))
    def use(self, data: st.DataObject, who: str, ways: list[str], again: int) -> None:
        """Run a proposal, and perhaps replay it."""
        tenant, workflow_id, invocation, proposal = self.pick(data, self.proposals)
        ids = {"workflow_id": workflow_id, "agent_invocation_id": invocation}
        self.runner.ways.extend(ways)
        for _ in range(again):
            self.heard(tenant, self.handle(tenant, who, cmd.InvokeTool(**ids, proposal_id=proposal)))
        self.runner.calm()

    @precondition(lambda self: self.live())
    @rule(data=st.data(), who=AGENTS, tool=TOOL, n=NUMBER, ways=SEND)
    def invoke(self, data: st.DataObject, who: str, tool: str, n: int, ways: list[str]) -> None:
        run = self.pick(data, self.live())
        self.runner.ways.extend(ways)
        outcome = self.handle(run[0], who, cmd.InvokeTool(**self.ids(run), tool=tool, arguments={"n": n}))
        self.runner.calm()
        if self.heard(run[0], outcome) and outcome.proposal is not None:
            self.keep(run[0], run, outcome.proposal)

    def heard(self, tenant: str, outcome: Any) -> bool:
        """Remember what the caller was told of a call."""
        if outcome is None or isinstance(outcome, CharterError):
            return False
        if outcome.effect_id:
            status = "succeeded" if outcome.status == "dry_run" else outcome.status
            self.acknowledged.add(("result", tenant, outcome.effect_id, status))
        return True

    def live(self) -> list[tuple[str, str, str]]:
        """The runs whose agent may still do something."""
        invocations = {key: run["invocations"] for key, run in self.auditor.runs.items() if run["ended"] is None}
        return [run for run in self.runs if run[2] in invocations.get(run[:2], {})]

    @precondition(lambda self: self.live())
    @rule(data=st.data(), tool=RISKY, people=ANSWERS, wait=st.sampled_from([0, 0, 60, DAY]), ways=SEND)
    def the_usual_way(
        self, data: st.DataObject, tool: str, people: list[tuple[str, Any]], wait: int, ways: list[str]
    ) -> None:
        """Propose, ask, decide, run: in one go, so that runs come far."""
        self.all_the_way(data, tool, people, wait, ways)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), tool=RISKY, people=ANSWERS, ways=SEND, fuse=st.integers(1, 6), after=st.booleans())
    def the_usual_way_to_a_crash(
        self, data: st.DataObject, tool: str, people: list[tuple[str, Any]], ways: list[str], fuse: int, after: bool
    ) -> None:
        """The same, and the process dies at one of the commits on the way."""
        self.runner.fuse.light(fuse, after=after)
        self.all_the_way(data, tool, people, 0, ways)

    def all_the_way(
        self, data: st.DataObject, tool: str, people: list[tuple[str, Any]], wait: int, ways: list[str]
    ) -> None:
        run = self.pick(data, self.live())
        command = cmd.ProposeAction(**self.ids(run), tool=tool, arguments={"n": len(self.proposals)}, reason="x")
        view = self.handle(run[0], "agent:a", command)
        if view is None or isinstance(view, CharterError):
            return
        self.keep(run[0], run, view)
        asked = self.handle(run[0], "agent:a", cmd.RequestApproval(**self.ids(run), proposal_id=view.proposal_id))
        if asked is None or isinstance(asked, CharterError) or not asked.approval_id:
            return
        self.approvals.append((run[0], asked.approval_id))
        for who, channel in people:
            self.answer(run[0], who, asked.approval_id, "approve", channel)
        self.clock.wait(wait)
        self.runner.ways.extend(ways)
        invoke = cmd.InvokeTool(**self.ids(run), proposal_id=view.proposal_id)
        self.heard(run[0], self.handle(run[0], "agent:a", invoke))

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), who=WHO, how=st.sampled_from(["complete", "cancel"]), seldom=st.integers(0, 3))
    def end(self, data: st.DataObject, who: str, how: str, seldom: int) -> None:
        run = self.pick(data, self.runs)
        if seldom:
            return
        complete = cmd.CompleteStep(**self.ids(run), output={"done": True})
        self.handle(run[0], who, complete if how == "complete" else cmd.CancelWorkflow(workflow_id=run[1]))
        self.drive()

    @rule(
        data=st.data(),
        tenant=TENANT,
        ways=SEND,
        people=st.lists(DECIDERS, min_size=3, max_size=6),
        fuse=FUSE,
        after=st.booleans(),
        granted=st.booleans(),
    )
    def a_whole_flow(
        self,
        data: st.DataObject,
        tenant: str,
        ways: list[str],
        people: list[str],
        fuse: int,
        after: bool,
        granted: bool,
    ) -> None:
        """A run with steps of its own: the agent hands over, the engine calls tools, people are asked on the way, unless one
        of them has given a grant for the first."""
        known = len(self.runs)
        self.begin(tenant, "agent:a", cmd.StartWorkflow(template="flow", purpose="test", case_id="7"))
        for run in self.runs[known:]:
            if granted:
                self.give(run, people[0], "box__note", 2, case=data.draw(st.booleans()))
            self.handle(tenant, "agent:a", cmd.CompleteStep(**self.ids(run), output={"done": True}))
        self.runner.ways.extend(ways)
        self.runner.fuse.light(fuse, after=after)
        for who in people:
            self.drive()
            self.check()
            self.collect()
            for place, approval_id in self.approvals[-2:]:
                self.answer(place, who, approval_id, "approve", "cli")
        self.drive()
        self.runner.calm()

    # -- people

    def answer(self, tenant: str, who: str, approval_id: str, verdict: Any, channel: Any, **more: Any) -> Any:
        command = cmd.DecideApproval(approval_id=approval_id, decision=verdict, channel=channel, **more)
        answer = self.handle(tenant, who, command)
        if answer is not None and not isinstance(answer, CharterError):
            self.acknowledged.add(("decided", tenant, approval_id, verdict, who))
        return answer

    @precondition(lambda self: self.approvals)
    @rule(
        data=st.data(),
        who=DECIDERS,
        verdict=st.sampled_from(["approve"] * 5 + ["edit", "edit", "request_more_info", "reject"]),
        channel=CHANNEL,
        n=NUMBER,
    )
    def decide(self, data: st.DataObject, who: str, verdict: str, channel: Any, n: int) -> None:
        tenant, approval_id = self.pick(data, self.approvals)
        more = {"edited_arguments": {"n": n}} if verdict == "edit" else {}
        answer = self.answer(tenant, who, approval_id, verdict, channel, **more)
        if answer is not None and getattr(answer, "replacement_proposal_id", None):
            old = next((item for item in self.proposals if item[0] == tenant), None)
            row = self.loop.run_until_complete(self.desk.store.approval(tenant, approval_id))
            run = next((item for item in self.runs if row and item[1] == row.workflow_id), None)
            if old and run:
                self.proposals.append((tenant, run[1], run[2], answer.replacement_proposal_id))

    @precondition(lambda self: self.runs)
    @rule(
        data=st.data(),
        who=DECIDERS,
        tool=st.sampled_from(["box__write", "box__note", "box__note", "box__pay"]),
        most=st.integers(0, 3),
        uses=st.integers(1, 2),
        hours=st.sampled_from([1, 24]),
        case=st.booleans(),
        channel=CHANNEL,
    )
    def grant(
        self, data: st.DataObject, who: str, tool: str, most: int, uses: int, hours: int, case: bool, channel: Any
    ) -> None:
        run = self.pick(data, self.live() or self.runs)
        self.give(run, who, tool, most, uses=uses, hours=hours, case=case, channel=channel)

    def give(
        self,
        run: tuple[str, str, str],
        who: str,
        tool: str,
        most: int,
        *,
        uses: int = 1,
        hours: int = 24,
        case: bool = False,
        channel: Any = "cli",
    ) -> None:
        bounds = GrantBounds(
            tool=tool,
            arguments={"properties": {"n": {"maximum": most}}},
            uses=uses,
            expires_at=rfc3339(self.clock.ms + hours * 3_600_000),
            case_id="7" if case else None,
        )
        answer = self.handle(run[0], who, cmd.GiveGrant(workflow_id=run[1], bounds=bounds, channel=channel))
        if isinstance(answer, str):
            self.acknowledged.add(("granted", run[0], answer))
            self.grants.append((run[0], run[1], answer))

    @precondition(lambda self: self.grants)
    @rule(
        data=st.data(),
        who=WHO,
        calls=st.integers(1, 4),
        n=st.integers(0, 1),
        revoke=st.sampled_from([False] * 3 + [True]),
    )
    def use_a_grant(self, data: st.DataObject, who: str, calls: int, n: int, revoke: bool) -> None:
        """Call within and beyond its bounds, in its run and in others of its case; or take it back first."""
        tenant, workflow_id, grant_id = self.pick(data, self.grants)
        if revoke:
            self.handle(tenant, who, cmd.RevokeGrant(workflow_id=workflow_id, grant_id=grant_id))
        tool = self.auditor.grants[tenant, grant_id]["bounds"]["tool"]
        runs = [item for item in self.runs if item[0] == tenant]
        own = [item for item in runs if item[1] == workflow_id]
        for turn in range(calls):
            run = self.pick(data, runs if turn == 3 else own)
            command = cmd.InvokeTool(**self.ids(run), tool=tool, arguments={"n": n})
            self.heard(tenant, self.handle(tenant, "agent:a", command))

    @precondition(lambda self: any(item["end"] == "in_doubt" for item in self.auditor.effects.values()))
    @rule(data=st.data(), who=st.sampled_from(["cat", "cat", "bob", "agent:b"]), ways=SEND)
    def resolve(self, data: st.DataObject, who: str, ways: list[str]) -> None:
        doubts = [key for key, item in self.auditor.effects.items() if item["end"] == "in_doubt"]
        tenant, effect_id = self.pick(data, doubts)
        resolution = data.draw(st.sampled_from(["ran", "did_not_run", "retry", "retry"]))
        stream = self.auditor.effects[tenant, effect_id]["stream"]
        self.runner.ways.extend(ways)
        command = cmd.ResolveEffect(workflow_id=stream, effect_id=effect_id, resolution=resolution)
        self.handle(tenant, who, command)
        self.runner.calm()
        self.drive()

    # -- those who have no business here

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), who=WHO, tool=TOOL)
    def meddle(self, data: st.DataObject, who: str, tool: str) -> None:
        """Everything that another tenant's ids can be tried with; nothing of that tenant moves."""
        tenant, workflow_id, invocation = self.pick(data, self.runs)
        other = next(name for name in TENANTS if name != tenant)
        ids = {"workflow_id": workflow_id, "agent_invocation_id": invocation}
        tries: list[Any] = [
            cmd.InvokeTool(**ids, tool=tool, arguments={"n": 1}),
            cmd.CompleteStep(**ids),
            cmd.CancelWorkflow(workflow_id=workflow_id),
            cmd.AdvanceWorkflow(workflow_id=workflow_id),
        ]
        mine = [item[1] for item in self.approvals if item[0] == tenant]
        if mine:
            tries.append(cmd.DecideApproval(approval_id=mine[-1], decision="approve", channel="cli"))
        proposed = [item[3] for item in self.proposals if item[:2] == (tenant, workflow_id)]
        if proposed:
            tries.append(cmd.InvokeTool(**ids, proposal_id=proposed[-1]))
            tries.append(cmd.InvokeBatch(**ids, proposal_ids=(proposed[-1],)))
        before = self.size(tenant)
        for command in tries:
            assert isinstance(self.handle(other, who, command), CharterError)
        assert self.size(tenant) == before
        for wrong in ("", "inv_made_up", next((item[2] for item in self.runs if item[2] != invocation), "")):
            command = cmd.InvokeTool(**self.ids((tenant, workflow_id, wrong)), tool=tool, arguments={"n": 1})
            assert isinstance(self.handle(tenant, who, command), CharterError)

    def size(self, tenant: str) -> int:
        return self.loop.run_until_complete(self.desk.store.head(tenant)).size

    # -- what happens to a process

    @rule(seconds=st.sampled_from([1, 60, 3600, 3600, DAY // 2, DAY]), asleep=st.booleans())
    def time_goes_by(self, seconds: int, asleep: bool) -> None:
        """``asleep``: the engine has not noticed yet."""
        self.clock.wait(seconds)
        if not asleep:
            self.drive()

    def drive(self) -> None:
        """Let the engine do what is due; afterwards nothing is, whatever died in between."""
        self.do(self.desk.engine.settle())
        self.do(self.desk.engine.settle())
        now = rfc3339(self.clock.ms)
        assert self.loop.run_until_complete(self.desk.store.due(now, 10)) == []

    @rule(ways=SEND, fuse=st.integers(0, 4), after=st.booleans())
    def the_engine_runs_what_is_due(self, ways: list[str], fuse: int, after: bool) -> None:
        self.runner.ways.extend(ways)
        self.runner.fuse.light(fuse, after=after)
        self.do(self.desk.engine.settle())
        self.runner.calm()
        self.collect()

    def collect(self) -> None:
        """The approvals that the workflows' own steps have asked for."""
        for (tenant, approval_id), item in self.auditor.approvals.items():
            if item["status"] == "pending" and (tenant, approval_id) not in self.approvals:
                self.approvals.append((tenant, approval_id))

    @rule()
    def restart(self) -> None:
        self.close()
        self.open()

    @rule(
        policies=st.sampled_from(["shipped"] * 4 + ["two", "two", "nothing", "errs"]),
        tool=st.none() | TOOL,
        quarantine=st.sampled_from([False, False, True]),
    )
    def other_circumstances(self, policies: str, tool: str | None, quarantine: bool) -> None:
        """Other policies, another definition of a tool, a tool that no longer matches its pin, or does again."""
        self.check()
        self.policies.name = policies
        self.box.quarantined.clear()
        if tool is not None and quarantine:
            self.box.quarantined.add(tool)
        elif tool is not None:
            self.box.change(tool)
        self.auditor.rules = self.in_force()

    # -- what must hold

    @invariant()
    def everything(self) -> None:
        self.runner.calm()
        self.check()

    def check(self) -> None:
        for tenant in TENANTS:
            rows = self.loop.run_until_complete(self.desk.store.log(tenant, self.auditor.seen[tenant], 10_000))
            self.auditor.read(rows, self.runner.ran)
        self.auditor.compare(self.runner.ran)
        assert self.acknowledged <= self.auditor.facts, "G6: something acknowledged is not on record"

    def teardown(self) -> None:
        try:
            self.restart()
            self.check()
            self.loop.run_until_complete(self.desk.check_record())
            engine = service("engine", TENANTS[0])
            for tenant, workflow_id, _ in self.runs:
                principal = engine.model_copy(update={"tenant": tenant})
                self.loop.run_until_complete(self.desk.queries.state(principal, workflow_id))
        finally:
            self.close()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.folder.cleanup()


def drive(examples: int, steps: int) -> None:
    limits = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(Governed, settings=limits)


def test_the_guarantees_hold_whatever_happens() -> None:
    drive(10, 40)


@pytest.mark.slow
def test_the_guarantees_hold_whatever_happens_for_longer() -> None:
    drive(400 if os.environ.get("CHARTER_HYPOTHESIS") == "search" else 150, 60)
