"""From sources to a policy set: parsed once, validated against the schema, ready to decide."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

import cedarpy
from cedarpy import pst

from charter.errors import InvalidInput, Misconfigured
from charter.model.canonical import digest
from charter.model.policy import Decision
from charter.model.tool import ToolManifest
from charter.policies import answers, approvals, notes, requests, schema, syntax
from charter.policies.inputs import Record
from charter.policies.notes import Part, Policy
from charter.policies.partial import possible

MAX_POLICIES = syntax.MAX_POLICIES
CARRIED_OUT = frozenset({"require_approval", "dry_run"})
"""The obligations that Charter carries out. A set that relies on another one does not load: it would be ignored in silence."""


@dataclass(frozen=True, slots=True)
class PolicySources:
    """The texts: file name to Cedar text, for set A (``authorise``) and set B (``obligations``)."""

    authorise: Mapping[str, str]
    obligations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> PolicySources:
        """Sort files by name: ``authorise*.cedar`` is set A, ``obligations*.cedar`` set B, any other name is refused."""
        parts: dict[str, dict[str, str]] = {"authorise": {}, "obligations": {}}
        for name in sorted(files):
            base = name.replace("\\", "/").rsplit("/", 1)[-1]
            part = next((part for part in parts if fnmatch.fnmatchcase(base, f"{part}*.cedar")), None)
            if part is None:
                raise Misconfigured(
                    f"{name}: the name does not say which policy set it belongs to.",
                    code="policy_file_name",
                    next_step="Call it authorise….cedar (who may do what) or obligations….cedar (what it takes).",
                    detail={"file": name},
                )
            parts[part][name] = files[name]
        return cls(authorise=parts["authorise"], obligations=parts["obligations"])

    def hash(self) -> str:
        """``sha256:…`` over the canonical JSON of the texts and the version of the schema."""
        return digest(
            {
                "authorise": dict(self.authorise),
                "obligations": dict(self.obligations),
                "schema_version": schema.SCHEMA_VERSION,
            }
        )


class Passes(NamedTuple):
    """The handles for one action: set A alone, and ``both`` sets in one, for the one pass of a decision; and of what these
    speak."""

    authorise: cedarpy.PolicySet
    both: cedarpy.PolicySet
    spoken: requests.Spoken


@dataclass(frozen=True, slots=True)
class Compiled:
    """What the evaluator passes to Cedar.

    ``passes`` gives the handles for an action, holding only the policies whose scope can match it: another one can
    neither apply nor fail, and costs time. ``order`` is the order of the texts. ``ask`` is Cedar's answer to a request,
    given its entities' key and its context, None where the request does not fit the schema; ``ask_anew`` remembers none, for
    contexts that hold arguments. The callables are pure functions of values: no cache goes stale.
    """

    schema: cedarpy.Schema
    tools: frozenset[str]
    inputs: Mapping[str, Record]
    keys: tuple[approvals.Wanted, ...]
    policies: Mapping[str, Policy]
    order: Mapping[str, int]
    passes: Callable[[str], Passes]
    entities: Callable[[requests.EntityKey], cedarpy.Entities]
    ask: Callable[[requests.EntityKey, str], cedarpy.AuthzResult | None]
    ask_anew: Callable[[requests.EntityKey, str], cedarpy.AuthzResult | None]
    answer: Callable[[str, frozenset[str], frozenset[str]], Decision]
    possible: Callable[[str, requests.EntityKey], bool]


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A loaded policy set. Immutable; safe to share between threads.

    ``policies`` holds every policy by id, in the order of the texts. ``active`` leaves out those in ``log_only`` mode;
    ``trial`` includes them, and is None when there are none. ``inputs`` gives for each known tool the type of its
    ``context.input``, None where it has none. ``schema_text`` is the Cedar schema that the texts were validated against.
    """

    sources: PolicySources
    hash: str
    schema_text: str
    policies: Mapping[str, Policy]
    inputs: Mapping[str, Record | None]
    active: Compiled
    trial: Compiled | None


