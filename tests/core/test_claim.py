"""Who may write: every cell of the design's table, and how a claim's state is read."""

from __future__ import annotations

from itertools import product

import attrs
import pytest

from heddle_registry.core.claim import (
    CLAIM_TRANSITIONS,
    MAX_PAST_HOLDERS,
    Claim,
    ClaimEvent,
    ClaimState,
    EndCause,
    Fence,
    claim_of_entry,
    claim_state,
    claim_step,
    read_ttl,
    with_ttl,
)
from heddle_registry.core.evidence import Evidence, Verdict, VerdictKind
from heddle_registry.core.lifecycle import AgentStatus
from tests.core.exploration_records import BRANCH, FENCE, NOW, TTL_S, earlier, make_entry, owner_of
from tests.core.exploration_shapes import DEAD
from tests.core.situations import ALICE, HELD_BY_TTL, HOLDER, IN_STATE, Situation

NONE, HELD, EXPIRED, LOST = ClaimState
RESERVE, RENEW, TTL_PASSES, HOLDER_DIES, HAND_OVER, FORCE, RELEASE = ClaimEvent
ABANDONED, COMPLETE = AgentStatus.ABANDONED, AgentStatus.COMPLETE

# (state that follows, whether the fence grows, what becomes of the old entry); None: refused, or
# it cannot happen. Written from the design's words; a release ends the entry by its own event.
TABLE = {
    (NONE, RESERVE): (HELD, True, None),
    (NONE, FORCE): (HELD, True, None),
    (HELD, RENEW): (HELD, False, None),
    (HELD, TTL_PASSES): (EXPIRED, False, None),
    (HELD, HOLDER_DIES): (NONE, False, ABANDONED),
    (HELD, HAND_OVER): (HELD, True, COMPLETE),
    (HELD, FORCE): (HELD, True, ABANDONED),
    (HELD, RELEASE): (NONE, False, None),
    (EXPIRED, RESERVE): (HELD, True, ABANDONED),
    (EXPIRED, RENEW): (HELD, False, None),
    (EXPIRED, HOLDER_DIES): (NONE, False, ABANDONED),
    (EXPIRED, FORCE): (HELD, True, ABANDONED),
    (EXPIRED, RELEASE): (NONE, False, None),
    (LOST, TTL_PASSES): (NONE, False, None),
    (LOST, HOLDER_DIES): (NONE, False, None),
    (LOST, FORCE): (HELD, True, None),
    (LOST, RELEASE): (NONE, False, None),
}

ALIVE = Verdict(VerdictKind.ALIVE)
GONE = Verdict(VerdictKind.DEAD)
UNKNOWN = Verdict(VerdictKind.UNKNOWN, (Evidence("not_observed", "nobody looked"),))


@pytest.mark.parametrize(("state", "event"), list(product(ClaimState, ClaimEvent)))
def test_every_cell_is_what_the_design_says(state, event):
    step = claim_step(state, event)
    told = None if step is None else (step.to, step.fence is Fence.RAISED, step.ends_as)
    assert told == TABLE.get((state, event))


def test_every_state_has_its_row():
    assert list(CLAIM_TRANSITIONS) == list(ClaimState)


def test_a_fence_must_grow_with_each_new_holder():
    held = Situation(IN_STATE[HELD]).claim
    for fence in (FENCE - 1, FENCE):
        with pytest.raises(ValueError, match="does not follow"):
            held.granted(held.holder, fence, None)
    assert held.granted(held.holder, FENCE + 1, "/p").path == "/p"


def test_an_ended_claim_keeps_the_story_of_its_last_holders_newest_first():
    claim = Situation(IN_STATE[HELD]).claim
    holder = claim.holder
    for fence in range(FENCE, FENCE + MAX_PAST_HOLDERS + 3):
        claim = claim.ended(EndCause.FORCED, NOW.at, by="agent-b", reason="stuck")
        assert (claim.holder, claim.path, claim.fence) == (None, None, fence)
        claim = claim.granted(holder, fence + 1, None)
    assert [past.fence for past in claim.past] == list(
        range(FENCE + MAX_PAST_HOLDERS + 2, FENCE + 2, -1)
    )
    assert claim.past[0].token == holder.token
    assert "agent-b" in claim.past[0].story()
    assert "stuck" in claim.past[0].story()
    free = claim.ended(EndCause.RELEASED, NOW.at)
    assert free.ended(EndCause.LOST, NOW.at) == free


@pytest.mark.parametrize("cause", EndCause)
def test_every_end_has_a_story_that_says_when(cause):
    claim = Situation(IN_STATE[HELD]).claim.ended(cause, NOW.at)
    assert NOW.at.text in claim.past[0].story()


