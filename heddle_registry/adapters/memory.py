"""A store in this process's memory: for tests, for embedders, and to compare others with."""

from __future__ import annotations

import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs

from heddle_registry.core.lifecycle import is_stale
from heddle_registry.core.selection import select
from heddle_registry.core.selection_maps import RecordMaps
from heddle_registry.core.standing import with_heartbeat
from heddle_registry.core.transaction import (
    Decision,
    KeepQueries,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.ports.query import Look, Query, matcher, newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry, ContextQueryEntry
    from heddle_registry.core.evidence import Observation, Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Effect, Facts, Keys, Loaded
    from heddle_registry.ports import Host
    from heddle_registry.ports.findings import Check

T = TypeVar("T")


class MemoryPlace:
    """A place in a `MemoryStore`'s line."""

    def __init__(self, ticket: str, woken: threading.Event, leave: Callable[[], None]) -> None:
        self.ticket = ticket
        self._woken = woken
        self._leave = leave

    def wait(self, timeout_s: float, subject: Subject | None) -> None:  # noqa: ARG002
        """Sleep until woken or for ``timeout_s``; nobody's death is noticed here."""
        self._woken.wait(timeout_s)
        self._woken.clear()

    def leave(self) -> None:
        """Give the place up."""
        self._leave()


class MemoryStore:
    """Keeps everything in dictionaries under one lock.

    Gone with the process. A forked child has a copy of its own that nobody else sees.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.RLock()
        self._entries: dict[str, AgentEntry] = {}
        self._claims: dict[str, Claim] = {}
        self._queries: dict[str, list[ContextQueryEntry]] = {}
        self._lines: dict[str, dict[str, threading.Event]] = {}
        self._tickets = itertools.count()

    def transact(
        self,
        keys: Keys,
        decide: Callable[[Loaded, Instant, Facts], Decision[T] | NeedFacts],
        facts: Facts,
    ) -> Decision[T] | NeedFacts:
        """See `ports.Store`."""
        with self._lock:
            now = self._host.now()
            line = tuple(self._lines.get(keys.line_of or "", ()))
            loaded = select(keys, self._records(), now, line)
            decision = decide(loaded, now, facts)
            if isinstance(decision, NeedFacts):
                return decision
            for effect in decision.effects:
                self._apply(effect)
            for thread in decision.freed:
                self._wake_first(thread)
            return decision

    def peek(self, keys: Keys) -> tuple[Loaded, Instant]:
        """See `ports.Store`."""
        with self._lock:
            now = self._host.now()
            line = tuple(self._lines.get(keys.line_of or "", ()))
            return select(keys, self._records(), now, line), now

    def _records(self) -> RecordMaps:
        return RecordMaps(entries=self._entries, claims=self._claims)

    def _apply(self, effect: Effect) -> None:
        match effect:
            case PutEntry(entry):
                self._entries[entry.session_id] = entry
            case PutClaim(claim):
                self._claims[claim.thread] = claim
            case RemoveEntry(session_id):
                self._entries.pop(session_id, None)
            case KeepQueries(session_id, queries):
                self._queries.setdefault(session_id, []).extend(queries)

    def load(self, session_id: str) -> AgentEntry | None:
        """See `ports.Store`."""
        found = self.look(Query(session_id=session_id)).entries
        return found[0] if found else None

    def look(self, query: Query) -> Look:
        """See `ports.Store`."""
        with self._lock:
            now = self._host.now()
            entries = newest_first(
                with_heartbeat(entry, self._claims.get(entry.thread))
                for entry in filter(matcher(query), self._entries.values())
                if query.include_stale or not is_stale(entry, now.at)
            )
            threads = {entry.thread for entry in entries}
            if query.thread is not None:
                threads.add(query.thread)
            claims = {t: self._claims[t] for t in sorted(threads) if t in self._claims}
            return Look(entries=entries, claims=claims, now=now)

    def hold_liveness(self, session_id: str, *, inheritable: bool = False) -> None:  # noqa: ARG002
        """Return None: memory has no locks that outlive a thread of control."""
        return

    def observe(self, host: Host, subject: Subject, *, details: bool = False) -> Observation:  # noqa: ARG002
        """Return the host's observation; there is no liveness lock to add."""
        return host.observe(attrs.evolve(subject, liveness=None))

    def tidy(self, *, dry_run: bool = False) -> tuple[str, ...]:  # noqa: ARG002
        """See `ports.Store`; nothing is ever left behind here."""
        return ()

    def examine(self, host: Host) -> tuple[Check, ...]:  # noqa: ARG002
        """See `ports.Store`; nothing can be unsafe here."""
        return ()

    @contextmanager
    def join_line(self, thread: str, deadline_s: float) -> Iterator[MemoryPlace]:  # noqa: ARG002
        """See `ports.Store`."""
        with self._lock:
            ticket = f"{next(self._tickets):020d}"
            woken = threading.Event()
            self._lines.setdefault(thread, {})[ticket] = woken

        def leave() -> None:
            with self._lock:
                if self._lines.get(thread, {}).pop(ticket, None) is not None:
                    self._wake_first(thread)

        try:
            yield MemoryPlace(ticket, woken, leave)
        finally:
            leave()

    def _wake_first(self, thread: str) -> None:
        for woken in self._lines.get(thread, {}).values():
            woken.set()
            return
