"""Who may write: the record of a branch's claim, and the table of what can happen to it.

Rule 1: every change of a claim is a cell of `CLAIM_TRANSITIONS`; a refused cell changes nothing.
Rule 2: a new holder gets a greater fence; nothing ever lowers it.
Rule 3: what is stored is only who was granted it; held, expired or lost is derived, each time,
from the clock, the holder's entry and a verdict on its process.
"""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import attrs

from heddle_registry.core.entry import SCHEMA, AgentEntry
from heddle_registry.core.evidence import (
    EXPIRED,
    TTL_RUNNING,
    WALL_CLOCK,
    Evidence,
    LivenessFile,
    Owner,
    Subject,
    Verdict,
    VerdictKind,
)
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from heddle_registry.core.timestamp import Instant, Timestamp
    from heddle_registry.core.token import TokenHash

MAX_PAST_HOLDERS: Final = 8
"""How many earlier holders a claim can tell the story of."""


class ClaimState(StrEnum):
    """What a claim is, seen from now."""

    NONE = "none"
    HELD = "held"
    EXPIRED = "expired"
    LOST = "lost"
    """A program that knows no claims ended or removed the holder's entry while it may live."""


class ClaimEvent(StrEnum):
    """What can happen to a claim."""

    RESERVE = "reserve"
    RENEW = "renew"
    TTL_PASSES = "TTL passes"
    HOLDER_DIES = "holder proven dead"
    HAND_OVER = "hand over"
    FORCE = "force"
    RELEASE = "release"


class Fence(StrEnum):
    """What a cell does to the fence."""

    SAME = "same"
    RAISED = "raised"


class ClaimStep(NamedTuple):
    """One cell: the state that follows, what becomes of the fence and of the old holder's entry.

    ``ends_as`` None leaves the entry as it is; where the cell is a release, the caller's own
    event decides instead.
    """

    to: ClaimState
    fence: Fence = Fence.SAME
    ends_as: AgentStatus | None = None


_GRANT: Final = ClaimStep(ClaimState.HELD, Fence.RAISED)
_TAKE_OVER: Final = ClaimStep(ClaimState.HELD, Fence.RAISED, AgentStatus.ABANDONED)
_END_DEAD: Final = ClaimStep(ClaimState.NONE, Fence.SAME, AgentStatus.ABANDONED)
_END: Final = ClaimStep(ClaimState.NONE)

CLAIM_TRANSITIONS: Final[Mapping[ClaimState, Mapping[ClaimEvent, ClaimStep]]] = MappingProxyType(
    {
        ClaimState.NONE: {
            ClaimEvent.RESERVE: _GRANT,
            ClaimEvent.FORCE: _GRANT,
        },
        ClaimState.HELD: {
            ClaimEvent.RENEW: ClaimStep(ClaimState.HELD),
            ClaimEvent.TTL_PASSES: ClaimStep(ClaimState.EXPIRED),
            ClaimEvent.HOLDER_DIES: _END_DEAD,
            ClaimEvent.HAND_OVER: ClaimStep(ClaimState.HELD, Fence.RAISED, AgentStatus.COMPLETE),
            ClaimEvent.FORCE: _TAKE_OVER,
            ClaimEvent.RELEASE: _END,
        },
        ClaimState.EXPIRED: {
            ClaimEvent.RESERVE: _TAKE_OVER,
            ClaimEvent.RENEW: ClaimStep(ClaimState.HELD),
            ClaimEvent.HOLDER_DIES: _END_DEAD,
            ClaimEvent.FORCE: _TAKE_OVER,
            ClaimEvent.RELEASE: _END,
        },
        ClaimState.LOST: {
            ClaimEvent.TTL_PASSES: _END,
            ClaimEvent.HOLDER_DIES: _END,
            ClaimEvent.FORCE: _GRANT,
            ClaimEvent.RELEASE: _END,
        },
    },
)
"""A pair that is not here is refused, or cannot happen."""


