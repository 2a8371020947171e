"""The machine that this process runs on: clocks, namespaces, processes, surroundings.

Importing this costs ``os``, ``sys`` and ``time``; records and backends come when first needed.
"""

from __future__ import annotations

import os
import sys
import time

# A literal, because importing `typing` costs more than everything else here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Final

    from heddle_registry.adapters.machine import Machine
    from heddle_registry.core.evidence import Observation, Owner, ProcessState, Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.ports.process import ProcessInfo

MAX_ANCESTORS: Final = 64
"""Where the walk to the root ends at the latest."""


def machine_here() -> Machine:
    """Return this system's machine: ``/proc`` on Linux, psutil elsewhere."""
    if sys.platform.startswith("linux"):
        from heddle_registry.adapters.procfs import Procfs

        return Procfs()
    from heddle_registry.adapters.psutil_host import PsutilMachine

    return PsutilMachine()


class LocalHost:
    """A `heddle_registry.ports.Host` over the system that this process runs on.

    Holds nothing but its machine; safe for threads, forks and changes of namespace. Nothing is
    written and nothing blocks.

    :param machine: another operating system's answers; by default those of this one
    """

    def __init__(self, machine: Machine | None = None) -> None:
        self._machine = machine_here() if machine is None else machine

    def now(self) -> Instant:
        """Read the wall clock and the clock that stands still while the host sleeps."""
        from heddle_registry.core.timestamp import Instant, Timestamp

        return Instant(
            at=Timestamp.from_unix_ns(time.time_ns()),
            awake_ns=self._machine.awake_ns(),
            boot_id=self._machine.clock_id(),
            time_ns=self._machine.time_ns(),
        )

    def random_bytes(self, count: int) -> bytes:
        """Return ``count`` bytes from the kernel's generator."""
        return os.urandom(count)

    def environment(self) -> Mapping[str, str]:
        """Return a copy of this process's variables."""
        return dict(os.environ)

    def cwd(self) -> str:
        """Return the working directory; its last known name where it was removed meanwhile.

        :raises UsageError: it was removed, and ``$PWD`` does not tell what it was.
        """
        try:
            return os.getcwd()
        except OSError:
            name = os.environ.get("PWD", "")
            if os.path.isabs(name):
                return name
        from heddle_registry.errors import UsageError

        raise UsageError(
            "the working directory no longer exists", "Change to a folder that exists"
        ) from None

    def home(self) -> str:
        """Return ``$HOME``, else the home directory of the user database."""
        return os.path.expanduser("~")

    def own_pid(self) -> int:
        """Return the caller's pid, in its own pid namespace."""
        return os.getpid()

    def owner_for(self, pid: int) -> Owner | None:
        """Return the process ``pid`` as an owner; None if there is none, or only a zombie.

        The namespaces are the caller's: it is there that this pid and these ticks name that
        process. ``start_ticks`` is None, and proves nothing later, where the system hides it.
        """
        from heddle_registry.core.evidence import Owner, ProcessState

        if pid <= 0:
            return None
        state, start_ticks = self._machine.look(pid)
        if state in (ProcessState.MISSING, ProcessState.ZOMBIE):
            return None
        command = ""
        if start_ticks is not None:
            seen = self._machine.command(pid)
            if seen is None or seen[0] != start_ticks:
                # It ended between the two looks.
                return None
            command = seen[1]
        return Owner(
            pid=pid,
            boot_id=self._machine.boot_id(),
            host=self._machine.host(),
            pid_ns=self._machine.pid_ns(),
            time_ns=self._machine.time_ns(),
            start_ticks=start_ticks,
            command=command,
        )

    def observe(self, subject: Subject) -> Observation:
        """Look at the subject's process, where it can be seen from here; else only at ourselves."""
        from heddle_registry.core.evidence import Observation, ProcessState

        machine, owner = self._machine, subject.owner
        boot_id, host = machine.boot_id(), machine.host()
        pid_ns, time_ns = machine.pid_ns(), machine.time_ns()
        state: ProcessState | None = None
        start_ticks: int | None = None
        if owner is None:
            if subject.pid is not None and subject.boot_id in ("", boot_id):
                state, start_ticks = machine.look(subject.pid)
        elif (owner.pid_ns, owner.time_ns) == (pid_ns, time_ns) and (
            owner.boot_id == boot_id or machine.boot_id_follows_clock
        ):
            state, start_ticks = machine.look(owner.pid)
            if (
                owner.boot_id != boot_id
                and host
                and owner.host == host
                and state is ProcessState.RUNNING
                and start_ticks is not None
                and owner.start_ticks == start_ticks
            ):
                # The clock was set since, not the machine started: the very process still runs.
                boot_id = owner.boot_id
        return Observation(
            boot_id=boot_id,
            host=host,
            pid_ns=pid_ns,
            time_ns=time_ns,
            in_inner_pid_ns=machine.in_inner_pid_ns(),
            process=state,
            start_ticks=start_ticks,
        )

    def ancestors(self) -> tuple[ProcessInfo, ...]:
        """Return the caller's living ancestors, nearest first, itself not among them.

        At most `MAX_ANCESTORS`. The walk ends at the root, at the edge of the pid namespace, and
        where a process cannot be seen or started after its child: that pid was used again.
        """
        found: list[ProcessInfo] = []
        own = self._machine.read(os.getpid())
        if own is None:
            return ()
        child, seen = own, {own.pid}
        while len(found) < MAX_ANCESTORS and child.ppid and child.ppid not in seen:
            parent = self._machine.read(child.ppid)
            if parent is None or _started_after(parent, child):
                break
            found.append(parent)
            seen.add(parent.pid)
            child = parent
        return tuple(found)

    def processes(
        self, is_wanted: Callable[[Sequence[str]], bool] | None = None
    ) -> tuple[ProcessInfo, ...]:
        """Return all living processes that can be seen, the caller among them.

        With ``is_wanted``, only those whose first arguments it takes, and their ancestors.
        """
        machine = self._machine
        if is_wanted is None:
            return tuple(filter(None, map(machine.read, machine.pids())))
        found: dict[int, ProcessInfo] = {}
        for pid in machine.pids():
            if not is_wanted(machine.first_arguments(pid)):
                continue
            info = machine.read(pid)
            while info is not None and info.pid not in found:
                found[info.pid] = info
                info = machine.read(info.ppid) if info.ppid else None
        return tuple(found.values())


def _started_after(parent: ProcessInfo, child: ProcessInfo) -> bool:
    return (
        parent.start_ticks is not None
        and child.start_ticks is not None
        and parent.start_ticks > child.start_ticks
    )
