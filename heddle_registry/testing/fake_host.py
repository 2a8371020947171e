"""A host whose clocks, processes and namespaces a test sets: no waiting, no real process.

A `FakeHost` is one place to look from. Several hosts may stand on one machine, in namespaces of
their own, or on different machines, and share one passage of time::

    host = FakeHost()
    agent = host.spawn(["claude"])
    registry = AgentRegistry(store=MemoryStore(), host=host)
    ...
    host.advance(301)                     # everyone was awake for five minutes
    host.suspend(3600)                    # the laptop slept for an hour
    host.step_wall(-3600)                 # somebody set the clock back
    host.kill(agent)                      # or kill(agent, zombie=True), reuse(agent), hide(agent)
    container = host.in_namespace(pid_ns="inner")
    laptop = host.other_machine()
"""

# ruff: noqa: SLF001 - hosts of one class build each other.
from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, Self

import attrs

from heddle_registry.core.evidence import Observation, Owner, ProcessState
from heddle_registry.core.timestamp import NS_PER_S, Instant, Timestamp
from heddle_registry.ports.process import ProcessInfo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from heddle_registry.core.evidence import Subject

TICKS_PER_S: Final = 100
"""As on Linux: two processes started within 10 ms have equal start ticks."""
INITIAL_PID_NS: Final = "initial-pid-ns"
INITIAL_TIME_NS: Final = "initial-time-ns"
_START: Final = Timestamp("2026-07-01T12:00:00Z")


class _Clock:
    """What time it is, for all hosts that share it."""

    def __init__(self, at: Timestamp) -> None:
        self.wall_ns = at.unix_ns
        self.awake_ns = 1_000 * NS_PER_S


class _Table:
    """The processes of one pid namespace."""

    def __init__(self) -> None:
        self.processes: dict[int, ProcessInfo] = {}
        self.states: dict[int, ProcessState] = {}
        self.next_pid = 100

    def put(self, process: ProcessInfo) -> None:
        self.processes[process.pid] = process
        self.states[process.pid] = ProcessState.RUNNING

    def end(self, pid: int) -> None:
        # The kernel gives orphans to the first process.
        del self.processes[pid], self.states[pid]
        for orphan in [info for info in self.processes.values() if info.ppid == pid]:
            self.processes[orphan.pid] = attrs.evolve(orphan, ppid=1)


