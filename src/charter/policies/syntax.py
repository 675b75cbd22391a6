"""From Cedar text to typed nodes, with the caps that must come before the parser.

Cedar's parser recurses over what it reads: 800 nested brackets, or a few thousand chained operators, overflow its
stack and take the process with them. So the text is counted here first, by a scan that cannot recurse. The scan lexes
strings and comments as Cedar does; where the two could differ, Cedar refuses the text as no token of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import cedarpy
from cedarpy import pst

from charter.errors import InvalidInput

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_OPERATORS = 400
MAX_POLICIES = 2_000

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"'  # a string: nothing in it counts
    r"|//[^\n]*"  # a comment: nothing in it counts
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<end>;)"
    r"|(?P<operator>&&|\|\||[-+*.!]|\bif\b|\bhas\b|\bin\b|\blike\b|\bis\b)"
)


def check_caps(file: str, text: str) -> None:
    """Raise ``InvalidInput`` (``policy_too_large``, ``policy_too_deep``) for text that must not reach the parser."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidInput(
            f"{file}: the policy text is larger than {MAX_BYTES // 1024} KiB.",
            code="policy_too_large",
            next_step="Split it over several files, or generate fewer policies.",
            detail={"file": file},
        )
    depth = operators = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
            operators += 1
        elif kind == "close":
            depth -= 1
        elif kind == "operator":
            operators += 1
        elif kind == "end":
            depth = operators = 0
        if depth > MAX_DEPTH or operators > MAX_OPERATORS:
            raise _too_deep(file, text.count("\n", 0, token.start()) + 1)


def _too_deep(file: str, line: int) -> InvalidInput:
    return InvalidInput(
        f"{file}, line {line}: a policy nests deeper than {MAX_DEPTH} brackets "
        f"or holds more than {MAX_OPERATORS} operators.",
        code="policy_too_deep",
        next_step="Split the policy into several, each with an @id of its own.",
        detail={"file": file, "line": line},
    )


def parse(file: str, text: str) -> tuple[pst.Template, ...]:
    """The policies of one file, in the order of the text. ``InvalidInput`` where it is not Cedar Charter can use."""
    check_caps(file, text)
    try:
        nodes = cedarpy.PolicySet.from_str(text).to_pst()
    except (ValueError, UnicodeError) as error:
        raise InvalidInput(
            f"{file}: this is not a Cedar policy text: {_first_lines(str(error))}",
            code="policy_syntax",
            next_step="Correct the text where the message points; `charter policy check` shows it again.",
            detail={"file": file},
        ) from None
    if nodes.templates:
        raise InvalidInput(
            f"{file}: policies with the slots ?principal or ?resource are not supported.",
            code="policy_template",
            next_step="Name the principal or the resource, or speak of its attributes in a `when`.",
            detail={"file": file},
        )
    if len(nodes.static_policies) > MAX_POLICIES:
        raise InvalidInput(
            f"{file}: more than {MAX_POLICIES} policies.", code="policy_too_large", detail={"file": file}
        )
    # Cedar numbers them policy0, policy1, ... in the order of the text.
    return tuple(sorted(nodes.static_policies.values(), key=lambda template: int(template.id[len("policy") :])))


def _first_lines(message: str) -> str:
    return " ".join(message.split())[:500]


def build(policies: Mapping[str, pst.Template]) -> cedarpy.PolicySet:
    """A parsed handle of these policies, each under the id that it has in the mapping."""
    return cedarpy.PolicySet.from_pst(pst.PolicySet(templates={}, static_policies=policies, template_links=()))


def walk(node: Any) -> Iterator[Any]:
    """Every node under ``node``, itself included, without recursion."""
    stack = [node]
    while stack:
        value = stack.pop()
        if isinstance(value, Mapping):
            stack.extend(value.values())
        elif isinstance(value, tuple):
            stack.extend(value)
        elif is_dataclass(value) and not isinstance(value, type):
            yield value
            stack.extend(getattr(value, field.name) for field in fields(value))


def actions_of(template: pst.Template) -> frozenset[str] | None:
    """The action ids that the scope names (``==`` or ``in``); None when it names none and so means all."""
    scope = template.action
    if isinstance(scope, pst.ActionEq):
        return frozenset({scope.entity.id})
    if isinstance(scope, pst.ActionIn):
        return frozenset(uid.id for uid in scope.entities)
    return None


def speaks_of_context(template: pst.Template, attribute: str) -> bool:
    """Whether a policy reads ``context.<attribute>``, asks for it, or takes ``context`` as a whole."""
    return _touches(template, attribute, value=False)


def reads_context(template: pst.Template, attribute: str) -> bool:
    """Whether a policy reads ``context.<attribute>`` or takes ``context`` as a whole. To ``has`` any value is the same."""
    return _touches(template, attribute, value=True)


def _touches(template: pst.Template, attribute: str, *, value: bool) -> bool:
    named = held = 0
    for node in walk(template.clauses):
        if isinstance(node, pst.Var) and node.name == "context":
            named += 1
        elif isinstance(node, (pst.GetAttr, pst.HasAttr)) and node.base == pst.Var("context"):
            held += 1
            path = (node.attr,) if isinstance(node, pst.GetAttr) else node.attrs
            only_asked = isinstance(node, pst.HasAttr) and len(path) == 1
            if path[0] == attribute and not (value and only_asked):
                return True
    return named > held
