"""Looking seldom for garbage cycles while thousands of records are made, which have none."""

from __future__ import annotations

import _thread
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS_BETWEEN: Final = 100_000
_mutex = _thread.RLock()  # a signal handler may come in, too
_inside = 0
_before: tuple[int, int, int] = (0, 0, 0)


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Let the collector run once in `OBJECTS_BETWEEN` objects while inside; for the whole process.

    Each of its looks goes through what was made since, and finds that all of it is in use: a
    seventh of the time in which thousands of unchanged transcripts are looked at. Where it is
    switched off, or runs as seldom already, nothing changes.
    May be entered by several OS threads at once, and again inside; the last to leave puts things
    back.
    """
    global _inside, _before  # noqa: PLW0603 - the collector is the process's, too
    with _mutex:
        if not _inside:
            _before = gc.get_threshold()
            if 0 < _before[0] < OBJECTS_BETWEEN:
                gc.set_threshold(OBJECTS_BETWEEN)
        _inside += 1
    try:
        yield
    finally:
        with _mutex:
            _inside -= 1
            if not _inside:
                gc.set_threshold(*_before)
