"""What agents cost: the registry's entries joined with the transcripts that they name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.record import Record
from heddle_registry.core.spending import ActorSpending, with_usage
from heddle_registry.core.tree import entries_by_actor
from heddle_registry.errors import LockError, RegistryError, StoreUnavailable
from heddle_registry.ownership import RegistryReading, of_row
from heddle_registry.ports.query import Query

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.adapters.transcripts import SourceFault
    from heddle_registry.adapters.usage_report import Prices
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.plugins import Plugins
    from heddle_registry.ports.findings import Problem
    from heddle_registry.registry import AgentRegistry

    Progress = Callable[[int, int], None]
    Source = tuple[str, str, str | None]

CACHED_BYTES: Final = 8 << 20
"""Named transcripts that are larger together are worth a state of their own."""
CACHE_DAYS: Final = 30
_DAY_S: Final = 86_400


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Account(Record):
    """Who spent what. ``chosen``: the entry that stands for an actor key of several entries."""

    actors: tuple[ActorSpending, ...]
    faults: tuple[SourceFault, ...] = ()
    problems: tuple[Problem, ...] = ()
    chosen: Mapping[str, AgentEntry] = attrs.field(factory=dict)


def local_prices() -> Prices:
    """Return the price list of the extra ``prices``; it knows nothing where that is missing."""
    from heddle_registry.adapters.prices import GenaiPrices

    return GenaiPrices()


# -- transcripts that somebody names


def spending_of_sources(
    named: Sequence[tuple[str, str]],
    plugins: Plugins,
    *,
    cache_dir: str | None = None,
    since_s: float | None = None,
    progress: Progress | None = None,
    prices: Prices | None = None,
) -> Account:
    """Read ``(harness, file or folder)`` without any registry; one row an actor.

    The totals are those of these transcripts alone, whatever was read before. Large ones keep a
    state of their own below ``cache_dir``, so that the next read of the same ones is quick; it is
    removed when nobody asked for 30 days. Blocks for the time of the reading.
    """
    from heddle_registry.adapters.transcript_folders import Looked, discover
    from heddle_registry.adapters.usage_reader import read_usage

    looked = Looked()
    sources = [
        (harness, path, None)
        for harness, given in named
        for path in discover(harness, given, looked)
    ]
    state_dir = None
    if cache_dir is not None and _size(path for _, path, _ in sources) > CACHED_BYTES:
        state_dir = _own_state(cache_dir, named)
    report = read_usage(
        sources, plugins.usage_readers(), state_dir, progress, since_s=since_s, prices=prices
    )
    return Account(actors=tuple(of_row(row) for row in report.rows), faults=report.faults)


def _size(paths: Iterable[str]) -> int:
    size = 0
    for path in paths:
        try:
            size += os.stat(path).st_size
        except OSError:
            continue
    return size


def _own_state(cache_dir: str, named: Sequence[tuple[str, str]]) -> str | None:
    import time
    from hashlib import blake2b
    from shutil import rmtree

    asked = "\0".join(f"{harness}\0{os.path.abspath(path)}" for harness, path in named)
    name = blake2b(asked.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()
    folder = os.path.join(cache_dir, name)
    try:
        for made in (os.path.dirname(cache_dir), cache_dir):  # a mode is the last folder's alone
            os.makedirs(made, mode=0o700, exist_ok=True)
        for other in os.scandir(cache_dir):
            if other.name != name and other.stat().st_mtime < time.time() - CACHE_DAYS * _DAY_S:
                rmtree(other.path, ignore_errors=True)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.utime(folder)
    except OSError:
        return None
    return folder


# -- the registry


def spending_of_registry(
    registry: AgentRegistry,
    plugins: Plugins,
    *,
    since_s: float | None = None,
    progress: Progress | None = None,
    prices: Prices | None = None,
) -> Account:
    """Return the spending of every entry but the stale, and of their sub-agents without one.

    Reads the transcripts that entries name and those of their families; where no transcript is
    left, the entry's own numbers stand. Takes no lock of the registry and changes no entry; what
    was read is kept in its folder where that is there and may be written. Blocks for the time of
    the reading.
    """
    look = registry.look(Query())
    entries = look.entries
    chosen = (
        entries_by_actor(
            entries,
            lambda entry: (
                not registry.verdict_on(entry, look.claims.get(entry.thread), look.now).is_dead
            ),
        )
        if _has_twins(entries)
        else {}
    )
    reading = RegistryReading(registry, plugins, entries, progress, prices)
    actors, faults = reading.run(since_s)
    return Account(actors=tuple(actors), faults=faults, problems=look.problems, chosen=chosen)


def _has_twins(entries: Iterable[AgentEntry]) -> bool:
    keys = [entry.native_actor_key for entry in entries if entry.native_actor_key is not None]
    return len(keys) != len(set(keys))


def fill_usage(
    registry: AgentRegistry,
    session_id: str,
    plugins: Plugins | None = None,
    *,
    prices: Prices | None = None,
) -> AgentEntry | None:
    """Write what a running entry spent by now into it, and return it; for whoever ends it next.

    None where there is no such entry, it has ended, or nothing is known. One transaction where
    the numbers changed, none otherwise. Blocks for reading what is new in its transcripts.

    :raises RegistryError: the entry cannot be read or written.
    """
    entry = registry.load(session_id)
    if entry is None or not entry.is_active:
        return None
    if plugins is None:
        from heddle_registry.surroundings import plugins_here

        plugins = plugins_here(registry.host)
    key, parent = entry.native_actor_key, entry.native_parent_actor_key
    related = {entry.session_id: entry}
    for wanted in (key, parent):
        if wanted is not None:
            related |= {
                other.session_id: other
                for other in registry.look(Query(native_actor_key=wanted)).entries
            }
    reading = RegistryReading(
        registry, plugins, tuple(related.values()), None, prices or local_prices()
    )
    for one in reading.run(None)[0]:
        if one.entry is not None and one.entry.session_id == session_id:
            return _fill(registry, one)
    return None


def fill_running(registry: AgentRegistry, account: Account) -> RegistryError | None:
    """Write what running entries spent into them, one transaction for each that changed.

    ``account`` must be of all time. Ended entries stay as they are. Returns what kept it from
    being written; the first store that cannot be written ends the attempt.
    """
    problem = None
    for one in account.actors:
        try:
            _fill(registry, one)
        except (StoreUnavailable, LockError) as error:
            return error
        except RegistryError as error:  # ended or removed meanwhile, or damaged
            problem = problem or error
    return problem


def _fill(registry: AgentRegistry, one: ActorSpending) -> AgentEntry | None:
    entry, totals = one.entry, one.own.totals
    if entry is None or totals is None or one.is_recorded or not entry.is_active:
        return None
    if with_usage(entry, totals) is entry:
        return entry
    return registry.update_entry(entry.session_id, lambda now: with_usage(now, totals))
