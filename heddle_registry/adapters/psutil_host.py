"""macOS, Windows and the BSDs, where there is no ``/proc`` of Linux: psutil, imported when asked.

Tested on Linux, by putting it in place of ``/proc``; the calls that only macOS, Windows or a BSD
answers were written from their documentation and not run.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psutil

    from heddle_registry.core.evidence import ProcessState
    from heddle_registry.ports.process import ProcessInfo

_PLATFORM: Final[str] = sys.platform
_MAX_PID: Final = 2**31 - 1
_US_PER_S: Final = 1_000_000

# See procfs: a child reads them anew.
_constants: Final[dict[str, str]] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_constants.clear)


class PsutilMachine:
    """The process table that psutil shows. Start "ticks" are microseconds.

    Holds nothing; safe for threads and forks.
    """

    boot_id_follows_clock: Final = _PLATFORM == "darwin"
    """Whether setting the clock changes `boot_id`; ``kern.boottime`` is computed from it."""

    def boot_id(self) -> str:
        """Return ``{ sec = …, usec = … }`` of ``kern.boottime`` on macOS, as the original does.

        Elsewhere ``host:`` and `host`, because no stable id of a boot is known there: it says that
        two records come from one machine, and start times in absolute microseconds tell its boots
        apart. Empty where the host is unknown too.
        """
        if _PLATFORM == "darwin":
            # Not kept: it moves when the clock is set.
            return boottime_text(_sysctl("kern.boottime", 16))
        host = self.host()
        return f"host:{host}" if host else ""

    def clock_id(self) -> str:
        """Return under which id readings of the awake clock compare; empty: they never do.

        ``kern.bootsessionuuid`` on macOS, since ``kern.boottime`` moves with the wall clock. A TTL
        counts wall time on the other systems.
        """
        if _PLATFORM != "darwin":
            return ""
        return _once("clock_id", lambda: _sysctl_text("kern.bootsessionuuid"))

    def host(self) -> str:
        """Return a hash that tells machines apart, empty where the system names none."""
        return _once("host", _host_hash)

    def pid_ns(self) -> str:
        """Return nothing: there are no pid namespaces."""
        return ""

    def time_ns(self) -> str:
        """Return nothing: there are no time namespaces."""
        return ""

    def in_inner_pid_ns(self) -> bool:
        """Return False: every process of the machine is to be seen."""
        return False

    def awake_ns(self) -> int:
        """Read ``CLOCK_UPTIME_RAW`` on macOS, which stands still while the machine sleeps.

        Elsewhere ``time.monotonic_ns``: on Windows it goes on in sleep, on a BSD it may.
        """
        uptime: int | None = getattr(time, "CLOCK_UPTIME_RAW", None)
        return time.monotonic_ns() if uptime is None else time.clock_gettime_ns(uptime)

    def look(self, pid: int) -> tuple[ProcessState, int | None]:
        """Return what has ``pid``, and its start in microseconds."""
        import psutil

        from heddle_registry.core.evidence import ProcessState

        if pid <= 0:
            return ProcessState.HIDDEN, None
        if pid > _MAX_PID or not psutil.pid_exists(pid):
            return ProcessState.MISSING, None
        try:
            process = psutil.Process(pid)
            start_us = _start_us(process)
            if process.status() == psutil.STATUS_ZOMBIE:
                return ProcessState.ZOMBIE, start_us
        except psutil.ZombieProcess:
            return ProcessState.ZOMBIE, None
        except psutil.NoSuchProcess:
            return ProcessState.MISSING, None
        except (psutil.Error, OSError):
            return ProcessState.HIDDEN, None
        return ProcessState.RUNNING, start_us

    def command(self, pid: int) -> tuple[int | None, str] | None:
        """Return when the living process ``pid`` started, in microseconds, and its name."""
        found = self.read(pid)
        return (found.start_ticks, found.comm) if found is not None else None

    def read(self, pid: int) -> ProcessInfo | None:
        """Return the living process ``pid``; None where none is to be seen."""
        import psutil

        from heddle_registry.ports.process import ProcessInfo

        if not 0 < pid <= _MAX_PID:
            return None
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                if process.status() == psutil.STATUS_ZOMBIE:
                    return None
                return ProcessInfo(
                    pid=pid,
                    ppid=process.ppid(),
                    argv=tuple(_or_none(process.cmdline) or ()),
                    exe=_or_none(process.exe) or None,
                    comm=_or_none(process.name) or "",
                    start_ticks=_start_us(process),
                    cwd=_or_none(process.cwd) or None,
                )
        except (psutil.Error, OSError):
            return None

    def first_arguments(self, pid: int) -> tuple[str, ...]:
        """Return the process's arguments, empty where they cannot be read."""
        import psutil

        try:
            return tuple(psutil.Process(pid).cmdline())
        except psutil.Error:
            return ()

    def pids(self) -> Iterable[int]:
        """Return the pids that are to be seen, zombies among them."""
        import psutil

        return psutil.pids()


