"""Records as a decision asks for them: by name from their files, in sets by the index or a scan."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import attrs

from heddle_registry.adapters.folders import (
    Folders,
    claim_file_error,
    claim_in,
    damage_of,
    entry_file_error,
    hides_a_claim,
    problem_of,
)
from heddle_registry.core.lifecycle import STALE_AFTER, is_stale
from heddle_registry.errors import RegistryError
from heddle_registry.ports.query import is_same_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from heddle_registry.adapters.index import Index, Stamps
    from heddle_registry.adapters.layout import Layout
    from heddle_registry.adapters.record_files import RecordFile, Stamp
    from heddle_registry.adapters.snapshot import Snapshot
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Damage
    from heddle_registry.ports.findings import Problem
    from heddle_registry.ports.query import Query

_STALE_NS = int(STALE_AFTER.total_seconds()) * 1_000_000_000
_KEYS = (
    "thread", "native_actor_key", "native_parent_actor_key", "native_instance_key",
    "client_instance_id", "heddle_session_id",
)  # fmt: skip


_ENDED_UNHELD = (
    "ended_ns <= ? AND NOT EXISTS (SELECT 1 FROM claims WHERE holder = entries.session_id)"
)
T = TypeVar("T")


class Seen(NamedTuple):
    """The stamps of all entries' files, looked at while the folders bore these stamps."""

    stamps: Stamps
    files: Mapping[str, Stamp]


class Moved(Exception):
    """The folders changed between two look-ups; begin again."""


