"""What a decision is given: claims and their stand-ins, facts and whom they are about."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import Claim, ClaimState
from heddle_registry.core.evidence import Subject
from heddle_registry.core.token import hash_token, token_matches
from heddle_registry.core.transaction import (
    Damage,
    Decision,
    Loaded,
    NeedFacts,
    PutClaim,
    PutEntry,
    UnknownFacts,
    fact_key,
    sealed,
)
from heddle_registry.errors import RecordCorrupt
from tests.core.exploration_records import BRANCH, NOW, make_entry, owner_of
from tests.core.situations import ALICE, BOB, IN_STATE, Situation, present


def test_the_claim_of_a_branch_is_its_file_else_the_greatest_copy_else_free():
    claim = Situation(IN_STATE[ClaimState.HELD]).claim
    copies = {name: make_entry(name, ALICE, fence=fence) for name, fence in (("a", 2), ("b", 5))}
    assert Loaded(entries=copies, claims={BRANCH: claim}).claim_on(BRANCH, NOW) is claim
    stand_in = Loaded(entries=copies).claim_on(BRANCH, NOW)
    assert (stand_in.fence, stand_in.holder.session_id) == (5, "b")
    over = {"a": make_entry("a", ALICE, "complete", fence=2)}
    assert Loaded(entries=over).claim_on(BRANCH, NOW) == Claim(thread=BRANCH)


def test_an_unreadable_claim_is_raised_to_whoever_needs_it():
    error = RecordCorrupt("claims/x.toml", ["not TOML"])
    loaded = Loaded(damaged_claims={BRANCH: error})
    with pytest.raises(RecordCorrupt):
        loaded.claim_on(BRANCH, NOW)
    assert loaded.claim_on("other", NOW).holder is None


def test_damage_concerns_its_branch_or_all_where_nothing_of_it_could_be_read():
    damage = Damage(path="x", error=RecordCorrupt("x", ["?"]), thread=BRANCH)
    assert (damage.concerns(BRANCH), damage.concerns("other")) == (True, False)
    anything = attrs.evolve(damage, thread=None, may_be_any=True)
    assert anything.concerns("other")


def test_facts_about_two_sessions_processes_or_fences_have_different_keys():
    one = Subject(session_id="a", fence=1, owner=owner_of(ALICE))
    others = [
        attrs.evolve(one, session_id="b"),
        attrs.evolve(one, fence=2),
        attrs.evolve(one, owner=owner_of(BOB)),
        attrs.evolve(one, owner=attrs.evolve(owner_of(ALICE), start_ticks=1)),
        attrs.evolve(one, owner=None, pid=100),
        attrs.evolve(one, owner=None),
    ]
    assert len({fact_key(subject) for subject in (one, *others)}) == len(others) + 1
    assert fact_key(one) == fact_key(attrs.evolve(one))


def test_after_the_last_round_whatever_is_missing_is_unknown():
    facts = UnknownFacts()
    key = fact_key(Subject(session_id="a"))
    assert key in facts
    assert facts[key] is None


def test_a_token_in_clear_text_is_written_as_its_hash_and_nothing_else_is_touched():
    clear = attrs.evolve(present("p", ALICE), reservation_token="secret")
    plain = present("q", BOB)
    decision = Decision(answer=1, effects=(PutEntry(clear), PutEntry(plain)))
    first, second = sealed(decision, b"salt").effects
    assert first.entry.reservation_token is None
    assert token_matches("secret", first.entry.extension.token)
    assert second.entry is plain
    untouched = Decision(answer=1, effects=(PutEntry(plain),))
    assert sealed(untouched, b"salt") is untouched
    asking = NeedFacts(())
    assert sealed(asking, b"salt") is asking


def test_a_token_that_was_hashed_once_keeps_its_hash_and_other_effects_are_left():
    clear = attrs.evolve(present("p", ALICE), reservation_token="secret")
    hashed = hash_token("secret", b"first")
    known = clear.extended(token=hashed)
    bare = attrs.evolve(clear, session_id="bare", extension=None)
    claim = Claim(thread=BRANCH)
    decision = Decision(effects=(PutClaim(claim), PutEntry(known), PutEntry(bare)))
    first, second, third = sealed(decision, b"second").effects
    assert first == PutClaim(claim)
    assert second.entry.extension.token == hashed
    assert second.entry.reservation_token is None
    assert token_matches("secret", third.entry.extension.token)
    assert third.entry.reservation_token is None


def test_a_free_branch_without_a_claim_keeps_the_greatest_fence_that_was_remembered():
    copies = {"a": make_entry("a", ALICE, fence=5)}
    for remembered, fence in ((4, 5), (7, 7)):
        loaded = Loaded(entries=copies, fences={BRANCH: remembered})
        assert loaded.claim_on(BRANCH, NOW).fence == fence
    assert Loaded(fences={BRANCH: 3}).claim_on(BRANCH, NOW) == Claim(thread=BRANCH, fence=3)
    elsewhere = {"a": make_entry("a", ALICE, fence=5, thread="elsewhere")}
    assert Loaded(entries=elsewhere).claim_on(BRANCH, NOW) == Claim(thread=BRANCH)
    no_claim = {"p": present("p", ALICE)}
    assert Loaded(entries=no_claim).claim_on(BRANCH, NOW) == Claim(thread=BRANCH)
