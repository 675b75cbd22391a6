"""Policy tests as data: ``*.test.yaml`` beside the policies, read by the caller, run here.

A document:

    principals: {agent: {id: agent-1, kind: agent}}        # named, to be used in facts
    tools: {write: {server: casebook, risk: medium, …}}    # the name is the key unless `name` is given
    approvals: {payment: {approval_id: appr_1, …}}
    defaults: {…}                                          # facts that every test starts from
    tests:
      - name: a write asks one person
        facts: {principal: agent, tool: write}
        expect: {verdict: require_approval, code: …, policy_ids: […], obligations: [require_approval]}

``principal``, ``tool`` and ``approval`` may name an entry above or be given in full; with a tool or an approval the resource is
it. The tenant is the principal's unless given. ``expect`` compares only what it names; ids and obligations in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from charter.errors import InvalidInput
from charter.model.base import Model
from charter.model.policy import Decision, Facts
from charter.policies.evaluate import evaluate
from charter.policies.policy_set import PolicySet

_SECTIONS = frozenset({"principals", "tools", "approvals", "defaults", "tests", "description"})
_EXPECTS = frozenset({"verdict", "code", "policy_ids", "obligations"})


class CaseResult(Model):
    """One test: ``problems`` is empty when it passed."""

    file: str
    name: str
    decision: Decision
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the decision is as expected."""
        return not self.problems


def run_policy_tests(policies: PolicySet, documents: Mapping[str, Any]) -> list[CaseResult]:
    """Run the tests of these documents (file name to parsed YAML). ``InvalidInput`` for a document that is not one."""
    return [
        _run(policies, file, document, test) for file, document in documents.items() for test in _tests(file, document)
    ]


def case_facts(file: str, document: Mapping[str, Any], test: Mapping[str, Any]) -> Facts:
    """The facts of one test, with names looked up and defaults filled in."""
    facts = {**document.get("defaults", {}), **test.get("facts", {})}
    for field, section in (("principal", "principals"), ("tool", "tools"), ("approval", "approvals")):
        name = facts.get(field)
        if isinstance(name, str):
            known = document.get(section, {})
            if name not in known:
                raise _invalid(file, f"test {test.get('name')!r}: {section} has no {name!r}")
            facts[field] = dict(known[name])
            if field == "tool":
                facts[field].setdefault("name", name)
    _name_resource(facts)
    try:
        return Facts.model_validate(facts)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise _invalid(file, f"test {test.get('name')!r}: {where}: {problem['msg']}") from None


def _name_resource(facts: dict[str, Any]) -> None:
    if "resource_type" not in facts and isinstance(facts.get("approval"), dict):
        facts |= {"resource_type": "Approval", "resource_id": facts["approval"].get("approval_id")}
    elif "resource_type" not in facts and isinstance(facts.get("tool"), dict):
        facts |= {"resource_type": "Tool", "resource_id": facts["tool"].get("name")}
    if "tenant" not in facts and isinstance(facts.get("principal"), dict):
        facts["tenant"] = facts["principal"].get("tenant", "default")


def _tests(file: str, document: Any) -> list[Mapping[str, Any]]:
    tests = document.get("tests") if isinstance(document, Mapping) else None
    if not isinstance(tests, list) or not set(document) <= _SECTIONS:
        raise _invalid(
            file, f"the document must be a mapping with a list `tests` and of {', '.join(sorted(_SECTIONS))}"
        )
    for test in tests:
        if not isinstance(test, Mapping) or not isinstance(test.get("name"), str):
            raise _invalid(file, "every test is a mapping with a name")
        expect = test.get("expect")
        if not isinstance(expect, Mapping) or not expect or not set(expect) <= _EXPECTS:
            raise _invalid(file, f"test {test['name']!r}: expect takes {', '.join(sorted(_EXPECTS))}")
        if not set(test) <= {"name", "facts", "expect"} or not isinstance(test.get("facts", {}), Mapping):
            raise _invalid(file, f"test {test['name']!r}: a test has name, facts and expect")
    return tests


def _run(policies: PolicySet, file: str, document: Mapping[str, Any], test: Mapping[str, Any]) -> CaseResult:
    decision = evaluate(policies, case_facts(file, document, test))
    got: dict[str, Any] = {
        "verdict": decision.verdict,
        "code": decision.code,
        "policy_ids": sorted(decision.policy_ids),
        "obligations": sorted(obligation.name for obligation in decision.obligations),
    }
    problems = []
    for name, value in test["expect"].items():
        expected = sorted(map(str, value)) if isinstance(value, list) else value
        if got[name] != expected:
            problems.append(f"{name}: expected {expected}, got {got[name]}")
    if problems:
        problems.append(f"reason: {decision.reason}")
    return CaseResult(file=file, name=test["name"], decision=decision, problems=tuple(problems))


def _invalid(file: str, problem: str) -> InvalidInput:
    return InvalidInput(
        f"{file}: {problem}.",
        code="policy_test_invalid",
        next_step="Compare with the tests beside the shipped policies; docs/policies.md describes the format.",
        detail={"file": file},
    )
