"""The life of an entry.

Rule 1: every status change is a look-up in `TRANSITIONS`; a missing pair is refused.
Rule 2: nothing leads back to Active, and the first ``completed_at`` stays.
Rule 3: this file has no clock, no pid and no path, and does not know who is asking.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.errors import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Timestamp


class AgentStatus(StrEnum):
    """Where an entry is in its life. The values are the file's words."""

    ACTIVE = "active"
    ABANDONED = "abandoned"
    COMPLETE = "complete"
    MERGED = "merged"


class EntryEvent(StrEnum):
    """What can happen to an entry."""

    PROGRESS = "update"
    """Anything that leaves it running: progress, a context query, usage, metadata."""
    COMPLETE = "complete"
    MERGE = "merge"
    ABANDON = "abandon"


TRANSITIONS: Final[Mapping[AgentStatus, Mapping[EntryEvent, AgentStatus]]] = MappingProxyType(
    {
        AgentStatus.ACTIVE: {
            EntryEvent.PROGRESS: AgentStatus.ACTIVE,
            EntryEvent.COMPLETE: AgentStatus.COMPLETE,
            EntryEvent.MERGE: AgentStatus.MERGED,
            EntryEvent.ABANDON: AgentStatus.ABANDONED,
        },
        AgentStatus.COMPLETE: {
            EntryEvent.COMPLETE: AgentStatus.COMPLETE,
            EntryEvent.MERGE: AgentStatus.MERGED,
        },
        AgentStatus.MERGED: {EntryEvent.MERGE: AgentStatus.MERGED},
        AgentStatus.ABANDONED: {EntryEvent.ABANDON: AgentStatus.ABANDONED},
    },
)

EVENT_OF_STATUS: Final[Mapping[AgentStatus, EntryEvent]] = MappingProxyType(
    {
        AgentStatus.ACTIVE: EntryEvent.PROGRESS,
        AgentStatus.COMPLETE: EntryEvent.COMPLETE,
        AgentStatus.MERGED: EntryEvent.MERGE,
        AgentStatus.ABANDONED: EntryEvent.ABANDON,
    },
)
"""The event by which ``update_status`` asks for a status."""

STALE_AFTER: Final = timedelta(days=7)
"""How long an ended entry is kept (the original's ``STALE_AGENT_TTL_DAYS``)."""


def next_status(status: AgentStatus, event: EntryEvent) -> AgentStatus:
    """Return the status after ``event``.

    :raises IllegalTransition: the table has no such pair.
    """
    following = TRANSITIONS[status].get(event)
    if following is None:
        raise IllegalTransition(status.value, event.value)
    return following


def apply_event(entry: AgentEntry, event: EntryEvent, at: Timestamp) -> AgentEntry:
    """Return ``entry`` after ``event`` at the instant ``at``.

    ``completed_at`` is set by the first event that ends the entry and stays as it is afterwards.

    :raises IllegalTransition: the table has no such pair; names the entry.
    """
    try:
        status = next_status(entry.status, event)
    except IllegalTransition as refused:
        raise IllegalTransition(refused.status, refused.event, entry.session_id) from None
    if status is AgentStatus.ACTIVE:
        return entry
    return attrs.evolve(entry, status=status, completed_at=entry.completed_at or at)


def is_stale(entry: AgentEntry, at: Timestamp) -> bool:
    """Return whether ``entry`` ended 7 days ago or earlier and may be pruned.

    An ended entry without ``completed_at`` (the original could write one) counts from its start.
    """
    if entry.status is AgentStatus.ACTIVE:
        return False
    ended_at = entry.completed_at or entry.started_at
    return ended_at.unix_ns <= at.unix_ns - int(STALE_AFTER.total_seconds()) * 1_000_000_000
