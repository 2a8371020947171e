"""A fork while another OS thread is inside SQLite: the child does not wait for it for ever.

SQLite has locks of its own for the whole process, for its memory and its files. One that another
OS thread holds at a fork stays locked in the child, and whoever calls SQLite there never returns.
So our calls of SQLite hold one lock, and a fork waits for it. Where that takes too long, the child
goes without SQLite.
"""

from __future__ import annotations

import _thread
import os

MOST_WAIT_S = 5.0
"""So long a fork waits. No statement of ours takes as long among 100,000 entries."""

_mutex = _thread.RLock()  # re-entrant: a signal handler may look, or fork
_held: dict[int, bool] = {}
"""By the OS threads that are forking: whether they hold the lock."""
_is_safe = True


def inside() -> _thread.RLock:
    """Return the lock to hold while inside SQLite; in a forked child it is another."""
    return _mutex


def is_safe() -> bool:
    """Tell whether SQLite may be used in this process."""
    return _is_safe


def _before() -> None:
    _held[_thread.get_ident()] = _mutex.acquire(True, MOST_WAIT_S)


def _after_in_parent() -> None:
    if _held.pop(_thread.get_ident(), False):
        _mutex.release()


def _after_in_child() -> None:
    global _mutex, _is_safe  # noqa: PLW0603 - of the process
    # Not asked before: this module came while the fork was being prepared.
    _is_safe = _is_safe and _held.get(_thread.get_ident(), True)
    _held.clear()
    _mutex = _thread.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
