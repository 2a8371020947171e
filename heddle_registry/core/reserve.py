"""May this asker have that branch? The one place where a claim is granted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from heddle_registry.core.claim import (
    Claim,
    ClaimEvent,
    ClaimHolder,
    ClaimState,
    EndCause,
    claim_step,
    was_ended_by_us,
)
from heddle_registry.core.entry import AgentEntry, EntryExtension
from heddle_registry.core.lifecycle import EntryEvent, apply_event
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.record import Record
from heddle_registry.core.standing import (
    Standing,
    Witness,
    entry_verdict,
    holder_sentence,
    is_orphan,
    presence_frees,
    presence_sentence,
    stand,
)
from heddle_registry.core.token import TokenHash, token_matches
from heddle_registry.core.transaction import (
    Decision,
    Effect,
    IdTaken,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.core.tree import ancestor_nodes, are_related, entries_by_actor
from heddle_registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from heddle_registry.core.evidence import LivenessFile, Owner, Verdict
    from heddle_registry.core.release import HandOverRequest
    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Facts, Loaded


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ReserveRequest(Record):
    """One wish for one branch. ``entry`` is the new Active entry, its id still unused."""

    thread: str
    entry: AgentEntry
    token: TokenHash | None = None
    """Of the token that the new holder will bear."""
    bearer: str | None = None
    """A token that was shown: the bearer of a held claim gets it again."""
    owner: Owner | None = None
    """The process whose death frees the branch; None where the TTL alone decides."""
    recorded_owner: Owner | None = None
    """A process that is only noted in the entry, for information."""
    liveness: LivenessFile | None = None
    ttl_s: float | None = None
    path: str | None = None
    asker: str | None = None
    """Session id of the entry that asks, where a live ancestry shows one."""
    force_reason: str | None = None
    ticket: str | None = None
    runner_pid: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Reserved(Record):
    """The branch is the caller's. ``token`` is shown here and never again.

    ``present`` are entries on the branch that live on beside the holder (after force, or kin).
    """

    entry: AgentEntry
    token: str | None = attrs.field(default=None, repr=False)
    fence: int
    present: tuple[AgentEntry, ...] = ()
    is_new: bool = True
    """False where the bearer already held it."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LiveOwner(Record):
    """Somebody else has the branch, or may have it.

    ``entry`` is the one that blocks; None where the branch is lost without an entry, or only
    waiters stand before the caller. ``state`` is `why`'s word for the branch.
    """

    entry: AgentEntry | None
    verdict: Verdict | None
    state: str
    why: str
    frees_when: str = ""


ReserveOutcome = Reserved | LiveOwner
Answer = Reserved | LiveOwner | IdTaken


def decide_reserve(
    request: ReserveRequest, loaded: Loaded, now: Instant, facts: Facts
) -> Decision[Answer] | NeedFacts:
    """Grant the branch, or say who has it. Refusals change nothing.

    Granted when no valid claim stands on the thread or names the same folder, and no living
    entry is Active on the thread other than the asker, its ancestors and descendants, and
    entries of the same owner process. Unknown counts as living.
    """
    found = _judged(request, loaded, now, facts)
    return found() if callable(found) else found


def foresee_reserve(
    request: ReserveRequest, loaded: Loaded, now: Instant, facts: Facts
) -> Decision[Answer] | NeedFacts:
    """Return what `decide_reserve` would, but an empty decision where it would grant the branch."""
    found = _judged(request, loaded, now, facts)
    return Decision() if callable(found) else found


def _judged(
    request: ReserveRequest, loaded: Loaded, now: Instant, facts: Facts
) -> Decision[Answer] | NeedFacts | Callable[[], Decision[Answer]]:
    # What stands in the way; where nothing does, how the branch is granted.
    thread = request.thread
    if request.entry.session_id in loaded.used_ids:
        return Decision(answer=IdTaken(request.entry.session_id))
    try:
        claim = loaded.claim_on(thread, now)
    except RegistryError as error:
        return Decision(refusal=error)
    witness = Witness(facts)
    for damage in loaded.damage:
        if damage.concerns(thread) and not (
            damage.subject is not None and witness.verdict(damage.subject).is_dead
        ):
            return witness.missing() or Decision(refusal=damage.error)

    standing = stand(claim, loaded.entries, witness, now)
    force = request.force_reason is not None
    others = sorted(
        (
            entry
            for entry in loaded.entries.values()
            if entry.thread == thread
            and entry.is_active
            and not (claim.holder is not None and entry.session_id == claim.holder.session_id)
        ),
        key=lambda entry: (entry.started_at.sort_key, entry.session_id),
    )
    judged = [(entry, entry_verdict(entry, None, witness, now)) for entry in others]
    folder = _folder_in_use(request, loaded, witness, now)
    missing = witness.missing()
    if missing is not None:
        return missing

    if (
        standing.state is ClaimState.HELD
        and standing.entry is not None
        and claim.holder is not None
        and token_matches(request.bearer, claim.holder.token)
    ):
        same = Reserved(entry=standing.entry, token=request.bearer, fence=claim.fence, is_new=False)
        return Decision(answer=same)

    step = claim_step(standing.state, ClaimEvent.FORCE if force else ClaimEvent.RESERVE)
    if step is None:
        unread = loaded.damage_of_holder(claim) if standing.entry is None else None
        if unread is not None:
            return Decision(refusal=unread)
        return Decision(
            answer=LiveOwner(
                entry=standing.entry,
                verdict=standing.verdict,
                state="blocked" if standing.state is ClaimState.LOST else "held",
                why=holder_sentence(standing),
                frees_when=standing.frees_when(),
            )
        )
    if folder is not None:
        return Decision(answer=folder)
    unread = loaded.folder_error(request.path)
    if unread is not None:
        return Decision(refusal=unread)

    present: list[AgentEntry] = []
    ended: list[AgentEntry] = []
    for entry, verdict in judged:
        if is_orphan(entry, claim) or verdict.is_dead:
            ended.append(entry)
        elif _is_kin(entry, request, loaded):
            present.append(entry)
        elif not force:
            return Decision(
                answer=LiveOwner(
                    entry=entry,
                    verdict=verdict,
                    state="occupied",
                    why=presence_sentence(entry, verdict),
                    frees_when=presence_frees(entry, verdict),
                )
            )
        elif verdict.is_alive:
            present.append(entry)
        else:
            ended.append(entry)

    ahead = (
        loaded.line[: loaded.line.index(request.ticket)]
        if (request.ticket in loaded.line)
        else loaded.line
    )
    if ahead and not force:
        return Decision(
            answer=LiveOwner(
                entry=None,
                verdict=None,
                state="held",
                why=f"{len(ahead)} waiting before you",
                frees_when="Use --wait to stand in line",
            )
        )

    if not force:
        ended = ended[:MAX_SWEEP]
    known_fence = max([claim.fence, *(entry.fence or 0 for entry in others)])
    return partial(_granted, request, loaded, now, standing, known_fence, present, ended)


