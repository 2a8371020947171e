"""Estimates by list price, and None wherever there is none."""

from __future__ import annotations

import builtins
from typing import Any

import pytest

from heddle_registry.adapters.prices import GenaiPrices
from heddle_registry.core.usage import UsageGroup

pytest.importorskip("genai_prices", reason="the extra `prices` is not installed")
MILLION = 1_000_000


def group(model: str | None, **tokens: int) -> UsageGroup:
    return UsageGroup(model=model, requests=1000, **tokens)


def test_each_bucket_has_its_own_rate() -> None:
    prices, model = GenaiPrices(), "claude-sonnet-4-20250514"
    dollars = {
        name: prices.estimate("claude-code", group(model, **tokens))
        for name, tokens in {
            "input": {"input": MILLION},
            "output": {"output": MILLION},
            "read": {"cache_read": MILLION},
            "written": {"cache_creation": MILLION},
            "hour": {"cache_creation": MILLION, "cache_creation_1h": MILLION},
        }.items()
    }
    assert dollars == {
        "input": 3_000_000,
        "output": 15_000_000,
        "read": 300_000,
        "written": 3_750_000,
        "hour": 6_000_000,
    }


def test_many_short_requests_are_not_priced_as_one_long_one() -> None:
    prices, model = GenaiPrices(), "gemini-2.5-pro"
    short = prices.estimate("gemini-cli", group(model, input=MILLION))
    long = prices.estimate("gemini-cli", group(model, input=MILLION)._replace(requests=2))
    assert short == 1_250_000
    assert long == 2_500_000


@pytest.mark.parametrize("model", [None, "stub-model", "my-own-llama", "claude-opus-4-6-fast"])
def test_an_unknown_model_has_an_unknown_price(model: str | None) -> None:
    assert GenaiPrices().estimate("opencode", group(model, input=MILLION)) is None


def test_a_name_with_a_dot_finds_its_vendors_spelling() -> None:
    found = GenaiPrices().estimate("copilot-cli", group("claude-sonnet-4.6", output=MILLION))
    assert found == 15_000_000


def test_without_the_library_every_price_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("genai_prices"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    prices = GenaiPrices()
    assert not prices.available
    assert prices.estimate("codex", group("gpt-5.5", input=MILLION)) is None
