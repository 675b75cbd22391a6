"""Which tests hold which guarantee: read from the sources, and written into ``docs/guarantees.md``.

``python -m tests.guarantees.page`` brings the page up to date.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guarantees.md"
_LIST = re.compile(r"<!-- tests of (G\d+) -->\n(.*?)<!-- end -->", re.DOTALL)

Held = dict[str, dict[str, list[str]]]
"""Guarantee, file, tests."""


def marks(node: ast.AST) -> Iterator[str]:
    """The guarantees that ``pytest.mark.guarantee("…")`` names anywhere in this expression."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.guarantee":
            (argument,) = call.args
            assert isinstance(argument, ast.Constant), "name the guarantee outright"
            yield str(argument.value)


def tests_of(tree: ast.Module) -> Iterator[tuple[str, set[str]]]:
    """Each test of a module with its guarantees, those of the whole module included."""
    everywhere: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark":
            everywhere |= set(marks(node.value))
    for each in ast.walk(tree):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_"):
            yield each.name, everywhere | {name for item in each.decorator_list for name in marks(item)}


@cache
def held() -> Held:
    """What the sources say. Not to be changed: it is read once."""
    found: Held = defaultdict(lambda: defaultdict(list))
    tests = ROOT / "tests"
    for path in sorted({*tests.rglob("test_*.py"), *tests.rglob("contract*.py")}):
        for test, guarantees in tests_of(ast.parse(path.read_text(encoding="utf-8"))):
            for name in sorted(guarantees):
                found[name][path.relative_to(ROOT).as_posix()].append(test)
    return found


def listed() -> dict[str, str]:
    """What the page says: each guarantee and its list of tests as text."""
    return dict(_LIST.findall(PAGE.read_text(encoding="utf-8")))


def text_of(tests: dict[str, list[str]]) -> str:
    """The list as the page shows it."""
    lines = []
    for file, names in sorted(tests.items()):
        lines.append(f"- `{file}`")
        lines += [f"  - {name.removeprefix('test_').replace('_', ' ')}" for name in names]
    return "\n".join(lines) + "\n" if lines else ""


def main() -> None:
    found = held()
    text = PAGE.read_text(encoding="utf-8")

    def renewed(match: re.Match[str]) -> str:
        return f"<!-- tests of {match[1]} -->\n{text_of(found.get(match[1], {}))}<!-- end -->"

    PAGE.write_text(_LIST.sub(renewed, text), encoding="utf-8")


if __name__ == "__main__":
    main()
