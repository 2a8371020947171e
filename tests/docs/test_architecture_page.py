"""The page of the architecture shows the arrows that the layers' test enforces."""

from __future__ import annotations

import re
from pathlib import Path

from tests.test_layers import ARROWS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()


def test_the_table_of_layers_is_the_one_that_is_enforced() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", PAGE, re.MULTILINE)
    assert {layer: set(re.findall(r"`(\w+)`", may)) for layer, may in rows} == ARROWS


def test_every_module_that_the_page_sends_to_is_there() -> None:
    section = PAGE.split("\n## Where to find things\n")[1].split("\n## ")[0]
    paths = re.findall(r"`((?:core|adapters|detection)/[\w.]+)`", section)
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / "heddle_registry" / path).exists()] == []
