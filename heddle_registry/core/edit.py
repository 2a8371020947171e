"""The doors that change an entry without asking for its claim: create, save, update, delete.

Each goes through the life-cycle table, and none can grant a claim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.claim import Claim, EndCause
from heddle_registry.core.entry import AgentEntry, EntryExtension, check_entry
from heddle_registry.core.lifecycle import EVENT_OF_STATUS, AgentStatus, EntryEvent, apply_event
from heddle_registry.core.limits import MAX_KEPT_QUERIES
from heddle_registry.core.release import end_entry
from heddle_registry.core.standing import Witness, entry_verdict, is_orphan
from heddle_registry.core.transaction import (
    Decision,
    Effect,
    IdTaken,
    KeepQueries,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.core.tree import ancestor_nodes, entries_by_actor
from heddle_registry.errors import RegistryError, UnknownEntry, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from heddle_registry.core.entry import ContextQueryEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded

_FIXED: Final = ("session_id", "thread", "started_at", "completed_at", "reservation_token")
_GRANTED: Final = ("owner", "fence", "ttl_s", "token", "runner_pid", "schema")
"""What only a reservation or attaching may write into our table."""


def _keep_granted(changed: AgentEntry, stored: AgentEntry | None) -> AgentEntry:
    if changed.extension is None and (stored is None or stored.extension is None):
        return changed
    kept = (stored.extension if stored is not None else None) or EntryExtension()
    return changed.extended(**{name: getattr(kept, name) for name in _GRANTED})


def _with_ancestors(entry: AgentEntry, loaded: Loaded) -> AgentEntry:
    # Its parents may be pruned long before it ends; it keeps what the tree needs of them.
    key = entry.native_parent_actor_key
    if key is None or (entry.extension is not None and entry.extension.ancestors):
        return entry
    parent = entries_by_actor(loaded.entries.values()).get(key)
    if parent is None or parent.session_id == entry.session_id:
        return entry
    return entry.extended(ancestors=ancestor_nodes(parent, loaded.entries))


def _check_change(stored: AgentEntry, changed: AgentEntry, claim: Claim | None) -> None:
    fixed = list(_FIXED)
    if (
        claim is not None
        and claim.path is not None
        and claim.holder is not None
        and claim.holder.session_id == stored.session_id
    ):
        fixed.append("path")
    if not isinstance(changed, AgentEntry):
        raise UsageError(
            f"change() answered {type(changed).__name__}, not an AgentEntry",
            "Return attrs.evolve(entry, ...)",
        )
    touched = [name for name in fixed if getattr(changed, name) != getattr(stored, name)]
    if touched:
        raise UsageError(
            f"{', '.join(touched)} of entry {stored.session_id} cannot be changed",
            "Use update_status or release to end it, reserve to get another branch",
        )


def decide_create(entry: AgentEntry, loaded: Loaded) -> Decision[AgentEntry | IdTaken]:
    """Write a new entry: presence, never a claim."""
    if entry.session_id in loaded.used_ids:
        return Decision(answer=IdTaken(entry.session_id))
    try:
        new = check_entry(_with_ancestors(_keep_granted(entry, None), loaded))
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=new, effects=(PutEntry(new),))


def decide_attach(entry: AgentEntry, loaded: Loaded) -> Decision[AgentEntry | IdTaken]:
    """Write a new entry whose owner was seen at this moment: presence, never a claim."""
    if entry.session_id in loaded.used_ids:
        return Decision(answer=IdTaken(entry.session_id))
    owner = entry.extension.owner if entry.extension is not None else None
    try:
        granted = _keep_granted(entry, None).extended(owner=owner)
        new = check_entry(_with_ancestors(granted, loaded))
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=new, effects=(PutEntry(new),))


def decide_save(entry: AgentEntry, loaded: Loaded, now: Instant) -> Decision[AgentEntry]:
    """Write ``entry`` as it is, as far as the table and the claim allow.

    Unknown: it is created, ended or not. Known: a change of status goes through the table; the
    other fields are those of an update.
    """
    stored = loaded.entries.get(entry.session_id)
    try:
        if stored is None:
            ended_at = entry.completed_at if entry.is_active else entry.completed_at or now.at
            granted = _keep_granted(attrs.evolve(entry, completed_at=ended_at), None)
            new = check_entry(_with_ancestors(granted, loaded))
            return Decision(answer=new, effects=(PutEntry(new),))
        claim = loaded.claim_on(stored.thread, now)
        if entry.status is stored.status:
            if entry == stored:
                return Decision(answer=stored)
            apply_event(stored, EntryEvent.PROGRESS, now.at)
            _check_change(stored, entry, claim)
            kept = check_entry(_keep_granted(entry, stored))
            return Decision(answer=kept, effects=(PutEntry(kept),))
        event = EVENT_OF_STATUS[entry.status]
        as_running = attrs.evolve(entry, status=stored.status, completed_at=stored.completed_at)
        _check_change(stored, as_running, claim)
        kept = _keep_granted(as_running, stored)
        if stored.completed_at is None and entry.completed_at is not None:
            kept = attrs.evolve(kept, completed_at=entry.completed_at)
        ended, effects, freed = end_entry(kept, event, claim, now)
        check_entry(ended)
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=ended, effects=effects, freed=freed)


def decide_update(
    session_id: str,
    change: Callable[[AgentEntry], AgentEntry],
    loaded: Loaded,
    now: Instant,
) -> Decision[AgentEntry]:
    """Write what ``change`` makes of a running entry.

    ``session_id``, ``thread``, ``status``, ``started_at``, ``completed_at``, the token and the
    folder of a claim are not to be changed here; a changed native actor key gives no right to
    the claim.
    """
    stored = loaded.entries.get(session_id)
    if stored is None:
        return Decision(refusal=UnknownEntry(session_id))
    try:
        claim = loaded.claim_on(stored.thread, now)
        apply_event(stored, EntryEvent.PROGRESS, now.at)
        changed = change(stored)
        _check_change(stored, changed, claim)
        if changed.status is not stored.status:
            raise UsageError(
                f"the status of entry {session_id} cannot be changed by update_entry",
                "Use update_status or release",
            )
        kept = check_entry(_keep_granted(changed, stored))
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=kept, effects=() if kept == stored else (PutEntry(kept),))


def decide_status(
    session_id: str, status: AgentStatus, loaded: Loaded, now: Instant
) -> Decision[AgentEntry]:
    """Bring an entry to ``status`` through the table; ends its claim where it ends the entry."""
    entry = loaded.entries.get(session_id)
    if entry is None:
        return Decision(refusal=UnknownEntry(session_id))
    try:
        claim = loaded.claim_on(entry.thread, now)
        ended, effects, freed = end_entry(entry, EVENT_OF_STATUS[status], claim, now)
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=ended, effects=effects, freed=freed)


def decide_delete(session_id: str, loaded: Loaded, now: Instant) -> Decision[None]:
    """Remove an entry. Its claim ends first, so that a crash leaves an orphan, not a lost claim."""
    entry = loaded.entries.get(session_id)
    if entry is None:
        return Decision(refusal=UnknownEntry(session_id))
    try:
        claim = loaded.claim_on(entry.thread, now)
    except RegistryError as error:
        return Decision(refusal=error)
    effects: list[Effect] = []
    if claim.holder is not None and claim.holder.session_id == session_id:
        effects.append(PutClaim(claim.ended(EndCause.DELETED, now.at)))
    effects.append(RemoveEntry(session_id))
    return Decision(effects=tuple(effects), freed=(entry.thread,))


def decide_log_query(session_id: str, query: ContextQueryEntry, loaded: Loaded) -> Decision[bool]:
    """Append to a running entry's log; answer whether it was logged.

    The newest 100 stay in the entry, so that an append costs the same however many there were.
    """
    entry = loaded.entries.get(session_id)
    if entry is None:
        return Decision(refusal=UnknownEntry(session_id))
    if not entry.is_active:
        return Decision(answer=False)
    queries = (*entry.context_queries, query)
    effects: list[Effect] = []
    if len(queries) > MAX_KEPT_QUERIES:
        effects.append(KeepQueries(session_id, queries[:-MAX_KEPT_QUERIES]))
        queries = queries[-MAX_KEPT_QUERIES:]
    try:
        changed = check_entry(attrs.evolve(entry, context_queries=queries))
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=True, effects=(*effects, PutEntry(changed)))


def decide_find_or_create(
    matches: Callable[[AgentEntry], bool],
    update: Callable[[AgentEntry], AgentEntry],
    new_entry: AgentEntry,
    loaded: Loaded,
    now: Instant,
    facts: Facts,
) -> Decision[tuple[AgentEntry, bool] | IdTaken] | NeedFacts:
    """Reuse the newest matching entry that is not dead, else create ``new_entry``."""
    witness = Witness(facts)
    active = sorted(
        (entry for entry in loaded.entries.values() if entry.is_active and matches(entry)),
        key=lambda entry: (entry.started_at.sort_key, entry.session_id),
        reverse=True,
    )
    for entry in active:
        claim = loaded.claims.get(entry.thread)
        if claim is not None and is_orphan(entry, claim):
            continue
        verdict = entry_verdict(entry, claim, witness, now)
        missing = witness.missing()
        if missing is not None:
            return missing
        if verdict.is_dead:
            continue
        updated = decide_update(entry.session_id, update, loaded, now)
        if updated.refusal is not None or updated.answer is None:
            return Decision(refusal=updated.refusal)
        return Decision(answer=(updated.answer, False), effects=updated.effects)
    created = decide_create(new_entry, loaded)
    if isinstance(created.answer, IdTaken):
        return Decision(answer=created.answer)
    if created.refusal is not None or created.answer is None:
        return Decision(refusal=created.refusal)
    return Decision(answer=(created.answer, True), effects=created.effects)
