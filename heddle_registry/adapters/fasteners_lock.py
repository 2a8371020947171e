"""The store's lock in fasteners' interface, and fasteners' mechanism where there is no ``flock``.

`FlockLock` is for embedders whose code holds ``fasteners.InterProcessLock`` objects: used on
``agents/.lock`` it excludes our own commands, the Rust tool and ``flock(1)``, which a plain
``InterProcessLock`` does not (it takes ``lockf``, another lock). Importing this costs fasteners'
import, some 30 ms; the store itself uses `flock.DirectoryLock`.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, Any

import fasteners

from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.adapters.os_faults import unavailable
from heddle_registry.errors import LockTimeout

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable


class FlockLock(fasteners.InterProcessLock):  # type: ignore[misc]  # fasteners is untyped
    """A ``fasteners.InterProcessLock`` that is the registry's own lock.

    Same constructor, ``with`` and ``acquire`` as fasteners'. What differs: it excludes OS threads
    of one process, is re-entrant for the OS thread that holds it, waits asleep instead of polling
    (``delay``, ``max_delay`` and ``sleep_func`` are accepted and ignored), keeps nothing in the
    file and survives forks as `DirectoryLock` does. Missing parent folders are made, as
    fasteners does.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sleep_func: Callable[[float], None] = time.sleep,
        logger: logging.Logger | None = None,
    ) -> None:
        super().__init__(path, sleep_func=sleep_func, logger=logger)
        folder, name = os.path.split(os.path.abspath(os.fspath(path)))
        self._lock = DirectoryLock(
            folder, name, make_dir=lambda: os.makedirs(folder, exist_ok=True)
        )

    def acquire(
        self,
        blocking: bool = True,
        delay: float = 0.01,  # noqa: ARG002 - fasteners' signature
        max_delay: float = 0.1,  # noqa: ARG002
        timeout: float | None = None,
    ) -> bool:
        """Take the lock; False when it was not free within ``timeout`` seconds.

        :raises ValueError: a negative timeout, as fasteners
        :raises LockUnsupported: the file system does not lock
        :raises StoreUnavailable: the lock file cannot be opened or made
        """
        if timeout is not None and timeout < 0:
            raise ValueError("Timeout must be greater than or equal to zero")
        try:
            gotten = self._lock.acquire(timeout, blocking=blocking)
        except LockTimeout:
            return False
        if gotten:
            self.acquired = True
        return gotten

    def release(self) -> None:
        """Give back one `acquire`.

        :raises RuntimeError: this OS thread does not hold it (fasteners' ``ThreadError`` is one)
        """
        self.unlock()

    def trylock(self) -> None:
        """Take the lock now, or raise ``BlockingIOError``: what fasteners asks of a mechanism."""
        if not self.acquire(blocking=False):
            raise BlockingIOError(errno.EAGAIN, "the lock is held", self._lock.path)

    def unlock(self) -> None:
        """Undo `trylock` or `acquire`."""
        was_ours = self._lock.is_held
        self._lock.release()
        if was_ours:
            self.acquired = self._lock.is_held


class MechanismFile:
    """Excludes other processes through fasteners' own mechanism: what the gate uses on Windows.

    It polls, gives no order among waiters, and excludes our own processes only: that the Rust
    tool's lock on Windows conflicts with it was not tried.
    """

    __slots__ = ("_lock", "_make_dir", "path")

    def __init__(self, path: str, *, make_dir: Callable[[], None] | None = None) -> None:
        self.path = path
        self._lock: Any = None
        self._make_dir = make_dir

    def take(self, _operation: int, deadline: float | None) -> bool:
        """Lock exclusively, whatever the operation; False when the deadline passed first."""
        if self._make_dir is not None and not os.path.isdir(os.path.dirname(self.path)):
            self._make_dir()
        self._lock = fasteners.InterProcessLock(self.path)
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return bool(self._lock.acquire(blocking=timeout_s != 0, timeout=timeout_s))
        except OSError as error:
            raise unavailable(self.path, error, "open the lock file") from error

    def drop(self) -> None:
        """Unlock and close; harmless when nothing is held."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        if lock.acquired:
            lock.release()
        elif lock.lockfile is not None:
            lock.lockfile.close()
