"""Is this still mine? Tokens, heartbeats and fences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.claim import (
    Claim,
    ClaimEvent,
    ClaimState,
    EndCause,
    claim_step,
    was_ended_by_us,
)
from heddle_registry.core.digest import is_same
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.lifecycle import EntryEvent, apply_event
from heddle_registry.core.record import Record
from heddle_registry.core.standing import Standing, Witness, stand, with_heartbeat
from heddle_registry.core.token import token_matches
from heddle_registry.core.transaction import Decision, NeedFacts, PutClaim, PutEntry
from heddle_registry.errors import ClaimLost, RegistryError, UnknownEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Effect, Facts, Loaded


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Renewed(Record):
    """A heartbeat that was accepted. ``renew_within_s`` is None where no TTL runs."""

    entry: AgentEntry
    fence: int | None
    renew_within_s: float | None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FenceAnswer(Record):
    """Whether a fence still holds. ``holder`` is who holds the branch now, None for nobody."""

    valid: bool
    fence: int
    holder: str | None
    why: str


def claim_of_session(
    session_id: str, loaded: Loaded, now: Instant
) -> tuple[AgentEntry | None, Claim | None]:
    """Return the entry, and the claim that it holds or held; None for whichever is missing.

    :raises RegistryError: the claim of its thread cannot be read.
    """
    entry = loaded.entries.get(session_id)
    claims: list[Claim] = []
    if entry is not None:
        claims = [loaded.claim_on(entry.thread, now)]
    else:
        claims = list(loaded.claims.values())
    for claim in claims:
        names = [past.session_id for past in claim.past]
        if claim.holder is not None:
            names.append(claim.holder.session_id)
        if session_id in names:
            return entry, claim
    return entry, None


def bearer_refusal(claim: Claim, session_id: str, token: str | None) -> RegistryError | None:
    """Return why ``token`` does not bear the claim for ``session_id``; None if it does.

    The token is compared before anything else is said. That of an earlier holder is told who
    took the branch, when and why; any other only that it was refused.
    """
    holder = claim.holder
    if holder is not None and holder.session_id == session_id:
        if token_matches(token, holder.token):
            return None
        return ClaimLost(claim.thread, why=_refused(token))
    for past in claim.past:
        if past.session_id == session_id and token_matches(token, past.token):
            return ClaimLost(claim.thread, by=past.by, why=_story(claim, past.session_id))
    return ClaimLost(claim.thread, why=_refused(token))


def _refused(token: str | None) -> str:
    return "token refused" if token else "no token was shown (--token, or HEDDLE_AGENT_TOKEN)"


def _story(claim: Claim, session_id: str) -> str:
    # From the asker's own end forward to now, so that "the one who took it died" is told too.
    ends = [past.session_id for past in claim.past]
    told = claim.past[: ends.index(session_id) + 1]
    sentences = [past.story() for past in reversed(told)]
    if len(told) > 1 and told[0].by == "" and claim.holder is None:
        sentences.append("the branch is free")
    return "; then ".join(sentences)


def lost_claim_error(standing: Standing) -> ClaimLost:
    """Return the error for a holder whose claim is gone though nobody took it."""
    claim = standing.claim
    if standing.state is ClaimState.LOST:
        return ClaimLost(claim.thread, why="another program ended its entry")
    entry = standing.entry
    if entry is not None and was_ended_by_us(claim, entry):
        why = f"its entry ended as {entry.status.value} at {entry.completed_at}"
        return ClaimLost(claim.thread, why=why)
    evidence = standing.verdict.evidence[0].detail if standing.verdict.evidence else "it has ended"
    return ClaimLost(claim.thread, why=f"its owner was found dead: {evidence}")


def mark_lost(standing: Standing, now: Instant) -> tuple[PutClaim, ...]:
    """Return what records that a loss was seen, so that nothing can undo it."""
    holder = standing.claim.holder
    if standing.state is not ClaimState.LOST or holder is None or holder.lost_at is not None:
        return ()
    lost = attrs.evolve(holder, lost_at=now.at)
    return (PutClaim(attrs.evolve(standing.claim, holder=lost)),)


def end_dead(standing: Standing, now: Instant) -> tuple[Effect, ...]:
    """Return what ends the claim of a holder who was just seen dead; nothing where none was.

    Its bearer is told so, and that must stay true: somebody who sees less, say from another pid
    namespace, could renew it otherwise.
    """
    entry = standing.entry
    if not standing.verdict.is_dead or entry is None or not entry.is_active:
        return ()
    if entry.extension is not None and entry.extension.schema > SCHEMA:
        return ()
    claim = standing.claim
    reason = standing.verdict.evidence[0].detail if standing.verdict.evidence else ""
    abandoned = apply_event(entry, EntryEvent.ABANDON, now.at).extended(fence=claim.fence)
    ended = claim.ended(EndCause.DEAD, now.at, reason=reason)
    return (PutEntry(abandoned), PutClaim(ended))


def claim_refusal(standing: Standing, now: Instant) -> Decision[Any]:
    """Return the refusal for a bearer whose claim is gone, with what keeps it gone."""
    dead = end_dead(standing, now)
    return Decision(
        refusal=lost_claim_error(standing),
        effects=dead or mark_lost(standing, now),
        freed=(standing.claim.thread,) if dead else (),
    )


def decide_renew(
    session_id: str, token: str | None, loaded: Loaded, now: Instant, facts: Facts
) -> Decision[Renewed] | NeedFacts:
    """Prolong the claim that ``session_id`` holds, or refuse and say who has it.

    An entry without a claim gets its heartbeat noted; its token, if it has one, must match.
    """
    try:
        entry, claim = claim_of_session(session_id, loaded, now)
    except RegistryError as error:
        return Decision(refusal=error)
    if claim is None:
        return _beat_without_claim(session_id, entry, token, now)
    refusal = bearer_refusal(claim, session_id, token)
    if refusal is not None:
        return Decision(refusal=refusal)
    witness = Witness(facts)
    standing = stand(claim, loaded.entries, witness, now)
    folder = other_claim_on_folder(claim, loaded, witness, now)
    missing = witness.missing()
    if missing is not None:
        return missing
    holder = claim.holder
    if (
        claim_step(standing.state, ClaimEvent.RENEW) is None
        or standing.verdict.is_dead
        or entry is None
        or holder is None
    ):
        return claim_refusal(standing, now)
    unread = loaded.folder_error(claim.path)
    if standing.state is ClaimState.EXPIRED and unread is not None:
        return Decision(refusal=unread)
    if standing.state is ClaimState.EXPIRED and folder is not None:
        why = f"its TTL had passed, and its folder now belongs to the claim on {folder!r}"
        return Decision(refusal=ClaimLost(claim.thread, why=why))
    renewed = attrs.evolve(claim, holder=attrs.evolve(holder, renewed_at=now))
    return Decision(
        answer=Renewed(
            entry=with_heartbeat(attrs.evolve(entry, heartbeat_at=now.at), renewed),
            fence=claim.fence,
            renew_within_s=holder.ttl_s,
        ),
        effects=(PutClaim(renewed),),
    )


def other_claim_on_folder(
    claim: Claim, loaded: Loaded, witness: Witness, now: Instant
) -> str | None:
    """Return the thread of another claim that keeps this one's folder; None for none."""
    if claim.path is None:
        return None
    for thread, other in sorted(loaded.claims.items()):
        if (
            thread != claim.thread
            and other.path == claim.path
            and stand(other, loaded.entries, witness, now).excludes_others
        ):
            return thread
    return None


