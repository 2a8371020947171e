"""Liveness locks: a file that stays locked exactly as long as somebody who holds it lives.

The runner locks ``live/<id>`` and lets its command inherit the descriptor; the claim records
device and inode. Observers test it with a shared, non-blocking ``flock`` on a descriptor of their
own, so any number of them may look at once and none can be taken for the holder.

Every function may be called in any OS thread. POSIX only; on Windows there are no liveness locks:
`hold_liveness` raises ``LockUnsupported`` and `observe_liveness` knows nothing.
"""

from __future__ import annotations

import os
import time

from heddle_registry.adapters.lock_file import (
    LOCK_EX,
    LOCK_SH,
    LockFile,
    close_lock,
    identity_of,
    open_lock,
    try_flock,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

_HAS_FLOCK = hasattr(os, "register_at_fork")

OBSERVER_GRACE_S = 5.0
"""How long the runner waits for observers to finish their look; each takes microseconds."""


class LivenessLock:
    """A liveness lock that this process holds. ``device`` and ``inode`` go into the claim.

    ``fd`` is the locked descriptor. An inheritable one is meant to survive fork and exec: whoever
    has a copy keeps the lock held. One that is not inheritable is closed in every forked child.
    """

    __slots__ = ("_file", "device", "fd", "inode")

    def __init__(self, file: LockFile) -> None:
        self._file = file
        self.fd = file.fd
        self.device, self.inode = identity_of(os.fstat(file.fd))

    def release(self) -> None:
        """Unlock for every copy of the descriptor, and close this one. May be called twice.

        In a forked child this does nothing: the lock is its parent's.
        """
        self._file.drop()


def hold_liveness(
    path: str, *, inheritable: bool = False, make_dir: Callable[[], None] | None = None
) -> LivenessLock:
    """Make the file where it is missing and lock it exclusively.

    ``inheritable`` is for a runner that forks and execs its command itself: the descriptor then
    passes every fork and exec of this process. ``subprocess`` with ``pass_fds`` needs it not.

    Waits, asleep, up to `OBSERVER_GRACE_S` for observers that are just looking. A link, folder or
    FIFO in its place is refused.

    :raises LockTimeout: somebody else keeps it locked
    :raises LockUnsupported: the file system, or this operating system, does not lock
    :raises StoreUnavailable: the file cannot be made or opened
    """
    from heddle_registry.errors import LockTimeout, LockUnsupported, RegistryError

    if not _HAS_FLOCK:
        raise LockUnsupported(path, "this operating system has no flock")
    file = LockFile(path, make_dir=make_dir, survives_fork=inheritable)
    try:
        if not file.take(LOCK_EX, time.monotonic() + OBSERVER_GRACE_S):
            from heddle_registry.adapters.lock_holders import flock_holder

            try:
                holder = flock_holder(*identity_of(os.lstat(path)))
            except OSError:
                holder = None  # removed in this moment
            raise LockTimeout(path, OBSERVER_GRACE_S, holder)  # noqa: TRY301 - one way out
        if inheritable:
            os.set_inheritable(file.fd, True)
        return LivenessLock(file)
    except OSError as error:
        file.drop()
        if isinstance(error, RegistryError):
            raise
        from heddle_registry.adapters.os_faults import unavailable

        raise unavailable(path, error, "hold a liveness lock") from error
    except BaseException:
        file.drop()
        raise


def observe_liveness(path: str, device: int, inode: int) -> Literal["held", "free"] | None:
    """Look whether the recorded liveness lock is held. Never waits, creates or changes anything.

    None means no fact: the file is missing, is another one than was recorded, may not be opened,
    or its file system does not lock. The caller's own lock shows as held.
    """
    from heddle_registry.errors import RegistryError

    if not _HAS_FLOCK:
        return None
    try:
        fd = open_lock(path, write=False)
    except (OSError, RegistryError):
        return None
    try:
        if identity_of(os.fstat(fd)) != (device, inode):
            return None
        return "free" if try_flock(fd, LOCK_SH) else "held"
    except OSError:
        return None
    finally:
        close_lock(fd)


def is_held(path: str) -> bool:
    """As `observe_liveness`, whichever file lies there: whether somebody keeps it locked."""
    try:
        state = os.lstat(path)
    except OSError:
        return False
    return observe_liveness(path, *identity_of(state)) == "held"


def wait_until_free(path: str, device: int, inode: int, timeout_s: float) -> bool:
    """Sleep until the recorded liveness lock is released; False when it was not in time.

    Does not poll. Another file under that name, a missing one or no permission gives False at
    once: no fact can come of it.
    """
    from heddle_registry.errors import RegistryError

    if observe_liveness(path, device, inode) is None:
        return False
    file = LockFile(path, create=False)
    try:
        if not file.take(LOCK_SH, time.monotonic() + timeout_s):
            return False
        return identity_of(os.fstat(file.fd)) == (device, inode)
    except RegistryError:
        return False
    finally:
        file.drop()


def liveness_holders(device: int, inode: int) -> tuple[int, ...]:
    """Return the pids that have the liveness lock open and keep it held, ascending.

    Best effort (Linux; other users' processes only for root), for texts only. Observers open it
    read-only and are left out.
    """
    from heddle_registry.adapters.lock_holders import open_in

    return open_in(device, inode, writable=True)