def claim_step(state: ClaimState, event: ClaimEvent) -> ClaimStep | None:
    """Return the cell for ``event`` in ``state``, None where it is refused."""
    return CLAIM_TRANSITIONS[state].get(event)


class EndCause(StrEnum):
    """Why somebody no longer holds a claim."""

    RELEASED = "released"
    DEAD = "dead"
    EXPIRED = "expired"
    HANDED_OVER = "handed over"
    FORCED = "forced"
    LOST = "lost"
    DELETED = "deleted"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClaimHolder(Record):
    """To whom a claim was granted, and what its life depends on."""

    session_id: str
    token: TokenHash | None = None
    owner: Owner | None = None
    """The process whose death frees the branch; None where the TTL alone decides."""
    liveness: LivenessFile | None = None
    ttl_s: float | None = None
    granted_at: Timestamp
    renewed_at: Instant
    lost_at: Timestamp | None = None
    """When one of us first saw that the entry had been ended behind our back."""
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)

    def subject(self, fence: int) -> Subject:
        """Return whom to look at to judge the holder. Never its entry's ``pid``."""
        return Subject(
            session_id=self.session_id,
            fence=fence,
            owner=self.owner,
            boot_id=self.renewed_at.boot_id,
            liveness=self.liveness,
        )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PastHolder(Record):
    """Who held a claim before, and how that ended: the story its token is told."""

    session_id: str
    fence: int
    token: TokenHash | None = None
    ended_at: Timestamp
    cause: EndCause
    by: str = ""
    """The session id of whoever took the branch, where somebody did."""
    reason: str = ""
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)

    def story(self) -> str:
        """Return what happened, as a clause for people."""
        when = f"at {self.ended_at}"
        taker = f" by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        match self.cause:
            case EndCause.RELEASED:
                return f"it was released {when}{why}"
            case EndCause.DEAD:
                return f"its owner was found dead {when}{why}"
            case EndCause.EXPIRED:
                ended = f"taken over{taker}" if taker else "ended"
                return f"its TTL had passed, and it was {ended} {when}{why}"
            case EndCause.HANDED_OVER:
                return f"it was handed over to {self.by or 'another process'} {when}{why}"
            case EndCause.FORCED:
                return f"it was taken by force{taker} {when}{why}"
            case EndCause.LOST:
                return f"another program ended its entry; that was seen {when}{why}"
            case EndCause.DELETED:
                return f"its entry was deleted {when}{why}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Claim(Record):
    """The right to write to one branch. One file a branch, never pruned.

    ``fence`` is that of the newest holder, past or present. ``path`` is the canonical folder the
    holder asked for, None where it named none. ``past`` is newest first.
    """

    thread: str
    fence: int = 0
    path: str | None = None
    holder: ClaimHolder | None = None
    past: tuple[PastHolder, ...] = ()
    schema: int = SCHEMA
    unknown: Mapping[str, Any] = attrs.field(factory=dict, hash=False, repr=False)

    @property
    def holder_id(self) -> str | None:
        """The session id of the holder; None where nobody holds it."""
        return self.holder.session_id if self.holder is not None else None

    def granted(self, holder: ClaimHolder, fence: int, path: str | None) -> Claim:
        """Return the claim with a new holder under a greater fence.

        :raises ValueError: the fence would not grow.
        """
        if fence <= self.fence:
            raise ValueError(f"fence {fence} does not follow {self.fence}")
        return attrs.evolve(self, holder=holder, fence=fence, path=path)

    def ended(self, cause: EndCause, at: Timestamp, *, by: str = "", reason: str = "") -> Claim:
        """Return the claim without a holder; the last one joins the past."""
        if self.holder is None:
            return self
        last = PastHolder(
            session_id=self.holder.session_id,
            fence=self.fence,
            token=self.holder.token,
            ended_at=at,
            cause=cause,
            by=by,
            reason=reason,
        )
        return attrs.evolve(
            self, holder=None, path=None, past=(last, *self.past)[:MAX_PAST_HOLDERS]
        )


