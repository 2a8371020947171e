"""Who holds a lock, and who has a file open: best effort, for error texts and ``why``.

Linux only (``/proc``); elsewhere every answer is empty. Never used to decide anything: a process
in another pid namespace or of another user may be invisible here. Safe in any OS thread and after
a fork; reads ``/proc`` only.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def flock_holder(device: int, inode: int) -> int | None:
    """Return the pid that holds a ``flock`` on that file, or None when nobody can tell.

    The kernel writes 0 for a holder outside our pid namespace and for one that passed its
    descriptor on and died, -1 for a lock that belongs to no process: all of these give None.
    """
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            lines = locks.readlines()
    except OSError:
        return None
    return holder_in(lines, device, inode)


def holder_in(lines: Iterable[str], device: int, inode: int) -> int | None:
    """Pick the holder of that file out of the lines of ``/proc/locks``.

    Waiters stand there too, marked by an arrow, and are never answered.
    """
    elsewhere = []
    for line in lines:
        fields = line.split()
        if fields[1:2] != ["FLOCK"]:
            continue
        try:
            pid = int(fields[4])
            major, minor, number = fields[5].split(":")
            same_device = os.makedev(int(major, 16), int(minor, 16)) == device
            same_inode = int(number) == inode
        except (ValueError, IndexError):
            continue
        if pid <= 0 or not same_inode:
            continue
        if same_device:
            return pid
        elsewhere.append(pid)
    # btrfs and overlayfs show another device number here than in stat: believe the line only if
    # that very process has that very file open.
    return next((pid for pid in elsewhere if _descriptors_of(pid, device, inode)), None)


def open_in(device: int, inode: int, *, writable: bool = False) -> tuple[int, ...]:
    """Return the pids that have that file open, ascending; ``writable`` asks for read-write only.

    Processes of other users are seen only by root. Costs a walk over every descriptor of every
    process, some 10 ms on a busy machine.
    """
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
    except OSError:
        return ()
    return tuple(
        pid
        for pid in pids
        if any(not writable or _is_writable(pid, fd) for fd in _descriptors_of(pid, device, inode))
    )


def _descriptors_of(pid: int, device: int, inode: int) -> list[str]:
    return list(_matching(f"/proc/{pid}/fd", device, inode))


def _matching(folder: str, device: int, inode: int) -> Iterator[str]:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            state = os.stat(f"{folder}/{name}")
        except OSError:
            continue
        if state.st_dev == device and state.st_ino == inode:
            yield name


def _is_writable(pid: int, fd: str) -> bool:
    try:
        with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as info:
            flags = next(line for line in info if line.startswith("flags:"))
    except (OSError, StopIteration):
        return False
    return int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDWR
