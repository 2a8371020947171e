"""A claim whose file is damaged: what to put in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import attrs

from heddle_registry.core.claim import (
    MAX_PAST_HOLDERS,
    Claim,
    ClaimHolder,
    ClaimState,
    EndCause,
    PastHolder,
    claim_of_entry,
    claim_state,
    was_ended_by_us,
)
from heddle_registry.core.lifecycle import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from heddle_registry.core.entry import AgentEntry
    from heddle_registry.core.evidence import Subject, Verdict
    from heddle_registry.core.timestamp import Instant


_MOST: Final = 2**63 - 2
"""A greater one has no successor that a file could hold, and no program ever gave it."""


@attrs.frozen(kw_only=True)
class ClaimRemains:
    """What a damaged file still says. ``highest_fence`` is the greatest number after ``fence =``.

    ``is_holder_whole`` tells that nothing of the holder's tables was broken.
    """

    thread: str | None = None
    fence: int = 0
    highest_fence: int = 0
    path: str | None = None
    holder: ClaimHolder | None = None
    is_holder_whole: bool = False
    past: tuple[PastHolder, ...] = ()


class Recovered(NamedTuple):
    """The claim to write, and the entry of whoever still holds it, to write before."""

    claim: Claim
    entry: AgentEntry | None


def fence_above(thread: str, remains: ClaimRemains, entries: Iterable[AgentEntry]) -> int:
    """Return a fence above every one that the file, or an entry on the branch, still shows."""
    found = [entry.fence or 0 for entry in entries if entry.thread == thread]
    found.append(remains.highest_fence)
    return 1 + max((fence for fence in found if fence <= _MOST), default=0)


def recover_claim(
    thread: str,
    remains: ClaimRemains,
    entries: Iterable[AgentEntry],
    judge: Callable[[Subject], Verdict],
    now: Instant,
) -> Recovered:
    """Return the claim on ``thread`` as far as file and entries tell, under a new fence.

    Whoever held it keeps it, unless proven dead: the file is damaged, not the holder. What the
    file says of the holder counts before the entries' copies, unless only these are whole.
    Earlier holders are told their story, from their entries where the file lost it.
    """
    there = [entry for entry in entries if entry.thread == thread]
    fence = fence_above(thread, remains, there)
    claim = _with_holder(thread, remains, there, now)
    holder, entry = claim.holder, None
    if holder is not None:
        entry = next((one for one in there if one.session_id == holder.session_id), None)
        if not claim.fence and entry is not None:
            claim = attrs.evolve(claim, fence=entry.fence or 0)
        verdict = judge(holder.subject(claim.fence))
        if claim_state(claim, entry, verdict, now) is ClaimState.NONE:
            claim = _ended(claim, entry, now)
    past = {told.session_id: told for told in (*claim.past, *remains.past)}
    for one in there:
        told = _told_by(one)
        if told is not None and one.session_id != (claim.holder and claim.holder.session_id):
            past.setdefault(one.session_id, told)
    newest_first = sorted(past.values(), key=lambda told: told.fence, reverse=True)
    claim = attrs.evolve(claim, fence=fence, past=tuple(newest_first[:MAX_PAST_HOLDERS]))
    if claim.holder is None or entry is None or not entry.is_active:
        return Recovered(claim, None)
    return Recovered(claim, entry.extended(fence=fence))


def _ended(claim: Claim, entry: AgentEntry | None, now: Instant) -> Claim:
    if entry is None or (not entry.is_active and not was_ended_by_us(claim, entry)):
        return claim.ended(EndCause.LOST, now.at)
    if entry.is_active:
        return claim.ended(EndCause.DEAD, now.at)
    return claim.ended(EndCause.RELEASED, now.at, reason=entry.status.value)


def _with_holder(
    thread: str, remains: ClaimRemains, entries: list[AgentEntry], now: Instant
) -> Claim:
    copies = [entry for entry in entries if entry.is_active and entry.fence is not None]
    newest = max(copies, key=lambda entry: entry.fence or 0, default=None)
    holder = remains.holder
    ends_somehow = holder is not None and (
        holder.owner is not None or holder.liveness is not None or holder.ttl_s is not None
    )
    if holder is not None and (remains.is_holder_whole or (newest is None and ends_somehow)):
        return Claim(thread=thread, fence=remains.fence, path=remains.path, holder=holder)
    if newest is None:
        return Claim(thread=thread)
    return attrs.evolve(claim_of_entry(newest, now), path=remains.path)


def _told_by(entry: AgentEntry) -> PastHolder | None:
    # An entry says how it ended, not who took the branch.
    if entry.is_active or entry.fence is None or entry.extension is None:
        return None
    known = entry.status.value
    if entry.status is AgentStatus.ABANDONED:
        known += "; the damaged claim could not be asked by whom"
    return PastHolder(
        session_id=entry.session_id,
        fence=entry.fence,
        token=entry.extension.token,
        ended_at=entry.completed_at or entry.started_at,
        cause=EndCause.RELEASED,
        reason=known,
    )
