"""The five hooks. A plugin implements any of them as plain functions marked with `hookimpl`.

Every hook is called without the registry's lock, with frozen values, and answers frozen values.
pluggy checks the names of arguments only, and its order of answers is that of loading;
`heddle_registry.plugins` checks types, isolates faults and combines by plugin name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from heddle_registry.core.harness import Harness
    from heddle_registry.core.identity import Identity, Probe

PROJECT: Final = "heddle_registry"
"""pluggy's project name, and the group of entry points that plugins register in."""

hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)


@hookspec
def heddle_harnesses() -> Iterable[Harness]:  # type: ignore[empty-body]
    """Answer the harnesses that this plugin speaks for.

    Called once a process, before anything else is asked of the plugin. Only a plugin that answers
    a harness is asked for its identities and usage. Where several plugins, or the table that comes
    with the registry, know one name, their signals are joined, and what the plugin whose name
    sorts first says of its events stands. Must not read files or wait.

    :returns: `Harness` values: name, signals, and which of its lifecycle events mean ``opened``,
        ``child_opened``, ``child_closed``, ``closed`` and ``waiting``

    .. versionadded:: 0.1
    """


@hookspec
def heddle_probe(probe: Probe) -> Identity | None:
    """Answer whose process this is, for one place of one of the plugin's harnesses in the chain.

    Called once for each such place by every command that attaches or looks at a session; never
    while the lock is held. ``None`` means: nothing to say. Of several plugins' answers the most
    confident stands, then the one whose plugin's name sorts first. May read files through the
    probe; must not wait, print, write or start programs.

    :param probe: variables that may be trusted for this place, hook payload, event, processes,
        working directory, and read access to the home directory
    :returns: the harness's own ids, model, provider, thinking level, transcript, source and
        confidence (0 to 1)

    .. versionadded:: 0.1
    """


@hookspec
def heddle_usage(source: Any) -> Iterable[Any] | None:
    """Answer what the new, complete records of one transcript say about tokens and cost.

    Called for each transcript that grew since the last look; the core keeps positions, torn
    lines, de-duplication by id and counters that restart. ``None`` means: not this plugin's
    format. Of several plugins' answers the one whose plugin's name sorts first stands.

    :param source: the transcript: its path, its harness, and the new lines (``lines()``,
        ``json_lines()``)
    :returns: `UsageRecord` values, one a response, or cumulative `UsageCounter` values; where
        there are thousands of these, `heddle_registry.core.readings.UsageReadings`, many at once

    .. versionadded:: 0.1
    """


@hookspec
def heddle_attach_rules() -> Iterable[Any]:  # type: ignore[empty-body]
    """Answer more rules for where a process belongs, each before or after a named one.

    Called once a process, before the first decision. Rules of all plugins are put in order by
    their ``before`` and ``after``, then by plugin name; a circle or a second rule of one name is
    refused. An empty answer adds none.

    :returns: `AttachRule` values

    .. versionadded:: 0.1
    """


@hookspec
def heddle_attach_reason(decision: Any) -> str | None:
    """Answer a better sentence for people about why a process was attached where it was.

    Called after each decision, for the text only: it changes nothing. ``None`` keeps the sentence
    there is. Of several answers the one whose plugin's name sorts first stands.

    :param decision: the frozen decision: rule, entry, and the trace of all rules tried
    :returns: one sentence

    .. versionadded:: 0.1
    """


HOOKS: Final = (
    "heddle_harnesses",
    "heddle_probe",
    "heddle_usage",
    "heddle_attach_rules",
    "heddle_attach_reason",
)
