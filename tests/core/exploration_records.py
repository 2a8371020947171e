"""Shapes to real records and back, and facts that are true."""

from __future__ import annotations

from functools import cache, lru_cache

import attrs

from heddle_registry.core.claim import Claim, ClaimHolder, ClaimState, EndCause, PastHolder
from heddle_registry.core.entry import AgentEntry, EntryExtension
from heddle_registry.core.evidence import Observation, Owner, ProcessState
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.token import hash_token
from tests.core.exploration_shapes import (
    DEAD,
    EMPTY,
    NOBODY,
    SOMEONE,
    Beside,
    Branch,
    ClaimShape,
    HolderShape,
    Orphan,
    Presence,
    may_write,
    settled,
)

BRANCH, OTHER = "here", "there"
BOOT = "boot"
TTL_S = 300.0
DAY_NS = 86_400 * 10**9
NOW_NS = 1_800_000_000 * 10**9
NOW = Instant(at=Timestamp.from_unix_ns(NOW_NS), awake_ns=10**15, boot_id=BOOT)
FENCE = 10
STATUS = {
    "active": AgentStatus.ACTIVE,
    "complete": AgentStatus.COMPLETE,
    "merged": AgentStatus.MERGED,
    "abandoned": AgentStatus.ABANDONED,
}


class TrueFacts(dict):
    """Answers every question about a process as it is."""

    def __contains__(self, key: object) -> bool:
        return True

    def __getitem__(self, key):
        pid = key[1][0]
        return SEEN[label_of(pid)]


def label_of(pid: int | None) -> int:
    return NOBODY if pid is None else pid - 100


@cache
def owner_of(label: int) -> Owner | None:
    if label == NOBODY:
        return None
    return Owner(pid=100 + label, boot_id=BOOT, pid_ns="ns", start_ticks=1000 + label)


SEEN = {
    label: Observation(
        boot_id=BOOT,
        pid_ns="ns",
        process=ProcessState.MISSING if label == DEAD else ProcessState.RUNNING,
        start_ticks=None if label == DEAD else 1000 + label,
    )
    for label in (DEAD, 0, 1, 2, SOMEONE)
}
FACTS = TrueFacts()


def earlier(seconds: float) -> Instant:
    ago = int(seconds * 10**9)
    return attrs.evolve(NOW, at=Timestamp.from_unix_ns(NOW_NS - ago), awake_ns=NOW.awake_ns - ago)


FRESH, OVER = earlier(1), earlier(2 * TTL_S)
STARTED = {"none": FRESH.at, "runs": FRESH.at, "over": OVER.at}
ENDED = {False: FRESH.at, True: Timestamp.from_unix_ns(NOW_NS - 8 * DAY_NS)}


@cache
def token_hash(session_id: str):
    return hash_token(f"token of {session_id}", b"salt")


@cache
def make_entry(
    session_id: str,
    pid: int,
    file: str = "active",
    fence: int | None = None,
    ttl: str = "none",
    stale: bool = False,
    mark: bool = True,
    thread: str = BRANCH,
    is_presence: bool = False,
) -> AgentEntry:
    extension = None
    if mark:
        extension = EntryExtension(
            owner=owner_of(pid),
            fence=fence,
            ttl_s=None if ttl == "none" else TTL_S,
            token=token_hash(session_id) if fence is not None else None,
        )
    return AgentEntry(
        session_id=session_id,
        thread=thread,
        base_state="base",
        started_at=STARTED[ttl],
        status=STATUS[file],
        completed_at=None if file == "active" else ENDED[stale],
        pid=None if pid == NOBODY else 100 + pid,
        boot_id=None if pid == NOBODY else BOOT,
        native_actor_key=f"actor-{pid}" if is_presence and pid >= 0 else None,
        native_parent_actor_key=f"actor-{pid}" if not is_presence and pid >= 0 else None,
        extension=extension,
    )


@cache
def make_past(session_id: str, fence: int) -> PastHolder:
    return PastHolder(
        session_id=session_id,
        fence=fence,
        token=token_hash(session_id),
        ended_at=FRESH.at,
        cause=EndCause.RELEASED,
    )


