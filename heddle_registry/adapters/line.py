"""The line for one branch: who waits, in order, and who is woken.

A waiter's place is a ticket file that it keeps locked, so that everyone sees whether it lives, and
a FIFO beside it through which it is woken. Numbers are given out under the store's lock.
POSIX only: on Windows waiters stand in no line and look every two seconds.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from heddle_registry.adapters.atomic_file import UnreadableFile, read_file
from heddle_registry.adapters.layout import thread_hash
from heddle_registry.adapters.liveness_file import (
    hold_liveness,
    is_held,
    wait_until_free,
)
from heddle_registry.core.limits import MAX_TTL_S
from heddle_registry.core.timestamp import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.liveness_file import LivenessLock
    from heddle_registry.core.evidence import Subject
    from heddle_registry.core.timestamp import Instant

_WAKE: Final = ".wake"
_DIGITS: Final = 16
_MAX_TICKET: Final = 256
OVERDUE_AFTER_S: Final = 5.0
"""How long after its deadline a waiter still counts: for its last look, on a busy machine."""
HAS_LINES: Final = hasattr(os, "mkfifo")


def living_tickets(layout: Layout, thread: str, now: Instant) -> tuple[str, ...]:
    """Return the tickets of waiters for ``thread`` who live and still wait, first come first."""
    folder = os.path.join(layout.wait, thread_hash(thread))
    return tuple(
        ticket
        for ticket in _tickets(folder)
        if is_held(path := os.path.join(folder, ticket)) and not _is_overdue(path, now)
    )


def _tickets(folder: str) -> list[str]:
    if os.path.islink(folder):
        return []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(filter(_is_ticket, names))


def _is_ticket(name: str) -> bool:
    # `isdigit` alone takes digits of any script, of which some are no number.
    return len(name) == _DIGITS and name.isascii() and name.isdigit()


def _is_overdue(path: str, now: Instant) -> bool:
    # A stopped waiter keeps its ticket locked. It would hold up the line for ever, did not the
    # ticket say until when it meant to wait.
    try:
        # Never through a link, never waiting for a FIFO: either may stand there.
        boot_id, time_ns, awake_ns = (read_file(path, _MAX_TICKET) or b"").decode().split("\n")
        deadline_ns = int(awake_ns) + int(OVERDUE_AFTER_S * NS_PER_S)
    except (UnreadableFile, ValueError):
        return False
    return (boot_id, time_ns) == (now.boot_id, now.time_ns) and now.awake_ns > deadline_ns


def wake_first(layout: Layout, thread: str, now: Instant) -> None:
    """Wake the first living waiter; dead and overdue ones before it are passed over."""
    if not HAS_LINES:
        return
    folder = os.path.join(layout.wait, thread_hash(thread))
    for ticket in _tickets(folder):
        if _is_overdue(os.path.join(folder, ticket), now):
            continue
        try:
            # Without a reader there is nobody to wake: opening fails with ENXIO.
            fd = os.open(
                os.path.join(folder, ticket + _WAKE),
                os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC,
            )
        except OSError:
            continue
        try:
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                continue
            os.write(fd, b"w")
        except OSError:
            continue
        finally:
            os.close(fd)
        return


class Place:
    """A place in a line. For one OS thread; leave it before the process ends, or be passed over."""

    def __init__(
        self,
        layout: Layout,
        thread: str,
        ticket: str,
        lock: LivenessLock,
        wake_fd: int,
        clock: Callable[[], Instant],
    ) -> None:
        self._layout = layout
        self._thread = thread
        self._path = os.path.join(layout.wait, thread_hash(thread), ticket)
        self._lock: LivenessLock | None = lock
        self._wake_fd = wake_fd
        self._clock = clock
        self.ticket = ticket

    def wait(self, timeout_s: float, subject: Subject | None) -> None:
        """See `ports.Place`: woken, or the subject may have died, or the time is over."""
        import select

        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        try:
            pidfd = _pidfd(subject)
        except ProcessLookupError:
            return  # it died since it was seen alive
        ended_r = ended_w = -1
        try:
            if pidfd >= 0:
                poll.register(pidfd, select.POLLIN)
            if subject is not None and subject.liveness is not None:
                ended_r, ended_w = os.pipe()
                os.set_blocking(ended_w, False)
                poll.register(ended_r, select.POLLIN)
                self._await_release(subject, timeout_s, os.dup(ended_w))
            poll.poll(max(1, int(timeout_s * 1000)))
        finally:
            for fd in (pidfd, ended_r, ended_w):
                if fd >= 0:
                    os.close(fd)
        with suppress(BlockingIOError):
            os.read(self._wake_fd, 4096)

    def _await_release(self, subject: Subject, timeout_s: float, fd: int) -> None:
        liveness = subject.liveness
        if liveness is None:
            return
        path = os.path.join(self._layout.live, subject.session_id)

        def watch() -> None:
            try:
                if wait_until_free(path, liveness.device, liveness.inode, timeout_s):
                    os.write(fd, b"f")
            except OSError:
                pass  # the waiter has gone on meanwhile
            finally:
                os.close(fd)

        from threading import Thread

        Thread(target=watch, name="watch a liveness lock", daemon=True).start()

    def leave(self) -> None:
        """Give the place up and let the next one look. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        for path in (self._path + _WAKE, self._path):
            try:
                os.unlink(path)
            except OSError:
                continue
        lock.release()
        with suppress(OSError):
            os.close(self._wake_fd)
        wake_first(self._layout, self._thread, self._clock())


