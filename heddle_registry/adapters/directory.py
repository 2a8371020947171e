"""The store in a folder: heddle's own files and lock, and our claims beside them."""

from __future__ import annotations

import os
import stat
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import attrs

from heddle_registry.adapters import line
from heddle_registry.adapters.atomic_file import remove_file, replace_file, sweep_temps
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.adapters.layout import Layout
from heddle_registry.adapters.liveness_file import (
    hold_liveness,
    liveness_holders,
    observe_liveness,
)
from heddle_registry.adapters.snapshot import DirectoryRecords, Folders
from heddle_registry.codec import claim_to_toml, entry_to_toml, is_from_newer_schema, is_not_toml
from heddle_registry.core.evidence import LivenessFact, LivenessFile
from heddle_registry.core.lifecycle import is_stale
from heddle_registry.core.selection import select
from heddle_registry.core.standing import with_heartbeat
from heddle_registry.core.transaction import (
    Decision,
    KeepQueries,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.errors import OutcomeUnknown, RecordCorrupt, RegistryError, StoreUnavailable
from heddle_registry.ports import Look, Query, matches_query, newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeGuard

    from heddle_registry.adapters.liveness_file import LivenessLock as LockedFile
    from heddle_registry.core.evidence import Observation, Subject
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Effect, Facts, Keys, Loaded
    from heddle_registry.ports import Host, Place

T = TypeVar("T")
QUARANTINE_AFTER_S = 60.0
"""A file that is no TOML may be one that somebody is still writing in place."""


class DirectoryStore:
    """A `ports.Store` over one ``.heddle`` folder. Safe for OS threads, processes and forks.

    Looking needs no write permission and changes nothing. A change waits for the folder's lock,
    at most ``lock_timeout_s`` seconds (None: for ever).
    """

    def __init__(self, heddle_dir: str, host: Host, *, lock_timeout_s: float | None = None) -> None:
        self._layout = Layout(heddle_dir)
        self._host = host
        self._lock_timeout_s = lock_timeout_s
        self._folders = Folders(self._layout)

    @property
    def heddle_dir(self) -> str:
        """The folder, absolute."""
        return self._layout.root

    @property
    def layout(self) -> Layout:
        """Where everything lies below it."""
        return self._layout

    # -- reading -----------------------------------------------------------------------------

    def _loaded(self, keys: Keys, now: Instant, *, with_line: bool) -> Loaded:
        records = self._folders.snapshot().records
        waiting = keys.line_of if with_line else None
        tickets = line.living_tickets(self._layout, waiting, now) if waiting is not None else ()
        return select(keys, records, now, tickets)

    def peek(self, keys: Keys) -> tuple[Loaded, Instant]:
        """See `ports.Store`."""
        now = self._host.now()
        return self._loaded(keys, now, with_line=True), now

    def look(self, query: Query) -> Look:
        """See `ports.Store`.

        :raises StoreUnavailable: the folder, or the one entry asked for, cannot be read.
        :raises RecordCorrupt: the one entry asked for is damaged.
        """
        now = self._host.now()
        snapshot = self._folders.snapshot()
        records: DirectoryRecords = snapshot.records
        if query.session_id is not None:
            records.entry(query.session_id)
        entries = newest_first(
            with_heartbeat(entry, records.claims.get(entry.thread))
            for entry in records.entries.values()
            if (query.include_stale or not is_stale(entry, now.at)) and matches_query(entry, query)
        )
        threads = {entry.thread for entry in entries}
        if query.thread is not None:
            threads.add(query.thread)
        damaged: dict[str, RegistryError] = {}
        for thread in threads:
            try:
                records.claim(thread)
            except RegistryError as error:
                damaged[thread] = error
        return Look(
            entries=entries,
            claims={t: records.claims[t] for t in sorted(threads) if t in records.claims},
            damaged_claims=damaged,
            problems=snapshot.problems,
            now=now,
        )

    def observe(self, host: Host, subject: Subject, *, details: bool = False) -> Observation:
        """See `ports.Store`."""
        seen = host.observe(subject)
        liveness = subject.liveness
        if liveness is None:
            return seen
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
        """Return the folder's lock, which the Rust tool takes too."""
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
            early = decide(self._loaded(keys, now, with_line=True), now, facts)
            if isinstance(early, NeedFacts) or not early.effects:
                return early
        with self.lock().held(self._lock_timeout_s):
            now = self._host.now()
            loaded = self._loaded(keys, now, with_line=True)
            decision = decide(loaded, now, facts)
            if isinstance(decision, NeedFacts):
                return decision
            if decision.effects:
                self._refuse_newer(decision, loaded)
                sweep_temps(self._layout.tmp)
                self._quarantine(loaded)
                self._make_so(decision, loaded)
        for thread in decision.freed:
            line.wake_first(self._layout, thread, now)
        return decision

    def _refuse_newer(self, decision: Decision[T], loaded: Loaded) -> None:
        # What only tidies up is skipped instead.
        for effect in decision.effects[: decision.commits]:
            if _rewrites_newer(effect, loaded):
                raise StoreUnavailable(
                    self._entry_path(effect.entry.session_id),
                    "it was written by a newer version of this program",
                    "Upgrade heddle-registry",
                )

    def _make_so(self, decision: Decision[T], loaded: Loaded) -> None:
        commits = len(decision.effects) if decision.commits is None else decision.commits
        done: list[Effect] = []
        for number, effect in enumerate(decision.effects):
            if number >= commits and _rewrites_newer(effect, loaded):
                continue
            try:
                self._apply(effect)
            except RegistryError as error:
                if number >= commits:
                    continue
                is_visible = isinstance(error, OutcomeUnknown)
                if is_visible and number == commits - 1:
                    raise
                visible = [*done, effect] if is_visible else done
                if not self._undo(visible, loaded) and not is_visible:
                    # A full disk may refuse the way back as well; then "unchanged" were a lie.
                    path = getattr(error, "path", self._layout.root)
                    raise OutcomeUnknown(path, "a step failed, and so did undoing it") from error
                raise
            else:
                done.append(effect)

    def _undo(self, done: list[Effect], loaded: Loaded) -> bool:
        # What cannot be undone is what a crash at this point would have left.
        undone = True
        for effect in reversed(done):
            try:
                match effect:
                    case PutEntry(entry):
                        before = loaded.entries.get(entry.session_id)
                        if before is None:
                            self._remove(entry.session_id)
                        else:
                            self._apply(PutEntry(before))
                    case PutClaim(claim):
                        kept = loaded.claims.get(claim.thread)
                        if kept is None:
                            name = self._layout.claim_name(claim.thread)
                            self._folders.claims.forget(name)
                            remove_file(self._layout.claims, name)
                        else:
                            self._apply(PutClaim(kept))
                    case _:
                        continue
            except RegistryError:
                undone = False
        return undone

    def _apply(self, effect: Effect) -> None:
        layout = self._layout
        match effect:
            case PutEntry(entry):
                name = layout.entry_name(entry.session_id)
                self._folders.agents.forget(name)
                replace_file(layout.agents, name, entry_to_toml(entry), tmp_dir=layout.tmp)
            case PutClaim(claim):
                name = layout.claim_name(claim.thread)
                layout.make_folder(layout.claims)
                self._folders.claims.forget(name)
                replace_file(layout.claims, name, claim_to_toml(claim), tmp_dir=layout.tmp)
            case RemoveEntry(session_id):
                self._remove(session_id)
            case KeepQueries(session_id, queries):
                from heddle_registry.adapters.query_log import append_queries

                layout.make_folder(layout.queries)
                append_queries(layout.queries, session_id, queries)

    def _remove(self, session_id: str) -> None:
        layout = self._layout
        name = layout.entry_name(session_id)
        self._folders.agents.forget(name)
        remove_file(layout.agents, name)
        live = os.path.join(layout.live, session_id)
        for path in (os.path.join(layout.queries, session_id + ".jsonl"), live):
            if path == live and self._is_held(live):
                continue  # a holder whose entry a stranger ended: its lock still speaks for it
            with suppress(OSError):
                os.unlink(path)

    def _is_held(self, path: str) -> bool:
        try:
            state = os.lstat(path)
        except OSError:
            return False
        return observe_liveness(path, state.st_dev, state.st_ino) == "held"

    def _quarantine(self, loaded: Loaded) -> None:
        # Only what says nothing at all: a file that still names a living owner keeps refusing.
        for damage in loaded.damage:
            if damage.thread is not None or damage.session_id is None:
                continue
            error = damage.error
            if not isinstance(error, RecordCorrupt) or not is_not_toml(error):
                continue
            name = self._layout.entry_name(damage.session_id)
            path = os.path.join(self._layout.agents, name)
            with suppress(OSError, RegistryError):
                state = os.lstat(path)
                age_s = time.time() - state.st_mtime
                if stat.S_ISREG(state.st_mode) and age_s > QUARANTINE_AFTER_S:
                    self._layout.make_folder(self._layout.quarantine)
                    kept = f"{name}.{os.urandom(4).hex()}"
                    os.rename(path, os.path.join(self._layout.quarantine, kept))

    def _entry_path(self, session_id: str) -> str:
        return os.path.join(self._layout.agents, self._layout.entry_name(session_id))

    # -- liveness and the line ---------------------------------------------------------------

    def hold_liveness(self, session_id: str, *, inheritable: bool = False) -> HeldFile | None:
        """See `ports.Store`; None on Windows, which has no flock."""
        if not line.HAS_LINES:
            return None
        live = self._layout.live
        self._layout.make_folder(live)
        path = os.path.join(live, session_id)
        return HeldFile(path, hold_liveness(path, inheritable=inheritable))

    @contextmanager
    def join_line(self, thread: str, deadline_s: float) -> Iterator[Place]:
        """See `ports.Store`."""
        if not line.HAS_LINES:
            yield line.LonelyPlace()
            return
        with self.lock().held(self._lock_timeout_s):
            place = line.join(self._layout, thread, deadline_s, self._host.now)
        try:
            yield place
        finally:
            place.leave()


def _rewrites_newer(effect: Effect, loaded: Loaded) -> TypeGuard[PutEntry]:
    if not isinstance(effect, PutEntry):
        return False
    stored = loaded.entries.get(effect.entry.session_id)
    return stored is not None and is_from_newer_schema(stored)


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
