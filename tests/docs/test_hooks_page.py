from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest

from heddle_registry import hookspecs
from heddle_registry.core.harness import EVENTS, Harness, SignalKind
from heddle_registry.core.identity import Identity

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "hooks.md").read_text()
SPECS = {
    name: function
    for name, function in vars(hookspecs).items()
    if name.startswith("heddle_") and callable(function)
}


def test_there_are_five_hooks_and_the_list_of_them_is_whole() -> None:
    assert tuple(SPECS) == hookspecs.HOOKS


@pytest.mark.parametrize("name", SPECS)
def test_every_hook_is_on_the_page_with_its_exact_arguments(name: str) -> None:
    arguments = list(inspect.signature(SPECS[name]).parameters)
    assert f"\n## `{name}({', '.join(arguments)})`\n" in PAGE
    section = PAGE.split(f"\n## `{name}(")[1].split("\n## ")[0]
    for argument in arguments:
        assert f"* `{argument}`:" in section
    assert re.search(rf"def {name}\({', '.join(arguments)}\):", section), "no example"


@pytest.mark.parametrize("name", SPECS)
def test_every_hooks_docstring_says_what_its_arguments_and_answer_are(name: str) -> None:
    text = inspect.getdoc(SPECS[name]) or ""
    for argument in inspect.signature(SPECS[name]).parameters:
        assert f":param {argument}:" in text
    assert ":returns:" in text
    assert ".. versionadded::" in text


def test_every_hook_on_the_page_exists() -> None:
    assert set(re.findall(r"\n## `(heddle_\w+)\(", PAGE)) == set(SPECS)


def test_every_field_kind_and_meaning_is_on_the_page() -> None:
    fields = [f.name for kind in (Harness, Identity) for f in attrs.fields(kind) if f.init]
    words = [*fields, *EVENTS, *(str(kind) for kind in SignalKind)]
    assert [word for word in words if f"`{word}`" not in PAGE] == []