class LonelyPlace:
    """A place where the system has no lines: nobody stands before it, nobody wakes it."""

    ticket = ""

    def wait(self, timeout_s: float, subject: Subject | None) -> None:  # noqa: ARG002
        """Sleep, and look again."""
        time.sleep(min(timeout_s, 0.2))

    def leave(self) -> None:
        """Do nothing."""


def _pidfd(subject: Subject | None) -> int:
    # A pidfd names the process itself, so no reuse of its pid can be mistaken for it.
    if subject is None or subject.liveness is not None or not hasattr(os, "pidfd_open"):
        return -1
    pid = subject.owner.pid if subject.owner is not None else subject.pid
    if pid is None or pid <= 0:
        return -1
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        return -1


def join(layout: Layout, thread: str, deadline_s: float, clock: Callable[[], Instant]) -> Place:
    """Take the last place for ``deadline_s`` seconds of awake time; the caller holds the lock.

    Tickets whose waiters have died are removed on the way.

    :raises StoreUnavailable: the ticket cannot be made.
    """
    folder = os.path.join(layout.wait, thread_hash(thread))
    layout.make_folder(layout.wait)
    layout.make_folder(folder)
    if os.path.islink(folder):
        from heddle_registry.errors import StoreUnavailable

        raise StoreUnavailable(folder, "a link stands in the place of a folder")
    tickets = _tickets(folder)
    for ticket in tickets:
        if not is_held(os.path.join(folder, ticket)):
            _remove(folder, ticket)
    number = int(tickets[-1]) + 1 if tickets else 1
    ticket = f"{number:0{_DIGITS}d}"
    path = os.path.join(folder, ticket)
    lock = hold_liveness(path)
    try:
        now = clock()
        until_ns = now.awake_ns + int(min(deadline_s, MAX_TTL_S) * NS_PER_S)
        os.write(lock.fd, f"{now.boot_id}\n{now.time_ns}\n{until_ns}".encode())
        os.mkfifo(path + _WAKE, 0o600)
        wake_fd = os.open(path + _WAKE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        _remove(folder, ticket)
        lock.release()
        from heddle_registry.errors import StoreUnavailable

        raise StoreUnavailable(
            path, f"no place in the line can be made ({error.strerror})", errno=error.errno
        ) from error
    return Place(layout, thread, ticket, lock, wake_fd, clock)


def _remove(folder: str, ticket: str) -> None:
    unlink: Callable[[str], None] = os.unlink
    for name in (ticket + _WAKE, ticket):
        try:
            unlink(os.path.join(folder, name))
        except OSError:
            continue
