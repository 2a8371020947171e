"""How a claim or an entry stands, why, and what would free it."""

from __future__ import annotations

import attrs

from heddle_registry.core.claim import Claim, ClaimState
from heddle_registry.core.evidence import LivenessFile, VerdictKind
from heddle_registry.core.standing import (
    Witness,
    entry_verdict,
    is_orphan,
    stand,
    with_heartbeat,
)
from tests.core.exploration_records import (
    BRANCH,
    FACTS,
    FENCE,
    NOW,
    make_entry,
    owner_of,
)
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


def standing_of(situation: Situation, facts=FACTS):
    return stand(situation.claim, situation.entries, Witness(facts), NOW)


def test_only_held_is_valid_and_lost_excludes_others_too():
    told = {
        state: (standing.is_valid, standing.excludes_others, bool(standing.frees_when()))
        for state in ClaimState
        if (standing := standing_of(Situation(IN_STATE[state]))).state is state
    }
    assert told == {
        ClaimState.NONE: (False, False, False),
        ClaimState.HELD: (True, True, True),
        ClaimState.EXPIRED: (False, False, False),
        ClaimState.LOST: (False, True, True),
    }


def test_what_frees_a_branch_is_one_of_its_ways_or_all_of_them_once_it_is_lost():
    situation = Situation(HELD_BY_TTL)
    claim = situation.claim
    owner = attrs.evolve(owner_of(ALICE), command="claude")
    situation.claims[BRANCH] = attrs.evolve(claim, holder=attrs.evolve(claim.holder, owner=owner))
    held = standing_of(situation).frees_when()
    assert held == (
        "It frees when it is released or process 100 (claude) ends or its TTL passes in 299 s"
    )
    del situation.entries[HOLDER]
    lost = standing_of(situation).frees_when()
    assert lost == "It frees when process 100 (claude) ends and its TTL passes in 299 s"


def test_a_lost_claim_with_nothing_behind_it_frees_by_force_only():
    situation = Situation(IN_STATE[ClaimState.LOST])
    claim = situation.claim
    bare = attrs.evolve(claim, holder=attrs.evolve(claim.holder, owner=None))
    situation.claims[BRANCH] = bare
    assert standing_of(situation).state is ClaimState.LOST
    assert "force" in standing_of(situation).frees_when()


def test_a_witness_goes_on_with_unknown_and_remembers_what_to_gather():
    witness = Witness({})
    situation = Situation(IN_STATE[ClaimState.HELD])
    standing = stand(situation.claim, situation.entries, witness, NOW)
    assert standing.verdict.kind is VerdictKind.UNKNOWN
    assert standing.state is ClaimState.HELD
    stand(situation.claim, situation.entries, witness, NOW)
    assert [subject.session_id for subject in witness.missing().subjects] == [HOLDER]


def test_a_fact_about_one_holder_is_not_taken_for_anothers():
    # The same process under the next fence must be looked at again.
    seen = Witness({})
    situation = Situation(IN_STATE[ClaimState.HELD])
    stand(situation.claim, situation.entries, seen, NOW)
    facts = {(HOLDER, (100, 1000, "boot", "ns"), FENCE): FACTS[(HOLDER, (100,), FENCE)]}
    assert standing_of(situation, facts).verdict.is_alive
    situation.claims[BRANCH] = attrs.evolve(situation.claim, fence=FENCE + 1)
    assert standing_of(situation, facts).verdict.kind is VerdictKind.UNKNOWN


def test_whoever_recorded_no_process_is_not_asked_for():
    witness = Witness({})
    standing = stand(Situation(HELD_BY_TTL).claim, {}, witness, NOW)
    assert witness.missing() is None
    codes = [evidence.code for evidence in standing.verdict.evidence]
    assert codes == ["ttl_running", "no_process"]


def test_an_entry_is_judged_by_its_claim_where_it_holds_one_and_by_itself_where_not():
    situation = Situation(IN_STATE[ClaimState.HELD])
    moved = attrs.evolve(situation.entries[HOLDER], pid=100 + DEAD)
    assert entry_verdict(moved, situation.claim, Witness(FACTS), NOW).is_alive
    assert entry_verdict(moved, None, Witness(FACTS), NOW).is_dead
    assert entry_verdict(present("p", NOBODY), None, Witness(FACTS), NOW).kind is (
        VerdictKind.UNKNOWN
    )
    done = make_entry("done", ALICE, "complete", mark=False)
    assert entry_verdict(done, None, Witness(FACTS), NOW).is_dead


def test_an_orphan_is_an_active_entry_with_a_fence_that_the_claim_does_not_name():
    claim = Situation(IN_STATE[ClaimState.HELD]).claim
    assert not is_orphan(make_entry(HOLDER, ALICE, fence=FENCE), claim)
    assert is_orphan(make_entry("o", ALICE, fence=FENCE + 1), claim)
    assert is_orphan(make_entry(HOLDER, ALICE, fence=FENCE), Claim(thread=BRANCH, fence=FENCE))
    assert not is_orphan(present("p", ALICE), claim)
    assert not is_orphan(make_entry("o", ALICE, "complete", fence=3), claim)


def test_a_renewal_shows_as_heartbeat_where_it_is_the_newer_one():
    situation = Situation(HELD_BY_TTL)
    claim, entry = situation.claim, situation.entries[HOLDER]
    assert with_heartbeat(entry, claim) == entry
    renewed = attrs.evolve(claim, holder=attrs.evolve(claim.holder, renewed_at=NOW))
    assert with_heartbeat(entry, renewed).heartbeat_at == NOW.at
    old = attrs.evolve(entry, heartbeat_at=days_ago(1))
    new = attrs.evolve(entry, heartbeat_at=days_ago(-1))
    assert with_heartbeat(old, renewed).heartbeat_at == NOW.at
    assert with_heartbeat(new, renewed) == new
    assert with_heartbeat(present("p", ALICE), renewed) == present("p", ALICE)


def test_a_liveness_lock_alone_is_something_to_look_at():
    situation = Situation(HELD_BY_TTL)
    claim = situation.claim
    held = attrs.evolve(claim.holder, liveness=LivenessFile(device=1, inode=2))
    witness = Witness({})
    stand(attrs.evolve(claim, holder=held), situation.entries, witness, NOW)
    assert witness.missing().subjects[0].liveness == held.liveness