@cache
def make_claim(shape: ClaimShape, thread: str, holder_id: str, past: tuple[str, ...]) -> Claim:
    holder = None
    if shape.held:
        holder = ClaimHolder(
            session_id=holder_id,
            token=token_hash(holder_id),
            owner=owner_of(shape.owner),
            ttl_s=None if shape.ttl == "none" else TTL_S,
            granted_at=STARTED[shape.ttl],
            renewed_at=OVER if shape.ttl == "over" else FRESH,
            lost_at=FRESH.at if shape.lost else None,
        )
    before = FENCE - 1 if shape.held else FENCE
    return Claim(
        thread=thread,
        fence=FENCE,
        path=f"/{shape.path}" if shape.path else None,
        holder=holder,
        past=tuple(make_past(session_id, before) for session_id in past),
    )


@lru_cache(maxsize=1 << 16)
def make_records(branch: Branch, beside: Beside | None = None, more_past: tuple[str, ...] = ()):
    """Return real records of that shape, not to be changed: entries by id, claims by thread."""
    entries: dict[str, AgentEntry] = {}
    claims: dict[str, Claim] = {}
    past: list[str] = []
    holder = branch.holder
    if holder is not None and holder.file != "missing":
        entries["h"] = make_entry(
            "h", holder.pid, holder.file, FENCE, branch.claim.ttl, holder.stale, holder.mark
        )
    for at, orphan in enumerate(branch.orphans):
        session_id = f"o{at}"
        if branch.claim is None:
            fence = 1 + at
        else:
            fence = FENCE + 1 if orphan.newer else FENCE - branch.claim.held
            if not orphan.newer:
                past.append(session_id)
        entries[session_id] = make_entry(session_id, orphan.pid, fence=fence, ttl=orphan.ttl)
    for at, presence in enumerate(branch.present):
        entries[f"p{at}"] = make_entry(f"p{at}", presence.pid, is_presence=True)
    if branch.claim is not None:
        claims[BRANCH] = make_claim(branch.claim, BRANCH, "h", (*past, *more_past))
    if beside is not None:
        claims[OTHER] = make_claim(beside.claim, OTHER, "b", ())
        if beside.holder.file != "missing":
            entries["b"] = make_entry(
                "b", beside.holder.pid, beside.holder.file, FENCE, beside.claim.ttl,
                beside.holder.stale, beside.holder.mark, OTHER,
            )  # fmt: skip
    return entries, claims


def shape_of(entries: dict, claims: dict, known: dict) -> Branch:
    """Return the shape of records. ``known``: session id -> (bearer, believes, done)."""
    claim = claims.get(BRANCH)
    shape = holder_shape = None
    holder_id = None
    if claim is not None:
        shape = ClaimShape()
        if claim.holder is not None:
            holder_id = claim.holder.session_id
            shape = ClaimShape(
                held=True,
                owner=label_of(claim.holder.owner.pid if claim.holder.owner else None),
                ttl=_ttl_of(claim.holder.ttl_s, claim.holder.renewed_at),
                path=int(claim.path[1:]) if claim.path else 0,
                lost=claim.holder.lost_at is not None,
            )
            bearer, believes, done = known.get(holder_id, (NOBODY, False, False))
            entry = entries.get(holder_id)
            if entry is None:
                file, pid, mark, stale = "missing", None, False, False
            else:
                file, mark = entry.status.value, entry.fence == claim.fence
                pid = entry.pid if entry.is_active else None
                stale = not entry.is_active and entry.completed_at == ENDED[True]
            holder_shape = settled(
                HolderShape(
                    file, label_of(pid), mark, bearer, believes, done or file != "active", stale
                )
            )
    orphans: set[Orphan] = set()
    present: set[Presence] = set()
    for entry in entries.values():
        if not entry.is_active or entry.thread != BRANCH or entry.session_id == holder_id:
            continue
        pid = label_of(entry.pid)
        if entry.fence is None:
            present.add(Presence(pid))
            continue
        ttl = "none"
        if claim is None and entry.extension.ttl_s is not None:
            ttl = "over" if entry.started_at == OVER.at else "runs"
        orphans.add(Orphan(pid, claim is None or entry.fence > claim.fence, ttl))
    return Branch(shape, holder_shape, tuple(sorted(orphans)), tuple(sorted(present)))


def _ttl_of(ttl_s: float | None, renewed_at: Instant) -> str:
    if ttl_s is None:
        return "none"
    return "over" if renewed_at == OVER else "runs"


@cache
def kind_of(beside: Beside) -> tuple[ClaimState, bool, int]:
    """Return all that a step on another branch asks of a neighbour, and what the oracle asks."""
    entries, claims = make_records(EMPTY, beside)
    state = stand(claims[OTHER], entries, Witness(FACTS), NOW).state
    return state, may_write(*beside), beside.claim.path