class FakeHost:
    """A `heddle_registry.ports.Host` for tests. Nothing in it moves by itself.

    It begins with process 1 (``init``) and the caller, pid 100, a child of it. The attributes may
    be set at any time. Changes are not guarded against each other; looks are safe from any OS
    thread.

    :param at: the wall clock's first reading
    :param seed: of `random_bytes`, which answers the same in every run
    """

    def __init__(self, *, at: Timestamp = _START, seed: int = 0) -> None:
        self.boot_id = "boot-1"
        self.host = "host-1"
        self.pid_ns = INITIAL_PID_NS
        self.time_ns = INITIAL_TIME_NS
        self.variables: dict[str, str] = {}
        self.working_directory = "/work"
        self.home_directory = "/home/dev"
        self._clock = _Clock(at)
        self._offset_ns = 0
        self._table = _Table()
        self._random = random.Random(seed)  # noqa: S311 - the same in every run is the point
        self._settle()

    def _settle(self) -> None:
        self._table.put(ProcessInfo(pid=1, ppid=0, argv=("init",), comm="init", start_ticks=0))
        self._own_pid = self.spawn(["heddle-registry"], ppid=1)

    # -- the clocks

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, awake."""
        self._clock.wall_ns += round(seconds * NS_PER_S)
        self._clock.awake_ns += round(seconds * NS_PER_S)

    def suspend(self, seconds: float) -> None:
        """Let all hosts that share the clock sleep: only the wall clock goes on."""
        self._clock.wall_ns += round(seconds * NS_PER_S)

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward, or back by a negative number."""
        self._clock.wall_ns += round(seconds * NS_PER_S)

    # -- the processes

    def spawn(
        self,
        argv: Sequence[str],
        *,
        ppid: int | None = None,
        pid: int | None = None,
        exe: str | None = None,
        cwd: str | None = None,
        environment: Mapping[str, str] | None = None,
        act_as: bool = False,
    ) -> int:
        """Start a process now and return its pid.

        :param ppid: its parent; the caller where none is given
        :param pid: the next free one where none is given
        :param exe: ``argv[0]`` where none is given
        :param act_as: the new process is the caller from now on, with ``environment``
        :raises ValueError: ``pid`` is in use, or ``ppid`` is not.
        """
        table = self._table
        if pid is None:
            pid = table.next_pid
            while pid in table.processes:
                pid += 1
            table.next_pid = pid + 1
        if pid in table.processes:
            raise ValueError(f"pid {pid} is in use")
        parent = self._own_pid if ppid is None else ppid
        if parent and parent not in table.processes:
            raise ValueError(f"there is no process {parent} to be the parent")
        table.put(
            ProcessInfo(
                pid=pid,
                ppid=parent,
                argv=tuple(argv),
                exe=exe if exe is not None else argv[0],
                comm=argv[0].rpartition("/")[2][:15],
                start_ticks=self._clock.awake_ns * TICKS_PER_S // NS_PER_S,
                cwd=cwd if cwd is not None else self.working_directory,
            )
        )
        if act_as:
            self.act_as(pid, environment)
        return pid

    def act_as(self, pid: int, environment: Mapping[str, str] | None = None) -> None:
        """Look from the process ``pid`` from now on, with ``environment`` where given.

        :raises ValueError: there is no such living process.
        """
        if self._table.states.get(pid) is not ProcessState.RUNNING:
            raise ValueError(f"no process {pid} runs")
        self._own_pid = pid
        if environment is not None:
            self.variables = dict(environment)

    def kill(self, pid: int, *, zombie: bool = False) -> None:
        """End a process; as a ``zombie`` it keeps its pid until `reap`.

        :raises ValueError: there is no such process.
        """
        if pid not in self._table.processes:
            raise ValueError(f"there is no process {pid}")
        if zombie:
            self._table.states[pid] = ProcessState.ZOMBIE
        else:
            self._table.end(pid)

    def reap(self, pid: int) -> None:
        """Let a zombie go.

        :raises ValueError: ``pid`` is none.
        """
        if self._table.states.get(pid) is not ProcessState.ZOMBIE:
            raise ValueError(f"{pid} is no zombie")
        self._table.end(pid)

    def reuse(self, pid: int, argv: Sequence[str] = ("stranger",)) -> None:
        """End the process ``pid`` and start another one, a tick later, under its pid."""
        if pid in self._table.processes:
            self.kill(pid)
        self.advance(1 / TICKS_PER_S)
        self.spawn(argv, pid=pid, ppid=1)

    def hide(self, pid: int) -> None:
        """Leave a process running, but its start unreadable, as ``hidepid`` does.

        :raises ValueError: there is no such process.
        """
        if pid not in self._table.processes:
            raise ValueError(f"there is no process {pid}")
        self._table.states[pid] = ProcessState.HIDDEN

    def reboot(self) -> None:
        """Start the machine again: another boot id, no process but the first and a new caller."""
        number = int(self.boot_id.rpartition("-")[2]) + 1
        self.boot_id = f"boot-{number}"
        self._offset_ns = NS_PER_S - self._clock.awake_ns
        self._table = _Table()
        self._settle()

    # -- other places to look from

    def in_namespace(self, *, pid_ns: str | None = None, time_ns: str | None = None) -> FakeHost:
        """Return the same machine seen from another namespace.

        In another ``pid_ns`` there are other processes, and none of these. In another ``time_ns``
        the awake clock and the start ticks are shifted by a day.
        """
        other = self._elsewhere()
        if time_ns is not None:
            other.time_ns = time_ns
            other._offset_ns = self._offset_ns + 86_400 * NS_PER_S
        if pid_ns is not None:
            other.pid_ns = pid_ns
            other._table = _Table()
            other._settle()
        return other

    def other_machine(self, *, host: str = "host-2", boot_id: str = "other-boot-1") -> FakeHost:
        """Return another machine that shares the passage of time: a laptop beside a server."""
        other = self._elsewhere()
        other.host, other.boot_id = host, boot_id
        other._table = _Table()
        other._settle()
        return other

    def _elsewhere(self) -> Self:
        other = type(self)(seed=self._random.randrange(2**32))
        other.boot_id, other.host = self.boot_id, self.host
        other.pid_ns, other.time_ns = self.pid_ns, self.time_ns
        other.variables = dict(self.variables)
        other.working_directory, other.home_directory = (
            self.working_directory,
            self.home_directory,
        )
        other._clock, other._offset_ns = self._clock, self._offset_ns
        other._table, other._own_pid = self._table, self._own_pid
        return other

    # -- what a Host answers

    def now(self) -> Instant:
        """Read both clocks."""
        return Instant(
            at=Timestamp.from_unix_ns(self._clock.wall_ns),
            awake_ns=self._clock.awake_ns + self._offset_ns,
            boot_id=self.boot_id,
            time_ns=self.time_ns,
        )

    def random_bytes(self, count: int) -> bytes:
        """Return the next bytes of the seed's sequence: anybody can guess them."""
        return self._random.randbytes(count)

    def environment(self) -> Mapping[str, str]:
        """Return a copy of ``variables``."""
        return dict(self.variables)

    def cwd(self) -> str:
        """Return ``working_directory``."""
        return self.working_directory

    def home(self) -> str:
        """Return ``home_directory``."""
        return self.home_directory

    def own_pid(self) -> int:
        """Return the pid of the process that looks."""
        return self._own_pid

    def owner_for(self, pid: int) -> Owner | None:
        """Return the process ``pid`` as an owner; None if there is none, or only a zombie."""
        state, start_ticks = self._seen(pid)
        if state in (ProcessState.MISSING, ProcessState.ZOMBIE):
            return None
        return Owner(
            pid=pid,
            boot_id=self.boot_id,
            host=self.host,
            pid_ns=self.pid_ns,
            time_ns=self.time_ns,
            start_ticks=start_ticks,
            command=self._table.processes[pid].comm,
        )

    def observe(self, subject: Subject) -> Observation:
        """Look at the subject's process, where it can be seen from here."""
        owner = subject.owner
        if owner is None:
            pid = subject.pid if subject.boot_id in ("", self.boot_id) else None
        else:
            there = (owner.boot_id, owner.pid_ns, owner.time_ns)
            pid = owner.pid if there == (self.boot_id, self.pid_ns, self.time_ns) else None
        state, start_ticks = (None, None) if pid is None else self._seen(pid)
        return Observation(
            boot_id=self.boot_id,
            host=self.host,
            pid_ns=self.pid_ns,
            time_ns=self.time_ns,
            in_inner_pid_ns=self.pid_ns != INITIAL_PID_NS,
            process=state,
            start_ticks=start_ticks,
        )

    def ancestors(self) -> tuple[ProcessInfo, ...]:
        """Return the caller's living ancestors, nearest first, itself not among them."""
        found: list[ProcessInfo] = []
        pid = self._table.processes[self._own_pid].ppid
        while pid and self._table.states.get(pid) is ProcessState.RUNNING:
            found.append(self._shifted(self._table.processes[pid]))
            pid = found[-1].ppid
        return tuple(found)

    def processes(
        self, is_wanted: Callable[[Sequence[str]], bool] | None = None
    ) -> tuple[ProcessInfo, ...]:
        """Return all living processes that can be seen, the caller among them.

        With ``is_wanted``, only those whose arguments it takes, and their ancestors.
        """
        running = {
            pid: process
            for pid, process in self._table.processes.items()
            if self._table.states[pid] is ProcessState.RUNNING
        }
        if is_wanted is not None:
            wanted: set[int] = set()
            for pid, process in running.items():
                at: int | None = pid if is_wanted(process.argv) else None
                while at in running and at not in wanted:
                    wanted.add(at)
                    at = running[at].ppid
            running = {pid: process for pid, process in running.items() if pid in wanted}
        return tuple(map(self._shifted, running.values()))

    def _seen(self, pid: int) -> tuple[ProcessState, int | None]:
        state = self._table.states.get(pid, ProcessState.MISSING)
        if state in (ProcessState.MISSING, ProcessState.HIDDEN):
            return state, None
        return state, self._shifted(self._table.processes[pid]).start_ticks

    def _shifted(self, process: ProcessInfo) -> ProcessInfo:
        shift = self._offset_ns * TICKS_PER_S // NS_PER_S
        return attrs.evolve(process, start_ticks=(process.start_ticks or 0) + shift)
