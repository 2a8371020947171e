"""Which records a set of keys names, whatever they are read from."""

# ruff: noqa: PIE790 - a body that is only a docstring is no body to a Protocol
from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from heddle_registry.core.lifecycle import is_stale
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.standing import with_heartbeat
from heddle_registry.core.transaction import Damage, Keys, Loaded
from heddle_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
else:
    Protocol = object  # building one takes longer than all the records here


class Records(Protocol):
    """Look-ups that `select` needs. An answer may be a superset where it says so."""

    def entry(self, session_id: str) -> AgentEntry | None:
        """Return the entry with that id, stale or not.

        :raises RegistryError: its file is there and cannot be read.
        """
        ...

    def is_used(self, session_id: str) -> bool:
        """Return whether anything, readable or not, has that id."""
        ...

    def active_on(self, thread: str) -> Iterable[AgentEntry]:
        """Return every Active entry on a thread."""
        ...

    def active(self) -> Iterable[AgentEntry]:
        """Return every Active entry."""
        ...

    def active_with(self, field: str, value: str) -> Iterable[AgentEntry]:
        """Return every Active entry with that value in one of `LOOKUP_FIELDS`."""
        ...

    def newest_with_actor(self, native_actor_key: str) -> AgentEntry | None:
        """Return the newest entry with that key, an Active one before any ended one."""
        ...

    def ended_before(self, instant: Instant, most: int | None) -> Iterable[AgentEntry]:
        """Return ended entries that may be stale and hold no claim, at most the first ``most``.

        That of a claim's holder is what tells how the claim ended; whoever removes it ends the
        claim with it.
        """
        ...

    def highest_fence(self, thread: str) -> int:
        """Return the greatest fence that any entry on a thread remembers; 0 where none does."""
        ...

    def claim(self, thread: str) -> Claim | None:
        """Return the thread's claim.

        :raises RegistryError: it is there and cannot be read.
        """
        ...

    def claims_naming(self, path: str) -> Iterable[Claim]:
        """Return every claim that names that folder.

        :raises RegistryError: one that does, or may, is there and cannot be read.
        """
        ...

    def claims_with_holder(self, session_id: str) -> Iterable[Claim]:
        """Return every claim that names the session as holder or past holder."""
        ...

    def held_claims(self) -> Iterable[Claim]:
        """Return every claim that names a holder."""
        ...

    def damage(self) -> tuple[Damage, ...]:
        """Return the records that cannot be read."""
        ...


class _Selection:
    def __init__(self, records: Records) -> None:
        self._records = records
        self.entries: dict[str, AgentEntry] = {}
        self.claims: dict[str, Claim] = {}
        self.damaged: dict[str, RegistryError] = {}
        self.fences: dict[str, int] = {}

    def add_entry(self, entry: AgentEntry | None) -> None:
        # With its ancestors: who is whose child decides who blocks whom.
        while entry is not None and entry.session_id not in self.entries:
            self.entries[entry.session_id] = entry
            key = entry.native_parent_actor_key
            entry = self._records.newest_with_actor(key) if key is not None else None

    def add_claim(self, claim: Claim) -> None:
        self.claims[claim.thread] = claim
        if claim.holder is not None:
            # An unreadable holder counts as missing; the damage itself refuses the thread.
            with suppress(RegistryError):
                self.add_entry(self._records.entry(claim.holder.session_id))

    def add_claim_on(self, thread: str) -> None:
        if thread in self.claims or thread in self.damaged:
            return
        try:
            claim = self._records.claim(thread)
        except RegistryError as error:
            self.damaged[thread] = error
            return
        if claim is not None:
            self.add_claim(claim)

    def stand_in_for(self, thread: str) -> None:
        # Where the claim file is missing, what the entries remember of it stands for it.
        if thread in self.claims or thread in self.damaged or thread in self.fences:
            return
        self.fences[thread] = self._records.highest_fence(thread)
        if self.fences[thread]:
            for entry in self._records.active_on(thread):
                if entry.fence is not None:
                    self.add_entry(entry)


def select(keys: Keys, records: Records, now: Instant, line: tuple[str, ...] = ()) -> Loaded:
    """Return what ``keys`` name among ``records``.

    :raises RegistryError: the entry of one of the sessions is there and cannot be read.
    """
    selection = _Selection(records)
    unreadable: set[str] = set()
    for session_id in keys.sessions:
        try:
            entry = records.entry(session_id)
        except RegistryError:
            if not keys.spares_unreadable:
                raise
            unreadable.add(session_id)
            continue
        if entry is None:
            for claim in records.claims_with_holder(session_id):
                selection.add_claim(claim)
            continue
        selection.add_entry(entry)
        selection.add_claim_on(entry.thread)
        selection.stand_in_for(entry.thread)
    for thread in keys.threads:
        selection.add_claim_on(thread)
        selection.stand_in_for(thread)
        for entry in records.active_on(thread):
            selection.add_entry(entry)
    unread_folders: dict[str, RegistryError] = {}
    paths = {keys.path}
    if keys.sessions:
        paths |= {claim.path for claim in selection.claims.values()}
    for path in sorted(path for path in paths if path is not None):
        try:
            naming = records.claims_naming(path)
        except RegistryError as error:
            unread_folders[path] = error
            continue
        for claim in naming:
            selection.add_claim(claim)
    for actor in keys.actors:
        selection.add_entry(records.newest_with_actor(actor))
    for field, value in keys.lookups:
        for entry in records.active_with(field, value):
            selection.add_entry(entry)
            selection.add_claim_on(entry.thread)
    if keys.all_active:
        for entry in records.active():
            selection.add_entry(entry)
        for thread in sorted({entry.thread for entry in selection.entries.values()}):
            selection.add_claim_on(thread)
    if keys.all_held:
        for claim in records.held_claims():
            selection.add_claim(claim)
    stale: tuple[str, ...] = ()
    if keys.stale or keys.all_stale:
        most = None if keys.all_stale else MAX_SWEEP
        stale = tuple(
            entry.session_id for entry in records.ended_before(now, most) if is_stale(entry, now.at)
        )[:most]
    else:
        stale = tuple(
            session_id
            for session_id in keys.sessions
            if session_id in selection.entries and is_stale(selection.entries[session_id], now.at)
        )
    return Loaded(
        # A heartbeat writes the claim alone; whoever rewrites the entry writes it there too.
        entries={
            session_id: with_heartbeat(entry, selection.claims.get(entry.thread))
            for session_id, entry in selection.entries.items()
        },
        claims=selection.claims,
        damaged_claims=selection.damaged,
        unread_folders=unread_folders,
        fences=selection.fences,
        damage=records.damage() if keys.threads or keys.all_active else (),
        unreadable=frozenset(unreadable),
        used_ids=frozenset(filter(records.is_used, keys.fresh_ids)),
        stale_ids=stale,
        line=line,
    )