@pytest.mark.parametrize("state", ClaimState)
def test_a_state_is_read_from_clock_entry_and_verdict(state):
    situation = Situation(IN_STATE[state])
    assert claim_state(situation.claim, situation.entries.get(HOLDER), ALIVE, NOW) is state


def test_a_ttl_alone_decides_whether_a_claim_is_expired_whatever_lives():
    situation = Situation(HELD_BY_TTL)
    entry, claim = situation.entries[HOLDER], situation.claim
    owned = attrs.evolve(claim, holder=attrs.evolve(claim.holder, owner=owner_of(ALICE)))
    over = attrs.evolve(owned, holder=attrs.evolve(owned.holder, renewed_at=earlier(TTL_S)))
    assert claim_state(owned, entry, ALIVE, NOW) is HELD
    assert claim_state(over, entry, ALIVE, NOW) is EXPIRED
    assert claim_state(over, entry, GONE, NOW) is EXPIRED
    assert claim_state(owned, entry, GONE, NOW) is NONE
    assert claim_state(owned, entry, UNKNOWN, NOW) is HELD


def test_a_ttl_holds_to_its_last_moment_and_is_over_with_it():
    claim = Situation(HELD_BY_TTL).claim
    for left_s, state in ((0.5, HELD), (0.0, EXPIRED)):
        holder = attrs.evolve(claim.holder, ttl_s=TTL_S, renewed_at=earlier(TTL_S - left_s))
        by_ttl = attrs.evolve(claim, holder=holder)
        entry = Situation(HELD_BY_TTL).entries[HOLDER]
        assert read_ttl(holder, NOW).left_s == left_s
        assert claim_state(by_ttl, entry, UNKNOWN, NOW) is state


def test_a_lost_claim_frees_only_when_both_process_and_ttl_are_over():
    claim = Situation(HELD_BY_TTL).claim
    both = attrs.evolve(claim, holder=attrs.evolve(claim.holder, owner=owner_of(ALICE)))
    over = attrs.evolve(both, holder=attrs.evolve(both.holder, renewed_at=earlier(TTL_S)))
    assert claim_state(both, None, GONE, NOW) is LOST
    assert claim_state(over, None, ALIVE, NOW) is LOST
    assert claim_state(over, None, UNKNOWN, NOW) is LOST
    assert claim_state(over, None, GONE, NOW) is NONE


def test_a_loss_that_was_seen_stays_although_the_entry_came_back():
    situation = Situation(IN_STATE[HELD])
    claim = situation.claim
    seen = attrs.evolve(claim, holder=attrs.evolve(claim.holder, lost_at=NOW.at))
    assert claim_state(seen, situation.entries[HOLDER], ALIVE, NOW) is LOST


def test_an_entry_that_we_ended_ends_its_claim_though_the_second_write_is_missing():
    claim = Situation(IN_STATE[HELD]).claim
    ours = make_entry(HOLDER, ALICE, "complete", FENCE)
    assert claim_state(claim, ours, ALIVE, NOW) is NONE
    earlier_claim = make_entry(HOLDER, ALICE, "complete", FENCE - 1)
    assert claim_state(claim, earlier_claim, ALIVE, NOW) is LOST


def test_a_ttl_is_counted_awake_and_says_when_it_had_to_use_the_wall_clock():
    holder = Situation(HELD_BY_TTL).claim.holder
    slept = attrs.evolve(NOW, at=earlier(-10 * TTL_S).at)
    assert read_ttl(holder, slept) == read_ttl(holder, NOW)
    rebooted = attrs.evolve(slept, boot_id="another")
    reading = read_ttl(holder, rebooted)
    assert (reading.has_passed, reading.wall_clock) == (True, True)
    codes = [evidence.code for evidence in with_ttl(UNKNOWN, reading).evidence]
    assert codes == ["expired", "wall_clock", "not_observed"]
    assert read_ttl(attrs.evolve(holder, ttl_s=None), NOW) is None


def test_an_entrys_copies_stand_for_a_missing_claim_file():
    by_ttl = make_entry("o", ALICE, fence=3, ttl="over")
    claim = claim_of_entry(by_ttl, NOW)
    assert (claim.fence, claim.holder.session_id, claim.holder.owner) == (3, "o", None)
    assert claim_state(claim, by_ttl, UNKNOWN, NOW) is EXPIRED
    by_owner = make_entry("o", DEAD, fence=3)
    assert claim_of_entry(by_owner, NOW).holder.owner == owner_of(DEAD)
    assert claim_of_entry(make_entry("p", ALICE), NOW) == Claim(thread=BRANCH)