def claim_of_entry(entry: AgentEntry, now: Instant) -> Claim:
    """Return the claim that an Active entry's copies stand for where the claim file is missing.

    A TTL is counted on the wall clock from the last sign of life that the entry shows.
    """
    extension = entry.extension
    if extension is None or extension.fence is None:
        return Claim(thread=entry.thread)
    since = max(
        (at for at in (entry.started_at, entry.heartbeat_at) if at is not None),
        key=lambda at: at.sort_key,
    )
    return Claim(
        thread=entry.thread,
        fence=extension.fence,
        holder=ClaimHolder(
            session_id=entry.session_id,
            token=extension.token,
            owner=entry.owner if extension.ttl_s is None else None,
            ttl_s=extension.ttl_s,
            granted_at=entry.started_at,
            renewed_at=attrs.evolve(now, at=since, awake_ns=0, boot_id=""),
        ),
    )


class TtlReading(NamedTuple):
    """How a claim's TTL stands: seconds left (negative when passed) and which clock told."""

    left_s: float
    wall_clock: bool

    @property
    def has_passed(self) -> bool:
        """Whether the TTL is over."""
        return self.left_s <= 0


def read_ttl(holder: ClaimHolder, now: Instant) -> TtlReading | None:
    """Return how the TTL stands at ``now``; None where the holder has none."""
    if holder.ttl_s is None:
        return None
    elapsed, wall_clock = now.seconds_since(holder.renewed_at)
    return TtlReading(left_s=holder.ttl_s - elapsed, wall_clock=wall_clock)


def with_ttl(verdict: Verdict, ttl: TtlReading | None) -> Verdict:
    """Return ``verdict`` with what the TTL adds to its evidence."""
    if ttl is None:
        return verdict
    clock = (Evidence(WALL_CLOCK, "counted on the wall clock"),) if ttl.wall_clock else ()
    if ttl.has_passed:
        evidence = Evidence(EXPIRED, f"its TTL passed {-ttl.left_s:.0f} s ago")
    else:
        evidence = Evidence(TTL_RUNNING, f"its TTL runs for another {ttl.left_s:.0f} s")
    if verdict.kind is VerdictKind.UNKNOWN:
        return Verdict(verdict.kind, (evidence, *clock, *verdict.evidence))
    return Verdict(verdict.kind, (*verdict.evidence, evidence, *clock))


def was_ended_by_us(claim: Claim, entry: AgentEntry) -> bool:
    """Return whether the holder's ended entry still bears our mark of this claim.

    A program that knows no claims drops our table when it rewrites an entry. An ended entry with
    the table is the first half of our own release, cut short before the claim was written.
    """
    return not entry.is_active and entry.fence == claim.fence


def claim_state(
    claim: Claim, holder_entry: AgentEntry | None, verdict: Verdict, now: Instant
) -> ClaimState:
    """Return what ``claim`` is at ``now``.

    :param holder_entry: the entry that the claim names; None where it is missing.
    :param verdict: on the holder's process, by its claim's owner. Whatever is not proven dead
        counts as living.
    """
    holder = claim.holder
    if holder is None:
        return ClaimState.NONE
    ttl = read_ttl(holder, now)
    ttl_passed = ttl is not None and ttl.has_passed
    if holder.lost_at is None and holder_entry is not None:
        if was_ended_by_us(claim, holder_entry):
            return ClaimState.NONE
        if holder_entry.is_active:
            if ttl_passed:
                return ClaimState.EXPIRED
            return ClaimState.NONE if verdict.is_dead else ClaimState.HELD
    # Lost: over once neither the TTL nor anything alive can still stand behind it.
    has_process = holder.owner is not None or holder.liveness is not None
    process_over = verdict.is_dead or not has_process
    ttl_over = ttl is None or ttl_passed
    if process_over and ttl_over and (has_process or ttl is not None):
        return ClaimState.NONE
    return ClaimState.LOST