def boottime_text(raw: bytes) -> str:
    """Return a ``struct timeval`` of 64-bit seconds as ``sysctl -n kern.boottime`` begins.

    Empty where ``raw`` is too short to be one.
    """
    from struct import calcsize, unpack_from

    if len(raw) < calcsize("=qi"):
        return ""
    seconds, micros = unpack_from("=qi", raw)
    return f"{{ sec = {seconds}, usec = {micros} }}"


def _start_us(process: psutil.Process) -> int:
    # The public create_time() is moved by every step of the clock; what psutil itself tells
    # processes apart by is not. It has no public name.
    inner: Any = process
    seconds: float
    try:
        seconds = inner._proc.create_time(monotonic=True)  # noqa: SLF001
    except (AttributeError, TypeError):
        seconds = process.create_time()
    return round(seconds * _US_PER_S)


def _or_none(read: Any) -> Any:
    import psutil

    try:
        return read()
    except (psutil.AccessDenied, OSError):
        return None


def _once(name: str, read: Any) -> str:
    found = _constants.get(name)
    if found is None:
        found = _constants[name] = read()
    return found


def _host_hash() -> str:
    if _PLATFORM == "darwin":
        name = _mac_hardware_uuid()
    elif _PLATFORM == "win32":
        name = _windows_machine_guid()
    elif _PLATFORM.startswith("linux"):
        from heddle_registry.adapters.procfs import Procfs

        return Procfs().host()
    else:
        name = _sysctl_text("kern.hostuuid")
    if not name:
        return ""
    from hashlib import sha256

    return sha256(f"heddle-registry\0{name}".encode()).hexdigest()[:32]


def _mac_hardware_uuid() -> str:
    import ctypes

    class Wait(ctypes.Structure):
        _fields_ = (("seconds", ctypes.c_long), ("nanos", ctypes.c_long))

    uuid = ctypes.create_string_buffer(16)
    try:
        failed = ctypes.CDLL(None).gethostuuid(uuid, ctypes.byref(Wait(1, 0)))
    except (OSError, AttributeError):
        return ""
    return "" if failed else uuid.raw.hex()


def _windows_machine_guid() -> str:
    import importlib
    import platform

    try:
        winreg: Any = importlib.import_module("winreg")
        with winreg.OpenKey(
            winreg.HKEY_LOCAL_MACHINE,
            r"SOFTWARE\Microsoft\Cryptography",
            0,
            winreg.KEY_READ | winreg.KEY_WOW64_64KEY,
        ) as key:
            guid = winreg.QueryValueEx(key, "MachineGuid")[0]
    except (ImportError, OSError):
        return ""
    # Images cloned without care share the GUID.
    return f"{guid}\0{platform.node()}"


def _sysctl_text(name: str) -> str:
    return _sysctl(name, 256).partition(b"\0")[0].decode("ascii", "replace")


def _sysctl(name: str, size: int) -> bytes:
    import ctypes

    held = ctypes.create_string_buffer(size)
    length = ctypes.c_size_t(size)
    try:
        call = ctypes.CDLL(None).sysctlbyname
    except (OSError, AttributeError, TypeError):
        return b""
    if call(name.encode(), held, ctypes.byref(length), None, ctypes.c_size_t(0)):
        return b""
    return held.raw[: length.value]
