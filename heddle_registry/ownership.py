"""Which transcript's numbers are whose: entries joined with the actors that transcripts name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.spending import ActorSpending, Spending, recorded, unknown_of
from heddle_registry.core.usage import sum_totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.adapters.transcripts import SourceFault
    from heddle_registry.adapters.usage_report import Prices, UsageReport, UsageRow
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.usage import UsageTotals
    from heddle_registry.plugins import Plugins
    from heddle_registry.registry import AgentRegistry

    Progress = Callable[[int, int], None]
    Source = tuple[str, str, str | None]


class RegistryReading:
    """One reading of the transcripts that some entries name, and of their families."""

    def __init__(
        self,
        registry: AgentRegistry,
        plugins: Plugins,
        entries: Sequence[AgentEntry],
        progress: Progress | None,
        prices: Prices | None,
    ) -> None:
        self._state_dir: str | None = getattr(registry.store, "heddle_dir", None)
        self._readers = plugins.usage_readers()
        # Oldest first: of several that name one nameless transcript the first is its actor.
        self._entries = sorted(entries, key=lambda e: (e.started_at.sort_key, e.session_id))
        self._progress = progress
        self._prices = prices
        self._named: dict[str, list[str]] = {}
        self._sources = self._find_sources()

    def _find_sources(self) -> list[Source]:
        from heddle_registry.adapters.transcript_folders import Looked, discover
        from heddle_registry.adapters.usage_state import known_sources

        keys: dict[tuple[str, str], str | None] = {}
        families: dict[tuple[str, str], str | None] = {}
        nameless = []
        looked = Looked()
        for entry in self._entries:
            harness = harness_of(entry)
            paths = [path for path in transcripts_of(entry) if os.path.isabs(path)]
            self._named[entry.session_id] = paths
            if harness is None:
                continue
            for path in paths:
                keys.setdefault((harness, os.path.abspath(path)), entry.native_actor_key)
                families.update(
                    dict.fromkeys((harness, one) for one in discover(harness, path, looked))
                )
            if not paths and entry.native_actor_key is not None:
                nameless.append(entry.native_actor_key)
        if nameless and self._state_dir is not None:
            # The Rust tool drops our table when it rewrites an entry, and with it the paths.
            for actor, found in known_sources(self._state_dir, nameless).items():
                for source in found:
                    families.setdefault(source, None)
                    keys.setdefault(source, actor)
        every = {**families, **{named: key for named, key in keys.items() if named in families}}
        return [(harness, path, key) for (harness, path), key in every.items()]

    def _read(self, since_s: float | None, until_s: float | None = None) -> UsageReport:
        from heddle_registry.adapters.usage_reader import read_usage

        report = read_usage(
            self._sources,
            self._readers,
            self._state_dir,
            self._progress,
            since_s=since_s,
            until_s=until_s,
            prices=self._prices,
        )
        self._progress = None
        return report

    def run(self, since_s: float | None) -> tuple[list[ActorSpending], tuple[SourceFault, ...]]:
        """Return what each entry and each of their sub-agents without one spent, and faults."""
        report = self._read(since_s)
        rows = {row.actor: row for row in report.rows}
        owners = self._owners(rows)
        actors: list[ActorSpending] = []
        windows: dict[tuple[float | None, float | None], dict[str, UsageRow]] = {}
        for actor, entries in owners.items():
            for place, entry in enumerate(entries):
                row = rows[actor]
                if len(entries) > 1:
                    window = _window(entries, place, since_s)
                    if window not in windows:
                        found = self._read(*window)
                        windows[window] = {one.actor: one for one in found.rows}
                    row = windows[window].get(actor) or _nothing(row)
                actors.append(_of_entry(entry, row))
        has_row = {one.entry.session_id for one in actors if one.entry is not None}
        actors += [
            _without_row(entry, since_s)
            for entry in self._entries
            if entry.session_id not in has_row
        ]
        actors += _without_entry(rows, owners)
        return actors, report.faults

    def _owners(self, rows: Mapping[str, UsageRow]) -> dict[str, list[AgentEntry]]:
        """Return whose entries each actor's numbers are, oldest first."""
        owners: dict[str, list[AgentEntry]] = {}
        for entry in self._entries:
            key = entry.native_actor_key
            if key is not None and key in rows:
                owners.setdefault(key, []).append(entry)
        for entry in self._entries:
            if entry.native_actor_key is not None:
                continue
            # Nobody knows its actor: it is the only one at the root of its transcript, or unknown.
            named = set(map(os.path.abspath, self._named[entry.session_id]))
            roots = [
                row.actor
                for row in rows.values()
                if not named.isdisjoint(row.sources)
                and row.parent not in rows
                and all(owner.native_actor_key is None for owner in owners.get(row.actor, ()))
            ]
            if len(roots) == 1:
                owners.setdefault(roots[0], []).append(entry)
        return owners


