"""What is put in the place of a claim whose file is damaged."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import MAX_PAST_HOLDERS, ClaimState, EndCause, claim_state
from heddle_registry.core.evidence import LivenessFile
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.recovery import ClaimRemains, fence_above, recover_claim
from heddle_registry.core.standing import Witness
from tests.core.exploration_records import (
    BRANCH,
    FENCE,
    NOW,
    TrueFacts,
    make_entry,
    make_past,
    owner_of,
    token_hash,
)
from tests.core.exploration_shapes import DEAD
from tests.core.situations import ALICE, HELD_BY_TTL, HOLDER, IN_STATE, Situation, days_ago

NOTHING = ClaimRemains()
STATES = {"held": IN_STATE[ClaimState.HELD], "by a TTL": HELD_BY_TTL,
          "expired": IN_STATE[ClaimState.EXPIRED], "lost": IN_STATE[ClaimState.LOST]}  # fmt: skip


verdict = Witness(TrueFacts()).verdict


def recovered(situation: Situation, remains: ClaimRemains = NOTHING):
    return recover_claim(BRANCH, remains, situation.entries.values(), verdict, NOW)


def remains_of(situation: Situation, **changes) -> ClaimRemains:
    claim = situation.claim
    fields = {
        "thread": BRANCH,
        "fence": claim.fence,
        "highest_fence": claim.fence,
        "path": claim.path,
        "holder": claim.holder,
        "is_holder_whole": claim.holder is not None,
        "past": claim.past,
    }
    return ClaimRemains(**{**fields, **changes})


@pytest.mark.parametrize("name", STATES)
def test_a_holder_that_the_file_still_tells_stands_as_before_under_a_new_fence(name):
    situation = Situation(STATES[name])
    before = situation.claim
    lock = LivenessFile(device=1, inode=2) if before.holder.owner is not None else None
    holder = attrs.evolve(before.holder, liveness=lock)
    claim, entry = recovered(situation, remains_of(situation, path="/w", holder=holder))
    assert (claim.holder, claim.path, claim.fence) == (holder, "/w", FENCE + 1)
    stored = situation.entries[HOLDER]
    assert entry == (stored.extended(fence=FENCE + 1) if stored.is_active else None)
    seen = verdict(claim.holder.subject(claim.fence))
    assert claim_state(claim, entry or stored, seen, NOW) is claim_state(before, stored, seen, NOW)


def test_where_the_file_tells_of_no_holder_the_newest_active_copy_holds():
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(make_entry("older", ALICE, fence=FENCE - 1))
    broken = attrs.evolve(situation.claim.holder, session_id="older")
    for remains in (NOTHING, ClaimRemains(holder=broken, is_holder_whole=False)):
        claim, entry = recovered(situation, remains)
        assert (claim.holder.session_id, claim.holder.token) == (HOLDER, token_hash(HOLDER))
        assert entry == situation.entries[HOLDER].extended(fence=FENCE + 1)


def test_part_of_a_holder_keeps_a_branch_closed_whose_entry_another_program_ended():
    situation = Situation(IN_STATE[ClaimState.LOST])
    part = attrs.evolve(situation.claim.holder, token=None)
    remains = remains_of(situation, holder=part, is_holder_whole=False)
    assert recovered(situation, remains).claim.holder == part
    # But not for ever: what could end it must be there.
    endless = attrs.evolve(part, owner=None)
    remains = remains_of(situation, holder=endless, is_holder_whole=False)
    assert recovered(situation, remains).claim.holder is None


@pytest.mark.parametrize("from_file", [True, False])
def test_a_dead_holder_comes_back_as_a_past_one(from_file):
    situation = Situation(IN_STATE[ClaimState.HELD])
    holder = attrs.evolve(situation.claim.holder, owner=owner_of(DEAD))
    situation.add(make_entry(HOLDER, DEAD, fence=FENCE))
    remains = remains_of(situation, holder=holder) if from_file else NOTHING
    claim, entry = recovered(situation, remains)
    assert (claim.holder, entry) == (None, None)
    told = claim.past[0]
    assert (told.session_id, told.fence, told.cause) == (HOLDER, FENCE, EndCause.DEAD)
    assert told.token == token_hash(HOLDER)


@pytest.mark.parametrize("fence", [FENCE, 0])
def test_the_first_half_of_a_release_is_not_undone(fence):
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(make_entry(HOLDER, ALICE, "complete", FENCE))
    claim, _ = recovered(situation, remains_of(situation, fence=fence))
    assert claim.holder is None
    assert (claim.past[0].cause, claim.past[0].fence) == (EndCause.RELEASED, FENCE)


def test_a_lost_holder_with_nothing_behind_it_is_told_as_lost():
    situation = Situation(IN_STATE[ClaimState.LOST])
    holder = attrs.evolve(situation.claim.holder, owner=owner_of(DEAD))
    claim, _ = recovered(situation, remains_of(situation, holder=holder))
    assert (claim.holder, claim.past[0].cause) == (None, EndCause.LOST)


def test_earlier_holders_come_from_the_file_and_else_from_their_entries():
    situation = Situation(IN_STATE[ClaimState.HELD])
    in_both = situation.add(make_entry("both", ALICE, "abandoned", FENCE - 1))
    situation.add(make_entry("x", ALICE, "abandoned", FENCE - 2))
    situation.add(make_entry("presence", ALICE, "complete", mark=False))
    situation.add(make_entry("there", ALICE, "complete", FENCE - 3, thread="elsewhere"))
    told = attrs.evolve(make_past("both", FENCE - 1), cause=EndCause.FORCED, reason="why")
    claim, _ = recovered(situation, remains_of(situation, past=(told,)))
    assert [past.session_id for past in claim.past] == ["both", "x"]
    assert claim.past[0] == told
    assert claim.past[1].token == token_hash("x")
    assert claim.past[1].ended_at == in_both.completed_at
    assert "abandoned" in claim.past[1].story()
    assert "could not be asked" in claim.past[1].story()


def test_no_more_past_holders_are_kept_than_a_claim_has_and_these_are_the_newest():
    situation = Situation()
    for fence in range(1, MAX_PAST_HOLDERS + 4):
        situation.add(make_entry(f"x{fence}", ALICE, "complete", fence))
    claim, _ = recovered(situation)
    assert [past.fence for past in claim.past] == list(range(MAX_PAST_HOLDERS + 3, 3, -1))
    assert claim.past[0].reason == AgentStatus.COMPLETE.value


def test_the_fence_is_above_every_one_that_is_shown_on_the_branch_and_can_be_followed():
    entries = [
        make_entry("a", ALICE, "complete", 5),
        make_entry("b", ALICE, "complete", 9, thread="elsewhere"),
        make_entry("c", ALICE, "complete", 2**63 - 1),
    ]
    assert fence_above(BRANCH, NOTHING, entries) == 6
    assert fence_above(BRANCH, ClaimRemains(highest_fence=7), entries) == 8
    assert fence_above(BRANCH, NOTHING, []) == 1
    last = [make_entry("d", ALICE, "complete", 2**63 - 2)]
    assert fence_above(BRANCH, NOTHING, last) == 2**63 - 1
    assert fence_above(BRANCH, ClaimRemains(highest_fence=2**63 - 1), []) == 1
    without = [make_entry("e", ALICE, "complete", mark=False)]
    assert fence_above(BRANCH, NOTHING, without) == 1


def test_a_file_that_says_nothing_says_nothing_of_a_fence_or_a_holder():
    assert (NOTHING.fence, NOTHING.highest_fence, NOTHING.holder) == (0, 0, None)
    assert not NOTHING.is_holder_whole
    claim, entry = recover_claim(BRANCH, NOTHING, [], verdict, NOW)
    assert (claim.fence, claim.holder, claim.past, entry) == (1, None, (), None)


def test_a_fence_that_the_file_still_tells_counts_before_that_of_the_entry():
    situation = Situation(IN_STATE[ClaimState.HELD])
    holder = attrs.evolve(situation.claim.holder, owner=owner_of(DEAD))
    situation.add(make_entry(HOLDER, DEAD, mark=False))
    claim, _ = recovered(situation, remains_of(situation, holder=holder))
    assert (claim.past[0].session_id, claim.past[0].fence) == (HOLDER, FENCE)
    unknown, _ = recovered(situation, remains_of(situation, holder=holder, fence=0))
    assert unknown.past[0].fence == 0, "nobody tells it"
    del situation.entries[HOLDER]
    gone, entry = recovered(situation, remains_of(situation, holder=holder, fence=0))
    assert (gone.holder, entry) == (None, None)


def test_a_holder_whose_entry_is_gone_keeps_the_branch_while_it_may_live():
    situation = Situation(IN_STATE[ClaimState.HELD])
    holder = situation.claim.holder
    del situation.entries[HOLDER]
    claim, entry = recovered(situation, remains_of(situation))
    assert (claim.holder, entry) == (holder, None)


def test_of_two_active_copies_the_one_with_the_greater_fence_holds_and_a_presence_never():
    older, newer = (make_entry(name, ALICE, fence=fence) for name, fence in (("a", 2), ("b", 5)))
    presence = make_entry("p", ALICE, mark=False)
    for order in ([older, newer, presence], [presence, newer, older]):
        claim, entry = recover_claim(BRANCH, NOTHING, order, verdict, NOW)
        assert (claim.holder.session_id, entry.session_id, claim.fence) == ("b", "b", 6)
    free, entry = recover_claim(BRANCH, NOTHING, [presence], verdict, NOW)
    assert (free.holder, entry) == (None, None)


def test_a_past_holders_end_is_its_entrys_and_else_its_beginning():
    ended = make_entry("x", ALICE, "complete", 3)
    begun = attrs.evolve(ended, started_at=days_ago(2), completed_at=days_ago(1))
    for entry, at in ((begun, days_ago(1)), (attrs.evolve(begun, completed_at=None), days_ago(2))):
        claim, _ = recover_claim(BRANCH, NOTHING, [entry], verdict, NOW)
        assert claim.past[0].ended_at == at
