"""The page of the configuration has every key and variable that is read, and no other."""

from __future__ import annotations

import ast
import re
import types
import typing
from pathlib import Path

import attrs

import heddle_registry
from heddle_registry.codec.config import Settings, settings_from_toml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "configuration.md").read_text()
SOURCES = sorted(Path(heddle_registry.__file__).parent.rglob("*.py"))


def keys_of(kind: type, before: str = "") -> set[str]:
    found = set()
    for field in attrs.fields(attrs.resolve_types(kind)):
        key, inner = before + field.name, field.type
        if attrs.has(inner):
            found |= keys_of(inner, f"{key}.")
            continue
        found.add(key)
        arguments = typing.get_args(inner)
        if not isinstance(inner, types.UnionType) and arguments and attrs.has(arguments[0]):
            found |= keys_of(arguments[0], f"{key}[].")
    return found


def variables_in_the_sources() -> set[str]:
    """Return our own variables, and every other that is read by its name."""
    found: set[str] = set()
    for path in SOURCES:
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(re.findall(r"^HEDDLE_[A-Z_]+$", node.value))
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "get"
                and ast.unparse(node.func.value).endswith("environ")
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(node.args[0].value)
    return found


def test_every_key_is_on_the_page_and_no_other() -> None:
    keys = re.search(r"^## Keys\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    assert keys is not None
    assert set(re.findall(r"^\| `([^`]+)` \|", keys[1], re.MULTILINE)) == keys_of(Settings)


def test_every_variable_is_on_the_page_and_every_one_of_ours_there_is_read() -> None:
    read = variables_in_the_sources()
    assert {"HEDDLE_DIR", "NO_COLOR", "HEDDLE_REGISTRY_INDEX"} <= read
    written = set(re.findall(r"`([A-Z][A-Z_]+)(?:=\w+)?`", PAGE))
    assert read - written == set()
    assert {name for name in written if name.startswith("HEDDLE_")} - read == set()


def test_the_example_is_a_config_file() -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    settings = settings_from_toml(example[1].encode(), "config.toml")
    assert settings.default_ttl_s == 600
    assert settings.attach.rules[0].before == "client-instance-id"
