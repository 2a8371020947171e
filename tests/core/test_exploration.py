"""Every reachable state of agents, branches and folders, against the promises of the core.

The planted bugs prove that the walk would notice: each breaks one promise, and the walk must say
which, and by which path.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from heddle_registry.core.claim import ClaimState, EndCause
from heddle_registry.core.edit import decide_status
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.release import decide_hand_over
from heddle_registry.core.renew import FenceAnswer, Renewed, decide_renew, judge_fence
from heddle_registry.core.reserve import LiveOwner, decide_reserve
from heddle_registry.core.sweep import decide_sweep
from heddle_registry.core.transaction import Decision, PutClaim, PutEntry, RemoveEntry
from tests.core.exploration import (
    CI_PAIRS,
    CI_WALK,
    NIGHTLY_PAIRS,
    NIGHTLY_WALK,
    Walk,
)
from tests.core.exploration_checks import Broken, Decisions
from tests.core.exploration_pairs import PairWalk
from tests.core.exploration_records import BRANCH, OTHER, SEEN, TrueFacts
from tests.core.exploration_shapes import DEAD, EMPTY
from tests.core.exploration_steps import Steps

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "state-machine.md"


def numbers_on_page(which: str) -> tuple[int, int]:
    found = re.search(rf"\| {re.escape(which)} \|.*?\| ([\d,]+) \| ([\d,]+) \|", PAGE.read_text())
    assert found is not None, f"no row {which!r}: run docs/make_state_machine.py"
    return int(found[1].replace(",", "")), int(found[2].replace(",", ""))


def test_a_branch_keeps_every_promise_in_every_reachable_state_and_the_page_says_how_many():
    walk = Walk(Steps(**CI_WALK)).run()
    print(f"{walk.states} states, {walk.transitions} transitions, {walk.crashes} of them crashes")
    assert {kind[0] for kind in walk.kinds} == set(ClaimState)
    assert numbers_on_page("one branch") == (walk.states, walk.transitions)


def test_two_branches_and_two_folders_keep_every_promise_in_every_reachable_state():
    walk = PairWalk(Steps(**CI_PAIRS)).run()
    print(f"{walk.states} states, {walk.transitions} transitions")
    assert numbers_on_page("two branches") == (walk.states, walk.transitions)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_branch_keeps_every_promise_with_every_kind_of_claim_and_more_beside_it():
    walk = Walk(Steps(**NIGHTLY_WALK)).run()
    print(f"{walk.states} states, {walk.transitions} transitions, {walk.crashes} of them crashes")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_branches_keep_every_promise_with_every_kind_of_claim():
    walk = PairWalk(Steps(**NIGHTLY_PAIRS)).run()
    print(f"{walk.states} states, {walk.transitions} transitions")


@pytest.mark.nightly
def test_neighbours_that_stand_alike_let_the_same_steps_through():
    few = {"agents": 1, "modes": ("owner",), "max_orphans": 0, "max_beside": 1}
    all_of_them = Walk(Steps(**few), all_neighbours=True).run()
    one_of_each = Walk(Steps(**few)).run()
    assert len(all_of_them.beside) > len(one_of_each.beside)
    assert set(all_of_them.came_from) == set(one_of_each.came_from)


# --- planted bugs


class DeadFacts(TrueFacts):
    def __getitem__(self, key):
        return SEEN[DEAD]


def without_lost(request, loaded, now, facts):
    claim = loaded.claims.get(BRANCH)
    if claim is not None and claim.holder is not None:
        entry = loaded.entries.get(claim.holder.session_id)
        if entry is None or not entry.is_active:
            loaded = attrs.evolve(loaded, claims={BRANCH: claim.ended(EndCause.LOST, now.at)})
    return decide_reserve(request, loaded, now, facts)


def without_neighbours(request, loaded, now, facts):
    claims = {thread: claim for thread, claim in loaded.claims.items() if thread != OTHER}
    return decide_reserve(request, attrs.evolve(loaded, claims=claims), now, facts)


def renewing_without_neighbours(session_id, token, loaded, now, facts):
    claims = {thread: claim for thread, claim in loaded.claims.items() if thread != OTHER}
    return decide_renew(session_id, token, attrs.evolve(loaded, claims=claims), now, facts)


def with_the_fence_of_before(request, loaded, now, facts):
    decision = decide_reserve(request, loaded, now, facts)
    before = loaded.claims.get(BRANCH)
    fence = before.fence if before is not None else 1
    return attrs.evolve(
        decision,
        effects=tuple(
            PutClaim(attrs.evolve(effect.claim, fence=fence))
            if isinstance(effect, PutClaim)
            else effect
            for effect in decision.effects
        ),
    )


def with_two_claim_writes(request, loaded, now, facts):
    """Right when it is run to its end; a crash between its writes leaves an old fence granted."""
    decision = decide_reserve(request, loaded, now, facts)
    before = loaded.claims.get(BRANCH)
    effects = []
    for effect in decision.effects:
        if isinstance(effect, PutClaim) and before is not None:
            effects.append(PutClaim(attrs.evolve(effect.claim, fence=before.fence)))
        effects.append(effect)
    return attrs.evolve(decision, effects=tuple(effects))


def writing_what_it_refuses(request, loaded, now, facts):
    decision = decide_reserve(request, loaded, now, facts)
    if isinstance(decision.answer, LiveOwner) and decision.answer.entry is not None:
        return attrs.evolve(decision, effects=(PutEntry(decision.answer.entry),))
    return decision


def accepting_any_token(session_id, token, loaded, now, facts):
    entry = loaded.entries.get(session_id)
    return Decision(answer=Renewed(entry=entry, fence=1, renew_within_s=None))


def forgetting_the_loss(session_id, token, loaded, now, facts):
    """Renew what a stranger's program has ended: to its bearer nothing seems to have happened."""
    entry = loaded.entries.get(session_id)
    if entry is not None and not entry.is_active:
        entry = attrs.evolve(entry, status=AgentStatus.ACTIVE, completed_at=None)
        loaded = attrs.evolve(loaded, entries={**loaded.entries, session_id: entry})
    return decide_renew(session_id, token, loaded, now, facts)


