"""Heartbeats, tokens and fences: who is still believed, and what the others are told."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import ClaimState, EndCause
from heddle_registry.core.lifecycle import AgentStatus, EntryEvent
from heddle_registry.core.renew import (
    claim_of_session,
    decide_renew,
    entry_token_refusal,
    judge_fence,
    judge_token,
    other_claim_on_folder,
)
from heddle_registry.core.standing import Witness, stand
from heddle_registry.core.transaction import NeedFacts, UnknownFacts
from heddle_registry.errors import ClaimLost, IllegalTransition, StoreUnavailable, UnknownEntry
from tests.core.exploration_records import (
    BRANCH,
    FACTS,
    FENCE,
    NOW,
    make_entry,
    owner_of,
    token_hash,
)
from tests.core.exploration_shapes import DEAD
from tests.core.situations import (
    ALICE,
    BOB,
    HELD_BY_TTL,
    HOLDER,
    IN_STATE,
    TOKEN,
    Situation,
    present,
)

HELD, EXPIRED, LOST = ClaimState.HELD, ClaimState.EXPIRED, ClaimState.LOST


def fence_answer(situation: Situation, fence: int):
    loaded = situation.load(threads=(BRANCH,))
    standing = stand(loaded.claim_on(BRANCH, NOW), loaded.entries, Witness(FACTS), NOW)
    return judge_fence(standing, fence, loaded.entries)


@pytest.mark.parametrize("state", [HELD, EXPIRED])
def test_a_bearer_renews_under_the_same_fence_and_only_the_claim_is_written(state):
    situation = Situation(IN_STATE[state])
    before = situation.entries[HOLDER]
    decision = situation.renew()
    assert decision.answer.fence == FENCE
    assert decision.answer.entry.heartbeat_at == NOW.at
    assert situation.claim.holder.renewed_at == NOW
    assert situation.entries[HOLDER] == before


def test_a_renewal_says_within_how_long_the_next_is_due():
    assert Situation(HELD_BY_TTL).renew().answer.renew_within_s == 300.0
    assert Situation(IN_STATE[HELD]).renew().answer.renew_within_s is None


@pytest.mark.parametrize("token", [None, "", "token of n", "tökén", "\udcff"])
def test_any_other_token_is_refused_and_told_nothing(token):
    situation = Situation(IN_STATE[HELD])
    decision = situation.renew(token=token)
    assert isinstance(decision.refusal, ClaimLost)
    assert decision.refusal.by == ""
    assert "100" not in decision.refusal.why
    assert decision.effects == ()


def test_the_token_of_an_earlier_holder_is_told_who_took_it_when_and_why():
    situation = Situation(IN_STATE[HELD])
    situation.reserve(BOB, force_reason="it was stuck")
    refusal = situation.renew().refusal
    assert isinstance(refusal, ClaimLost)
    assert refusal.by == "n"
    assert NOW.at.text in refusal.why
    assert "it was stuck" in refusal.why


def test_the_story_goes_on_to_what_became_of_the_one_who_took_it():
    situation = Situation(IN_STATE[EXPIRED])
    situation.reserve(BOB)
    situation.release(EntryEvent.COMPLETE, "token of n", "n")
    why = situation.renew().refusal.why
    assert why.index("taken over by n") < why.index("released")
    assert why.endswith("the branch is free")


def test_the_bearer_of_a_lost_claim_is_told_and_the_loss_is_noted_once():
    situation = Situation(IN_STATE[LOST])
    refused = situation.renew()
    assert isinstance(refused.refusal, ClaimLost)
    assert "another program" in refused.refusal.why
    assert situation.claim.holder.lost_at == NOW.at
    assert situation.renew().effects == ()


def test_a_loss_that_was_told_is_not_undone_by_the_program_that_caused_it():
    situation = Situation(IN_STATE[LOST])
    situation.renew()
    situation.add(make_entry(HOLDER, ALICE, mark=False))
    assert isinstance(situation.renew().refusal, ClaimLost)
    assert not fence_answer(situation, FENCE).valid


def test_a_claim_whose_owner_died_is_renewed_by_nobody_even_after_its_ttl():
    for state in (HELD, EXPIRED):
        situation = Situation(IN_STATE[state])
        claim = situation.claim
        situation.claims[BRANCH] = attrs.evolve(
            claim, holder=attrs.evolve(claim.holder, owner=owner_of(DEAD))
        )
        assert not fence_answer(situation, FENCE).valid
        assert "dead" in situation.renew().refusal.why
        assert not fence_answer(situation, FENCE).valid


def test_an_expired_claim_is_not_renewed_while_another_has_its_folder():
    situation = Situation(IN_STATE[EXPIRED])
    situation.claims[BRANCH] = attrs.evolve(situation.claim, path="/w")
    situation.reserve(BOB, thread="other", path="/w")
    assert "'other'" in situation.renew().refusal.why
    situation.release(EntryEvent.COMPLETE, "token of n", "n")
    assert situation.renew().answer.fence == FENCE


def test_an_expired_claim_is_not_renewed_while_nobody_can_say_who_has_its_folder():
    error = StoreUnavailable("claims/x.toml", "input/output error")
    for state, renewed in ((EXPIRED, False), (ClaimState.HELD, True)):
        situation = Situation(IN_STATE[state])
        situation.claims[BRANCH] = attrs.evolve(situation.claim, path="/w")
        situation.unread_folders = {"/w": error}
        decision = situation.renew()
        assert (decision.refusal is error) is not renewed
        situation.unread_folders = {"/v": error}
        assert situation.renew().answer.fence == FENCE


def test_an_entry_without_a_claim_has_its_heartbeat_noted():
    situation = Situation()
    situation.add(present("p", ALICE))
    assert situation.renew("p", None).answer.fence is None
    assert situation.entries["p"].heartbeat_at == NOW.at
    situation.add(make_entry("done", ALICE, "complete", mark=False))
    assert isinstance(situation.renew("done", None).refusal, IllegalTransition)
    assert isinstance(situation.renew("nobody", None).refusal, UnknownEntry)


def test_a_token_that_another_program_left_in_clear_text_is_accepted_and_no_other():
    clear = attrs.evolve(present("p", ALICE), reservation_token="secret")
    assert entry_token_refusal(clear, "secret") is None
    assert isinstance(entry_token_refusal(clear, "guess"), ClaimLost)
    hashed = attrs.evolve(clear, reservation_token=None).extended(token=token_hash("p"))
    assert entry_token_refusal(hashed, "token of p") is None
    assert isinstance(entry_token_refusal(hashed, "secret"), ClaimLost)


def test_a_session_whose_entry_is_gone_finds_its_claim_by_name():
    situation = Situation(IN_STATE[HELD])
    del situation.entries[HOLDER]
    entry, claim = claim_of_session(HOLDER, situation.load(sessions=(HOLDER,)), NOW)
    assert (entry, claim.thread) == (None, BRANCH)


@pytest.mark.parametrize(
    ("state", "valid"),
    [(ClaimState.NONE, False), (HELD, True), (EXPIRED, True), (LOST, False)],
)
def test_a_fence_is_good_while_it_is_the_newest_and_held_or_expired_and_untaken(state, valid):
    situation = Situation(IN_STATE[state])
    assert fence_answer(situation, FENCE).valid is valid
    for other in (FENCE - 1, FENCE + 1):
        answer = fence_answer(situation, other)
        assert not answer.valid
        assert answer.why


def test_a_superseded_fence_is_told_its_end_and_the_holder_is_named():
    situation = Situation(IN_STATE[EXPIRED])
    situation.reserve(BOB)
    answer = fence_answer(situation, FENCE)
    assert (answer.valid, answer.fence, answer.holder) == (False, FENCE + 1, "n")
    assert "taken over by n" in answer.why


def test_a_token_can_be_judged_without_a_fence():
    situation = Situation(IN_STATE[HELD])
    assert judge_token(situation.claim, TOKEN) is None
    situation.reserve(BOB, force_reason="x")
    told = judge_token(situation.claim, TOKEN)
    assert "by force" in told.why
    assert (told.valid, told.holder) == (False, None)
    guessed = judge_token(situation.claim, "guess")
    assert (guessed.valid, guessed.why) == (False, "token refused")


@pytest.mark.parametrize("state", [HELD, EXPIRED])
@pytest.mark.parametrize("asks", ["renew", "hand_over"])
def test_a_death_that_was_told_is_not_undone_by_an_observer_who_sees_less(state, asks):
    situation = Situation(IN_STATE[state])
    claim = situation.claim
    situation.claims[BRANCH] = attrs.evolve(
        claim, holder=attrs.evolve(claim.holder, owner=owner_of(DEAD))
    )
    decision = getattr(situation, asks)()
    assert isinstance(decision.refusal, ClaimLost)
    assert decision.freed == (BRANCH,)
    assert situation.claim.past[0].cause is EndCause.DEAD
    assert situation.status_of(HOLDER) is AgentStatus.ABANDONED
    # From a container, say, where that pid proves nothing.
    loaded = situation.load(sessions=(HOLDER,))
    blind = decide_renew(HOLDER, TOKEN, loaded, NOW, UnknownFacts())
    assert "found dead" in blind.refusal.why
    assert blind.effects == ()


def test_nothing_is_renewed_before_somebody_looked_at_its_owner():
    situation = Situation(IN_STATE[HELD])
    loaded = situation.load(sessions=(HOLDER,))
    asked = decide_renew(HOLDER, TOKEN, loaded, NOW, {})
    assert isinstance(asked, NeedFacts)
    assert [subject.session_id for subject in asked.subjects] == [HOLDER]


def test_two_claims_without_a_folder_have_no_folder_in_common():
    situation = Situation(IN_STATE[EXPIRED])
    situation.reserve(BOB, thread="other")
    loaded = situation.load(threads=(BRANCH, "other"))
    assert set(loaded.claims) == {BRANCH, "other"}
    assert other_claim_on_folder(situation.claim, loaded, Witness(FACTS), NOW) is None
    assert decide_renew(HOLDER, TOKEN, loaded, NOW, FACTS).answer.fence == FENCE


def test_whoever_was_taken_over_and_guesses_is_refused_and_told_nothing():
    situation = Situation(IN_STATE[HELD])
    situation.reserve(BOB, force_reason="it was stuck")
    for token, why in (("guess", "token refused"), (None, "no token was shown")):
        decision = situation.renew(token=token)
        assert isinstance(decision.refusal, ClaimLost)
        assert decision.refusal.why.startswith(why)
        assert (decision.refusal.by, decision.effects) == ("", ())
        assert situation.claim.holder.session_id == "n"


def test_after_half_a_release_the_bearer_is_told_how_and_when_its_entry_ended():
    situation = Situation(IN_STATE[HELD])
    ended = attrs.evolve(
        situation.entries[HOLDER], status=AgentStatus.COMPLETE, completed_at=NOW.at
    )
    situation.add(ended.extended(fence=FENCE))
    refused = situation.renew()
    assert refused.refusal.why == f"its entry ended as complete at {NOW.at}"
    assert refused.effects == ()


def test_an_entry_that_was_reserved_and_is_in_no_claim_any_more_has_no_heartbeat():
    situation = Situation(IN_STATE[HELD])
    situation.add(present("p", ALICE).extended(fence=FENCE - 1, token=token_hash("p")))
    decision = situation.renew("p", "token of p")
    assert isinstance(decision.refusal, ClaimLost)
    assert decision.effects == ()


def test_a_fence_is_told_what_became_of_it():
    whys = {state: fence_answer(Situation(IN_STATE[state]), FENCE).why for state in (HELD, EXPIRED)}
    assert whys == {HELD: "held", EXPIRED: "its TTL has passed, but nobody took the branch"}
    situation = Situation(IN_STATE[HELD])
    never, older = (fence_answer(situation, fence) for fence in (FENCE + 1, FENCE - 1))
    assert never.why == f"fence {FENCE + 1} was never given; the newest is {FENCE}"
    assert older.why == f"fence {FENCE} came after it"
    assert (never.holder, older.holder) == (HOLDER, HOLDER)
    lost = fence_answer(Situation(IN_STATE[LOST]), FENCE)
    assert lost.why == "another program ended its entry"
    assert lost.holder is None
    free = fence_answer(Situation(), FENCE)
    assert (free.valid, free.holder) == (False, None)
    assert fence_answer(Situation(IN_STATE[EXPIRED]), FENCE - 1).holder is None
    standing = stand(
        situation.claim, situation.load(threads=(BRANCH,)).entries, Witness(FACTS), NOW
    )
    assert judge_fence(standing, FENCE - 1, {}).holder is None, "its entry is gone"


def test_the_fence_of_an_expired_claim_whose_folder_is_anothers_guards_nothing():
    situation = Situation(IN_STATE[EXPIRED])
    standing = stand(
        situation.claim, situation.load(threads=(BRANCH,)).entries, Witness(FACTS), NOW
    )
    answer = judge_fence(standing, FENCE, situation.entries, folder_taken_by="other")
    assert (answer.valid, answer.holder) == (False, None)
    assert answer.why == "its TTL has passed, and its folder belongs to the claim on 'other'"
