"""What is around a process: this one, or one that was recorded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.codec.config import Settings
    from heddle_registry.core.harness import Process
    from heddle_registry.plugins import Plugins
    from heddle_registry.ports import Host
    from heddle_registry.probe import ProbeResult


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Situation(Record):
    """Variables, live ancestors nearest first (the process itself among them), hook payload.

    ``ancestors`` is None where they cannot be seen. ``is_here`` says that it is this process's
    own, so that pids may be looked up. Holds values that may be secret: never stored or printed.
    """

    environ: Mapping[str, str] = attrs.field(repr=False)
    ancestors: tuple[Process, ...] | None = None
    payload: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    event: str | None = None
    harness: str | None = None
    cwd: str = ""
    home: str = ""
    recorded_home: str = ""
    is_here: bool = True


def situation_here(
    host: Host,
    *,
    payload: Mapping[str, Any] | None = None,
    event: str | None = None,
    harness: str | None = None,
    cwd: str | None = None,
) -> Situation:
    """Return this process's situation. ``cwd`` is where its session works, if not here."""
    from heddle_registry.probe import processes_above

    return Situation(
        environ=host.environment(),
        ancestors=tuple(processes_above(host)),
        payload=payload,
        event=event,
        harness=harness,
        cwd=host.cwd() if cwd is None else cwd,
        home=host.home(),
    )


def recorded_situation(recording: Mapping[str, Any], *, base: str = "") -> Situation:
    """Return a recorded situation; see `heddle_registry.probe.probe_recorded`.

    :raises UsageError: a part of the recording is of the wrong kind.
    """
    from heddle_registry.probe import recorded_arguments

    found = recorded_arguments(recording, base=base)
    ancestors = found.pop("ancestors")
    return Situation(
        ancestors=tuple(ancestors) if ancestors is not None else None, is_here=False, **found
    )


def probe_situation(situation: Situation, plugins: Plugins) -> ProbeResult:
    """Return the chain of actors around a situation; see `heddle_registry.probe.probe_process`."""
    from heddle_registry.probe import home_of, probe_process

    return probe_process(
        environ=situation.environ,
        ancestors=situation.ancestors,
        plugins=plugins,
        payload=situation.payload,
        event=situation.event,
        harness=situation.harness,
        cwd=situation.cwd,
        home=situation.home,
        recorded_home=situation.recorded_home,
        home_of=home_of if situation.is_here else None,
    )


def plugins_here(host: Host, settings: Settings | None = None) -> Plugins:
    """Return the installed plugins that variables and ``settings`` let through.

    Keeps the list of entry points in the user's cache folder; call it from one OS thread only.
    """
    from heddle_registry.cache_folder import cache_folder
    from heddle_registry.plugins import load_plugins

    environ = host.environment()
    folder = cache_folder(environ, host.home())
    return load_plugins(
        environ,
        cache_file=os.path.join(folder, "plugins.json") if folder is not None else None,
        pins=settings.plugins.pinned if settings is not None else None,
        disabled=settings.plugins.disabled if settings is not None else (),
        cwd=host.cwd(),
    )
