"""The collector runs as before once nobody makes thousands of records any more."""

from __future__ import annotations

import gc
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.garbage import OBJECTS_BETWEEN, collecting_seldom

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[tuple[int, int, int]]:
    before = gc.get_threshold()
    gc.set_threshold(700, 11, 12)
    yield (700, 11, 12)
    gc.set_threshold(*before)


def test_it_is_put_off_and_comes_back(thresholds: tuple[int, int, int]) -> None:
    with collecting_seldom():
        assert gc.get_threshold()[0] == OBJECTS_BETWEEN
        with collecting_seldom():
            pass
        assert gc.get_threshold()[0] == OBJECTS_BETWEEN
    assert gc.get_threshold() == thresholds
    with pytest.raises(ValueError, match="mine"), collecting_seldom():
        raise ValueError("mine")
    assert gc.get_threshold() == thresholds


def test_os_threads_that_overlap_leave_it_as_the_first_found_it(
    thresholds: tuple[int, int, int],
) -> None:
    both_in, first_out = Barrier(2, timeout=60), Barrier(2, timeout=60)
    seen: list[int] = []

    def first() -> None:
        with collecting_seldom():
            both_in.wait()
        first_out.wait()

    def second() -> None:
        with collecting_seldom():
            both_in.wait()
            first_out.wait()
            seen.append(gc.get_threshold()[0])

    threads = [Thread(target=first), Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [OBJECTS_BETWEEN]
    assert gc.get_threshold() == thresholds


@pytest.mark.parametrize("own", [0, OBJECTS_BETWEEN * 2])
def test_whoever_collects_never_or_more_seldom_still_does(own: int) -> None:
    gc.set_threshold(own)
    with collecting_seldom():
        assert gc.get_threshold()[0] == own
    assert gc.get_threshold()[0] == own
