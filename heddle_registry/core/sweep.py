"""Reaping on proof of death, and pruning what is stale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from heddle_registry.core.claim import ClaimState, EndCause, was_ended_by_us
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.evidence import VerdictKind
from heddle_registry.core.lifecycle import EntryEvent, apply_event
from heddle_registry.core.record import Record
from heddle_registry.core.standing import Witness, is_orphan, stand
from heddle_registry.core.transaction import (
    Decision,
    Effect,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.errors import RegistryError

if TYPE_CHECKING:
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded


NEWER_SCHEMA: Final = "newer_schema"
"""Why a dead entry is kept: a newer program wrote it, and only that one rewrites it."""


def _is_newer(entry: AgentEntry) -> bool:
    return entry.extension is not None and entry.extension.schema > SCHEMA


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Swept(Record):
    """What a sweep did and left. ``kept`` are Active entries, neither proven alive nor reaped."""

    reaped: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    """Session id and evidence code."""
    ended_claims: tuple[str, ...] = ()
    """Branches whose claim named a holder that had ended already."""


def decide_sweep(
    session_ids: tuple[str, ...],
    loaded: Loaded,
    now: Instant,
    facts: Facts,
    *,
    end_expired: bool = False,
    only_thread: str | None = None,
) -> Decision[Swept] | NeedFacts:
    """Reap, on proof, which of ``session_ids`` are dead; prune which of them are stale.

    A living owner is never reaped, and neither is anyone of whom nothing is known. An orphan of
    a crash is abandoned; ``end_expired`` also ends holders whose TTL has passed. A claim that was
    lost and has nothing left behind it is ended too, and so is one whose release a crash cut
    short; until then the entry of its holder, which tells the one from the other, is not pruned.
    An entry that cannot be read is kept, and so is the claim of its session.
    """
    witness = Witness(facts)
    effects: list[Effect] = []
    reaped: list[str] = []
    kept = [(session_id, "entry_unreadable") for session_id in sorted(loaded.unreadable)]
    freed: list[str] = []
    for session_id in session_ids:
        entry = loaded.entries.get(session_id)
        if entry is None or not entry.is_active or (only_thread not in (None, entry.thread)):
            continue
        try:
            claim = loaded.claim_on(entry.thread, now)
        except RegistryError:
            kept.append((session_id, "claim_unreadable"))
            continue
        if claim.holder is None or claim.holder.session_id != session_id:
            verdict = witness.verdict(entry.subject())
            if (is_orphan(entry, claim) or verdict.is_dead) and _is_newer(entry):
                kept.append((session_id, NEWER_SCHEMA))
            elif is_orphan(entry, claim) or verdict.is_dead:
                effects.append(PutEntry(apply_event(entry, EntryEvent.ABANDON, now.at)))
                reaped.append(session_id)
                freed.append(entry.thread)
            elif verdict.kind is VerdictKind.UNKNOWN:
                kept.append((session_id, verdict.evidence[0].code))
            continue
        standing = stand(claim, loaded.entries, witness, now)
        cause = None
        if standing.state is ClaimState.NONE or (
            standing.verdict.is_dead and standing.state is ClaimState.EXPIRED
        ):
            cause = EndCause.DEAD
        elif standing.state is ClaimState.EXPIRED and end_expired:
            cause = EndCause.EXPIRED
        if cause is not None and _is_newer(entry):
            kept.append((session_id, NEWER_SCHEMA))
        elif cause is not None:
            reason = standing.verdict.evidence[0].detail if standing.verdict.evidence else ""
            abandoned = apply_event(entry, EntryEvent.ABANDON, now.at)
            effects.append(PutEntry(abandoned.extended(fence=claim.fence)))
            effects.append(PutClaim(claim.ended(cause, now.at, reason=reason)))
            reaped.append(session_id)
            freed.append(claim.thread)
        elif not standing.verdict.is_alive:
            kept.append((session_id, standing.verdict.evidence[0].code))
    ended_claims: list[str] = []
    for claim in _nothing_behind(session_ids, loaded, witness, now):
        effects.append(PutClaim(claim))
        ended_claims.append(claim.thread)
    missing = witness.missing()
    if missing is not None:
        return missing
    stale = _prunable(session_ids, loaded, effects)
    effects += [RemoveEntry(session_id) for session_id in stale]
    return Decision(
        answer=Swept(
            reaped=tuple(reaped),
            pruned=tuple(stale),
            kept=tuple(kept),
            ended_claims=tuple(ended_claims),
        ),
        effects=tuple(effects),
        freed=(*freed, *ended_claims),
    )


def _nothing_behind(
    session_ids: tuple[str, ...], loaded: Loaded, witness: Witness, now: Instant
) -> list[Claim]:
    # Claims of the sessions whose entry has ended or is gone, ended too.
    found: list[Claim] = []
    for claim in loaded.claims.values():
        if claim.holder is None or claim.holder.session_id not in session_ids:
            continue
        if claim.holder.session_id in loaded.unreadable:
            continue  # it has not ended for all that is known
        entry = loaded.entries.get(claim.holder.session_id)
        if entry is not None and entry.is_active:
            continue
        if stand(claim, loaded.entries, witness, now).state is ClaimState.NONE:
            # With our mark it is the first half of a release that a crash cut short.
            if entry is not None and was_ended_by_us(claim, entry):
                told = entry.status.value
                found.append(claim.ended(EndCause.RELEASED, now.at, reason=told))
            else:
                found.append(claim.ended(EndCause.LOST, now.at))
    return found


def _prunable(session_ids: tuple[str, ...], loaded: Loaded, effects: list[Effect]) -> list[str]:
    # Not the entry of a claim's holder, unless the claim ends here as well.
    ended = {effect.claim.thread for effect in effects if isinstance(effect, PutClaim)}
    holders = {
        claim.holder.session_id
        for claim in loaded.claims.values()
        if claim.holder is not None and claim.thread not in ended
    }
    return [
        session_id
        for session_id in loaded.stale_ids
        if session_id in session_ids and session_id not in holders
    ]
