"""One open lock file: ``flock(2)`` with deadlines, without polling, and safe over forks.

The layer under `flock` and `liveness_file`. It knows descriptors and the kernel's lock, and
nothing of OS threads that share a lock (that is `flock.DirectoryLock`).

* Every descriptor opened here is *tracked*: a forked child closes its copies at once. A copy
  would keep the lock alive after its owner died, and unlocking a copy unlocks the owner.
* A release says ``LOCK_UN`` before it closes: while another OS thread sits between fork and exec,
  closing alone leaves the lock held by the child's copy.
* A wait with a deadline is an OS thread asleep in ``flock``. When the deadline passes, the thread
  stays there and the next waiter on the same file takes it over, so a lock that is held for hours
  costs as many sleeping threads as there were waiters at one moment, not one for every attempt.
  A thread that nobody took over unlocks as soon as it is granted the lock, which may take it a
  turn of the interpreter (5 ms); whoever tries without waiting may be refused in that moment.

Only ``os``, ``fcntl`` and built-in modules are imported: this lies under every command.
Elsewhere than on POSIX the module imports and nothing in it may be called.
"""

from __future__ import annotations

import _thread
import errno
import os
import stat
import sys
import time

if sys.platform != "win32":
    import fcntl

    LOCK_EX = fcntl.LOCK_EX
    LOCK_SH = fcntl.LOCK_SH
else:
    LOCK_EX = 2
    LOCK_SH = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

Identity = tuple[int, int]
"""Device and inode: what tells one file from another that took its name."""

