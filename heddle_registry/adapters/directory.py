"""The store in a folder: heddle's own files and lock, and our claims beside them."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

import attrs

from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.adapters.folders import Folders, claim_file_error, entry_file_error
from heddle_registry.adapters.found_records import FoundRecords, unreadable_claims
from heddle_registry.adapters.index import Index
from heddle_registry.adapters.layout import Layout
from heddle_registry.adapters.reading import Reader
from heddle_registry.core.evidence import LivenessFact, LivenessFile
from heddle_registry.core.lifecycle import is_stale
from heddle_registry.core.selection import select
from heddle_registry.core.standing import with_heartbeat
from heddle_registry.core.transaction import Decision, NeedFacts
from heddle_registry.errors import RegistryError
from heddle_registry.ports.query import Look, Query, matcher, newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from heddle_registry.adapters.liveness_file import LivenessLock as LockedFile
    from heddle_registry.adapters.reading import Progress
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Observation, Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Keys, Loaded
    from heddle_registry.ports import Host, Place
    from heddle_registry.ports.findings import Check

T = TypeVar("T")

_FEW = 16
"""Entries whose claims are looked up one by one."""

_shared: dict[str, tuple[Folders, Index]] = {}
"""What this process has parsed of each registry: a new store object need not begin anew."""
_in_use: set[ref[Folders | Index]] = set()
"""All of them that some store still has, for a forked child to make its own."""
_MOST_SHARED = 8
"""Registries whose parsed records and open index are kept; the one opened first goes first."""


def shared_parts(layout: Layout, host: Host) -> tuple[Folders, Index]:
    """Return the process's parsed records and index connection of a registry."""
    key = layout.root
    parts = _shared.get(key)
    if parts is None:
        # Asked once: a process ends with its boot.
        parts = (Folders(layout), Index(layout, cache(lambda: host.now().boot_id)))
        while len(_shared) >= _MOST_SHARED:
            with suppress(StopIteration, KeyError):  # another OS thread was first
                _, oldest = _shared.pop(next(iter(_shared)))
                oldest.close()  # whoever still uses it opens it again
        parts = _shared.setdefault(key, parts)
        _in_use.update(ref(part, _in_use.discard) for part in parts)
    return parts


def _forget_in_child() -> None:
    # Another OS thread of the parent may have held a lock of theirs at the fork.
    for known in _in_use.copy():  # in one go: what dies meanwhile takes itself out
        part = known()
        if part is not None:
            part.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


