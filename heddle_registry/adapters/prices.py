"""What unpriced usage would cost by the list prices of `genai-prices` (the extra ``prices``).

The library ships its price list, so nothing is fetched. An estimate is for a whole group of
requests, not for each: the rates of the model, times the group's tokens; where a rate depends on
the length of the request, the average length decides. Subscriptions, discounts and price changes
within the group's time are not known here. No library, no such model: None, never 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from heddle_registry.core.usage import UsageGroup

PROVIDERS: Final[Mapping[str, str]] = {
    "claude-code": "anthropic",
    "codex": "openai",
    "gemini-cli": "google",
}
"""Harnesses that speak to one vendor; of the others' models the name alone must tell."""
_USAGE_KEYS: Final = 1000


class GenaiPrices:
    """Estimates by `genai-prices`; every answer is None where it is not installed.

    Loads the library (some 50 ms) at the first question. Keeps the rates of each model asked for.
    Not thread-safe.
    """

    def __init__(self) -> None:
        self._rates: dict[tuple[str | None, str], Any] = {}

    @property
    def available(self) -> bool:
        """Whether the library is installed."""
        try:
            import genai_prices  # noqa: F401 - an optional extra
        except ImportError:
            return False
        return True

    def estimate(self, harness: str, group: UsageGroup) -> int | None:
        """Return the group's cost in millionths of a US dollar, rounded; None if unknown."""
        if group.model is None:
            return None
        rates = self._model(PROVIDERS.get(harness), group.model)
        if rates is None:
            return None
        whole = group.input + group.cache_creation + group.cache_read
        length = whole // max(1, group.requests)
        fresh = _rate(rates.input_mtok, length)
        output = _rate(rates.output_mtok, length)
        if fresh is None or output is None:
            return None
        # A vendor without a rate for cached tokens charges them as any other.
        written = _rate(rates.cache_write_mtok, length)
        written = fresh if written is None else written
        hour = _rate(getattr(rates, "cache_write_1h_mtok", None), length)
        hour = written if hour is None else hour
        read = _rate(rates.cache_read_mtok, length)
        read = fresh if read is None else read
        # Dollars for a million tokens are millionths of a dollar for one.
        return round(
            group.input * fresh
            + (group.cache_creation - group.cache_creation_1h) * written
            + group.cache_creation_1h * hour
            + group.cache_read * read
            + group.output * output
        )

    def _model(self, provider: str | None, model: str) -> Any:
        key = (provider, model)
        if key not in self._rates:
            self._rates[key] = self._find(provider, model)
        return self._rates[key]

    def _find(self, provider: str | None, model: str) -> Any:
        try:
            from genai_prices import Usage, calc_price
        except ImportError:
            return None
        usage = Usage(input_tokens=_USAGE_KEYS, output_tokens=_USAGE_KEYS)
        # Copilot writes 4.6 where the vendor's id has 4-6.
        for name in dict.fromkeys((model, model.replace(".", "-"))):
            for vendor in dict.fromkeys((provider, None)):
                try:
                    found = calc_price(usage, model_ref=name, provider_id=vendor)
                except (LookupError, ValueError):
                    continue
                if model.endswith("-fast") and "fast" not in found.model.id:
                    return None  # fast mode has prices of its own
                return found.model_price
        return None


def _rate(price: Any, length: int) -> Decimal | None:
    tiers = getattr(price, "tiers", None)
    if tiers is None:
        return price  # type: ignore[no-any-return]
    rate = price.base
    for tier in sorted(tiers, key=lambda tier: tier.start):
        if length > tier.start:
            rate = tier.price
    return rate  # type: ignore[no-any-return]
