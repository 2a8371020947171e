"""A process, as a host shows it."""

from __future__ import annotations

import attrs

from heddle_registry.core.record import Record


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProcessInfo(Record):
    """One process as the host shows it. Fields that could not be read are None or empty."""

    pid: int
    ppid: int | None = None
    argv: tuple[str, ...] = ()
    exe: str | None = None
    comm: str = ""
    start_ticks: int | None = None
    cwd: str | None = None
