"""The lock of the directory store: ``flock(2)`` on ``agents/.lock``, as the Rust tool takes it.

The kernel's lock belongs to an open file, not to an OS thread, so one process that opens the file
twice would wait for itself for ever. A *gate* for each lock file, process-wide, comes first:
re-entrant for the OS thread that holds it, handed on in order of arrival among the others. Only
who holds the gate asks the kernel. The kernel keeps its own order among processes; nobody polls.

Import cost is that of ``os`` and ``fcntl``. For fasteners' interface to the same lock see
`fasteners_lock`; on Windows the gate stands before fasteners' own mechanism.
"""

from __future__ import annotations

import _thread
import os
import time

from heddle_registry.adapters.lock_file import LOCK_EX, LOCK_SH, LockFile, close_lock, identity_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Protocol

    from heddle_registry.errors import LockTimeout

    class Exclusion(Protocol):
        """What keeps other processes out once the gate is ours."""

        def take(self, operation: int, deadline: float | None, /) -> bool:
            """Lock out the others; False when the deadline passed first."""

        def drop(self) -> None:
            """Let the others in. Harmless when nothing is held."""


SHARED_WAIT_S = 0.02
"""How long a reader waits for writers to pass before it does without the lock."""

_HAS_FLOCK = hasattr(os, "register_at_fork")  # POSIX: the systems where `fcntl` exists
_NOBODY = 0  # no OS thread has this identifier


class DirectoryLock:
    """Exclusion of every other OS thread and process from one folder, by one lock file in it.

    Any number of objects may name the same file, by any spelling of the folder: they are one
    lock. Objects hold no state of their own and may be shared between OS threads. A forked child
    never holds the lock, whichever OS thread of the parent did; a ``release`` that the child still
    owes for its parent's ``acquire`` does nothing.

    ``make_dir`` is called, at most twice an attempt, when the folder is missing; without it a
    missing folder is ``StoreUnavailable``. The lock file is made when missing, never truncated,
    never removed, and must not be a link.
    """

    __slots__ = ("_key", "_make_dir", "path")

    def __init__(
        self, dir_path: str, name: str = ".lock", *, make_dir: Callable[[], None] | None = None
    ) -> None:
        self._key = (os.path.realpath(dir_path), name)
        self._make_dir = make_dir
        self.path = os.path.join(*self._key)

    @property
    def depth(self) -> int:
        """How many releases the calling OS thread owes; 0 when it does not hold the lock."""
        gate = _gates.get(self._key)
        return gate.depth if gate is not None and gate.owner == _thread.get_ident() else 0

    @property
    def is_held(self) -> bool:
        """Whether the calling OS thread holds the lock."""
        return self.depth > 0

    def acquire(self, timeout_s: float | None = None, *, blocking: bool = True) -> bool:
        """Take the lock, or take it once more; True when the caller holds it now.

        Waits at most ``timeout_s`` (None: for ever; 0: one attempt). An OS thread that holds the
        lock gets it again at once and owes one more `release`. With ``blocking=False`` the answer
        is False where waiting would be needed, and also for the holder itself, as the Rust tool's
        ``try_write`` answers. An interrupt (``KeyboardInterrupt``) leaves nothing held.

        :raises LockTimeout: another held it all the time; names its pid where the kernel tells.
            Also at once where a signal handler asks that interrupted this very OS thread's wait
        :raises LockUnsupported: the file system does not lock
        :raises StoreUnavailable: the lock file cannot be opened or made
        """
        me = _thread.get_ident()
        gate = _gates.setdefault(self._key, _Gate())
        if gate.owner == me and gate.depth:
            if blocking:
                gate.depth += 1
            return blocking
        if gate.owner == me or me in gate.queue:
            # A handler on top of its own thread's wait: that wait cannot end before we return.
            raise self._timeout(0.0)
        if not blocking:
            deadline: float | None = 0.0
        elif timeout_s is None:
            deadline = None
        else:
            deadline = time.monotonic() + timeout_s
        try:
            if gate.enter(me, deadline):
                gate.file = _lock_file(self.path, self._make_dir)
                if gate.file.take(LOCK_EX, deadline):
                    gate.depth = 1
                    return True
            if not blocking:
                gate.leave(me)
                return False
            raise self._timeout(timeout_s or 0.0)  # noqa: TRY301 - one way out for all failures
        except BaseException:
            gate.leave(me)
            raise

    def release(self) -> None:
        """Give back one `acquire`; the last one unlocks and wakes the next in line.

        :raises RuntimeError: the calling OS thread does not hold the lock
        """
        me = _thread.get_ident()
        gate = _gates.get(self._key)
        if gate is None or gate.owner != me or not gate.depth:
            if _inherited.get(self._key, 0):
                _inherited[self._key] -= 1
                return
            raise RuntimeError(f"{self.path} is not locked by this thread")
        if gate.depth > 1:
            gate.depth -= 1
            return
        try:
            gate.leave(me)
        except BaseException:
            gate.leave(me)  # an interrupt in the middle: finish, then let it through
            raise

    def held(self, timeout_s: float | None = None) -> _Held:
        """Return a context manager that holds the lock; raises on entry what `acquire` raises."""
        return _Held(self, timeout_s)

    def _timeout(self, timeout_s: float) -> LockTimeout:
        from heddle_registry.adapters.lock_holders import flock_holder
        from heddle_registry.errors import LockTimeout

        try:
            holder = flock_holder(*identity_of(os.lstat(self.path)))
        except OSError:
            holder = None
        gate = _gates.get(self._key)
        if holder == os.getpid() and (gate is None or gate.owner == _thread.get_ident()):
            # The gate is ours, so no OS thread here holds the lock: what the kernel shows is a
            # sleeper of ours on its way out, or one of our readers.
            holder = None
        return LockTimeout(self.path, timeout_s, holder)


