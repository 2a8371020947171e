"""Linux as ``/proc`` shows it: who runs, since when, in which namespaces, under which boot.

Everything is read anew, except what cannot change under a running kernel, so that an answer is
right after a fork into another namespace too. Nothing heavier than ``os`` is imported before it
is needed.
"""

from __future__ import annotations

import os
import time

# A literal, because importing `typing` costs more than everything else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from heddle_registry.core.evidence import ProcessState
    from heddle_registry.ports.process import ProcessInfo

INITIAL_PID_NS: Final = "4026531836"
"""Inode of the pid namespace that a kernel starts with: fixed in the kernel's ``proc_ns.h``."""
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_MACHINE_ID: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_PRODUCT_UUID: Final = "/sys/class/dmi/id/product_uuid"
_MAX_ARGV_BYTES: Final = 131_072
_FEW_ARGV_BYTES: Final = 1_024
_MAX_PID: Final = 2**31 - 1

# What no call can change while the kernel runs. A child may look through other mounts than its
# parent (a container bind-mounts a boot id of its own), so it starts without them.
_constants: Final[dict[str, str]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_constants.clear)


class _Stat:
    # One line of /proc/<pid>/stat, as far as it is used.
    __slots__ = ("comm", "exit_signal", "ppid", "start_ticks", "state", "threads")

    def __init__(self, raw: bytes) -> None:
        # The name may hold spaces and parentheses; only the last `)` ends it.
        start, end = raw.index(b"("), raw.rindex(b")")
        fields = raw[end + 2 :].split()
        self.comm = os.fsdecode(raw[start + 1 : end])
        self.state = fields[0].decode("ascii")
        self.ppid = int(fields[1])
        self.threads = int(fields[17])
        self.start_ticks = int(fields[19])
        self.exit_signal = int(fields[35])

    @property
    def has_ended(self) -> bool:
        # A main OS thread that exits before the others shows as a zombie while the process lives.
        return self.state in "ZXx" and self.threads <= 1


class Procfs:
    """The process table and clocks of a Linux kernel. Holds nothing; safe for threads and forks.

    Pids are those of the caller's own pid namespace. Where ``/proc`` is missing or shows another
    namespace's processes (a private namespace without a mount of its own), only ``kill(pid, 0)``
    is believed: a process is then missing or hidden, never seen.
    """

    boot_id_follows_clock: Final = False

    def boot_id(self) -> str:
        """Return ``/proc/sys/kernel/random/boot_id``, as the original does; empty if unreadable."""
        found = _constants.get(_BOOT_ID)
        if found is None:
            found = _constants[_BOOT_ID] = _read_line(_BOOT_ID)
        return found

    def clock_id(self) -> str:
        """Return under which id readings of the awake clock compare: the boot id."""
        return self.boot_id()

    def host(self) -> str:
        """Return a hash that tells machines apart, empty where there is no machine id.

        Of ``/etc/machine-id`` and the firmware's UUID, or the host name where the UUID is not
        readable (it is root's alone): cloned machines share the former. Root and another user may
        therefore see two hosts, which proves less and never too much.
        """
        found = _constants.get("host")
        if found is None:
            found = _constants["host"] = _host_hash()
        return found

    def pid_ns(self) -> str:
        """Return the inode of the caller's pid namespace, empty where there are none."""
        # A process stays in the one it was born in: only its children can be put into another.
        found = _constants.get("pid_ns")
        if found is None:
            found = _constants["pid_ns"] = _namespace("pid")
        return found

    def time_ns(self) -> str:
        """Return the inode of the caller's time namespace, empty where there are none."""
        return _namespace("time")

    def in_inner_pid_ns(self) -> bool:
        """Whether the caller sees only a part of the host's processes, or cannot tell."""
        return self.pid_ns() != INITIAL_PID_NS

    def awake_ns(self) -> int:
        """Read ``CLOCK_MONOTONIC``, which stands still while the host is suspended."""
        return time.monotonic_ns()

    def look(self, pid: int) -> tuple[ProcessState, int | None]:
        """Return what has ``pid``, and its start in clock ticks since boot (``stat`` field 22).

        The id of an OS thread that leads no process is no process. A stopped process runs. Ticks
        are counted in the caller's time namespace.
        """
        from heddle_registry.core.evidence import ProcessState

        stat = _read_stat(pid) if 0 < pid <= _MAX_PID and _shows_own_pids() else None
        if stat is None:
            exists = _exists(pid)
            return (ProcessState.HIDDEN if exists else ProcessState.MISSING), None
        if _is_thread(pid, stat):
            return ProcessState.MISSING, None
        if stat.has_ended:
            return ProcessState.ZOMBIE, stat.start_ticks
        return ProcessState.RUNNING, stat.start_ticks

    def running_since(self, pid: int) -> int | None:
        """Return when the running process ``pid`` started, in ticks; None where none is seen."""
        found = self.command(pid)
        return found[0] if found is not None else None

    def command(self, pid: int) -> tuple[int, str] | None:
        """Return when the running process ``pid`` started, in ticks, and its name."""
        stat = _read_stat(pid) if 0 < pid <= _MAX_PID and _shows_own_pids() else None
        if stat is None or stat.has_ended or _is_thread(pid, stat):
            return None
        return stat.start_ticks, stat.comm

    def read(self, pid: int) -> ProcessInfo | None:
        """Return the living process ``pid``; None where none is to be seen.

        ``argv`` loses empty arguments at its end: a program that overwrites its title leaves
        nothing else there. ``exe`` is the path even after the file was replaced by an update.
        """
        from heddle_registry.ports.process import ProcessInfo

        stat = _read_stat(pid) if pid > 0 and _shows_own_pids() else None
        if stat is None or stat.has_ended or _is_thread(pid, stat):
            return None
        argv = _read_bytes(f"/proc/{pid}/cmdline", _MAX_ARGV_BYTES) or b""
        words = argv.rstrip(b"\0").split(b"\0") if argv.rstrip(b"\0") else []
        exe = _read_link(f"/proc/{pid}/exe")
        return ProcessInfo(
            pid=pid,
            ppid=stat.ppid,
            argv=tuple(map(os.fsdecode, words)),
            exe=exe.removesuffix(" (deleted)") if exe is not None else None,
            comm=stat.comm,
            start_ticks=stat.start_ticks,
            cwd=_read_link(f"/proc/{pid}/cwd"),
        )

    def first_arguments(self, pid: int) -> tuple[str, ...]:
        """Return the arguments in the first kilobyte of ``cmdline``, the last one perhaps cut."""
        begin = _read_bytes(f"/proc/{pid}/cmdline", _FEW_ARGV_BYTES)
        return tuple(map(os.fsdecode, begin.rstrip(b"\0").split(b"\0"))) if begin else ()

    def pids(self) -> Iterator[int]:
        """Yield the pids that are to be seen, zombies among them."""
        if not _shows_own_pids():
            return
        with os.scandir("/proc") as found:
            for item in found:
                if item.name.isdecimal():
                    yield int(item.name)


