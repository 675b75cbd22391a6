"""The pages: what stands in README.md, CHANGELOG.md and docs/, as blocks, links and headings.

How a page is written so that it can be checked (``docs/README.md`` says the same to writers):

* In a ``console`` block a line after ``$ `` is a command; ``\\`` at its end continues it, ``# …`` after it is for people. Lines
  without ``$`` are what it prints: each must come, in this order, where ``…`` stands for anything.
* ``wf_…``, ``appr_…``, ``eff_…`` and so on in a command stand for the newest such id that the page has seen.
* A comment on the line above a block says what a reader need not see: ``<!-- meanwhile: an agent asks to write a note -->``
  plays a scene first, ``<!-- exit: 3 -->`` is how the last command ends, ``<!-- shown: why -->`` checks without running,
  ``<!-- file: templates/x.yaml -->`` above any block puts it there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"(?P<indent> *)```(?P<language>[\w-]*)")
_DIRECTIVE = re.compile(r"<!-- (meanwhile|exit|shown|file): (.+?) -->")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block, with the directives above it."""

    language: str
    text: str
    line: int
    directives: tuple[tuple[str, str], ...] = ()

    def directive(self, name: str) -> str | None:
        """What the last directive of this name says."""
        return dict(self.directives).get(name)


@dataclass(slots=True)
class Page:
    """One Markdown file. ``prose`` is everything outside blocks."""

    path: Path
    blocks: list[Block] = field(default_factory=list)
    prose: str = ""

    @property
    def name(self) -> str:
        """Its path from the top."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def links(self) -> list[str]:
        """Where its links and pictures lead, as written."""
        return [one or other for one, other in _LINK.findall(self.prose)]

    @property
    def anchors(self) -> set[str]:
        """The names of its headings, as they are made into anchors."""
        heads = re.findall(r"^#{1,6} (.+)$", self.prose, re.MULTILINE)
        return {slug(head) for head in heads}

    @property
    def inline_code(self) -> list[str]:
        """What stands between single backticks."""
        return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", self.prose)


def slug(heading: str) -> str:
    """A heading's anchor, by GitHub's rule."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower())
    return kept.strip().replace(" ", "-")


def read(path: Path) -> Page:
    """Read one page."""
    page, prose, directives = Page(path), [], list[tuple[str, str]]()
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        fence = _FENCE.fullmatch(line.rstrip())
        if fence is None:
            found = _DIRECTIVE.fullmatch(line.strip())
            directives = [*directives, (found[1], found[2])] if found else []
            prose.append(line)
            continue
        inside = []
        for _, text in lines:
            if text.strip() == "```":
                break
            inside.append(text.removeprefix(fence["indent"]))
        page.blocks.append(Block(fence["language"], "\n".join(inside) + "\n", number, tuple(directives)))
        directives = []
    page.prose = "\n".join(prose)
    return page


def all_pages() -> list[Page]:
    """README first, then the others by name."""
    paths = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [read(path) for path in paths]


PAGES = all_pages()