class DirectoryStore:
    """A `ports.Store` over one ``.heddle`` folder. Safe for OS threads, processes and forks.

    Looking needs no write permission and changes nothing. A change waits for the folder's lock,
    at most ``lock_timeout_s`` seconds (None: for ever). ``on_rebuild`` makes whom to tell how far
    the rebuild of a lost index is, when one begins.
    """

    def __init__(
        self,
        heddle_dir: str,
        host: Host,
        *,
        lock_timeout_s: float | None = None,
        on_rebuild: Callable[[], Progress] | None = None,
    ) -> None:
        self._layout = Layout(heddle_dir)
        self._host = host
        self._lock_timeout_s = lock_timeout_s
        self._folders, self._index = shared_parts(self._layout, host)
        self._reader = Reader(
            self._layout, self._folders, self._index, self._unchecked_lock, on_rebuild
        )

    @property
    def heddle_dir(self) -> str:
        """The folder, absolute."""
        return self._layout.root

    @property
    def layout(self) -> Layout:
        """Where everything lies below it."""
        return self._layout

    @property
    def index(self) -> Index:
        """The process's index of the folder."""
        return self._index

    # -- reading -----------------------------------------------------------------------------

    def _loaded(self, keys: Keys, now: Instant, *, is_locked: bool = False) -> Loaded:
        tickets: tuple[str, ...] = ()
        if keys.line_of is not None:
            from heddle_registry.adapters.line import living_tickets

            tickets = living_tickets(self._layout, keys.line_of, now)
        return self._reader.read(
            lambda records: select(keys, records, now, tickets), is_locked=is_locked
        )

    def peek(self, keys: Keys) -> tuple[Loaded, Instant]:
        """See `ports.Store`."""
        now = self._host.now()
        return self._loaded(keys, now), now

    def look(self, query: Query) -> Look:
        """See `ports.Store`.

        :raises StoreUnavailable: the folder, or the one entry asked for, cannot be read.
        :raises RecordCorrupt: the one entry asked for is damaged.
        """
        now = self._host.now()
        if query.session_id is not None:
            return self._look_at(query, query.session_id, now)
        return self._reader.read(
            lambda records: _answer(query, records, now), is_thorough=query.thorough
        )

    def _look_at(self, query: Query, session_id: str, now: Instant) -> Look:
        # By name: whatever else lies in the folder does not matter.
        records = self._reader.scanning()
        entry = records.entry(session_id)
        if entry is None or not (
            (query.include_stale or not is_stale(entry, now.at)) and matcher(query)(entry)
        ):
            return Look(now=now)
        damaged = unreadable_claims(records, (entry.thread,))
        claim = None if damaged else records.claim(entry.thread)
        return Look(
            entries=(with_heartbeat(entry, claim),),
            claims={entry.thread: claim} if claim is not None else {},
            damaged_claims=damaged,
            now=now,
        )

    def load(self, session_id: str) -> AgentEntry | None:
        """See `ports.Store`. Reads at most the entry's own file and its claim's."""
        layout, folders = self._layout, self._folders
        file = folders.agents.one(layout.entry_name(session_id))
        if file is None:
            return None
        error = entry_file_error(file)
        if error is not None:
            raise error
        entry = file.record
        if entry is None or not entry.is_active:
            is_gone = entry is None or is_stale(entry, self._host.now().at)
            return None if is_gone else entry
        claim = folders.claims.one(layout.claim_name(entry.thread))
        if claim is None or claim.record is None or claim_file_error(claim) is not None:
            return entry
        return with_heartbeat(entry, claim.record)

    def observe(self, host: Host, subject: Subject, *, details: bool = False) -> Observation:
        """See `ports.Store`."""
        seen = host.observe(subject)
        liveness = subject.liveness
        if liveness is None:
            return seen
        from heddle_registry.adapters.liveness_file import liveness_holders, observe_liveness

        path = os.path.join(self._layout.live, subject.session_id)
        fact = observe_liveness(path, liveness.device, liveness.inode)
        if fact is None:
            return seen
        pids: tuple[int, ...] = ()
        if details and fact == "held":
            pids = liveness_holders(liveness.device, liveness.inode)
        return attrs.evolve(seen, liveness=LivenessFact(fact), descriptor_pids=pids)

    # -- writing -----------------------------------------------------------------------------

    def lock(self) -> DirectoryLock:
        """Return the folder's lock, which the Rust tool takes too.

        :raises StoreUnavailable: a link stands in the place of one of the folders.
        """
        self._layout.refuse_links()
        return self._unchecked_lock()

    def _unchecked_lock(self) -> DirectoryLock:
        return DirectoryLock(self._layout.agents, make_dir=self._layout.make)

    def transact(
        self,
        keys: Keys,
        decide: Callable[[Loaded, Instant, Facts], Decision[T] | NeedFacts],
        facts: Facts,
    ) -> Decision[T] | NeedFacts:
        """See `ports.Store`."""
        if not os.path.isdir(self._layout.agents):
            # A refused request makes no folders.
            now = self._host.now()
            early = decide(self._loaded(keys, now), now, facts)
            if isinstance(early, NeedFacts) or not early.effects:
                return early
        from heddle_registry.adapters.writing import Writer  # before others wait for the lock

        with self.lock().held(self._lock_timeout_s):
            now = self._host.now()
            loaded = self._loaded(keys, now, is_locked=True)
            decision = decide(loaded, now, facts)
            if isinstance(decision, NeedFacts):
                return decision
            if decision.effects:
                writer = Writer(self._layout, self._folders, self._index, loaded)
                writer.write(decision.effects, decision.commits)
        for thread in decision.freed:
            from heddle_registry.adapters.line import wake_first

            wake_first(self._layout, thread, now)
        return decision

    # -- keeping house -----------------------------------------------------------------------

    def tidy(self, *, dry_run: bool = False) -> tuple[str, ...]:
        """See `ports.Store`; the paths are below the folder."""
        from heddle_registry.adapters.housekeeping import tidy

        return tidy(self, self._lock_timeout_s, dry_run=dry_run)

    def examine(self, host: Host) -> tuple[Check, ...]:
        """See `ports.Store`."""
        from heddle_registry.adapters.examination import examine

        return examine(self, host, self._lock_timeout_s)

    def edited_in_place(self) -> tuple[str, ...]:
        """Return the names of the entries of which the index does not know what they say now.

        :raises StoreUnavailable: the folder cannot be read.
        """
        return self._reader.edited()

    def catch_up(self) -> bool:
        """Bring the index up to date; whether it is now. The caller holds the store's lock."""
        return self._reader.catch_up()

    # -- liveness and the line ---------------------------------------------------------------

    def hold_liveness(self, session_id: str, *, inheritable: bool = False) -> HeldFile | None:
        """See `ports.Store`; None on Windows, which has no flock."""
        from heddle_registry.adapters.line import HAS_LINES
        from heddle_registry.adapters.liveness_file import hold_liveness

        if not HAS_LINES:
            return None
        live = self._layout.live
        self._layout.refuse_links()
        self._layout.make_folder(live)
        path = os.path.join(live, session_id)
        return HeldFile(path, hold_liveness(path, inheritable=inheritable))

    @contextmanager
    def join_line(self, thread: str, deadline_s: float) -> Iterator[Place]:
        """See `ports.Store`."""
        from heddle_registry.adapters import line

        if not line.HAS_LINES:
            yield line.LonelyPlace()
            return
        with self.lock().held(self._lock_timeout_s):
            place = line.join(self._layout, thread, deadline_s, self._host.now)
        try:
            yield place
        finally:
            place.leave()


