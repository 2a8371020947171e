"""Who is here: one entry with all that is known of it, or everybody, each with the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.limits import check_session_id
from heddle_registry.core.record import Record
from heddle_registry.core.transaction import Keys
from heddle_registry.errors import UnknownEntry

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import ActorChainNode, AgentEntry
    from heddle_registry.core.evidence import Verdict
    from heddle_registry.core.standing import Standing
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.ports.findings import Problem
    from heddle_registry.ports.query import Query
    from heddle_registry.registry import AgentRegistry
    from heddle_registry.registry.transactions import Looks


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EntryStory(Record):
    """One entry: its verdict, its claim if it holds one, its ancestry, its attach trace."""

    entry: AgentEntry
    verdict: Verdict
    claim: Claim | None
    standing: Standing | None
    chain: tuple[ActorChainNode, ...]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SeenEntry(Record):
    """One row of a listing."""

    entry: AgentEntry
    verdict: Verdict
    standing: Standing | None
    """How its thread's claim stands, where this entry holds it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Overview(Record):
    """Everybody, newest first, and the files that are no records."""

    entries: tuple[SeenEntry, ...]
    problems: tuple[Problem, ...]
    now: Instant


def why_entry(registry: AgentRegistry, session_id: str) -> EntryStory:
    """Return all that is known of one entry, a stale one that nobody pruned yet among them.

    :raises UnknownEntry: there is none.
    """
    from heddle_registry.core.tree import actor_chain, entries_by_actor

    check_session_id(session_id)
    loaded, now = registry.store.peek(Keys(sessions=(session_id,)))  # its ancestors too
    entry = loaded.entries.get(session_id)
    if entry is None:
        raise UnknownEntry(session_id)
    claim = loaded.claims.get(entry.thread)
    seen = _seen(registry, entry, claim, now, {})
    return EntryStory(
        entry=entry,
        verdict=seen.verdict,
        claim=claim,
        standing=seen.standing,
        chain=actor_chain(session_id, loaded.entries, entries_by_actor(loaded.entries.values())),
    )


def _seen(
    registry: AgentRegistry, entry: AgentEntry, claim: Claim | None, now: Instant, looks: Looks
) -> SeenEntry:
    if claim is None or claim.holder is None or claim.holder.session_id != entry.session_id:
        verdict = registry.verdict_on(entry, claim, now, looks=looks)
        return SeenEntry(entry=entry, verdict=verdict, standing=None)
    standing = registry.standing_of(claim, (entry,), now)
    verdict = (
        standing.verdict if entry.is_active else registry.verdict_on(entry, claim, now, looks=looks)
    )
    return SeenEntry(entry=entry, verdict=verdict, standing=standing)


def overview(
    registry: AgentRegistry,
    query: Query | None = None,
    is_wanted: Callable[[AgentEntry], bool] = lambda _: True,
) -> Overview:
    """Return everybody that ``query`` finds and ``is_wanted``, each with its verdict and claim."""
    look = registry.look(query)
    looks: Looks = {}
    return Overview(
        entries=tuple(
            _seen(registry, entry, look.claims.get(entry.thread), look.now, looks)
            for entry in look.entries
            if is_wanted(entry)
        ),
        problems=look.problems,
        now=look.now,
    )
