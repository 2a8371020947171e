"""What the local host asks of an operating system; two of them answer: procfs and psutil_host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.core.evidence import ProcessState
    from heddle_registry.ports.process import ProcessInfo


class Machine(Protocol):
    """The process table, names and clocks of one operating system, seen by the caller.

    No method writes, none raises for a process that is not there, and no answer outlives a fork.
    """

    @property
    def boot_id_follows_clock(self) -> bool:
        """Whether setting the clock changes `boot_id` without a reboot."""
        ...

    def boot_id(self) -> str:
        """Return the id of this boot as the original writes it, empty when unknown."""
        ...

    def clock_id(self) -> str:
        """Return under which id readings of the awake clock compare; empty: they never do."""
        ...

    def host(self) -> str:
        """Return a hash that tells machines apart, empty when unknown."""
        ...

    def pid_ns(self) -> str:
        """Return the name of the caller's pid namespace, empty where there are none."""
        ...

    def time_ns(self) -> str:
        """Return the name of the caller's time namespace, empty where there are none."""
        ...

    def in_inner_pid_ns(self) -> bool:
        """Whether the caller may see only a part of the host's processes."""
        ...

    def awake_ns(self) -> int:
        """Read the clock that stands still while the host sleeps, in nanoseconds."""
        ...

    def look(self, pid: int) -> tuple[ProcessState, int | None]:
        """Return what has ``pid``, and when that started in the system's own ticks."""
        ...

    def command(self, pid: int) -> tuple[int | None, str] | None:
        """Return when the living process ``pid`` started, and its name; cheaper than `read`."""
        ...

    def read(self, pid: int) -> ProcessInfo | None:
        """Return the living process ``pid``; None where none is to be seen."""
        ...

    def first_arguments(self, pid: int) -> tuple[str, ...]:
        """Return how the process's command line begins; empty where it cannot be read. Cheap."""
        ...

    def pids(self) -> Iterable[int]:
        """Return the pids that are to be seen."""
        ...