def transcripts_of(entry: AgentEntry) -> tuple[str, ...]:
    """Return the transcripts that an entry names: its sources, and an instance that is a file."""
    named = entry.extension.usage_sources if entry.extension is not None else ()
    instance = entry.native_instance_key
    if instance is not None:
        path = instance if instance.startswith("/") else instance.partition(":instance:")[2]
        if path.startswith("/") and "\0" not in path:
            named = (*named, path)
    return tuple(dict.fromkeys(path for path in named if "\0" not in path))


def harness_of(entry: AgentEntry) -> str | None:
    """Return an entry's harness, by its keys where it is not written."""
    if entry.harness is not None:
        return entry.harness
    for key in (entry.native_actor_key, entry.native_instance_key):
        if key is not None and ":" in key:
            return key.partition(":")[0]
    return None


def _window(
    entries: Sequence[AgentEntry], place: int, since_s: float | None
) -> tuple[float | None, float | None]:
    # The first of them has all that came before it, the last all that comes after it.
    since, until = since_s, None
    if place:
        started_s = entries[place].started_at.unix_ns / 1e9
        since = started_s if since_s is None else max(since_s, started_s)
    if place + 1 < len(entries):
        until = entries[place + 1].started_at.unix_ns / 1e9
    return since, until


def _nothing(row: UsageRow) -> UsageRow:
    return attrs.evolve(row, totals=sum_totals(()), by_model={})


def _of_entry(entry: AgentEntry, row: UsageRow) -> ActorSpending:
    parent = entry.native_parent_actor_key
    return attrs.evolve(
        of_row(row, entry),
        actor=entry.native_actor_key or row.actor,
        parent=parent if parent is not None else row.parent,
    )


def _without_row(entry: AgentEntry, since_s: float | None) -> ActorSpending:
    kept = recorded(entry)
    if kept is not None and since_s is not None and entry.started_at.unix_ns / 1e9 < since_s:
        kept = None  # nobody knows how much of it was spent since
    by_model: dict[str | None, UsageTotals] = {}
    if kept is not None and kept.totals is not None and not kept.untold:
        by_model[entry.model] = kept.totals
    return ActorSpending(
        entry=entry,
        actor=entry.native_actor_key,
        parent=entry.native_parent_actor_key,
        harness=harness_of(entry),
        thread=entry.thread,
        own=kept if kept is not None else unknown_of(entry),
        by_model=by_model,
        is_recorded=kept is not None,
    )


def _without_entry(
    rows: Mapping[str, UsageRow], owners: Mapping[str, Sequence[AgentEntry]]
) -> Iterable[ActorSpending]:
    """Yield the sub-agents of entries that have no entry of their own.

    Other actors that share a transcript with them (a database of all sessions) are no part of
    this registry.
    """
    for actor, row in rows.items():
        if actor in owners:
            continue
        above, seen = row.parent, {actor}
        while above is not None and above not in owners and above in rows and above not in seen:
            seen.add(above)
            above = rows[above].parent
        if above is not None and above in owners:
            yield attrs.evolve(of_row(row), thread=owners[above][-1].thread)


def of_row(row: UsageRow, entry: AgentEntry | None = None) -> ActorSpending:
    """Return an actor's own spending as its transcripts tell it."""
    return ActorSpending(
        entry=entry,
        actor=row.actor,
        parent=row.parent,
        harness=row.harness,
        thread=entry.thread if entry is not None else None,
        sources=row.sources,
        own=Spending(totals=row.totals),
        by_model=row.by_model,
    )
