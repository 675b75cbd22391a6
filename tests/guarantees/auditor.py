"""A second opinion on the guarantees: reads the ledger's leaves as plain JSON and what the tools themselves counted.

It shares no rule with the product: no fold, no policy evaluator, no trace validator.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson

from charter.model.digests import call_digest
from charter.store.port import StoredEvent

ENDINGS = {"WORKFLOW_COMPLETED", "WORKFLOW_FAILED", "WORKFLOW_CANCELLED", "WORKFLOW_REJECTED"}
STRONG = {"cli", "console", "api"}


@dataclass
class Ran:
    """One run as the tool's side saw it. ``reported`` None: the caller's process died before it heard."""

    tenant: str
    workflow_id: str
    tool: str
    arguments: dict[str, Any]
    key: str
    attempt: int
    executed: bool
    reported: str | None
    dry_run: bool = False


@dataclass
class Rules:
    """What is in force at this moment, known from outside: who set it, not who enforces it.

    ``asks``: how many people must agree to a call with side effects. ``open``: whether any call may be permitted at all.
    """

    policy_hash: str
    asks: int = 1
    open: bool = True
    definitions: dict[str, str] = field(default_factory=dict)
    quarantined: set[str] = field(default_factory=set)


@dataclass
class Tool:
    """What the tools are, for the auditor's eyes."""

    effects: bool
    high: bool
    idempotent: bool


