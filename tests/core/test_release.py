"""Ending a claim, and handing it over."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import ClaimState, EndCause, PastHolder
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.release import (
    HandOverRequest,
    decide_hand_over,
    decide_release,
    end_entry,
)
from heddle_registry.core.transaction import IdTaken, NeedFacts, PutClaim, PutEntry
from heddle_registry.errors import ClaimLost, IllegalTransition, UnknownEntry
from tests.core.exploration_records import BRANCH, FENCE, NOW, make_entry, owner_of, token_hash
from tests.core.exploration_shapes import DEAD
from tests.core.situations import ALICE, BOB, HOLDER, IN_STATE, TOKEN, Situation, present

HELD, EXPIRED, LOST = ClaimState.HELD, ClaimState.EXPIRED, ClaimState.LOST


@pytest.mark.parametrize("state", [HELD, EXPIRED])
@pytest.mark.parametrize(
    ("event", "status"),
    [
        (EntryEvent.COMPLETE, AgentStatus.COMPLETE),
        (EntryEvent.MERGE, AgentStatus.MERGED),
        (EntryEvent.ABANDON, AgentStatus.ABANDONED),
    ],
)
def test_a_release_ends_the_entry_then_the_claim_and_frees_the_branch(state, event, status):
    situation = Situation(IN_STATE[state])
    decision = situation.release(event)
    assert [type(effect) for effect in decision.effects] == [PutEntry, PutClaim]
    assert decision.freed == (BRANCH,)
    assert decision.answer.status is status
    assert (situation.claim.holder, situation.claim.fence) == (None, FENCE)
    assert situation.claim.past[0].cause is EndCause.RELEASED


def test_progress_ends_nothing():
    situation = Situation(IN_STATE[HELD])
    assert situation.release(EntryEvent.PROGRESS).effects == ()
    assert situation.claim.holder is not None


@pytest.mark.parametrize("token", [None, "guess"])
def test_a_release_without_the_token_is_refused_and_changes_nothing(token):
    situation = Situation(IN_STATE[HELD])
    decision = situation.release(EntryEvent.COMPLETE, token)
    assert isinstance(decision.refusal, ClaimLost)
    assert decision.effects == ()


def test_a_door_without_a_bearer_asks_for_no_token():
    loaded = Situation(IN_STATE[HELD]).load(sessions=(HOLDER,))
    assert decide_release(HOLDER, EntryEvent.ABANDON, None, loaded, NOW).refusal is None


def test_a_complete_entry_becomes_merged_by_release_without_a_token():
    situation = Situation(IN_STATE[HELD])
    situation.release(EntryEvent.COMPLETE)
    assert situation.release(EntryEvent.MERGE, None).answer.status is AgentStatus.MERGED
    refused = situation.release(EntryEvent.ABANDON, None)
    assert isinstance(refused.refusal, IllegalTransition)
    assert refused.effects == ()


def test_a_release_cut_short_by_a_crash_is_over_and_can_be_repeated():
    situation = Situation(IN_STATE[HELD])
    loaded = situation.load(sessions=(HOLDER,))
    entry = situation.entries[HOLDER]
    _, effects, _ = end_entry(entry, EntryEvent.COMPLETE, loaded.claims[BRANCH], NOW)
    situation.entries[HOLDER] = effects[0].entry
    assert situation.renew().refusal is not None
    assert situation.release(EntryEvent.COMPLETE).refusal is None
    assert situation.claim.holder is None


def test_the_mark_is_put_back_where_a_stranger_dropped_it():
    situation = Situation(IN_STATE[HELD])
    situation.add(make_entry(HOLDER, ALICE, mark=False))
    situation.release(EntryEvent.COMPLETE)
    assert situation.entries[HOLDER].fence == FENCE


def test_the_bearer_of_a_lost_claim_ends_it_and_is_told_that_it_was_lost():
    situation = Situation(IN_STATE[LOST])
    decision = situation.release(EntryEvent.COMPLETE)
    assert isinstance(decision.refusal, ClaimLost)
    assert decision.freed == (BRANCH,)
    assert situation.claim.holder is None
    assert situation.claim.past[0].cause is EndCause.LOST


def test_a_presence_ends_by_its_event_alone_and_frees_the_branch():
    situation = Situation()
    situation.add(present("p", ALICE))
    assert situation.release(EntryEvent.COMPLETE, None, "p").freed == (BRANCH,)
    assert situation.status_of("p") is AgentStatus.COMPLETE
    assert isinstance(situation.release(EntryEvent.COMPLETE, None, "nobody").refusal, UnknownEntry)


def test_a_hand_over_makes_an_entry_that_continues_under_the_next_fence_and_keeps_the_folder():
    situation = Situation(IN_STATE[HELD])
    situation.claims[BRANCH] = attrs.evolve(situation.claim, path="/w")
    decision = situation.hand_over()
    kinds = [type(effect) for effect in decision.effects]
    assert kinds == [PutEntry, PutClaim, PutEntry]
    heir = decision.answer.entry
    assert (heir.extension.continues, heir.fence, heir.pid) == (HOLDER, FENCE + 1, 100 + BOB)
    assert heir.owner == owner_of(BOB)
    assert heir.native_actor_key is None
    assert (situation.claim.path, situation.claim.holder.owner) == ("/w", owner_of(BOB))
    assert situation.status_of(HOLDER) is AgentStatus.COMPLETE
    refusal = situation.renew().refusal
    assert refusal.by == "heir"
    assert "handed over" in refusal.why
    assert situation.renew("heir", "token of heir").answer.fence == FENCE + 1


def test_after_the_heirs_death_the_branch_is_free_and_the_old_token_is_told_that():
    situation = Situation(IN_STATE[HELD])
    situation.hand_over(owner=owner_of(DEAD))
    assert situation.reserve(BOB).answer.fence == FENCE + 2
    why = situation.renew().refusal.why
    assert why.index("handed over") < why.index("found dead")


@pytest.mark.parametrize("state", [EXPIRED, LOST])
def test_an_expired_or_lost_claim_is_not_handed_over(state):
    situation = Situation(IN_STATE[state])
    decision = situation.hand_over()
    assert isinstance(decision.refusal, ClaimLost)
    assert "heir" not in situation.entries


def test_a_hand_over_needs_the_token_an_unused_id_and_a_claim():
    situation = Situation(IN_STATE[HELD])
    assert isinstance(situation.hand_over(bearer="guess").refusal, ClaimLost)
    assert situation.hand_over(new_id=HOLDER).answer == IdTaken(HOLDER)
    situation.add(present("p", ALICE, thread="other"))
    assert "no claim" in situation.hand_over(session_id="p").refusal.why
    assert isinstance(situation.hand_over(session_id="nobody").refusal, UnknownEntry)


def test_nothing_is_handed_over_before_somebody_looked_at_its_owner():
    loaded = Situation(IN_STATE[HELD]).load(sessions=(HOLDER,), fresh_ids=("heir",))
    request = HandOverRequest(
        session_id=HOLDER, bearer=TOKEN, new_id="heir", token=token_hash("heir")
    )
    assert isinstance(decide_hand_over(request, loaded, NOW, {}), NeedFacts)


def test_an_heir_begins_anew_and_a_ttl_heir_has_no_process():
    situation = Situation(IN_STATE[HELD])
    situation.add(
        attrs.evolve(
            situation.entries[HOLDER], heartbeat_at=NOW.at, liveness_path="/l", native_actor_key="k"
        ).extended(runner_pid=7, fence=FENCE)
    )
    decision = situation.hand_over(owner=None, ttl_s=60.0)
    heir = decision.answer.entry
    assert (heir.pid, heir.boot_id, heir.owner) == (None, None, None)
    assert (heir.heartbeat_at, heir.liveness_path, heir.native_actor_key) == (None, None, None)
    assert (heir.extension.runner_pid, heir.extension.ttl_s) == (None, 60.0)
    assert heir.started_at == NOW.at
    assert decision.commits == 2
    assert situation.claim.past[0].reason == "to a TTL"
    assert situation.claim.holder.ttl_s == 60.0
    again = situation.hand_over(
        session_id="heir", bearer="token of heir", new_id="third", owner=owner_of(BOB)
    )
    assert again.answer.fence == FENCE + 2
    assert situation.claim.past[0].reason == f"to process {owner_of(BOB).pid}"


def test_the_bearer_of_an_expired_claim_is_told_to_renew_it_first():
    situation = Situation(IN_STATE[EXPIRED])
    refused = situation.hand_over()
    assert "renew it first" in refused.refusal.why
    assert refused.effects == ()
    claim = situation.claim
    situation.claims[BRANCH] = attrs.evolve(
        claim, holder=attrs.evolve(claim.holder, owner=owner_of(DEAD))
    )
    assert "found dead" in situation.hand_over().refusal.why


def test_a_release_cut_short_is_repeated_with_the_token_only():
    situation = Situation(IN_STATE[HELD])
    loaded = situation.load(sessions=(HOLDER,))
    entry = situation.entries[HOLDER]
    _, effects, _ = end_entry(entry, EntryEvent.COMPLETE, loaded.claims[BRANCH], NOW)
    situation.add(effects[0].entry)
    for token in (None, "guess"):
        refused = situation.release(EntryEvent.COMPLETE, token)
        assert isinstance(refused.refusal, ClaimLost)
        assert refused.effects == ()
    del situation.entries[HOLDER]
    assert isinstance(situation.release(EntryEvent.COMPLETE, "guess").refusal, ClaimLost)


def test_whoever_was_taken_over_is_told_so_when_it_releases_and_a_stranger_is_not():
    situation = Situation(IN_STATE[HELD])
    active = situation.entries[HOLDER]
    situation.reserve(BOB, force_reason="it was stuck")
    for entry in (situation.entries[HOLDER], active):  # ended, or left over by a crash
        situation.add(entry)
        told = situation.release(EntryEvent.COMPLETE).refusal
        assert isinstance(told, ClaimLost)
        assert (told.by, "it was stuck" in told.why) == ("n", True)
    guessed = situation.release(EntryEvent.COMPLETE, "guess").refusal
    assert isinstance(guessed, ClaimLost)
    assert (guessed.by, guessed.why) == ("", "token refused")


def test_an_earlier_holders_end_does_not_end_the_lost_claim_of_the_one_after_it():
    situation = Situation(IN_STATE[LOST])
    past = PastHolder(session_id="old", fence=FENCE - 1, ended_at=NOW.at, cause=EndCause.FORCED)
    situation.claims[BRANCH] = attrs.evolve(situation.claim, past=(past,))
    situation.add(present("old", BOB))
    loaded = situation.load(sessions=("old",))
    decision = situation.keep(decide_release("old", EntryEvent.ABANDON, None, loaded, NOW))
    assert decision.refusal is None
    assert situation.claim.holder is not None
    assert situation.status_of("old") is AgentStatus.ABANDONED
