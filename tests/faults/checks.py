"""Outcomes as assertions, so that a fault of the original is a failure and never an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.sides import Side


def works(call: Callable[[], Any]) -> Any:
    """The answer; a failed assertion where the call raises."""
    try:
        return call()
    except Exception as error:
        raise AssertionError(f"it raised {error!r}") from error


def attempt(side: Side, call: Callable[[], Any]) -> Any:
    """The answer, or None where the registry refuses with one of its own errors."""
    try:
        return call()
    except side.errors:
        return None


def is_refused(call: Callable[[], Any]) -> bool:
    """Whether the call raises, or answers that it did nothing."""
    try:
        return call() is False
    except Exception:
        return True
