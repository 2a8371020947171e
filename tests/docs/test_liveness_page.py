"""The page of liveness has every code of evidence that a verdict may carry."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import heddle_registry
from heddle_registry.core import evidence

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "liveness.md").read_text()


def codes_in_the_sources() -> set[str]:
    found = set()
    for path in Path(heddle_registry.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Evidence":
                code = node.args[0]
                found.add(code.value if isinstance(code, ast.Constant) else named(code))
    return found


def named(node: ast.expr) -> str:
    """Return a code that stands in a constant of the module of evidence."""
    assert isinstance(node, ast.Name)
    value: str = getattr(evidence, node.id)
    return value


def test_every_code_is_on_the_page_and_no_other() -> None:
    section = PAGE.split("\n## The codes\n")[1].split("\n## ")[0]
    codes = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
    assert codes == codes_in_the_sources()