def _shows_own_pids() -> bool:
    try:
        return os.readlink("/proc/self") == str(os.getpid())
    except OSError:
        return False


def _exists(pid: int) -> bool:
    if pid <= 0:
        # What the kernel calls 0 is a parent in an outer namespace: not to be seen from here.
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _read_stat(pid: int) -> _Stat | None:
    raw = _read_bytes(f"/proc/{pid}/stat", 4096)
    if raw is None:
        return None
    try:
        return _Stat(raw)
    except (IndexError, ValueError):
        return None


def _is_thread(pid: int, stat: _Stat) -> bool:
    # The kernel calls a task without an exit signal no leader; `status` costs as much as `stat`
    # and is read only to make sure.
    if stat.exit_signal != -1:
        return False
    status = _read_bytes(f"/proc/{pid}/status", 4096) or b""
    for line in status.splitlines():
        if line.startswith(b"Tgid:"):
            return line.split()[1] != str(pid).encode()
    return False


def _namespace(kind: str) -> str:
    # "pid:[4026531836]" -> "4026531836"
    target = _read_link(f"/proc/self/ns/{kind}") or ""
    return target.partition("[")[2].removesuffix("]")


def _host_hash() -> str:
    machine_id = next(filter(None, map(_read_line, _MACHINE_ID)), "")
    if len(machine_id) < 32:  # noqa: PLR2004 - missing, or "uninitialized"
        return ""
    from heddle_registry.core.digest import sha256_hex

    # The id itself must not leave the machine (machine-id(5)).
    second = _read_line(_PRODUCT_UUID) or os.uname().nodename
    return sha256_hex(f"heddle-registry\0{machine_id}\0{second}".encode())[:32]


def _read_line(path: str) -> str:
    raw = _read_bytes(path, 4096)
    return "" if raw is None else raw.decode("utf-8", "replace").strip()


def _read_link(path: str) -> str | None:
    try:
        return os.readlink(path)
    except OSError:
        return None


def _read_bytes(path: str, limit: int) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, limit)
    except OSError:
        # The process ended between the two calls.
        return None
    finally:
        os.close(fd)