def believing_any_fence(standing, fence, entries):
    answer = judge_fence(standing, fence, entries)
    return FenceAnswer(valid=fence <= standing.claim.fence, fence=fence, holder="", why=answer.why)


def reaping_whoever(session_ids, loaded, now, facts, **options):
    return decide_sweep(session_ids, loaded, now, DeadFacts(), **options)


def pruning_whoever_has_ended(session_ids, loaded, now, facts, **options):
    decision = decide_sweep(session_ids, loaded, now, facts, **options)
    gone = [RemoveEntry(session_id) for session_id in loaded.stale_ids]
    return attrs.evolve(decision, effects=(*gone, *decision.effects))


def going_back(session_id, status, loaded, now):
    entry = loaded.entries[session_id]
    if status is AgentStatus.ACTIVE and not entry.is_active:
        return Decision(effects=(PutEntry(attrs.evolve(entry, status=status, completed_at=None)),))
    return decide_status(session_id, status, loaded, now)


def without_an_end(session_id, status, loaded, now):
    decision = decide_status(session_id, status, loaded, now)
    return attrs.evolve(
        decision,
        effects=tuple(
            PutEntry(attrs.evolve(effect.entry, completed_at=None))
            if isinstance(effect, PutEntry)
            else effect
            for effect in decision.effects
        ),
    )


def handing_over_twice(request, loaded, now, facts):
    """Look the claim up by id alone and ask for no token."""
    claim = loaded.claims.get(BRANCH)
    if claim is not None and claim.holder is not None:
        holder = claim.holder
        token = f"token of {holder.session_id}"
        request = attrs.evolve(request, session_id=holder.session_id, bearer=token)
    return decide_hand_over(request, loaded, now, facts)


PLANTED = [
    ({"reserve": without_lost}, "taken from a living agent"),
    ({"reserve": without_neighbours}, "two agents may write to one folder"),
    ({"renew": renewing_without_neighbours}, "two agents may write to one folder"),
    ({"reserve": with_the_fence_of_before}, "was granted twice"),
    ({"reserve": with_two_claim_writes}, "was granted twice"),
    ({"reserve": writing_what_it_refuses}, "a refused request wrote"),
    ({"renew": accepting_any_token}, "spent or wrong token"),
    ({"renew": forgetting_the_loss}, "spent or wrong token of 'h' renewed"),
    ({"fence": believing_any_fence}, "a fence that is over"),
    ({"sweep": reaping_whoever}, "a living"),
    ({"sweep": pruning_whoever_has_ended}, "before the claim that names it had ended"),
    ({"status": going_back}, "an entry went from"),
    ({"status": without_an_end}, "completed_at must be set exactly"),
    ({"hand_over": handing_over_twice}, "handed the branch over"),
]


@pytest.mark.parametrize(
    ("wrong", "told"), PLANTED, ids=[next(iter(w.values())).__name__ for w, _ in PLANTED]
)
def test_a_planted_bug_is_found_and_the_path_to_it_told(wrong, told):
    is_about_folders = "folder" in told
    size = {"max_beside": 0, "max_orphans": 0} if is_about_folders else {"max_beside": 1}
    steps = Steps(2, modes=("owner", "ttl"), decisions=Decisions(**wrong), **size)
    with pytest.raises(Broken, match=told) as broken:
        Walk(steps).run()
    assert "\n  1. " in str(broken.value)


def test_a_folder_given_twice_is_found_with_both_branches_in_the_path():
    wrong = Decisions(reserve=without_neighbours)
    steps = Steps(2, paths=(1, 2), modes=("owner",), max_beside=0, decisions=wrong)
    with pytest.raises(Broken, match="may write to one folder") as broken:
        PairWalk(steps).run()
    assert str(broken.value).count("reserves by owner, folder") == 1


def test_one_shape_stands_for_all_that_differ_only_by_the_names_of_agents():
    walk = Walk(Steps(3))
    steps = walk.steps
    by_first = [shape for _, shape in steps.of(EMPTY, None, [0])]
    by_last = [shape for _, shape in steps.of(EMPTY, None, [2])]
    assert by_first != by_last
    assert [walk.sorted(shape) for shape in by_first] == [walk.sorted(s) for s in by_last]
