"""Pages hang together: links lead somewhere, every page can be reached, nothing names a place that readers do not have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Page

BY_PATH = {page.path: page for page in PAGES}
# Wheels and packages come from whatever index a reader has configured; paths of one machine are nobody else's.
NOT_HERE = re.compile(
    r"\b(?:pypi|pythonhosted|npmjs|crates|golang)\.(?:org|com|io)\b|/(?:work|root)/|/home/\w",
    re.IGNORECASE,
)


def _target(page: Page, link: str) -> tuple[Path, str]:
    path, _, anchor = link.partition("#")
    return ((page.path.parent / path).resolve() if path else page.path), anchor


def _internal(page: Page) -> list[str]:
    return [link for link in page.links if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_internal_links_resolve(page: Page) -> None:
    for link in _internal(page):
        path, anchor = _target(page, link)
        assert path.exists(), f"{page.name}: {link}"
        assert path.is_relative_to(ROOT), f"{page.name}: {link} leads out"
        if anchor and path.suffix == ".md":
            assert anchor in BY_PATH[path].anchors, f"{page.name}: {link}: no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    seen, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in seen or path not in BY_PATH:
            continue
        seen.add(path)
        ahead += [_target(BY_PATH[path], link)[0] for link in _internal(BY_PATH[path])]
    assert {page.name for page in PAGES if page.path not in seen} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_registry_or_a_path_of_one_machine(page: Page) -> None:
    assert NOT_HERE.findall(page.path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_are_short_and_each_block_says_its_language(page: Page) -> None:
    for block in page.blocks:
        assert block.language, f"{page.name}, line {block.line}: name the block's language"
    # One long line is a table's row or a link; text is wrapped.
    long = [line for line in page.prose.splitlines() if len(line) > 200 and not line.lstrip().startswith("|")]
    assert long == [], page.name
