"""Records in plain mappings: a store in memory, or the outcome of a full scan."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.lifecycle import is_stale
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Damage
    from heddle_registry.errors import RegistryError


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RecordMaps(Record):
    """`core.selection.Records` over plain mappings."""

    entries: Mapping[str, AgentEntry]
    claims: Mapping[str, Claim]
    damaged_claims: Mapping[str, RegistryError] = attrs.field(factory=dict)
    damaged: tuple[Damage, ...] = ()
    damaged_entries: Mapping[str, RegistryError] = attrs.field(factory=dict)
    """By session id: something unreadable has that name."""

    def entry(self, session_id: str) -> AgentEntry | None:
        """See `core.selection.Records`."""
        error = self.damaged_entries.get(session_id)
        if error is not None:
            raise error
        return self.entries.get(session_id)

    def is_used(self, session_id: str) -> bool:
        """See `core.selection.Records`."""
        return session_id in self.entries or session_id in self.damaged_entries

    def active_on(self, thread: str) -> Iterable[AgentEntry]:
        """See `core.selection.Records`."""
        return [entry for entry in self.active() if entry.thread == thread]

    def active(self) -> Iterable[AgentEntry]:
        """See `core.selection.Records`."""
        return [entry for entry in self.entries.values() if entry.is_active]

    def active_with(self, field: str, value: str) -> Iterable[AgentEntry]:
        """See `core.selection.Records`; a path only as it is written."""
        return [entry for entry in self.active() if getattr(entry, field) == value]

    def newest_with_actor(self, native_actor_key: str) -> AgentEntry | None:
        """See `core.selection.Records`."""
        with_key = [e for e in self.entries.values() if e.native_actor_key == native_actor_key]
        return max(
            with_key,
            key=lambda entry: (entry.is_active, entry.started_at.sort_key, entry.session_id),
            default=None,
        )

    def ended_before(self, instant: Instant, most: int | None) -> Iterable[AgentEntry]:
        """See `core.selection.Records`."""
        holders = {claim.holder.session_id for claim in self.held_claims() if claim.holder}
        stale = [
            entry
            for entry in self.entries.values()
            if is_stale(entry, instant.at) and entry.session_id not in holders
        ]
        if most is None or len(stale) <= most:
            return stale
        return sorted(stale, key=_end)[:most]

    def highest_fence(self, thread: str) -> int:
        """See `core.selection.Records`."""
        return max((e.fence or 0 for e in self.entries.values() if e.thread == thread), default=0)

    def claim(self, thread: str) -> Claim | None:
        """See `core.selection.Records`."""
        error = self.damaged_claims.get(thread)
        if error is not None:
            raise error
        return self.claims.get(thread)

    def claims_naming(self, path: str) -> Iterable[Claim]:
        """See `core.selection.Records`."""
        return [claim for claim in self.claims.values() if claim.path == path]

    def claims_with_holder(self, session_id: str) -> Iterable[Claim]:
        """See `core.selection.Records`."""
        return [
            claim
            for claim in self.claims.values()
            if (claim.holder is not None and claim.holder.session_id == session_id)
            or any(past.session_id == session_id for past in claim.past)
        ]

    def held_claims(self) -> Iterable[Claim]:
        """See `core.selection.Records`."""
        return [claim for claim in self.claims.values() if claim.holder is not None]

    def damage(self) -> tuple[Damage, ...]:
        """See `core.selection.Records`."""
        return self.damaged


def _end(entry: AgentEntry) -> tuple[int, str]:
    return ((entry.completed_at or entry.started_at).unix_ns, entry.session_id)
