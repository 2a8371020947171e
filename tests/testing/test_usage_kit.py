from __future__ import annotations

import json
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import Harness, UsageRecord, hookimpl
from heddle_registry.testing.usage_kit import Transcript, check_usage, usage_contract

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = [{"id": str(n), "in": n, "out": 2 * n} for n in range(1, 9)]
CONTENT = "".join(json.dumps(line) + "\n" for line in LINES).encode()


def plugin(usage: Callable[[Any], Any]) -> ModuleType:
    module = ModuleType("heddle_registry_acme")

    def heddle_harnesses() -> list[Harness]:
        return [Harness(name="acme")]

    def heddle_usage(source: Any, _usage: Any = usage) -> Any:
        return _usage(source)

    module.heddle_harnesses = hookimpl(heddle_harnesses)
    module.heddle_usage = hookimpl(heddle_usage)
    return module


def transcript(**totals: int) -> list[Transcript]:
    expected = {"input_tokens": 36, "output_tokens": 72} | totals
    return [Transcript("acme", "s1.jsonl", CONTENT, {"acme:session:s1": expected})]


def good(source: Any) -> list[UsageRecord]:
    source.declare("session:s1")
    return [
        UsageRecord(id=r["id"], input=r["in"], output=r["out"])
        for r in source.json_lines()
        if "in" in r
    ]


def by_line(source: Any) -> list[UsageRecord]:
    return [
        record._replace(id=f"{source.path}:{place}") for place, record in enumerate(good(source))
    ]


def careless(source: Any) -> list[UsageRecord]:
    source.declare("session:s1")
    return [
        UsageRecord(id=r["id"], input=r["in"], output=r["out"]) for r in source.json_lines(b"{")
    ]


def test_a_good_plugin_passes() -> None:
    check_usage(plugin(good), transcript())
    contract = usage_contract(plugin(good), transcript())()
    names = [name for name in dir(contract) if name.startswith("test_")]
    assert len(names) == 5
    for name in names:
        getattr(contract, name)()


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        (by_line, "beside a copy"),
        (careless, "KeyError"),
        (lambda source: source.read(), "AttributeError"),
        (lambda source: None, "there is no actor acme:session:s1"),
    ],
)
def test_what_authors_get_wrong_is_said(usage: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_usage(plugin(usage), transcript())


def test_wrong_totals_are_shown_beside_the_right_ones() -> None:
    with pytest.raises(AssertionError, match=r"'output_tokens': 72.*expected.*'output_tokens': 1"):
        check_usage(plugin(good), transcript(output_tokens=1))
