"""The doors that write entries: presence, never a claim."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import MAX_ID_TRIES, check_session_id
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import IdTaken, Keys
from heddle_registry.errors import StoreUnavailable, UsageError
from heddle_registry.registry.looking import LookUps

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from heddle_registry.core.entry import ContextQueryEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Decision, Facts, Loaded

UNKNOWN_BASE = "unknown"
"""The ``base_state`` of an entry that was made where no revision is checked out."""
_TIMES = ("started_at", "heartbeat_at", "last_progress_at", "completed_at")


class EntryDoors(LookUps):
    """Changes of entries. Each goes through the life-cycle table."""

    def create_generated_entry(self, build: Callable[[str], AgentEntry]) -> AgentEntry:
        """Write the entry that ``build(session_id)`` returns: presence, never a claim."""
        return self.create_generated_entry_with(self._new_id, build)

    def create_generated_entry_with(
        self, generate_id: Callable[[], str], build: Callable[[str], AgentEntry]
    ) -> AgentEntry:
        """Do the same with ids from ``generate_id``; used ones are skipped, eight times at most."""
        for _ in range(MAX_ID_TRIES):
            entry = normalised(build(check_session_id(generate_id())))
            created = self._transact(
                Keys(fresh_ids=(check_session_id(entry.session_id),), actors=_parent_of(entry)),
                _creating(entry),
            )
            if isinstance(created, AgentEntry):
                return created
        raise no_free_id()

    def save(self, entry: AgentEntry) -> None:
        """Write ``entry``. A known one changes by the rules of `update_entry` and the table.

        :raises IllegalTransition: its status cannot become that.
        :raises UsageError: a field was changed that cannot be.
        """
        from heddle_registry.core.edit import decide_save

        entry = normalised(entry)
        check_session_id(entry.session_id)
        self._transact(
            Keys(sessions=(entry.session_id,), actors=_parent_of(entry)),
            lambda loaded, now, _facts: decide_save(entry, loaded, now),
        )

    def update_status(self, session_id: str, status: AgentStatus | str) -> AgentEntry:
        """Bring an entry to ``status``. Ends its claim where that ends the entry; asks no token.

        :raises IllegalTransition: the table has no way there.
        :raises UnknownEntry: there is no such entry.
        """
        from heddle_registry.core.edit import decide_status

        check_session_id(session_id)
        wanted = status_named(status)
        return self._transact(
            Keys(sessions=(session_id,)),
            lambda loaded, now, _facts: decide_status(session_id, wanted, loaded, now),
        )

    def update_entry(
        self, session_id: str, change: Callable[[AgentEntry], AgentEntry]
    ) -> AgentEntry:
        """Write what ``change`` makes of the entry, and return it.

        ``change`` runs under the store's exclusion, perhaps twice, and may not call the registry.

        :raises UnknownEntry: there is no such entry.
        :raises IllegalTransition: it has ended.
        :raises UsageError: ``change`` touched a field that it may not.
        """
        from heddle_registry.core.edit import decide_update

        check_session_id(session_id)

        def changed(entry: AgentEntry) -> AgentEntry:
            return normalised(change(entry))

        return self._transact(
            Keys(sessions=(session_id,)),
            lambda loaded, now, _facts: decide_update(session_id, changed, loaded, now),
        )

    def find_or_create_active_entry(
        self,
        matches: Callable[[AgentEntry], bool],
        update: Callable[[AgentEntry], AgentEntry],
        build: Callable[[str], AgentEntry],
    ) -> tuple[AgentEntry, bool]:
        """Reuse the newest matching entry that is not dead, else create one.

        Returns the entry and whether it was created. The callables run under the store's
        exclusion (``build`` outside of it), perhaps twice, and may not call the registry.
        """
        from heddle_registry.core.edit import decide_find_or_create

        def updated(entry: AgentEntry) -> AgentEntry:
            return normalised(update(entry))

        for _ in range(MAX_ID_TRIES):
            new = normalised(build(self._new_id()))
            found = self._transact(
                Keys(
                    all_active=True,
                    fresh_ids=(check_session_id(new.session_id),),
                    actors=_parent_of(new),
                ),
                partial(decide_find_or_create, matches, updated, new),
            )
            if not isinstance(found, IdTaken):
                return found
        raise no_free_id()

    def log_context_query(self, session_id: str, query: ContextQueryEntry) -> bool:
        """Append to a running entry's log; return whether it was logged.

        :raises UnknownEntry: there is no such entry.
        """
        from heddle_registry.core.edit import decide_log_query

        check_session_id(session_id)
        logged = _normalised_query(query)
        return self._transact(
            Keys(sessions=(session_id,)),
            lambda loaded, _now, _facts: decide_log_query(session_id, logged, loaded),
        )

    def delete(self, session_id: str) -> None:
        """Remove an entry and end its claim.

        :raises UnknownEntry: there is no such entry.
        """
        from heddle_registry.core.edit import decide_delete

        check_session_id(session_id)
        self._transact(
            Keys(sessions=(session_id,)),
            lambda loaded, now, _facts: decide_delete(session_id, loaded, now),
        )


def _creating(
    entry: AgentEntry,
) -> Callable[[Loaded, Instant, Facts], Decision[AgentEntry | IdTaken]]:
    from heddle_registry.core.edit import decide_create

    return lambda loaded, _now, _facts: decide_create(entry, loaded)


def _parent_of(entry: AgentEntry) -> tuple[str, ...]:
    key = entry.native_parent_actor_key
    return () if key is None else (key,)


def status_named(status: AgentStatus | str) -> AgentStatus:
    """Return the status of that name.

    :raises UsageError: there is none.
    """
    try:
        return AgentStatus(status)
    except ValueError:
        names = ", ".join(AgentStatus)
        raise UsageError(f"{status!r} is no status", f"There are {names}") from None


def no_free_id() -> StoreUnavailable:
    """Return the error for a generator that gives only ids in use."""
    return StoreUnavailable(
        "session ids", f"{MAX_ID_TRIES} generated ids in a row were in use", "Try again"
    )


def normalised(entry: AgentEntry) -> AgentEntry:
    """Return ``entry`` with aware datetimes made Timestamps; the rest is `check_entry`'s.

    :raises UsageError: it is no entry, or a datetime has no time zone.
    """
    from datetime import datetime

    if not isinstance(entry, AgentEntry):
        raise UsageError(f"an AgentEntry is needed, not {type(entry).__name__}")
    changes: dict[str, Any] = {}
    for name in _TIMES:
        value = getattr(entry, name)
        if isinstance(value, datetime):
            changes[name] = _timestamp(name, value)
    queries = entry.context_queries
    if isinstance(queries, tuple) and any(
        isinstance(getattr(query, "queried_at", None), datetime) for query in queries
    ):
        changes["context_queries"] = tuple(map(_normalised_query, queries))
    return attrs.evolve(entry, **changes) if changes else entry


def _normalised_query(query: ContextQueryEntry) -> ContextQueryEntry:
    from datetime import datetime

    queried_at = getattr(query, "queried_at", None)
    if not isinstance(queried_at, datetime):
        return query
    return attrs.evolve(query, queried_at=_timestamp("queried_at", queried_at))


def _timestamp(name: str, value: datetime) -> Timestamp:
    try:
        return Timestamp.from_datetime(value)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
