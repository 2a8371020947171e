"""Branches in each state, as records, for the tests of single decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.claim import Claim, ClaimState
from heddle_registry.core.entry import AgentEntry, EntryExtension
from heddle_registry.core.release import Bearer, HandOverRequest, decide_hand_over, decide_release
from heddle_registry.core.renew import decide_renew
from heddle_registry.core.reserve import ReserveRequest, decide_reserve, foresee_reserve
from heddle_registry.core.selection import select
from heddle_registry.core.selection_maps import RecordMaps
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.transaction import Decision, Keys, Loaded, PutClaim, PutEntry, RemoveEntry
from tests.core.exploration_records import (
    BRANCH,
    FACTS,
    NOW,
    make_entry,
    make_records,
    owner_of,
    token_hash,
)
from tests.core.exploration_shapes import NOBODY, Branch, ClaimShape, HolderShape

if TYPE_CHECKING:
    from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
    from heddle_registry.errors import RegistryError

HOLDER, TOKEN = "h", "token of h"
ALICE, BOB, CAROL = 0, 1, 2


def _held_by(pid: int, *, file: str = "active", mark: bool = True) -> HolderShape:
    return HolderShape(file, pid, mark, pid, believes=True, done=False)


BY_OWNER = ClaimShape(held=True, owner=ALICE)
BY_TTL = ClaimShape(held=True, ttl="runs")
TTL_OVER = ClaimShape(held=True, ttl="over")
IN_STATE = {
    ClaimState.NONE: Branch(ClaimShape()),
    ClaimState.HELD: Branch(BY_OWNER, _held_by(ALICE)),
    ClaimState.EXPIRED: Branch(TTL_OVER, _held_by(ALICE)),
    ClaimState.LOST: Branch(BY_OWNER, _held_by(ALICE, file="abandoned", mark=False)),
}
HELD_BY_TTL = Branch(BY_TTL, _held_by(ALICE))


class Situation:
    """Records that decisions are asked about, and that keep what was decided."""

    def __init__(self, branch: Branch = IN_STATE[ClaimState.NONE]) -> None:
        entries, claims = make_records(branch)
        self.entries: dict[str, AgentEntry] = dict(entries)
        self.claims: dict[str, Claim] = dict(claims)
        self.unread_folders: dict[str, RegistryError] = {}

    def add(self, entry: AgentEntry) -> AgentEntry:
        self.entries[entry.session_id] = entry
        return entry

    def load(self, **keys: Any) -> Loaded:
        loaded = select(Keys(**keys), RecordMaps(entries=self.entries, claims=self.claims), NOW)
        return attrs.evolve(loaded, unread_folders=self.unread_folders)

    def keep(self, decision: Decision[Any]) -> Decision[Any]:
        for effect in decision.effects:
            match effect:
                case PutEntry(entry):
                    self.entries[entry.session_id] = entry
                case PutClaim(claim):
                    self.claims[claim.thread] = claim
                case RemoveEntry(session_id):
                    self.entries.pop(session_id, None)
        return decision

    def reserve(
        self,
        agent: int = BOB,
        *,
        session_id: str = "n",
        keep: bool = True,
        thread: str = BRANCH,
        facts: Any = FACTS,
        line: tuple[str, ...] = (),
        **request: Any,
    ) -> Decision[Any]:
        asked = ReserveRequest(
            thread=thread,
            **{
                "entry": new_entry(session_id, agent, thread=thread),
                "token": token_hash(session_id),
                "owner": owner_of(agent),
                **request,
            },
        )
        loaded = self.load(
            sessions=(asked.asker,) if asked.asker else (),
            threads=(thread,),
            path=asked.path,
            fresh_ids=(asked.entry.session_id,),
            stale=True,
        )
        loaded = attrs.evolve(loaded, line=line)
        decision = decide_reserve(asked, loaded, NOW, facts)
        # A look without the lock hears the same, but for what would be written.
        foreseen = foresee_reserve(asked, loaded, NOW, facts)
        would_write = isinstance(decision, Decision) and decision.effects
        assert foreseen == (Decision() if would_write else decision)
        return self.keep(decision) if keep else decision

    def renew(self, session_id: str = HOLDER, token: str | None = TOKEN) -> Decision[Any]:
        loaded = self.load(sessions=(session_id,))
        return self.keep(decide_renew(session_id, token, loaded, NOW, FACTS))

    def release(
        self, event: EntryEvent, token: str | None = TOKEN, session_id: str = HOLDER
    ) -> Decision[Any]:
        loaded = self.load(sessions=(session_id,))
        return self.keep(decide_release(session_id, event, Bearer(token=token), loaded, NOW))

    def hand_over(self, **request: Any) -> Decision[Any]:
        asked = HandOverRequest(
            **{
                "session_id": HOLDER,
                "bearer": TOKEN,
                "new_id": "heir",
                "token": token_hash("heir"),
                "owner": owner_of(BOB),
                **request,
            }
        )
        loaded = self.load(sessions=(asked.session_id,), fresh_ids=(asked.new_id,))
        return self.keep(decide_hand_over(asked, loaded, NOW, FACTS))

    @property
    def claim(self) -> Claim:
        return self.claims[BRANCH]

    def status_of(self, session_id: str) -> AgentStatus:
        return self.entries[session_id].status


def new_entry(session_id: str = "n", agent: int = BOB, **changes: Any) -> AgentEntry:
    """Return an Active entry as a caller builds it: with a pid, without our table."""
    plain = make_entry(session_id, agent, mark=False)
    defaults = {"native_parent_actor_key": None, "started_at": NOW.at, "thread": BRANCH}
    return attrs.evolve(plain, **{**defaults, **changes})


def present(session_id: str, agent: int, **changes: Any) -> AgentEntry:
    """Return an entry that is there without a claim."""
    extension = EntryExtension(owner=owner_of(agent)) if agent != NOBODY else None
    shown = {"native_actor_key": f"actor-{session_id}", "extension": extension}
    return new_entry(session_id, agent, **{**shown, **changes})


def days_ago(days: float) -> Timestamp:
    return Timestamp.from_unix_ns(NOW.at.unix_ns - int(days * 86_400 * 10**9))