def _answer(query: Query, records: FoundRecords, now: Instant) -> Look:
    found = list(filter(matcher(query), records.matching(query, now)))
    held = _held_claims(records, found)
    entries = tuple(
        with_heartbeat(entry, held[entry.thread]) if entry.thread in held else entry
        for entry in found
    )
    if not records.is_ordered:
        entries = newest_first(entries)
    threads = {entry.thread for entry in entries}
    if query.thread is not None:
        threads.add(query.thread)
    problems = records.problems()
    damaged: dict[str, RegistryError] = {}
    if any(problem.is_claim for problem in problems):
        damaged = unreadable_claims(records, threads)
    claims = {thread: held[thread] for thread in sorted(threads & held.keys())}
    if query.thread is not None and query.thread not in claims and query.thread not in damaged:
        claim = records.claim(query.thread)
        if claim is not None:
            claims[query.thread] = claim
    return Look(entries=entries, claims=claims, damaged_claims=damaged, problems=problems, now=now)


def _held_claims(records: FoundRecords, found: Sequence[AgentEntry]) -> dict[str, Claim]:
    # By name where that is less to read. One that cannot be read is told among the problems.
    if len(found) > _FEW or not records.is_ordered:
        return {claim.thread: claim for claim in records.held_claims()}
    held: dict[str, Claim] = {}
    for thread in {entry.thread for entry in found}:
        with suppress(RegistryError):
            claim = records.claim(thread)
            if claim is not None and claim.holder is not None:
                held[thread] = claim
    return held


class HeldFile:
    """A `ports.LivenessLock` over a file in ``live/``."""

    def __init__(self, path: str, lock: LockedFile) -> None:
        self._path = path
        self._lock = lock

    @property
    def file(self) -> LivenessFile:
        """Device and inode."""
        return LivenessFile(device=self._lock.device, inode=self._lock.inode)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._lock.fd

    def release(self) -> None:
        """Unlock for every copy of the descriptor, and close this one; see `ports.LivenessLock`."""
        self._lock.release()

    def discard(self) -> None:
        """Release, and remove the file."""
        with suppress(OSError):
            os.unlink(self._path)
        self._lock.release()
