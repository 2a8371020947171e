"""Reaping on proof, pruning the stale, and what is left alone."""

from __future__ import annotations

import attrs

from heddle_registry.core.claim import ClaimState, EndCause
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.sweep import NEWER_SCHEMA, decide_sweep
from heddle_registry.core.transaction import NeedFacts, PutClaim, RemoveEntry, UnknownFacts
from heddle_registry.errors import RecordCorrupt
from tests.core.exploration_records import BRANCH, FACTS, FENCE, NOW, make_entry, owner_of
from tests.core.exploration_shapes import DEAD, NOBODY
from tests.core.situations import (
    ALICE,
    HELD_BY_TTL,
    HOLDER,
    IN_STATE,
    Situation,
    days_ago,
    present,
)


def sweep(situation: Situation, *, facts=FACTS, **options):
    loaded = situation.load(sessions=(HOLDER,), all_active=True, all_stale=True)
    ids = tuple(dict.fromkeys((HOLDER, *situation.entries)))
    decision = decide_sweep(ids, loaded, NOW, facts, **options)
    return decision if isinstance(decision, NeedFacts) else situation.keep(decision)


def with_owner(situation: Situation, label: int) -> Situation:
    claim = situation.claim
    holder = attrs.evolve(claim.holder, owner=owner_of(label))
    situation.claims[BRANCH] = attrs.evolve(claim, holder=holder)
    return situation


def test_the_living_are_never_reaped_and_the_unknown_are_kept_and_named():
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(present("alive", ALICE))
    situation.add(present("unknown", NOBODY))
    answer = sweep(situation).answer
    assert (answer.reaped, answer.pruned) == ((), ())
    assert [session_id for session_id, _ in answer.kept] == ["unknown"]


def test_a_dead_holder_is_reaped_with_its_claim_and_the_branch_freed():
    situation = with_owner(Situation(IN_STATE[ClaimState.HELD]), DEAD)
    decision = sweep(situation)
    assert decision.answer.reaped == (HOLDER,)
    assert decision.freed == (BRANCH,)
    assert situation.status_of(HOLDER) is AgentStatus.ABANDONED
    assert (situation.claim.holder, situation.claim.past[0].cause) == (None, EndCause.DEAD)


def test_dead_presences_and_orphans_are_abandoned():
    situation = Situation()
    situation.add(present("dead", DEAD))
    situation.add(make_entry("orphan", ALICE, fence=FENCE + 1))
    decision = sweep(situation)
    assert set(decision.answer.reaped) == {"dead", "orphan"}
    assert BRANCH in decision.freed


def test_an_expired_holder_stays_until_asked_for():
    situation = Situation(IN_STATE[ClaimState.EXPIRED])
    assert sweep(situation).answer.kept == ((HOLDER, "expired"),)
    assert sweep(situation, end_expired=True).answer.reaped == (HOLDER,)
    assert situation.claim.past[0].cause is EndCause.EXPIRED


def test_a_running_ttl_keeps_its_holder():
    assert sweep(Situation(HELD_BY_TTL), end_expired=True).answer.kept == ((HOLDER, "ttl_running"),)


def test_a_lost_claim_ends_once_nothing_is_behind_it_and_not_before():
    situation = Situation(IN_STATE[ClaimState.LOST])
    assert sweep(situation).effects == ()
    with_owner(situation, DEAD)
    assert sweep(situation).freed == (BRANCH,)
    assert situation.claim.past[0].cause is EndCause.LOST


def test_the_rest_of_a_release_that_a_crash_cut_short_is_done_and_told_as_what_it_is():
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(make_entry(HOLDER, ALICE, "complete", FENCE))
    sweep(situation)
    assert situation.claim.past[0].cause is EndCause.RELEASED


def test_a_holders_ended_entry_is_pruned_with_its_claim_and_not_before():
    situation = Situation(IN_STATE[ClaimState.LOST])
    bare = situation.entries[HOLDER]
    situation.add(attrs.evolve(bare, completed_at=days_ago(8)))
    loaded = situation.load(sessions=(HOLDER,))
    assert loaded.stale_ids == (HOLDER,)
    assert sweep(situation).answer.pruned == ()
    situation.add(attrs.evolve(bare, completed_at=days_ago(8)).extended(fence=FENCE))
    decision = decide_sweep((HOLDER,), situation.load(sessions=(HOLDER,)), NOW, FACTS)
    assert decision.answer.ended_claims == (BRANCH,)
    assert decision.answer.pruned == (HOLDER,)
    assert [type(effect) for effect in decision.effects] == [PutClaim, RemoveEntry]


def test_ended_entries_are_pruned_after_seven_days_and_not_earlier():
    situation = Situation()
    for session_id, days in (("old", 7), ("young", 6.99)):
        entry = make_entry(session_id, ALICE, "complete", mark=False)
        situation.add(attrs.evolve(entry, completed_at=days_ago(days)))
    assert sweep(situation).answer.pruned == ("old",)
    assert "young" in situation.entries