class FoundRecords:
    """`core.selection.Records` over one folder, for the length of one selection.

    Look-ups by id or thread read that one file, whatever the index says. The first look-up of a
    set calls ``trust``, which says of which moment the index speaks; where it says None,
    everything is scanned, once. ``seen`` spares another look at files that the caller has just
    looked at.
    """

    def __init__(
        self,
        layout: Layout,
        folders: Folders,
        index: Index,
        trust: Callable[[], Stamps | None],
        seen: Seen | None = None,
    ) -> None:
        self._layout = layout
        self._folders = folders
        self._index = index
        self._trust: Callable[[], Stamps | None] | None = trust
        self._trusted: Stamps | None = None
        self._seen = seen
        self._snapshot: Snapshot | None = None
        self._damage: tuple[Damage, ...] | None = None
        self._spoilt: dict[str, Damage] = {}
        self._bad_claims: dict[str, Problem] = {}

    def snapshot(self) -> Snapshot:
        """Scan both folders, once."""
        if self._snapshot is None:
            from heddle_registry.adapters.snapshot import take_snapshot

            self._snapshot = take_snapshot(self._folders)
        return self._snapshot

    @property
    def _stamps(self) -> Stamps | None:
        if self._trust is not None:
            self._trusted, self._trust = self._trust(), None
        return self._trusted

    @property
    def is_ordered(self) -> bool:
        """Whether `matching` answers newest first."""
        return self._stamps is not None

    # -- one file ----------------------------------------------------------------------------

    def entry(self, session_id: str) -> AgentEntry | None:
        """See `Records`."""
        file = self._folders.agents.one(self._layout.entry_name(session_id))
        if file is None:
            return None
        error = entry_file_error(file)
        if error is not None:
            raise error
        return file.record

    def is_used(self, session_id: str) -> bool:
        """See `Records`."""
        path = os.path.join(self._layout.agents, self._layout.entry_name(session_id))
        return os.path.lexists(path)

    def claim(self, thread: str) -> Claim | None:
        """See `Records`."""
        file = self._claim_file(self._layout.claim_name(thread))
        if file is None:
            return None
        error = claim_file_error(file)
        if error is not None:
            raise error
        return file.record

    def _claim_file(self, name: str) -> RecordFile[Claim] | None:
        # One that is no record is remembered: the index may not know yet that it became so.
        file = self._folders.claims.one(name)
        error = claim_file_error(file) if file is not None else None
        if file is not None and error is not None:
            thread = file.record.thread if file.record is not None else None
            self._bad_claims[name] = problem_of(file.path, error, thread, is_claim=True)
        return file

    # -- sets --------------------------------------------------------------------------------

    def active_on(self, thread: str) -> Iterable[AgentEntry]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.active_on(thread)
        found = self._entries(self._stamps, "thread = ? AND status = 'active'", (thread,))
        return [entry for entry in found if entry.is_active and entry.thread == thread]

    def active(self) -> Iterable[AgentEntry]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.active()
        return [
            entry for entry in self._entries(self._stamps, "status = 'active'") if entry.is_active
        ]

    def active_with(self, field: str, value: str) -> Iterable[AgentEntry]:
        """See `Records`."""
        if self._stamps is None:
            found = self.snapshot().records.active()
        else:
            column = "real_path" if field == "path" else field
            found = self._entries(self._stamps, f"{column} = ? AND +status = 'active'", (value,))
        return [
            entry
            for entry in found
            if entry.is_active
            and (
                is_same_folder(entry.path, value)
                if field == "path"
                else getattr(entry, field) == value
            )
        ]

    def newest_with_actor(self, native_actor_key: str) -> AgentEntry | None:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.newest_with_actor(native_actor_key)
        found = [
            entry
            for entry in self._entries(self._stamps, "native_actor_key = ?", (native_actor_key,))
            if entry.native_actor_key == native_actor_key
        ]
        return max(
            found,
            key=lambda entry: (entry.is_active, entry.started_at.sort_key, entry.session_id),
            default=None,
        )

    def ended_before(self, instant: Instant, most: int | None) -> Iterable[AgentEntry]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.ended_before(instant, most)
        return self._entries(self._stamps, _ENDED_UNHELD, (instant.at.unix_ns - _STALE_NS,), most)

    def highest_fence(self, thread: str) -> int:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.highest_fence(thread)
        return _of_that_moment(self._index.highest_fence(self._stamps, thread))

    def claims_naming(self, path: str) -> Iterable[Claim]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.claims_naming(path)
        naming = self._index.names(self._stamps, "claims", "path = ?", (path,))
        others = self._index.names_of_no_records(self._stamps, "claims")
        for name in {*_of_that_moment(naming), *_of_that_moment(others)}:
            file = self._claim_file(name)
            if file is not None and file.error is not None and hides_a_claim(file):
                raise file.error
        return [claim for claim in self._claims_in(naming) if claim.path == path]

    def claims_with_holder(self, session_id: str) -> Iterable[Claim]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.claims_with_holder(session_id)
        names = self._index.claim_names_of(self._stamps, session_id)
        return self._claims_in(names)

    def damage(self) -> tuple[Damage, ...]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.damaged
        if self._damage is None:
            found = [(file, entry_file_error(file)) for file in self._bad(self._stamps)]
            if not all(error for _, error in found):
                raise Moved  # mended in place: no row says yet what it is
            self._damage = tuple(damage_of(file, error) for file, error in found if error)
        return (*self._damage, *self._spoilt.values())

    def _bad(self, stamps: Stamps) -> Iterable[RecordFile[AgentEntry]]:
        # Of those that became so since, `_spoilt` tells more.
        names = _of_that_moment(self._index.names_of_no_records(stamps, "entries"))
        files = map(self._folders.agents.one, names)
        return [file for file in files if file is not None and file.name not in self._spoilt]

    def problems(self) -> tuple[Problem, ...]:
        """Return every file that is no record."""
        if self._stamps is None:
            return self.snapshot().problems
        found = [problem_of(damage.path, damage.error, damage.thread) for damage in self.damage()]
        for name in _of_that_moment(self._index.names_of_no_records(self._stamps, "claims")):
            self._claim_file(name)
        return (*found, *self._bad_claims.values())

    def matching(self, query: Query, now: Instant) -> list[AgentEntry]:
        """Return at least the entries that ``query`` looks for, newest first."""
        if self._stamps is None:
            entries = self.snapshot().records.entries.values()
            return [
                entry for entry in entries if query.include_stale or not is_stale(entry, now.at)
            ]
        where: list[str] = ["is_record = 1"]
        arguments: list[Any] = []
        for name in _KEYS:
            value = getattr(query, name)
            if value is not None:
                where.append(f"{name} = ?")
                arguments.append(value)
        if query.path is not None:
            where.append("real_path = ?")
            arguments.append(query.path)
        if query.owner_pids is not None:
            # An owner counts only where its pid is the entry's.
            for column in ("pid", "owner_pid") if query.records_owner else ("pid",):
                where.append(f"{column} IN ({', '.join('?' * len(query.owner_pids))})")
                arguments += query.owner_pids
        elif query.records_owner:
            where.append("owner_pid IS NOT NULL")
        if query.active_only:
            # By the index on the key, where there is one: most entries may be Active.
            where.append("+status = 'active'" if arguments else "status = 'active'")
        found = self._entries(self._stamps, " AND ".join(where), arguments)
        if query.include_stale or query.active_only:
            return found
        return [entry for entry in found if entry.is_active or not is_stale(entry, now.at)]

    def held_claims(self) -> Iterable[Claim]:
        """See `Records`."""
        if self._stamps is None:
            return self.snapshot().records.held_claims()
        return [
            claim
            for claim in self._claims(self._stamps, "holder IS NOT NULL")
            if claim.holder is not None
        ]

    def _entries(
        self, stamps: Stamps, where: str, arguments: Sequence[Any] = (), most: int | None = None
    ) -> list[AgentEntry]:
        asked = (where, tuple(arguments), most)
        files = self._folders.agents
        kept = self._index.kept(stamps, asked)
        if kept is not None:
            good = self._sound(
                files.verified(kept), lambda: {file.name: file.record.thread for file in kept}
            )
        else:
            rows = _of_that_moment(self._index.entry_rows(stamps, where, arguments, most))
            seen = self._seen
            at_hand = seen.files if seen is not None and seen.stamps == stamps else None
            found = files.resolve(rows, self._index.tick_ns, at_hand)
            good = self._sound(found, lambda: {row.name: row.thread for row in rows})
            if not self._spoilt:  # or the next answer from memory would leave it out in silence
                self._index.keep(stamps, asked, good)
        return [file.record for file in good if file.record is not None]

    def _sound(
        self,
        files: list[RecordFile[AgentEntry]],
        threads: Callable[[], Mapping[str, str | None]],
    ) -> list[RecordFile[AgentEntry]]:
        # A file that was a record when the index was made, and is none any more: the index still
        # knows which branch it speaks of, and a decision on that one must not go on without it.
        good = []
        for file in files:
            error = None if file.is_sound else entry_file_error(file)
            if error is None:
                file.is_sound = True
                good.append(file)
                continue
            damage = damage_of(file, error)
            if damage.thread is None:
                damage = attrs.evolve(damage, thread=threads().get(file.name), may_be_any=False)
            self._spoilt[file.name] = damage
        return good

    def _claims(self, stamps: Stamps, where: str, arguments: Sequence[Any] = ()) -> list[Claim]:
        return self._claims_in(self._index.names(stamps, "claims", where, arguments))

    def _claims_in(self, names: list[str] | None) -> list[Claim]:
        files = filter(None, map(self._claim_file, _of_that_moment(names)))
        return [claim for claim in map(claim_in, files) if claim is not None]


def _of_that_moment(answer: T | None) -> T:
    # The index has none where it no longer speaks of the moment it was asked about.
    if answer is None:
        raise Moved
    return answer


def unreadable_claims(records: FoundRecords, threads: Iterable[str]) -> dict[str, RegistryError]:
    """Return the claims of ``threads`` that are there and cannot be relied on."""
    found: dict[str, RegistryError] = {}
    for thread in threads:
        try:
            records.claim(thread)
        except RegistryError as error:
            found[thread] = error
    return found
