"""``context.approved``: the approvals already given, as strings that a policy can ask for.

Each string is ``WHO[@CHANNELS]:COUNT`` and is in the set when at least COUNT distinct people approved this exact call:

* ``any:1``: one person, whoever;
* ``finance_manager:2``: two people who each hold the role;
* ``any@strong:1``: one person with a credential of their own (command line, console, or the API with a person's token);
* ``any@cli+console:1``, ``finance_manager@strong:1``: through these channels only;
* ``=ann+bob:1``: one of these people;
* ``agents:1``: an agent whose decision the policies of set A permitted.

A policy compares with ``context.approved.contains("any:1")``. Only the strings that the policy set asks for are computed.

Never counted: the requester's own approval, a service's, an agent's where a person is asked for (an agent and the person whom
it serves are one), one through ``template`` (nobody was asked), and one
through ``api`` that is not known to be a person's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from cedarpy import pst

from charter.model.policy import Approved, Facts, Obligation
from charter.model.principal import Channel, person_key
from charter.policies.notes import MAX_APPROVERS, channels, people, role
from charter.policies.syntax import walk

STRONG: tuple[Channel, ...] = ("cli", "console", "api")
"""Channels that carry a credential of the person's own. ``api`` counts only with a human's token."""

_KEY = re.compile(r"(?P<who>[^@:]+)(?:@(?P<channels>[^@:]+))?:(?P<count>[1-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One string that policies ask ``context.approved`` for, taken apart."""

    key: str
    role: str | None
    channels: frozenset[Channel] | None
    count: int
    people: frozenset[str] = frozenset()
    agents: bool = False

    def met_by(self, approvals: Iterable[Approved]) -> bool:
        """Whether enough distinct people among these approvals fit."""
        people = {
            person_key(approval.acts_for or approval.approver)
            for approval in approvals
            if (self.role is None or self.role in approval.roles)
            and (self.channels is None or approval.channel in self.channels)
            and (
                not self.people
                or not self.people.isdisjoint(map(person_key, (approval.approver, *approval.on_behalf_of)))
            )
            and self.agents == (approval.kind == "agent")
        }
        return len(people) >= self.count


def wanted(key: str) -> Wanted:
    """``key`` taken apart; ``ValueError`` says what is wrong with it."""
    found = _KEY.fullmatch(key)
    if not found or int(found["count"]) > MAX_APPROVERS:
        raise ValueError(f'write "any:1", "ROLE:2" or "any@strong:1", with a count of at most {MAX_APPROVERS}')
    named = found["channels"]
    allowed = None if named is None else frozenset(STRONG if named == "strong" else channels(named, "+"))
    who, count = found["who"], int(found["count"])
    if who.startswith("="):
        return Wanted(key, None, allowed, count, frozenset(map(person_key, people(who[1:], "+"))))
    return Wanted(key, None if who in ("any", "agents") else role(who), allowed, count, agents=who == "agents")


def keys_of(template: pst.Template) -> set[str]:
    """The strings that a policy looks up in ``context.approved``; ``ValueError`` if it uses it in another way."""
    approved = pst.GetAttr(pst.Var("context"), "approved")
    keys: set[str] = set()
    uses = lookups = 0
    for node in walk(template.clauses):
        uses += node == approved
        if isinstance(node, pst.BinaryOp) and node.left == approved and node.op.startswith("contains"):
            lookups += 1
            members = node.right.elements if isinstance(node.right, pst.Set) else (node.right,)
            if not all(isinstance(member, pst.StringLit) for member in members):
                raise ValueError("context.approved can only be asked for literal strings")
            keys.update(member.value for member in members if isinstance(member, pst.StringLit))
    if uses > lookups:
        raise ValueError("context.approved can only be asked with contains, containsAll or containsAny")
    return keys


def fulfils(key: Wanted, obligation: Obligation) -> bool:
    """Whether a policy that stops at ``key`` asks for no less than its annotations promise."""
    promised = frozenset(obligation.channels) if obligation.channels else None
    narrow = promised is None or (key.channels is not None and key.channels <= promised)
    named = frozenset(map(person_key, obligation.people))
    narrow = narrow and not key.agents and (not named or (bool(key.people) and key.people <= named))
    return narrow and (obligation.role is None or key.role == obligation.role) and key.count >= obligation.approvers


def reachable(key: Wanted, obligation: Obligation) -> bool:
    """Whether the approvals that the annotations ask people for are enough for ``key``."""
    promised = frozenset(obligation.channels) if obligation.channels else None
    wide = key.channels is None or (promised is not None and promised <= key.channels)
    named = frozenset(map(person_key, obligation.people))
    wide = wide and (not key.people or (bool(named) and named <= key.people))
    return wide and (key.role is None or key.role == obligation.role) and key.count <= obligation.approvers


def counted(facts: Facts) -> list[Approved]:
    """The approvals that may count for this call; an agent's only where a policy asks for ``agents``."""
    return [approval for approval in facts.approvals if _counts(approval, facts.principal.id)]


def _counts(approval: Approved, requester: str) -> bool:
    if person_key(approval.approver) == person_key(requester) or approval.approver.startswith("charter:"):
        return False
    if approval.kind is None:
        return approval.channel not in ("api", "template")
    own = approval.kind == "agent" and person_key(approval.acts_for or approval.approver) == person_key(requester)
    return approval.kind in ("human", "agent") and not own and approval.channel != "template"