# Each is missing on Windows, where nothing below runs but everything must import.
_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0)
    # A FIFO that somebody put in the lock's place must not hang us.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
)
_UNSUPPORTED = frozenset(
    # EBADF: NFS emulates flock by byte ranges and refuses LOCK_EX on a read-only descriptor.
    {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
)

# Opening and recording are one step under this mutex, and so is a fork: no child can inherit a
# descriptor that is not recorded yet. Re-entrant because a signal handler may fork or lock.
_mutex = _thread.RLock()
_open: dict[int, tuple[Identity, bool, int]] = {}  # identity, closed in a child?, opening pid
_idle: dict[tuple[Identity, int], list[_Sleeper]] = {}  # sleepers whose waiter left


class LockFile:
    """A lock file that is perhaps open, perhaps locked. Not shared between OS threads.

    ``make_dir``, where given, is called when the folder is missing, then the open is tried again.
    A forked child closes its copy, unless ``survives_fork``. Whatever interrupts `take`
    (``KeyboardInterrupt`` included), `drop` afterwards leaves nothing held. An interrupt that falls
    between two steps of opening or of giving up may leave one descriptor open, unlocked.
    """

    __slots__ = ("_create", "_make_dir", "_sleeper", "_survives_fork", "fd", "path")

    def __init__(
        self,
        path: str,
        *,
        create: bool = True,
        make_dir: Callable[[], None] | None = None,
        survives_fork: bool = False,
    ) -> None:
        self.path = path
        self.fd = -1
        self._create = create
        self._make_dir = make_dir
        self._survives_fork = survives_fork
        self._sleeper: _Sleeper | None = None

    def take(self, operation: int, deadline: float | None) -> bool:
        """Lock the file; False when ``deadline`` (on ``time.monotonic``) passed first.

        ``operation`` is `LOCK_EX` or `LOCK_SH`; no deadline waits for ever, asleep in the kernel
        and open to interrupts. A file that was replaced while we waited is let go and the new
        one taken: a lock on a name nobody can find any more excludes nobody.

        :raises StoreUnavailable: the file cannot be opened, or is no regular file
        :raises LockUnsupported: the file system does not lock
        """
        while True:
            self.fd = self._opened()
            try:
                if not try_flock(self.fd, operation):
                    if deadline is None:
                        fcntl.flock(self.fd, operation)
                    elif not self._sleep(operation, deadline):
                        self.drop()
                        return False
                if is_at(self.path, self.fd):
                    return True
            except OSError as error:
                self.drop()
                raise _lock_fault(self.path, error) from error
            self.drop()

    def drop(self) -> None:
        """Unlock and close. Harmless when nothing is held, and when called twice."""
        sleeper = self._sleeper
        if sleeper is not None:
            if not sleeper.give_up():
                self.fd = sleeper.fd
            self._sleeper = None
        # The attribute goes last: after an interrupt in between, the next drop() repeats a step
        # that is harmless to repeat.
        close_lock(self.fd)
        self.fd = -1

    def _opened(self) -> int:
        try:
            # The second and third rounds are for a file or folder that came or went meanwhile.
            for last in (False, False, True):
                try:
                    return open_lock(
                        self.path, write=self._create, survives_fork=self._survives_fork
                    )
                except FileNotFoundError:
                    if not self._create:
                        raise
                # A second step, because with O_CREAT Linux refuses to open another user's file
                # in a sticky folder (fs.protected_regular), although it may be written.
                try:
                    return open_lock(
                        self.path, write=True, create=True, survives_fork=self._survives_fork
                    )
                except FileExistsError:
                    if last:
                        raise
                except FileNotFoundError:
                    if last or self._make_dir is None:
                        raise
                    self._make_dir()
        except OSError as error:
            from heddle_registry.adapters.os_faults import unavailable

            raise unavailable(self.path, error, "open the lock file") from error
        raise AssertionError("the last round returns or raises")

    def _sleep(self, operation: int, deadline: float) -> bool:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            return False
        key = (identity_of(os.fstat(self.fd)), operation)
        with _mutex:
            left = _idle.pop(key, [])
            sleeper = self._sleeper = left.pop() if left else _Sleeper(self.fd, key)
            if left:
                _idle[key] = left
            sleeper.abandoned = False
        if sleeper.fd != self.fd:
            close_lock(self.fd)
        self.fd = -1
        sleeper.start()
        if not sleeper.granted_within(remaining_s) and sleeper.give_up():
            self._sleeper = None
            return False
        # Two stores and no call between them: an interrupt finds the descriptor in one place.
        self.fd, self._sleeper = sleeper.fd, None
        if sleeper.error is not None:
            raise sleeper.error
        return True


class _Sleeper:
    """An OS thread asleep in ``flock`` for a waiter that has a deadline.

    The descriptor is the waiter's once ``done``, the sleeper's own once ``abandoned``.
    `_mutex` guards both, so exactly one of the two closes it.
    """

    __slots__ = ("_event", "_key", "_running", "_started", "abandoned", "done", "error", "fd")

    def __init__(self, fd: int, key: tuple[Identity, int]) -> None:
        self.fd = fd
        self.abandoned = False
        self.done = False
        self.error: OSError | None = None
        self._key = key
        self._started = False
        self._running = False
        self._event = _thread.allocate_lock()
        self._event.acquire()

    def start(self) -> None:
        # Not `threading`: it costs every command its import, and joins nothing we need joined.
        if not self._started:
            self._started = True
            try:
                _thread.start_new_thread(self._run, ())
            except RuntimeError as error:
                raise OSError(errno.EAGAIN, "no OS thread can be started") from error

    def granted_within(self, timeout_s: float) -> bool:
        return self._event.acquire(True, min(timeout_s, _thread.TIMEOUT_MAX))

    def give_up(self) -> bool:
        """Leave the wait; False when the lock was granted meanwhile and is the caller's."""
        with _mutex:
            if self.done:
                return False
            if not self.abandoned:
                self.abandoned = True
                if self._running:
                    _idle.setdefault(self._key, []).append(self)
                else:
                    close_lock(self.fd)  # the thread did not come to life, or finds this first
            return True

    def _run(self) -> None:
        with _mutex:
            if self.abandoned:
                return
            self._running = True
        try:
            fcntl.flock(self.fd, self._key[1])
        except OSError as error:
            self.error = error
        self._hand_over()

    def _hand_over(self) -> None:
        with _mutex:
            self.done = True
            if not self.abandoned:
                self._event.release()
                return
            # An interrupt may have come before this one was noted there; the lock must go anyway.
            left = _idle.get(self._key, [])
            if self in left:
                left.remove(self)
            if not left:
                _idle.pop(self._key, None)
            close_lock(self.fd)


def open_lock(path: str, *, write: bool, create: bool = False, survives_fork: bool = False) -> int:
    """Open a lock file and record it; close it with `close_lock`.

    Never truncates and never follows a link. ``create`` makes a new file with the mode of the
    folder's policy, and fails where one exists.

    :raises OSError: as ``os.open`` does
    :raises StoreUnavailable: what lies there is no regular file
    """
    flags = _FLAGS | (os.O_RDWR if write else os.O_RDONLY)
    if create:
        flags |= os.O_CREAT | os.O_EXCL
    with _mutex:
        fd = os.open(path, flags, 0o600)
        try:
            state = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        _open[fd] = (identity_of(state), not survives_fork, os.getpid())
    if not stat.S_ISREG(state.st_mode):
        from heddle_registry.errors import StoreUnavailable

        close_lock(fd)
        raise StoreUnavailable(
            path, "what lies there is no regular file", "Move it away and try again"
        )
    if create:
        from heddle_registry.adapters.atomic_file import apply_folder_policy

        try:
            apply_folder_policy(fd, os.stat(os.path.dirname(path) or "."))
        except BaseException:
            close_lock(fd)
            raise
    return fd


def close_lock(fd: int) -> None:
    """Unlock and close a descriptor of `open_lock`; in a forked child do no more than close.

    A descriptor that is not ours (any more) is left alone: the child's hook has closed it, or
    somebody closed it behind our back and its number now names another file.
    """
    with _mutex:
        record = _open.get(fd)
        if record is None:
            return
        identity, _, pid = record
        try:
            ours = identity_of(os.fstat(fd)) == identity
            if ours and pid == os.getpid():
                fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError:
            ours = True  # closing is what is left to try
        # Only now: after an interrupt further up, a second call must still find it.
        _open.pop(fd, None)
        if ours:
            try:
                os.close(fd)
            except OSError:
                return


def identity_of(state: os.stat_result) -> Identity:
    """Tell a file by its device and inode."""
    return state.st_dev, state.st_ino


def is_at(path: str, fd: int) -> bool:
    """Say whether ``path`` still names the file that is open as ``fd``. Follows no link."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return identity_of(there) == identity_of(os.fstat(fd))


def try_flock(fd: int, operation: int) -> bool:
    """Lock without waiting; False when another open file has a lock against it.

    :raises OSError: the file system does not lock, or the descriptor is closed
    """
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_fault(path: str, error: OSError) -> Exception:
    from heddle_registry.adapters.os_faults import cause, unavailable
    from heddle_registry.errors import LockUnsupported

    if error.errno in _UNSUPPORTED:
        return LockUnsupported(path, cause(error))
    return unavailable(path, error, "lock the file")


def _close_inherited() -> None:
    # In a child right after fork, with one OS thread. Closing alone: LOCK_UN on a copy would
    # drop the parent's lock.
    global _mutex  # noqa: PLW0603 - the old one may be locked by a thread that is not here
    _mutex = _thread.RLock()
    _idle.clear()
    for fd, (identity, closes, _) in _open.items():
        try:
            if closes and identity_of(os.fstat(fd)) == identity:
                os.close(fd)
        except OSError:
            continue
    _open.clear()


def _let_go() -> None:
    try:
        _mutex.release()
    except RuntimeError:
        return  # this module came while the fork was being prepared: it was not asked before


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        # By name and late: a child has another mutex, and may fork in its turn.
        before=lambda: bool(_mutex.acquire()),
        after_in_parent=_let_go,
        after_in_child=_close_inherited,
    )
