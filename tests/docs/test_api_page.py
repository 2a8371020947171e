"""The page of the API names what can be imported, and shows it as it is called."""

from __future__ import annotations

import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any

import attrs
import pytest

import heddle_registry
from heddle_registry import AgentRegistry, HeldClaim

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
DOORS = {AgentRegistry: "registry", HeldClaim: "claim"}
"""Classes whose methods the page shows, and what it calls an object of each."""


def words_of(function: Any) -> list[str]:
    """Return a function's parameters as the page shows them: with defaults, without types."""
    words: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if parameter.name == "self":
            continue
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if default is inspect.Parameter.empty:
            words.append(parameter.name)
        elif default is attrs.NOTHING or attrs.has(type(default)) or callable(default):
            words.append(f"{parameter.name}=…")
        else:
            words.append(f"{parameter.name}={getattr(default, 'value', default)!r}")
    return words


def calls_of(name: str) -> list[str]:
    """Return the lines that the section of ``name`` must show."""
    thing = getattr(heddle_registry, name)
    if name == "hookimpl":
        return ["@hookimpl"]
    if not inspect.isclass(thing):
        return [f"{name}({', '.join(words_of(thing))})"]
    if issubclass(thing, Enum):
        return [f"{name}({str(member)!r})" for member in thing]
    # A held claim is given, not made.
    calls = [] if thing is HeldClaim else [f"{name}({', '.join(words_of(thing))})"]
    if thing in DOORS:
        for door, value in inspect.getmembers(thing):
            if door.startswith("_") or not (callable(value) or isinstance(value, property)):
                continue
            words = "" if isinstance(value, property) else f"({', '.join(words_of(value))})"
            calls.append(f"{DOORS[thing]}.{door}{words}")
    return calls


def shown_in(section: str) -> list[str]:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
    return [line for line in re.sub(r"\n +", " ", code).splitlines() if line]


def test_the_page_lists_every_public_name_and_no_other() -> None:
    assert sorted(SECTIONS) == heddle_registry.__all__


@pytest.mark.parametrize("name", heddle_registry.__all__)
def test_a_name_is_shown_as_it_is_called_and_said_in_words(name: str) -> None:
    section = SECTIONS[name]
    assert sorted(shown_in(section)) == sorted(calls_of(name))
    assert re.sub(r"```.*?```", "", section, flags=re.DOTALL).strip()
