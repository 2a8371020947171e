"""The page of errors has every class with its code and status."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from heddle_registry import errors

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "errors.md").read_text()
CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.RegistryError)
}


def test_every_class_stands_in_the_table_with_its_code_and_status() -> None:
    rows = {
        name: (code, status)
        for name, code, status in re.findall(
            r"^\| \[`(\w+)`\]\(#\w+\) \| `(\w+)` \| (\d+|-) \|", PAGE, re.MULTILINE
        )
    }
    assert rows == {
        name: (kind.code, "-" if kind is errors.PluginFault else str(kind.exit_code))
        for name, kind in CLASSES.items()
        if kind.code
    }


def test_every_class_has_a_section_and_every_abstract_one_is_named() -> None:
    sections = set(re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE))
    assert sections == {name for name, kind in CLASSES.items() if kind.code}
    assert all(f"`{name}`" in PAGE for name in CLASSES)


def test_the_tree_on_the_page_is_the_tree_of_the_classes() -> None:
    tree = re.search(r"```\n(RegistryError\n.*?)```", PAGE, re.DOTALL)
    assert tree is not None
    above: list[str] = []
    parents = {}
    for line in tree[1].splitlines():
        lead, name = re.match(r"([^A-Za-z]*)(\w+)", line).groups()
        depth = len(lead) // 3
        above = [*above[:depth], name]
        parents[name] = above[-2] if depth else "Exception"
    assert parents == {name: kind.__bases__[0].__name__ for name, kind in CLASSES.items()}
