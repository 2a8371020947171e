"""The ends of a claim that its bearer asks for: release, and handing over."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.claim import (
    ClaimEvent,
    ClaimState,
    EndCause,
    claim_step,
)
from heddle_registry.core.lifecycle import EntryEvent, apply_event
from heddle_registry.core.record import Record
from heddle_registry.core.renew import (
    bearer_refusal,
    claim_of_session,
    claim_refusal,
    entry_token_refusal,
    lost_claim_error,
)
from heddle_registry.core.reserve import Reserved, new_holder
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.token import token_matches
from heddle_registry.core.transaction import (
    Decision,
    Effect,
    IdTaken,
    NeedFacts,
    PutClaim,
    PutEntry,
)
from heddle_registry.errors import ClaimLost, RegistryError, UnknownEntry

if TYPE_CHECKING:
    from heddle_registry.core.claim import Claim
    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import LivenessFile, Owner
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.token import TokenHash
    from heddle_registry.core.transaction import Facts, Loaded


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Bearer(Record):
    """Somebody who shows a token. A door of the library that asks for none passes no bearer."""

    token: str | None


def end_entry(
    entry: AgentEntry, event: EntryEvent, claim: Claim | None, now: Instant, reason: str = ""
) -> tuple[AgentEntry, tuple[Effect, ...], tuple[str, ...]]:
    """Return the ended entry, what to write, and the threads it freed.

    Whatever ends a holder's entry ends its claim with it: the entry first, so that a crash
    between the two leaves an ended entry with our mark, which `claim_state` reads as released.

    :raises IllegalTransition: the entry's status does not allow the event.
    """
    ended = apply_event(entry, event, now.at)
    effects: list[Effect] = []
    freed: tuple[str, ...] = ()
    holds = (
        claim is not None
        and claim.holder is not None
        and claim.holder.session_id == entry.session_id
    )
    if ended != entry:
        if holds and claim is not None and entry.fence != claim.fence:
            # A program that knows no claims dropped our table; without the mark, a crash here
            # would look like that program's own doing.
            ended = ended.extended(fence=claim.fence)
        effects.append(PutEntry(ended))
        if entry.is_active and not ended.is_active:
            freed = (entry.thread,)  # it may have kept the branch by its presence alone
    if holds and claim is not None and not ended.is_active:
        told = reason or ended.status.value
        effects.append(PutClaim(claim.ended(EndCause.RELEASED, now.at, reason=told)))
        freed = (claim.thread,)
    return ended, tuple(effects), freed


def decide_release(
    session_id: str,
    event: EntryEvent,
    bearer: Bearer | None,
    loaded: Loaded,
    now: Instant,
) -> Decision[AgentEntry]:
    """End ``session_id`` by ``event``, and its claim with it.

    While it holds a claim, a bearer must show the token; an entry without a claim ends by the
    event alone (so a Complete one becomes Merged). Nobody looks at processes here: a claim that
    no one has taken is its bearer's to end, even after its owner's death.
    """
    try:
        entry, claim = claim_of_session(session_id, loaded, now)
    except RegistryError as error:
        return Decision(refusal=error)
    holds = claim is not None and claim.holder is not None and claim.holder.session_id == session_id
    if bearer is not None:
        refusal: RegistryError | None = None
        if claim is not None and (holds or (entry is not None and entry.is_active)):
            refusal = bearer_refusal(claim, session_id, bearer.token)
        elif entry is not None and entry.is_active:
            refusal = entry_token_refusal(entry, bearer.token)
        elif claim is not None and _was_taken(claim, session_id, bearer):
            # That it is abandoned says less than who took the branch, and why.
            refusal = bearer_refusal(claim, session_id, bearer.token)
        if refusal is not None:
            return Decision(refusal=refusal)
    if claim is not None and holds:
        standing = stand(claim, loaded.entries, Witness({}), now)
        if standing.state is ClaimState.LOST:
            ended = claim.ended(EndCause.LOST, now.at, reason="then released by its bearer")
            return Decision(
                effects=(PutClaim(ended),),
                refusal=lost_claim_error(standing),
                freed=(claim.thread,),
            )
    if entry is None:
        return Decision(refusal=UnknownEntry(session_id))
    try:
        ended_entry, effects, freed = end_entry(entry, event, claim if holds else None, now)
    except RegistryError as error:
        return Decision(refusal=error)
    return Decision(answer=ended_entry, effects=effects, freed=freed)


def _was_taken(claim: Claim, session_id: str, bearer: Bearer) -> bool:
    return any(
        past.session_id == session_id
        and past.cause not in (EndCause.RELEASED, EndCause.HANDED_OVER)
        and token_matches(bearer.token, past.token)
        for past in claim.past
    )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HandOverRequest(Record):
    """Give a claim to another process or to a TTL. ``new_id`` must be unused."""

    session_id: str
    bearer: str | None
    new_id: str
    token: TokenHash
    owner: Owner | None = None
    liveness: LivenessFile | None = None
    ttl_s: float | None = None


def decide_hand_over(
    request: HandOverRequest, loaded: Loaded, now: Instant, facts: Facts
) -> Decision[Reserved | IdTaken] | NeedFacts:
    """Make a new entry that continues the old one and holds its branch and folder."""
    if request.new_id in loaded.used_ids:
        return Decision(answer=IdTaken(request.new_id))
    try:
        entry, claim = claim_of_session(request.session_id, loaded, now)
    except RegistryError as error:
        return Decision(refusal=error)
    if claim is None:
        refusal: RegistryError = UnknownEntry(request.session_id)
        if entry is not None:
            refusal = ClaimLost(entry.thread, why=f"{entry.session_id} holds no claim")
        return Decision(refusal=refusal)
    token_refusal = bearer_refusal(claim, request.session_id, request.bearer)
    if token_refusal is not None:
        return Decision(refusal=token_refusal)
    witness = Witness(facts)
    standing = stand(claim, loaded.entries, witness, now)
    missing = witness.missing()
    if missing is not None:
        return missing
    if claim_step(standing.state, ClaimEvent.HAND_OVER) is None or entry is None:
        if standing.state is ClaimState.EXPIRED and not standing.verdict.is_dead:
            why = "its TTL has passed; renew it first"
            return Decision(refusal=ClaimLost(claim.thread, why=why))
        return claim_refusal(standing, now)
    fence = claim.fence + 1
    new_entry = attrs.evolve(
        entry,
        session_id=request.new_id,
        started_at=now.at,
        heartbeat_at=None,
        native_actor_key=None,
        reservation_token=None,
        pid=request.owner.pid if request.owner is not None else None,
        boot_id=request.owner.boot_id if request.owner is not None else None,
        liveness_path=None,
        context_queries=(),
    ).extended(
        owner=request.owner,
        fence=fence,
        ttl_s=request.ttl_s,
        token=request.token,
        runner_pid=None,
        continues=entry.session_id,
    )
    who = f"process {request.owner.pid}" if request.owner is not None else "a TTL"
    handed = claim.ended(EndCause.HANDED_OVER, now.at, by=new_entry.session_id, reason=f"to {who}")
    granted = handed.granted(new_holder(request, new_entry.session_id, now), fence, claim.path)
    old_entry = apply_event(entry, EntryEvent.COMPLETE, now.at)
    return Decision(
        answer=Reserved(entry=new_entry, fence=fence),
        effects=(PutEntry(new_entry), PutClaim(granted), PutEntry(old_entry)),
        commits=2,
        freed=(claim.thread,),  # not free, but whoever waits must await another's end now
    )