class _Held:
    """The context manager of `DirectoryLock.held`; contextlib would cost its import."""

    __slots__ = ("_lock", "_outside", "_timeout_s")
    _outside: int  # how often the OS thread holds it already

    def __init__(self, lock: DirectoryLock, timeout_s: float | None) -> None:
        self._lock = lock
        self._timeout_s = timeout_s

    def __enter__(self) -> DirectoryLock:
        self._outside = self._lock.depth
        try:
            self._lock.acquire(self._timeout_s)
            return self._lock  # noqa: TRY300 - guarded up to the caller's own guard
        except BaseException:
            if self._lock.depth > self._outside:
                self._lock.release()  # the interrupt came after the grant
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._lock.release()
        except KeyboardInterrupt:
            if self._lock.depth > self._outside:
                self._lock.release()  # the interrupt came before the first step
            raise


class _Gate:
    """Which OS thread of this process may hold, or ask the kernel for, one lock file.

    ``owner`` with ``depth`` 0 is still asking. ``queue`` maps the waiting OS threads, in order of
    arrival, to the lock each one sleeps on; who waited stands there until it leaves.
    """

    __slots__ = ("_mutex", "depth", "file", "owner", "queue")

    def __init__(self) -> None:
        self.owner = _NOBODY
        self.depth = 0
        self.file: Exclusion | None = None
        self.queue: dict[int, _thread.LockType] = {}
        self._mutex = _thread.RLock()  # re-entrant: a signal handler may come by

    def enter(self, me: int, deadline: float | None) -> bool:
        """Become the owner, in turn; False when the deadline passed first (then `leave`)."""
        with self._mutex:
            if self.owner == _NOBODY:
                self.owner = me
                return True
            turn = _thread.allocate_lock()
            turn.acquire()
            self.queue[me] = turn
        if deadline is None:
            return turn.acquire()
        remaining_s = min(max(deadline - time.monotonic(), 0), _thread.TIMEOUT_MAX)
        return turn.acquire(True, remaining_s)

    def leave(self, me: int) -> None:
        """Drop the file and hand the gate on, or step out of the line.

        Each step may be repeated: after an interrupt anywhere in here, a second call finishes.
        """
        if self.owner == me:
            self.depth = 0
            if self.file is not None:
                self.file.drop()
                self.file = None
        with self._mutex:
            self.queue.pop(me, None)
            if self.owner == me:
                self.owner = next(iter(self.queue), _NOBODY)
            turn = self.queue.get(self.owner)
            if turn is not None and turn.locked():
                turn.release()


_gates: dict[tuple[str, str], _Gate] = {}
_inherited: dict[tuple[str, str], int] = {}  # releases a forked child owes and must not perform


def try_shared(path: str, wait_s: float = SHARED_WAIT_S) -> int | None:
    """Take the lock file in shared mode for a short look; a descriptor, or None to do without.

    Needs read permission only, creates nothing, and never raises for what is wrong with the file:
    no file, no permission, a writer that stayed, a system without ``flock`` and an OS thread that
    holds the lock exclusively itself all give None. Waits asleep, at most ``wait_s``. Give the
    descriptor to `release_shared` soon: writers wait for it.
    """
    from heddle_registry.errors import RegistryError

    if not _HAS_FLOCK:
        return None
    if DirectoryLock(*os.path.split(path)).is_held:
        return None  # waiting for ourselves would only cost the time
    file = LockFile(path, create=False)
    try:
        if file.take(LOCK_SH, time.monotonic() + wait_s):
            return file.fd
    except RegistryError:
        return None
    except BaseException:
        file.drop()
        raise
    return None


def release_shared(fd: int) -> None:
    """End a `try_shared`: unlock and close. Does nothing in a forked child."""
    close_lock(fd)


def _lock_file(path: str, make_dir: Callable[[], None] | None) -> Exclusion:
    if _HAS_FLOCK:
        return LockFile(path, make_dir=make_dir)
    from heddle_registry.adapters.fasteners_lock import MechanismFile

    return MechanismFile(path, make_dir=make_dir)


def _start_empty() -> None:
    # In a child right after fork. The OS thread that forked lives on here under the same
    # identifier and may still be inside a `with` of its parent's.
    me = _thread.get_ident()
    for key, gate in _gates.items():
        if gate.owner == me and gate.depth:
            _inherited[key] = _inherited.get(key, 0) + gate.depth
    _gates.clear()


if _HAS_FLOCK:
    os.register_at_fork(after_in_child=_start_empty)