def _granted(
    request: ReserveRequest,
    loaded: Loaded,
    now: Instant,
    standing: Standing,
    known_fence: int,
    present: Sequence[AgentEntry],
    ended: Sequence[AgentEntry],
) -> Decision[Answer]:
    fence = 1 + known_fence
    new_entry = _new_entry(request, loaded, fence)
    new_claim = _ended_claim(standing, now, new_entry.session_id, request.force_reason).granted(
        new_holder(request, new_entry.session_id, now), fence, request.path
    )
    # The claim is the commit: what comes before it binds nobody, what comes after only tidies.
    effects: list[Effect] = [PutEntry(new_entry), PutClaim(new_claim)]
    if standing.entry is not None and standing.entry.is_active:
        effects.append(PutEntry(apply_event(standing.entry, EntryEvent.ABANDON, now.at)))
    effects += [PutEntry(apply_event(entry, EntryEvent.ABANDON, now.at)) for entry in ended]
    effects += [RemoveEntry(session_id) for session_id in loaded.stale_ids[:MAX_SWEEP]]
    answer = Reserved(entry=new_entry, fence=fence, present=tuple(present))
    return Decision(answer=answer, effects=tuple(effects), commits=2)


def new_holder(
    request: ReserveRequest | HandOverRequest, session_id: str, now: Instant
) -> ClaimHolder:
    """Return whom a claim is granted to, on the terms of a request."""
    return ClaimHolder(
        session_id=session_id,
        token=request.token,
        owner=request.owner,
        liveness=request.liveness,
        ttl_s=request.ttl_s,
        granted_at=now.at,
        renewed_at=now,
    )


def _folder_in_use(
    request: ReserveRequest, loaded: Loaded, witness: Witness, now: Instant
) -> LiveOwner | None:
    if request.path is None:
        return None
    for thread, claim in sorted(loaded.claims.items()):
        if thread == request.thread or claim.path != request.path:
            continue
        standing = stand(claim, loaded.entries, witness, now)
        if standing.excludes_others:
            return LiveOwner(
                entry=standing.entry,
                verdict=standing.verdict,
                state="held",
                why=f"its folder {request.path} belongs to the claim on {thread!r}: "
                + holder_sentence(standing),
                frees_when=standing.frees_when(),
            )
    return None


def _is_kin(entry: AgentEntry, request: ReserveRequest, loaded: Loaded) -> bool:
    owner = request.owner or request.recorded_owner
    if entry.owner is not None and entry.owner.is_same_process(owner):
        return True
    asker = loaded.entries.get(request.asker) if request.asker is not None else None
    if asker is None:
        return False
    by_actor = entries_by_actor(loaded.entries.values())
    if asker.native_actor_key is not None:
        by_actor[asker.native_actor_key] = asker
    return are_related(asker, entry, by_actor)


def _new_entry(request: ReserveRequest, loaded: Loaded, fence: int) -> AgentEntry:
    asker = loaded.entries.get(request.asker) if request.asker is not None else None
    entry = request.entry
    base = entry.extension or EntryExtension()
    extension = attrs.evolve(
        base,
        owner=request.owner or request.recorded_owner,
        fence=fence,
        ttl_s=request.ttl_s,
        token=request.token,
        runner_pid=request.runner_pid,
    )
    parent_key = entry.native_parent_actor_key
    if asker is not None:
        extension = attrs.evolve(extension, ancestors=ancestor_nodes(asker, loaded.entries))
        parent_key = asker.native_actor_key
    return attrs.evolve(
        entry,
        extension=extension,
        native_parent_actor_key=parent_key,
        reservation_token=None,
    )


def _ended_claim(standing: Standing, now: Instant, by: str, reason: str | None) -> Claim:
    claim = standing.claim
    if claim.holder is None:
        return claim
    evidence = standing.verdict.evidence[0].detail if standing.verdict.evidence else ""
    if standing.state is ClaimState.EXPIRED:
        return claim.ended(EndCause.EXPIRED, now.at, by=by)
    if standing.state is ClaimState.HELD:
        return claim.ended(EndCause.FORCED, now.at, by=by, reason=reason or "")
    if standing.state is ClaimState.LOST:
        return claim.ended(EndCause.LOST, now.at, by=by, reason=reason or "")
    if standing.entry is not None and was_ended_by_us(claim, standing.entry):
        return claim.ended(EndCause.RELEASED, now.at)
    return claim.ended(EndCause.DEAD, now.at, by=by, reason=evidence)
