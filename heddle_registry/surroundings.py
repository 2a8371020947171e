"""Which harness runs around this process, as far as its living ancestors show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heddle_registry.ports import Host


def innermost_harness_pid(host: Host) -> int | None:
    """Return the pid of the innermost harness process above this one; None if none can be seen."""
    from heddle_registry.core.chain import locate
    from heddle_registry.core.harness import Process
    from heddle_registry.detection import known_harnesses

    ancestors = [
        Process(
            pid=process.pid,
            argv=process.argv,
            exe=process.exe or "",
            comm=process.comm,
            starttime=process.start_ticks,
        )
        for process in host.ancestors()
    ]
    layers = locate(
        environ=host.environment(), ancestors=ancestors, harnesses=known_harnesses()
    ).layers
    if not layers or not layers[-1].processes:
        return None
    return layers[-1].processes[0].pid
