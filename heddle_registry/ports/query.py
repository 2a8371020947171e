"""What can be asked of a store, and the answer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.errors import RegistryError
    from heddle_registry.ports.findings import Problem

_KEYS: Final = (
    "native_actor_key",
    "native_parent_actor_key",
    "native_instance_key",
    "client_instance_id",
    "heddle_session_id",
)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Query(Record):
    """What to look for; fields that are None do not narrow. All given ones must hold."""

    session_id: str | None = None
    thread: str | None = None
    active_only: bool = False
    native_actor_key: str | None = None
    native_parent_actor_key: str | None = None
    native_instance_key: str | None = None
    client_instance_id: str | None = None
    heddle_session_id: str | None = None
    any_key: str | None = None
    """Any of the five keys above."""
    path: str | None = None
    """A canonical folder; an entry's own path is made canonical before it is compared."""
    owner_pids: tuple[int, ...] | None = None
    records_owner: bool = False
    """Only entries that say more of their process than its pid."""
    include_stale: bool = False
    thorough: bool = False
    """Find also by what another program wrote into a record in place, which no index can see
    without a look at every file. Stores without an index need not care."""


def matcher(query: Query) -> Callable[[AgentEntry], bool]:
    """Return whether an entry is what ``query`` looks for, but for its age, as a question.

    Made once for thousands of entries: of the query's fields most ask nothing.
    """
    same = [
        (name, wanted)
        for name in ("session_id", "thread", *_KEYS)
        if (wanted := getattr(query, name)) is not None
    ]
    others: list[Callable[[AgentEntry], bool]] = []
    any_key, owner_pids, path = query.any_key, query.owner_pids, query.path
    if query.records_owner:
        others.append(lambda entry: entry.owner is not None)
    if any_key is not None:
        others.append(lambda entry: any_key in [getattr(entry, name) for name in _KEYS])
    if owner_pids is not None:
        others.append(lambda entry: entry.pid in owner_pids)
    if path is not None:
        others.append(lambda entry: is_same_folder(entry.path, path))
    active_only = query.active_only

    def matches(entry: AgentEntry) -> bool:
        if active_only and not entry.is_active:
            return False
        for name, wanted in same:
            if getattr(entry, name) != wanted:
                return False
        return all(asked(entry) for asked in others) if others else True

    return matches


def is_same_folder(path: str | None, canonical: str) -> bool:
    """Return whether ``path``, made canonical, is the folder ``canonical``. Asks the disk."""
    if path is None:
        return False
    try:
        return path == canonical or os.path.realpath(path) == canonical
    except (ValueError, OSError):
        return False  # a file may say anything, a NUL among it


def newest_first(entries: Iterable[AgentEntry]) -> tuple[AgentEntry, ...]:
    """Return entries by start, the newest first; equal starts by id, so that it is one order."""
    by_id = sorted(entries, key=lambda entry: entry.session_id)
    return tuple(sorted(by_id, key=lambda entry: entry.started_at.sort_key, reverse=True))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Look(Record):
    """The answer to a query: a consistent view of entries and their threads' claims.

    ``entries`` are newest first. ``claims`` has those of the entries' threads, and of the thread
    asked for.
    """

    entries: tuple[AgentEntry, ...] = ()
    claims: Mapping[str, Claim] = attrs.field(factory=dict)
    damaged_claims: Mapping[str, RegistryError] = attrs.field(factory=dict)
    problems: tuple[Problem, ...] = ()
    now: Instant
