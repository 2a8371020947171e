"""Every link inside README and docs leads somewhere, and every page can be found from the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def links_of(page: Path) -> list[str]:
    prose = FENCE.sub(lambda found: "" if found[0].startswith("```") else "`", page.read_text())
    return [link for link in LINK.findall(prose) if "://" not in link]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as the usual renderers make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {
        re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    lost = []
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            lost.append(link)
    assert lost == []


def test_every_page_can_be_found_from_the_index() -> None:
    found, ahead = set(), [DOCS / "index.md"]
    while ahead:
        page = ahead.pop()
        if page in found or page.suffix != ".md" or not page.exists():
            continue
        found.add(page)
        ahead += [(page.parent / link.partition("#")[0]).resolve() for link in links_of(page)]
    assert [name_of(page) for page in PAGES if page not in found and page.parent != ROOT] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_opens_with_its_title_and_names_no_machine_of_ours(page: Path) -> None:
    text = page.read_text()
    assert text.startswith("# ")
    assert re.findall(r"/(?:work|opt/dev|root|tmp/\w)[/\w]*", text) == []