def test_a_sweep_of_one_branch_reaps_on_no_other():
    situation = Situation()
    situation.add(present("here", DEAD))
    situation.add(present("there", DEAD, thread="other"))
    assert sweep(situation, only_thread=BRANCH).answer.reaped == ("here",)


def test_facts_are_asked_for_before_anything_is_decided():
    situation = with_owner(Situation(IN_STATE[ClaimState.HELD]), DEAD)
    asked = sweep(situation, facts={})
    assert [subject.session_id for subject in asked.subjects] == [HOLDER]


def test_what_a_newer_program_wrote_and_what_cannot_be_judged_is_kept():
    situation = Situation()
    situation.add(present("newer", DEAD).extended(schema=2))
    assert sweep(situation).answer.kept == (("newer", NEWER_SCHEMA),)
    loaded = situation.load(all_active=True)
    error = RecordCorrupt("claims/x.toml", ["not TOML"])
    loaded = attrs.evolve(loaded, claims={}, damaged_claims={BRANCH: error})
    decision = decide_sweep(("newer",), loaded, NOW, FACTS)
    assert decision.answer.kept == (("newer", "claim_unreadable"),)


def test_a_newer_programs_holder_is_kept_with_its_claim_though_it_is_dead():
    situation = with_owner(Situation(IN_STATE[ClaimState.HELD]), DEAD)
    situation.add(situation.entries[HOLDER].extended(schema=2))
    decision = sweep(situation)
    assert decision.answer.kept == ((HOLDER, NEWER_SCHEMA),)
    assert (decision.effects, decision.freed) == ((), ())
    situation = Situation()
    situation.add(make_entry("orphan", ALICE, fence=FENCE + 1).extended(schema=2))
    assert sweep(situation).answer.kept == (("orphan", NEWER_SCHEMA),)


def test_a_dead_owner_is_told_as_dead_also_after_its_ttl_and_by_what_evidence():
    for state in (ClaimState.HELD, ClaimState.EXPIRED):
        situation = with_owner(Situation(IN_STATE[state]), DEAD)
        assert sweep(situation, end_expired=True).answer.reaped == (HOLDER,)
        past = situation.claim.past[0]
        assert past.cause is EndCause.DEAD
        assert past.reason
        assert situation.entries[HOLDER].fence == FENCE


def test_a_holder_of_whom_nothing_is_known_is_kept_and_named():
    situation = Situation(IN_STATE[ClaimState.HELD])
    loaded = situation.load(sessions=(HOLDER,))
    decision = decide_sweep((HOLDER, "nobody"), loaded, NOW, UnknownFacts())
    assert [session_id for session_id, _ in decision.answer.kept] == [HOLDER]
    assert (decision.effects, decision.answer.ended_claims) == ((), ())


def test_what_has_ended_or_was_not_asked_for_is_left_alone():
    situation = with_owner(Situation(IN_STATE[ClaimState.HELD]), DEAD)
    situation.add(make_entry("done", DEAD, "complete", mark=False))
    loaded = situation.load(sessions=(HOLDER, "done"), threads=(BRANCH,))
    assert decide_sweep(("done",), loaded, NOW, FACTS).effects == ()
    old = attrs.evolve(make_entry("old", ALICE, "complete", mark=False), completed_at=days_ago(8))
    situation.add(old)
    assert decide_sweep((), situation.load(all_stale=True), NOW, FACTS).effects == ()


def test_each_dead_presence_frees_its_branch_and_is_abandoned_now():
    situation = Situation()
    situation.add(present("dead", DEAD, thread="other"))
    decision = sweep(situation)
    assert decision.freed == ("other",)
    assert situation.entries["dead"].completed_at == NOW.at
    assert situation.status_of("dead") is AgentStatus.ABANDONED


def test_a_claim_whose_holders_entry_is_gone_ends_once_its_owner_is_dead():
    situation = Situation(IN_STATE[ClaimState.HELD])
    del situation.entries[HOLDER]
    assert sweep(situation).effects == ()
    with_owner(situation, DEAD)
    decision = sweep(situation)
    assert decision.answer.ended_claims == (BRANCH,)
    assert decision.freed == (BRANCH,)
    assert situation.claim.holder is None


def test_a_holder_whose_entry_cannot_be_read_is_kept_with_its_claim():
    situation = with_owner(Situation(IN_STATE[ClaimState.HELD]), DEAD)
    dead = present("dead", DEAD)
    situation.add(dead)
    loaded = situation.load(all_active=True, threads=(BRANCH,))
    # The claim may have come along for its folder's sake, without the entry of its holder.
    entries = {key: entry for key, entry in loaded.entries.items() if key != HOLDER}
    loaded = attrs.evolve(loaded, entries=entries, unreadable=frozenset({HOLDER}))
    answer = decide_sweep((HOLDER, "dead"), loaded, NOW, FACTS).answer
    assert (answer.reaped, answer.ended_claims) == (("dead",), ())
    assert answer.kept == ((HOLDER, "entry_unreadable"),)
