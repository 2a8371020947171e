"""The change log speaks of this version, to users, in whole sentences."""

from __future__ import annotations

import re
from pathlib import Path

import tomli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "changelog.md").read_text()
VERSION = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits")


def test_the_newest_section_is_the_version_that_is_built_and_has_a_date_or_is_unreleased() -> None:
    headings = re.findall(r"^## \[(.+)\] - (.+)$", PAGE, re.MULTILINE)
    assert headings[0][0] == VERSION
    assert all(re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", when) for _, when in headings)
    assert not any(when == "unreleased" for _, when in headings[1:])


def test_every_change_is_of_a_known_kind_and_a_sentence() -> None:
    assert set(re.findall(r"^### (.+)$", PAGE, re.MULTILINE)) <= set(KINDS)
    changes = re.findall(r"^\* (.*(?:\n  .*)*)", PAGE, re.MULTILINE)
    assert changes
    for change in changes:
        assert change.endswith("."), change
        assert re.match(r"[A-Z`]", change), change