def _beat_without_claim(
    session_id: str, entry: AgentEntry | None, token: str | None, now: Instant
) -> Decision[Renewed]:
    if entry is None:
        return Decision(refusal=UnknownEntry(session_id))
    refusal = entry_token_refusal(entry, token)
    if refusal is None and entry.fence is not None:
        refusal = ClaimLost(entry.thread, why=_refused(token))
    if refusal is not None:
        return Decision(refusal=refusal)
    try:
        apply_event(entry, EntryEvent.PROGRESS, now.at)
    except RegistryError as error:
        return Decision(refusal=error)
    beaten = attrs.evolve(entry, heartbeat_at=now.at)
    return Decision(
        answer=Renewed(entry=beaten, fence=None, renew_within_s=None),
        effects=(PutEntry(beaten),),
    )


def entry_token_refusal(entry: AgentEntry, token: str | None) -> RegistryError | None:
    """Return why ``token`` is refused by an entry that has one but holds no claim."""
    if entry.reservation_token is not None:
        shown = (token or "").encode("utf-8", "surrogatepass")
        if not is_same(shown, entry.reservation_token.encode()):
            return ClaimLost(entry.thread, why=_refused(token))
        return None
    kept = entry.extension.token if entry.extension is not None else None
    if kept is not None and entry.fence is None and not token_matches(token, kept):
        return ClaimLost(entry.thread, why=_refused(token))
    return None


def judge_token(claim: Claim, token: str) -> FenceAnswer | None:
    """Return why ``token`` is not the holder's; None where it is. An earlier one is told more."""
    holder = claim.holder
    if holder is not None and token_matches(token, holder.token):
        return None
    why = _refused(token)
    for past in claim.past:
        if token_matches(token, past.token):
            why = _story(claim, past.session_id)
            break
    return FenceAnswer(valid=False, fence=claim.fence, holder=None, why=why)


def judge_fence(
    standing: Standing,
    fence: int,
    entries: Mapping[str, AgentEntry],
    folder_taken_by: str | None = None,
) -> FenceAnswer:
    """Return whether ``fence`` is the newest and its claim held, or expired and untaken.

    An expired claim whose folder another branch's valid claim names (``folder_taken_by``) could
    not be renewed any more: its fence guards nothing.
    """
    claim = standing.claim
    holder = claim.holder_id
    held = standing.state is ClaimState.HELD
    expired = standing.state is ClaimState.EXPIRED and not standing.verdict.is_dead
    untaken = expired and folder_taken_by is None
    if fence == claim.fence and (held or untaken):
        why = "held" if held else "its TTL has passed, but nobody took the branch"
        return FenceAnswer(valid=True, fence=claim.fence, holder=holder, why=why)
    if fence > claim.fence:
        why = f"fence {fence} was never given; the newest is {claim.fence}"
    elif fence < claim.fence or claim.holder is None:
        ends = [past for past in claim.past if past.fence == fence]
        why = ends[0].story() if ends else f"fence {claim.fence} came after it"
    elif expired:
        why = f"its TTL has passed, and its folder belongs to the claim on {folder_taken_by!r}"
    else:
        why = lost_claim_error(standing).why
    living = holder if held and holder in entries else None
    return FenceAnswer(valid=False, fence=claim.fence, holder=living, why=why)