def load_policy_set(
    sources: PolicySources, tools: Sequence[ToolManifest] = (), *, carried_out: frozenset[str] = CARRIED_OUT
) -> PolicySet:
    """Parse, check and validate ``sources`` for these tools.

    ``carried_out`` names the obligations that the caller carries out; policies that are not ``log_only`` may name no other.

    Raises ``InvalidInput`` for text that must not or cannot be parsed (``policy_too_large``, ``policy_too_deep``,
    ``policy_syntax``, ``policy_template``) and ``Misconfigured`` for policies that do not hold together
    (``policy_annotation``, ``policy_duplicate_id``, ``policy_invalid``,
    ``obligation_not_carried_out``). Each names the file, the policy and the mend.
    """
    policies = _read_all(sources)
    inputs = schema.input_types(tools)
    text = schema.schema_text(inputs)
    handle = _schema(text)
    for part_files in (sources.authorise, sources.obligations):
        for file, source in part_files.items():
            _validate(file, source, handle)
    for policy in policies.values():
        _check_approvals(policy)
        _check_carried_out(policy, carried_out)
    log_only = any(policy.log_only for policy in policies.values())
    return PolicySet(
        sources=sources,
        hash=sources.hash(),
        schema_text=text,
        policies=policies,
        inputs=inputs,
        active=compile_policies([p for p in policies.values() if not p.log_only], inputs),
        trial=compile_policies(list(policies.values()), inputs) if log_only else None,
    )


def _read_all(sources: PolicySources) -> dict[str, Policy]:
    policies: dict[str, Policy] = {}
    parts: tuple[tuple[Part, Mapping[str, str]], ...] = (
        ("authorise", sources.authorise),
        ("obligations", sources.obligations),
    )
    for part, files in parts:
        for file, text in files.items():
            for template in syntax.parse(file, text):
                policy = notes.read(file, part, template)
                if policy.id in policies:
                    raise Misconfigured(
                        f"{file}: policy {policy.id}: {policies[policy.id].file} has a policy with the same @id.",
                        code="policy_duplicate_id",
                        next_step="Give one of them another @id: decisions name policies by it.",
                        detail={"file": file, "policy_id": policy.id},
                    )
                policies[policy.id] = policy
    if len(policies) > MAX_POLICIES:
        raise InvalidInput(f"The set has more than {MAX_POLICIES} policies.", code="policy_too_large")
    return policies


def _schema(text: str) -> cedarpy.Schema:
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise Misconfigured(
            f"The Cedar schema made from the tools does not parse: {' '.join(str(error).split())[:300]}",
            code="policy_schema",
            next_step="Report this with the tools' input schemas; leaving the newest upstream out helps meanwhile.",
        ) from None


def _validate(file: str, text: str, handle: cedarpy.Schema) -> None:
    result = cedarpy.validate_policies(text, handle)
    if result.validation_passed:
        return
    names = result.id_annotations_by_policy_id
    # Cedar tells them in no order; the same texts must give the same message.
    problems = sorted((names.get(e.policy_id, e.policy_id), " ".join(e.error.split())[:500]) for e in result.errors)
    policy_id = problems[0][0] if problems else ""
    of_first = [problem for name, problem in problems if name == policy_id] or ["the validator gives no reason"]
    others = len({name for name, _ in problems}) - 1
    more = f" (and {others} more policies)" if others > 0 else ""
    raise Misconfigured(
        f"{file}: policy {policy_id}: {'; '.join(of_first[:3])}{more}",
        code="policy_invalid",
        next_step="Compare with the schema (`charter policy schema`): names, types, and `has` before an optional attribute.",
        detail={"file": file, "policy_id": policy_id, "problems": [f"{name}: {text}" for name, text in problems][:50]},
    )


def _check_approvals(policy: Policy) -> None:
    """Every lookup in ``context.approved`` can be read, and an approval that is asked for can also be given."""
    mend = 'Write, as the last line, unless { context.approved.contains("any:1") } as the annotations ask for.'
    try:
        keys = [approvals.wanted(key) for key in sorted(approvals.keys_of(policy.template))]
    except ValueError as error:
        raise notes.wrong(policy.file, policy.id, f"context.approved: {error}", mend) from None
    obligation = policy.obligation
    if obligation is None or obligation.name != "require_approval":
        return
    if obligation.escalate_role and not any(key.role == obligation.escalate_role and key.count == 1 for key in keys):
        raise notes.wrong(
            policy.file,
            policy.id,
            f"it escalates to {obligation.escalate_role!r}, whose approval would change nothing",
            f'Let the condition end with || context.approved.contains("{obligation.escalate_role}:1").',
        )
    if obligation.agents != any(key.agents for key in keys):
        problem = '@agents("true") and the condition on "agents:1" go together'
        raise notes.wrong(policy.file, policy.id, problem, "Write both, or neither.")
    if not any(approvals.fulfils(key, obligation) and approvals.reachable(key, obligation) for key in keys):
        who = obligation.role or ("=" + "+".join(obligation.people) if obligation.people else "any")
        through = "" if not obligation.channels else "@" + "+".join(obligation.channels)
        problem = f'it asks for "{who}{through}:{obligation.approvers}" but no condition looks for just that'
        raise notes.wrong(policy.file, policy.id, problem, mend)


