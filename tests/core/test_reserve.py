"""Who is granted a branch, who is refused, and what a grant writes."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import ClaimState, EndCause
from heddle_registry.core.evidence import Subject
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.reserve import LiveOwner, Reserved, decide_reserve
from heddle_registry.core.transaction import (
    Damage,
    IdTaken,
    NeedFacts,
    PutClaim,
    PutEntry,
    UnknownFacts,
)
from heddle_registry.errors import RecordCorrupt, StoreUnavailable
from tests.core.exploration_records import BRANCH, FACTS, FENCE, NOW, make_entry, owner_of
from tests.core.exploration_shapes import DEAD, NOBODY, Branch, ClaimShape
from tests.core.situations import (
    ALICE,
    BOB,
    CAROL,
    HELD_BY_TTL,
    HOLDER,
    IN_STATE,
    TOKEN,
    Situation,
    days_ago,
    new_entry,
    present,
)

ABANDONED, ACTIVE = AgentStatus.ABANDONED, AgentStatus.ACTIVE


def test_a_free_branch_is_granted_and_the_claim_is_written_after_the_entry():
    situation = Situation()
    decision = situation.reserve(ttl_s=60.0, path="/w")
    answer = decision.answer
    assert isinstance(answer, Reserved)
    assert (answer.fence, answer.is_new, answer.token) == (FENCE + 1, True, None)
    first, second = decision.effects
    assert first == PutEntry(answer.entry)
    assert isinstance(second, PutClaim)
    assert decision.commits == 2
    holder = situation.claim.holder
    assert (holder.session_id, holder.owner, holder.ttl_s) == ("n", owner_of(BOB), 60.0)
    assert situation.claim.path == "/w"
    copies = answer.entry.extension
    assert (copies.fence, copies.ttl_s, copies.owner) == (FENCE + 1, 60.0, owner_of(BOB))


def test_a_held_branch_is_refused_and_nothing_is_written():
    decision = Situation(IN_STATE[ClaimState.HELD]).reserve()
    assert isinstance(decision.answer, LiveOwner)
    assert decision.answer.entry.session_id == HOLDER
    assert decision.answer.state == "held"
    assert "process 100" in decision.answer.frees_when
    assert decision.effects == ()


def test_its_bearer_gets_a_held_branch_again_under_the_same_fence_and_nobody_else_does():
    situation = Situation(IN_STATE[ClaimState.HELD])
    decision = situation.reserve(ALICE, bearer=TOKEN)
    assert decision.answer == Reserved(
        entry=situation.entries[HOLDER], token=TOKEN, fence=FENCE, is_new=False
    )
    assert decision.effects == ()
    assert isinstance(situation.reserve(bearer="guess").answer, LiveOwner)


def test_an_expired_claim_is_taken_over_and_its_entry_abandoned():
    situation = Situation(IN_STATE[ClaimState.EXPIRED])
    assert situation.reserve().answer.fence == FENCE + 1
    assert situation.status_of(HOLDER) is ABANDONED
    assert situation.claim.past[0].cause is EndCause.EXPIRED
    assert situation.claim.past[0].by == "n"


def test_a_lost_branch_is_blocked_until_force():
    situation = Situation(IN_STATE[ClaimState.LOST])
    refused = situation.reserve().answer
    assert refused.state == "blocked"
    assert "both" not in refused.frees_when
    assert isinstance(situation.reserve(force_reason="x").answer, Reserved)
    assert situation.claim.past[0].cause is EndCause.LOST


def test_a_dead_holder_is_told_apart_by_its_claims_owner_and_never_by_its_entrys_pid():
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(attrs.evolve(situation.entries[HOLDER], pid=100 + DEAD))
    assert isinstance(situation.reserve().answer, LiveOwner)
    claim = situation.claim
    dead = attrs.evolve(claim, holder=attrs.evolve(claim.holder, owner=owner_of(DEAD)))
    situation.claims[BRANCH] = dead
    assert isinstance(situation.reserve().answer, Reserved)
    assert situation.claim.past[0].cause is EndCause.DEAD
    assert "gone" in situation.claim.past[0].reason


def test_a_ttl_without_a_process_blocks_until_it_has_passed():
    assert isinstance(Situation(HELD_BY_TTL).reserve().answer, LiveOwner)


@pytest.mark.parametrize("pid", [ALICE, NOBODY])
def test_a_living_or_unknown_entry_on_the_branch_blocks_although_it_has_no_claim(pid):
    situation = Situation()
    situation.add(present("p", pid))
    decision = situation.reserve()
    assert decision.answer.state == "occupied"
    assert decision.answer.entry.session_id == "p"
    assert decision.effects == ()


def test_a_dead_entry_on_the_branch_is_abandoned_and_blocks_nobody():
    situation = Situation()
    situation.add(present("p", DEAD))
    assert isinstance(situation.reserve().answer, Reserved)
    assert situation.status_of("p") is ABANDONED


def test_an_orphan_of_a_crash_blocks_nobody_and_its_fence_is_not_used_again():
    situation = Situation()
    situation.add(make_entry("o", ALICE, fence=FENCE + 4))
    assert situation.reserve().answer.fence == FENCE + 5
    assert situation.status_of("o") is ABANDONED


def test_the_asker_its_ancestors_and_its_descendants_do_not_block():
    situation = Situation()
    for who in (
        present("root", ALICE),
        present("asker", CAROL, native_parent_actor_key="actor-root"),
        present("child", CAROL, native_parent_actor_key="actor-asker"),
    ):
        situation.add(who)
    answer = situation.reserve(asker="asker").answer
    assert isinstance(answer, Reserved)
    assert {entry.session_id for entry in answer.present} == {"root", "asker", "child"}
    assert answer.entry.native_actor_key is None
    assert answer.entry.native_parent_actor_key == "actor-asker"
    assert [node.session_id for node in answer.entry.extension.ancestors] == ["root", "asker"]


def test_a_cousin_blocks():
    situation = Situation()
    situation.add(present("root", ALICE))
    situation.add(present("asker", BOB, native_parent_actor_key="actor-root"))
    situation.add(present("cousin", CAROL, native_parent_actor_key="actor-root"))
    assert situation.reserve(asker="asker").answer.entry.session_id == "cousin"


def test_an_entry_of_the_same_owner_process_does_not_block():
    situation = Situation()
    situation.add(present("p", BOB))
    assert isinstance(situation.reserve(BOB).answer, Reserved)
    assert isinstance(Situation(IN_STATE[ClaimState.HELD]).reserve(ALICE).answer, LiveOwner)


def test_force_takes_a_held_branch_leaves_the_living_and_says_who_they_are():
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(present("alive", CAROL))
    situation.add(present("unknown", NOBODY))
    answer = situation.reserve(force_reason="it is stuck").answer
    assert answer.fence == FENCE + 1
    assert [entry.session_id for entry in answer.present] == ["alive"]
    assert situation.status_of(HOLDER) is ABANDONED
    assert situation.status_of("unknown") is ABANDONED
    assert situation.status_of("alive") is ACTIVE
    past = situation.claim.past[0]
    assert (past.cause, past.by, past.reason) == (EndCause.FORCED, "n", "it is stuck")


@pytest.mark.parametrize("force", [None, "now"])
def test_a_folder_that_is_valid_under_another_branch_is_refused_even_to_force(force):
    situation = Situation()
    situation.reserve(ALICE, session_id="a", thread="other", path="/w")
    decision = situation.reserve(path="/w", force_reason=force)
    assert decision.answer.entry.session_id == "a"
    assert "/w" in decision.answer.why
    assert decision.effects == ()
    assert isinstance(situation.reserve(path="/w2").answer, Reserved)


@pytest.mark.parametrize("force", [None, "now"])
def test_a_folder_that_may_be_anothers_is_refused_by_what_hides_it_even_to_force(force):
    situation = Situation()
    error = StoreUnavailable("claims/x.toml", "input/output error")
    situation.unread_folders = {"/w": error}
    assert situation.reserve(path="/w", force_reason=force).refusal is error
    assert isinstance(situation.reserve(keep=False, path="/v").answer, Reserved)
    assert isinstance(situation.reserve(keep=False).answer, Reserved)
    # Whoever would be refused anyway is told by whom, and whoever holds it already has it.
    situation.reserve(ALICE, session_id="a")
    assert situation.reserve(path="/w").answer.entry.session_id == "a"
    again = situation.reserve(ALICE, path="/w", bearer="token of a")
    assert (again.answer.is_new, again.answer.entry.session_id) == (False, "a")


def test_waiters_are_not_overtaken_but_by_force_and_by_the_first_of_them():
    assert Situation().reserve(line=("1", "2")).answer.state == "held"
    assert isinstance(Situation().reserve(line=("1", "2"), ticket="2").answer, LiveOwner)
    assert isinstance(Situation().reserve(line=("1", "2"), ticket="1").answer, Reserved)
    assert isinstance(Situation().reserve(line=("1",), force_reason="x").answer, Reserved)


def test_missing_facts_are_asked_for_once_and_unknown_ones_block():
    situation = Situation(IN_STATE[ClaimState.HELD])
    situation.add(present("p", DEAD))
    asked = situation.reserve(facts={}, keep=False)
    assert isinstance(asked, NeedFacts)
    assert {subject.session_id for subject in asked.subjects} == {HOLDER, "p"}
    assert isinstance(situation.reserve(facts=UnknownFacts()).answer, LiveOwner)


def test_a_used_id_is_asked_for_again_before_anything_is_decided():
    situation = Situation(IN_STATE[ClaimState.HELD])
    assert situation.reserve(session_id=HOLDER).answer == IdTaken(HOLDER)


def test_a_branch_whose_records_cannot_be_read_is_refused_with_their_error():
    error = RecordCorrupt("agents/x.toml", ["not TOML"])
    loaded = attrs.evolve(Situation().load(threads=(BRANCH,)), damaged_claims={BRANCH: error})
    request = _request()
    assert decide_reserve(request, loaded, NOW, {}).refusal is error
    living = Damage(path="x", error=error, thread=BRANCH)
    loaded = attrs.evolve(loaded, damaged_claims={}, damage=(living,))
    assert decide_reserve(request, loaded, NOW, {}).refusal is error
    elsewhere = attrs.evolve(loaded, damage=(attrs.evolve(living, thread="other"),))
    assert isinstance(decide_reserve(request, elsewhere, NOW, {}).answer, Reserved)


def test_a_holder_whose_entry_cannot_be_read_is_told_as_that_and_not_as_lost():
    error = RecordCorrupt("agents/x.toml", ["not TOML"])
    situation = Situation(IN_STATE[ClaimState.HELD])
    del situation.entries[HOLDER]
    loaded = situation.load(threads=(BRANCH,))
    damage = Damage(path="x", error=error, session_id=HOLDER)
    unread = attrs.evolve(loaded, damage=(damage,))
    assert decide_reserve(_request(), unread, NOW, FACTS).refusal is error
    another = attrs.evolve(loaded, damage=(attrs.evolve(damage, session_id="another"),))
    assert isinstance(decide_reserve(_request(), another, NOW, FACTS).answer, LiveOwner)


def test_a_branch_that_only_the_original_tool_knew_begins_with_the_first_fence():
    situation = Situation()
    situation.add(attrs.evolve(present("o", DEAD), thread="fresh", extension=None))
    assert situation.reserve(thread="fresh").answer.fence == 1


def test_whoever_holds_a_branch_in_one_folder_may_take_another_in_another():
    situation = Situation()
    situation.reserve(ALICE, session_id="a", thread="other", path="/a")
    assert isinstance(situation.reserve(ALICE, asker="a", path="/b").answer, Reserved)


def test_damage_that_names_a_dead_owner_blocks_nobody():
    error = RecordCorrupt("agents/x.toml", ["not TOML"])
    subject = Subject(session_id="x", owner=owner_of(DEAD))
    damage = Damage(path="x", error=error, thread=BRANCH, subject=subject)
    loaded = attrs.evolve(Situation().load(threads=(BRANCH,)), damage=(damage,))
    assert isinstance(decide_reserve(_request(), loaded, NOW, FACTS).answer, Reserved)


def test_one_reservation_tidies_up_sixteen_of_each_and_force_all_that_would_block():
    situation = Situation()
    for at in range(MAX_SWEEP + 4):
        situation.add(present(f"dead-{at:02d}", DEAD))
        old = attrs.evolve(present(f"old-{at:02d}", DEAD), status=ABANDONED, thread="gone")
        situation.add(attrs.evolve(old, completed_at=days_ago(8)))
    situation.reserve()
    left = [session_id for session_id in situation.entries if session_id.startswith("old")]
    active = [entry for entry in situation.entries.values() if entry.is_active]
    assert len(left) == 4
    assert len(active) == 1 + 4
    situation.reserve(CAROL, session_id="m", force_reason="x")
    assert [e.session_id for e in situation.entries.values() if e.is_active] == ["m"]


def test_a_first_reservation_starts_at_fence_one():
    assert Situation(Branch()).reserve().answer.fence == 1
    assert Situation(Branch(ClaimShape())).reserve().answer.fence == FENCE + 1


def _request():
    from heddle_registry.core.reserve import ReserveRequest

    return ReserveRequest(thread=BRANCH, entry=new_entry(), owner=owner_of(BOB))