@dataclass
class Auditor:
    tools: dict[str, Tool]
    people: dict[str, tuple[str, ...]]
    rules: Rules
    seen: Counter[str] = field(default_factory=Counter)
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    runs: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    grants: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    approvals: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    effects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    facts: set[tuple[str, ...]] = field(default_factory=set)
    before: dict[str, Any] | None = None

    def read(self, rows: list[StoredEvent], ran: list[Ran]) -> None:
        """The next leaves of one tenant's log, and all that the tools have counted so far."""
        self._ran: dict[str, list[Ran]] = defaultdict(list)
        for item in ran:
            self._ran[item.key].append(item)
        for row in rows:
            event = orjson.loads(row.leaf)
            self._place(row, event)
            handler = getattr(self, f"_{event['type'].lower()}", None)
            if event["type"] in ENDINGS:
                handler = self._ended
            if handler is not None:
                handler(event, event["data"])
            self.before = event

    # -- G7, G9: where a leaf stands

    def _place(self, row: StoredEvent, event: dict[str, Any]) -> None:
        tenant, stream = event["tenant"], event["stream"]
        assert (row.tenant, row.stream, row.seq) == (tenant, stream, event["seq"])
        assert event["seq"] == self.seen[tenant], "no gap"
        self.seen[tenant] += 1
        self.versions[tenant, stream] += 1
        assert event["version"] == self.versions[tenant, stream]
        if stream.startswith("wf_"):
            owners = {key[0] for key in self.runs if key[1] == stream}
            assert owners <= {tenant}, "a run belongs to one tenant"

    def run_of(self, event: dict[str, Any]) -> dict[str, Any]:
        return self.runs[event["tenant"], event["stream"]]

    # -- the run

    def _workflow_started(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        key = (event["tenant"], event["stream"])
        assert key not in self.runs
        fields: dict[str, Any] = {
            "ended": None,
            "invocations": {},
            "steps": {},
            "types": {},
            "proposals": {},
            "granted": set(),
        }
        self.runs[key] = {**fields, "owner": data["owner"], "case": data.get("case_id"), "dry": data.get("dry_run")}
        self.facts.add(("started", *key))

    def _ended(self, event: dict[str, Any], _: dict[str, Any]) -> None:
        run = self.run_of(event)
        assert run["ended"] is None
        run["ended"] = event["type"]

    def _workflow_step(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        run = self.run_of(event)
        run["steps"][data["step_id"]] = data["status"]
        run["types"][data["step_id"]] = data["step_type"]

    def _agent_invoke(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        if data["status"] == "granted":
            self.run_of(event)["invocations"][data["agent_invocation_id"]] = data
        else:
            del self.run_of(event)["invocations"][data["agent_invocation_id"]]

    def _proposal_made(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        self.run_of(event)["proposals"][data["proposal_id"]] = {**data, "used": False}

    # -- G4: people

    def _approval_requested(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        request = data["request"]
        key = (event["tenant"], request["approval_id"])
        assert key not in self.approvals
        self.approvals[key] = {"request": request, "status": "pending", "yes": {}, "stream": event["stream"]}

    def _approval_decision(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        approval = self.approvals[event["tenant"], data["approval_id"]]
        request, person = approval["request"], event["actor"]["id"]
        assert approval["stream"] == event["stream"]
        assert approval["status"] == "pending"
        assert event["time"] < request["expires_at"]
        assert event["actor"]["kind"] == "human"
        assert data["decided_by"] == person != request["requested_by"]
        assert data["digest"] == request["digest"]
        roles, owner = self.people[person], request.get("owner") == person
        named = {item["role"] for item in request["requirements"] if item.get("role")}
        assert owner or "approver" in roles or named & set(roles), "who has no say decided"
        if request.get("risk", "high") == "high" and data["decision"] in ("approve", "edit"):
            assert data["channel"] in (STRONG - {"api"} if owner else STRONG)
        if data["decision"] == "approve":
            assert person not in approval["yes"]
            if not request.get("agent_invocation_id"):
                assert not self._passed(event, person) & self._kept_apart(event, request), "one person, two duties"
            approval["yes"][person] = data
        approval["status"] = {"more_info": "pending"}.get(data["status"], data["status"])
        if approval["status"] == "approved":
            wanted = max(item.get("approvers", 1) for item in request["requirements"])
            assert len(approval["yes"]) >= wanted
        self.facts.add(("decided", event["tenant"], data["approval_id"], data["decision"], person))

    def _passed(self, event: dict[str, Any], person: str) -> set[str]:
        """The steps of this run that this person has let pass, by an answer or by a standing grant."""
        steps = {step for step, giver in self.run_of(event)["granted"] if giver == person}
        for (tenant, _), item in self.approvals.items():
            ours = (tenant, item["stream"]) == (event["tenant"], event["stream"])
            if ours and person in item["yes"] and not item["request"].get("agent_invocation_id"):
                steps |= {item["request"]["step_id"]} if item["status"] in ("pending", "approved", "used") else set()
        return steps

    def _kept_apart(self, event: dict[str, Any], request: dict[str, Any]) -> set[str]:
        """The other steps that who lets this one pass must not have let pass. No request here is for roles."""
        if request.get("distinct_from") is not None:
            return set(request["distinct_from"])
        return set(self.run_of(event)["steps"]) - {request["step_id"]} if request.get("separation") == "all" else set()

    def _approval_closed(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        self.approvals[event["tenant"], data["approval_id"]]["status"] = data["status"]

    def _grant_given(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        assert event["actor"] == {"kind": "human", "id": data["given_by"]}
        assert not self.tools[data["bounds"]["tool"]].high
        assert data["channel"] in STRONG
        left = data["bounds"]["uses"]
        self.grants[event["tenant"], data["grant_id"]] = {**data, "left": left, "stream": event["stream"]}
        self.facts.add(("granted", event["tenant"], data["grant_id"]))

    def _grant_revoked(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        assert event["actor"]["kind"] == "human"
        self.grants[event["tenant"], data["grant_id"]]["left"] = 0

    # -- G1, G2, G3, G5: calls

    def _tool_invoke(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        key = (event["tenant"], data["effect_id"])
        known = self.effects.get(key)
        if known is None:
            self._first_attempt(event, data)
            self.effects[key] = {"invoke": data, "retry": 0, "end": "running", "stream": event["stream"]}
            return
        assert data["attempt"] == known["invoke"]["attempt"] + 1
        assert data["idempotency_key"] == known["invoke"]["idempotency_key"]
        assert data["digest"] == known["invoke"]["digest"]
        assert self.tools[data["tool"]].idempotent or known["retry"], "nobody said that it may run again"
        assert self.run_of(event)["ended"] is None
        known["invoke"], known["end"] = data, "running"

    def _first_attempt(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        run, tool = self.run_of(event), self.tools[data["tool"]]
        assert run["ended"] is None, "G1: a call in a run that has ended"
        self._in_its_step(event, data, run)
        assert self.rules.open, "G2: the policies in force permit nothing"
        assert self.before is not None
        decision = self.before["data"]
        assert self.before["type"] == "POLICY_DECISION"
        assert self.before["causation_id"] == event["causation_id"]
        assert (decision["verdict"], decision["digest"]) == ("permit", data["digest"])
        assert decision["policy_set_hash"] == self.rules.policy_hash, "G3: an old policy set decided"
        assert data["definition_hash"] == self.rules.definitions[data["tool"]], "G3: an old definition"
        assert data["tool"] not in self.rules.quarantined
        proposal = run["proposals"].get(data["proposal_id"])
        if proposal is not None:
            assert not proposal["used"]
            assert proposal["digest"] == data["digest"]
            proposal["used"] = True
        if tool.effects and not data.get("dry_run"):
            self._agreed(event, data)
        assert bool(data.get("dry_run")) == bool(run["dry"])

    def _in_its_step(self, event: dict[str, Any], data: dict[str, Any], run: dict[str, Any]) -> None:
        assert run["steps"][data["step_id"]] == "opened", "G1: the step is not open"
        if data.get("agent_invocation_id") is None:
            assert run["types"][data["step_id"]] == "action"
            assert event["actor"] == {"kind": "service", "id": "charter:engine"}
            return
        invocation = run["invocations"][data["agent_invocation_id"]]  # KeyError: not granted, or ended
        assert event["actor"]["id"] == invocation["agent"], "G1: another one's invocation"
        assert event["time"] < invocation["expires_at"]
        assert any(data["tool"].startswith(each.rstrip("*")) for each in invocation["allowed_tools"])

    def _agreed(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        """People agreed to exactly this call, or to such calls."""
        if data.get("grant_id"):
            grant = self.grants[event["tenant"], data["grant_id"]]
            bounds = grant["bounds"]
            assert self.rules.asks == 1
            assert grant["left"] > 0, "G3: the grant is used up, or was taken back"
            assert bounds["tool"] == data["tool"]
            assert event["time"] < bounds["expires_at"]
            assert data["arguments"]["n"] <= bounds["arguments"]["properties"]["n"]["maximum"]
            case = bounds.get("case_id")
            assert grant["stream"] == (f"case:{case}" if case else event["stream"])
            assert case in (None, self.run_of(event)["case"])
            self._given_by_who_may(event, data, grant)
            grant["left"] -= 1
            return
        (approval_id,) = data["approval_ids"]
        approval = self.approvals[event["tenant"], approval_id]
        assert approval["stream"] == event["stream"]
        assert approval["status"] == "approved", f"G3: the approval is {approval['status']}"
        assert approval["request"]["digest"] == data["digest"]
        assert event["time"] < approval["request"]["expires_at"]
        agreed = set(approval["yes"]) - {event["actor"]["id"]}
        assert len(agreed) >= self.rules.asks
        approval["status"] = "used"

    def _given_by_who_may(self, event: dict[str, Any], data: dict[str, Any], grant: dict[str, Any]) -> None:
        """The word behind a grant is one that would have been enough for this call, in this run."""
        giver, run = grant["given_by"], self.run_of(event)
        assert data["under_grant"]["given_by"] == giver, "the call says whose word it runs by"
        assert giver != event["actor"]["id"], "G4: a grant for a call of who gave it"
        assert giver == run["owner"] or "approver" in self.people[giver], "G4: who has no say gave the grant"
        if data.get("agent_invocation_id") is None:
            run["granted"].add((data["step_id"], giver))

    def _tool_result(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        effect = self.effects[event["tenant"], data["effect_id"]]
        assert effect["end"] in ("running", "in_doubt")
        effect["end"] = data["status"]
        runs = self._runs(effect, data["attempt"])
        (reported,) = {item.reported for item in runs}
        harmless = not self.tools[effect["invoke"]["tool"]].effects
        assert data["status"] == reported or (harmless and (reported, data["status"]) == ("unknown", "failed"))
        self.facts.add(("result", event["tenant"], data["effect_id"], data["status"]))

    def _effect_in_doubt(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        effect = self.effects[event["tenant"], data["effect_id"]]
        assert effect["end"] == "running"
        effect["end"] = "in_doubt"
        if event["actor"]["id"] == "charter:runner":  # else its process died, whatever it had heard
            assert {item.reported for item in self._runs(effect, data["attempt"])} <= {"unknown"}
        self.facts.add(("result", event["tenant"], data["effect_id"], "in_doubt"))

    def _effect_resolved(self, event: dict[str, Any], data: dict[str, Any]) -> None:
        assert event["actor"]["kind"] == "human"
        effect = self.effects[event["tenant"], data["effect_id"]]
        assert effect["end"] == "in_doubt"
        effect["retry"] += data["resolution"] == "retry"
        if data["resolution"] != "retry":
            effect["end"] = "resolved"

    def _runs(self, effect: dict[str, Any], attempt: int) -> list[Ran]:
        return [item for item in self._ran[effect["invoke"]["idempotency_key"]] if item.attempt == attempt]

    # -- the tools' own count

    def compare(self, ran: list[Ran]) -> None:
        """What ran against what the ledger says was wanted; the digest is computed again from what the tool received."""
        executed: Counter[str] = Counter()
        for item in ran:
            effect = self.effects[item.tenant, item.key]  # KeyError: it ran and nobody wanted it
            invoke = effect["invoke"]
            assert effect["stream"] == item.workflow_id
            assert item.executed <= (not item.dry_run)
            digest = call_digest(
                tenant=item.tenant,
                workflow_id=item.workflow_id,
                agent_invocation_id=invoke.get("agent_invocation_id"),
                tool=item.tool,
                definition_hash=invoke["definition_hash"],
                arguments=item.arguments,
                salt=invoke["salt"],
            )
            assert digest == invoke["digest"], "G3: another call than the one decided on"
            executed[item.key] += item.executed
            if not self.tools[item.tool].idempotent:
                assert executed[item.key] <= 1 + effect["retry"], "G5: it ran twice"
        assert all(item["end"] != "running" for item in self.effects.values()), "G5: a call that never ends"