def _check_carried_out(policy: Policy, carried_out: frozenset[str]) -> None:
    obligation = policy.obligation
    if obligation is None or policy.log_only or obligation.name in carried_out:
        return
    raise Misconfigured(
        f"{policy.file}: policy {policy.id}: nothing here carries out the obligation {obligation.name}.",
        code="obligation_not_carried_out",
        next_step=f'Use one of {", ".join(sorted(carried_out))}, or try the policy with @mode("log_only").',
        detail={"file": policy.file, "policy_id": policy.id},
    )


def compile_policies(policies: Sequence[Policy], inputs: Mapping[str, Record | None]) -> Compiled:
    """Handles for these policies. ``context.input`` is typed only for the tools of which a policy speaks."""
    used = _inputs_used(policies, inputs)
    by_id = {policy.id: policy for policy in policies}
    order = {policy.id: index for index, policy in enumerate(policies)}
    counts = any(syntax.speaks_of_context(p.template, name) for p in policies for name in requests.COUNTS)
    handle = _schema(schema.schema_text({name: used.get(name) for name in inputs}, counts=counts))
    entities = lru_cache(maxsize=2048)(requests.entities)
    passes = _passes_by_action(policies, counts)

    def ask(key: requests.EntityKey, context: str) -> cedarpy.AuthzResult | None:
        request, known, both = requests.request(key, context), entities(key), passes(key.action).both
        try:
            answer = cedarpy.is_authorized(request, both, known, handle)
        except (ValueError, TypeError):
            return None
        return None if answer.decision is cedarpy.Decision.NoDecision else answer

    return Compiled(
        schema=handle,
        tools=frozenset(inputs),
        inputs=used,
        keys=tuple(
            approvals.wanted(key) for key in sorted({k for p in policies for k in approvals.keys_of(p.template)})
        ),
        policies=by_id,
        order=order,
        passes=passes,
        entities=entities,
        ask=lru_cache(maxsize=4096)(ask),
        ask_anew=ask,
        answer=lru_cache(maxsize=1024)(partial(answers.permitted, by_id, order)),
        possible=lru_cache(maxsize=4096)(
            lambda action, key: possible(passes(action).authorise, entities(key), action, key)
        ),
    )


def _spoken_of(policies: Collection[pst.Template], counts: bool) -> requests.Spoken:
    """``counts``: the schema has them, because some policy speaks of them, so every request does."""

    def those(of: Callable[[pst.Template, str], bool]) -> list[str]:
        return [name for name in requests.OPTIONAL if any(of(policy, name) for policy in policies)]

    read = those(syntax.reads_context)
    asked = [name for name in those(syntax.speaks_of_context) if name not in read]
    return requests.Spoken(tuple(read), tuple(asked), counts)


def _passes_by_action(policies: Sequence[Policy], counts: bool) -> Callable[[str], Passes]:
    """The handles for each action. Tools of which no policy speaks by name share those of ``tool.invoke``."""
    scopes = {policy.id: syntax.actions_of(policy.template) for policy in policies}
    named = frozenset().union(*(scope for scope in scopes.values() if scope))

    def matching(part: Part, ids: frozenset[str]) -> dict[str, pst.Template]:
        found = [p for p in policies if p.part == part]
        return {p.id: p.template for p in found if (scope := scopes[p.id]) is None or scope & ids}

    def build(action: str) -> Passes:
        ids = frozenset({action, schema.INVOKE} if schema.is_tool_action(action) else {action})
        authorising = matching("authorise", ids)
        both = authorising | matching("obligations", ids)
        return Passes(syntax.build(authorising), syntax.build(both), _spoken_of(both.values(), counts))

    built = lru_cache(maxsize=None)(build)  # at most one entry a verb and a tool that a policy names
    return lambda action: built(action if action in named or not schema.is_tool_action(action) else schema.INVOKE)


def _inputs_used(policies: Iterable[Policy], inputs: Mapping[str, Record | None]) -> dict[str, Record]:
    """The typed tools whose ``context.input`` some policy may read."""
    typed = {name: record for name, record in inputs.items() if record is not None}
    used: set[str] = set()
    for policy in policies:
        if not syntax.speaks_of_context(policy.template, "input"):
            continue
        actions = syntax.actions_of(policy.template)
        if actions is None or schema.INVOKE in actions:
            return typed
        used |= {name for name in typed if schema.tool_action(name) in actions}
    return {name: typed[name] for name in used}
