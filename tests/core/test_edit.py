"""The doors that ask for no claim: none grants one, none goes around the life-cycle table."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import ClaimState, EndCause
from heddle_registry.core.edit import (
    decide_attach,
    decide_create,
    decide_delete,
    decide_find_or_create,
    decide_log_query,
    decide_save,
    decide_status,
    decide_update,
)
from heddle_registry.core.entry import ContextQueryEntry, EntryExtension
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import MAX_KEPT_QUERIES
from heddle_registry.core.reserve import IdTaken
from heddle_registry.core.transaction import KeepQueries, NeedFacts, PutClaim, RemoveEntry
from heddle_registry.errors import IllegalTransition, UnknownEntry, UsageError
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
    HOLDER,
    IN_STATE,
    Situation,
    days_ago,
    new_entry,
    present,
)

HELD = Situation(IN_STATE[ClaimState.HELD])
GRANTED = EntryExtension(
    owner=owner_of(ALICE), fence=99, ttl_s=1.0, token=token_hash("x"), runner_pid=1, schema=9
)


def held() -> Situation:
    return Situation(IN_STATE[ClaimState.HELD])


def test_no_door_lets_a_caller_write_what_only_a_reservation_grants():
    wish = attrs.evolve(new_entry(), extension=GRANTED)
    loaded = Situation().load(fresh_ids=("n",))
    for decision in (decide_create(wish, loaded), decide_save(wish, loaded, NOW)):
        assert decision.answer.extension == EntryExtension()
    assert decide_attach(wish, loaded).answer.extension == EntryExtension(owner=owner_of(ALICE))
    situation = held()
    stored = situation.entries[HOLDER]
    loaded = situation.load(sessions=(HOLDER,))
    changed = decide_update(
        HOLDER, lambda entry: attrs.evolve(entry, extension=GRANTED, model="m"), loaded, NOW
    ).answer
    assert changed == attrs.evolve(stored, model="m")


def test_a_used_id_is_answered_and_not_overwritten():
    loaded = held().load(fresh_ids=(HOLDER,))
    wish = new_entry(HOLDER)
    assert decide_create(wish, loaded).answer == IdTaken(HOLDER)
    assert decide_attach(wish, loaded).answer == IdTaken(HOLDER)


@pytest.mark.parametrize(
    "change",
    [
        {"session_id": "other"},
        {"thread": "other"},
        {"status": AgentStatus.COMPLETE, "completed_at": NOW.at},
        {"started_at": days_ago(1)},
        {"completed_at": NOW.at},
        {"reservation_token": "t"},
        {"path": "/elsewhere"},
    ],
)
def test_an_update_refuses_what_it_may_not_touch_and_writes_nothing(change):
    situation = held()
    situation.claims[BRANCH] = attrs.evolve(situation.claim, path="/w")
    loaded = situation.load(sessions=(HOLDER,))
    decision = decide_update(HOLDER, lambda entry: attrs.evolve(entry, **change), loaded, NOW)
    assert isinstance(decision.refusal, UsageError)
    assert decision.effects == ()


def test_a_path_may_change_where_the_claim_names_no_folder_and_a_native_key_always():
    loaded = held().load(sessions=(HOLDER,))
    decision = decide_update(
        HOLDER,
        lambda entry: attrs.evolve(entry, path="/elsewhere", native_actor_key="new"),
        loaded,
        NOW,
    )
    assert (decision.answer.path, decision.answer.native_actor_key) == ("/elsewhere", "new")


def test_an_update_of_an_ended_or_unknown_entry_is_refused_and_one_without_change_not_written():
    situation = held()
    situation.add(make_entry("done", ALICE, "complete", mark=False))
    loaded = situation.load(sessions=(HOLDER, "done", "nobody"))
    same = decide_update(HOLDER, lambda entry: entry, loaded, NOW)
    assert (same.answer, same.effects) == (situation.entries[HOLDER], ())
    refused = decide_update("done", lambda entry: entry, loaded, NOW).refusal
    assert isinstance(refused, IllegalTransition)
    assert isinstance(
        decide_update("nobody", lambda entry: entry, loaded, NOW).refusal, UnknownEntry
    )
    wrong = decide_update(HOLDER, lambda entry: None, loaded, NOW).refusal
    assert isinstance(wrong, UsageError)


@pytest.mark.parametrize("status", [s for s in AgentStatus if s is not AgentStatus.ACTIVE])
def test_a_status_that_ends_the_holder_ends_its_claim_by_either_door(status):
    ended = attrs.evolve(HELD.entries[HOLDER], status=status, completed_at=days_ago(1))
    for door in ("status", "save"):
        situation = held()
        loaded = situation.load(sessions=(HOLDER,))
        if door == "status":
            decision = decide_status(HOLDER, status, loaded, NOW)
        else:
            decision = decide_save(ended, loaded, NOW)
        situation.keep(decision)
        assert decision.freed == (BRANCH,)
        assert situation.status_of(HOLDER) is status
        assert (situation.claim.holder, situation.claim.fence) == (None, FENCE)


def test_nothing_leads_back_to_active():
    situation = Situation()
    done = situation.add(make_entry("done", ALICE, "complete", mark=False))
    loaded = situation.load(sessions=("done",))
    again = attrs.evolve(done, status=AgentStatus.ACTIVE, completed_at=None)
    assert isinstance(decide_save(again, loaded, NOW).refusal, IllegalTransition)
    assert isinstance(
        decide_status("done", AgentStatus.ACTIVE, loaded, NOW).refusal, IllegalTransition
    )


def test_a_saved_ended_entry_gets_an_end_and_a_saved_one_that_is_the_same_is_not_written():
    loaded = Situation().load()
    ended = decide_save(new_entry(status=AgentStatus.MERGED), loaded, NOW).answer
    assert ended.completed_at == NOW.at
    situation = held()
    same = decide_save(situation.entries[HOLDER], situation.load(sessions=(HOLDER,)), NOW)
    assert same.effects == ()
    assert same.refusal is None


def test_a_malformed_entry_is_refused_with_every_problem():
    wish = attrs.evolve(new_entry("Bad Id"), pid=-1, thread="a\nb")
    refusal = decide_create(wish, Situation().load()).refusal
    assert isinstance(refusal, UsageError)
    assert all(word in refusal.message for word in ("Bad Id", "pid", "control character"))


def test_a_deleted_holder_loses_its_claim_first_so_that_a_crash_leaves_no_claim_without_entry():
    situation = held()
    decision = situation.keep(decide_delete(HOLDER, situation.load(sessions=(HOLDER,)), NOW))
    assert [type(effect) for effect in decision.effects] == [PutClaim, RemoveEntry]
    assert situation.claim.past[0].cause is EndCause.DELETED
    assert isinstance(decide_delete("x", situation.load(), NOW).refusal, UnknownEntry)


def test_a_log_keeps_the_newest_hundred_and_hands_the_older_on():
    queries = [ContextQueryEntry(path=f"/{n}", queried_at=NOW.at) for n in range(101)]
    full = attrs.evolve(present("p", ALICE), context_queries=tuple(queries[:MAX_KEPT_QUERIES]))
    situation = Situation()
    situation.add(full)
    decision = decide_log_query("p", queries[100], situation.load(sessions=("p",)))
    assert decision.answer is True
    assert decision.effects[0] == KeepQueries("p", (queries[0],))
    situation.keep(decision)
    assert situation.entries["p"].context_queries == tuple(queries[1:])


def test_a_query_of_an_ended_entry_is_not_logged():
    situation = Situation()
    situation.add(make_entry("done", ALICE, "complete", mark=False))
    loaded = situation.load(sessions=("done",))
    query = ContextQueryEntry(path="/", queried_at=NOW.at)
    assert decide_log_query("done", query, loaded).answer is False
    assert isinstance(decide_log_query("x", query, loaded).refusal, UnknownEntry)


def test_the_newest_living_match_is_reused_and_the_dead_and_orphans_are_not():
    situation = Situation()
    situation.add(present("older", ALICE, started_at=days_ago(2)))
    situation.add(present("newer", BOB, started_at=days_ago(1)))
    situation.add(present("dead", DEAD))
    situation.add(make_entry("orphan", ALICE, fence=FENCE + 1))
    loaded = situation.load(all_active=True, fresh_ids=("n",))

    def ask(matches, facts=FACTS):
        return decide_find_or_create(
            matches, lambda e: attrs.evolve(e, model="m"), new_entry(), loaded, NOW, facts
        )

    entry, created = ask(lambda e: True).answer
    assert (entry.session_id, entry.model, created) == ("newer", "m", False)
    entry, created = ask(lambda e: e.session_id in ("dead", "orphan")).answer
    assert (entry.session_id, created) == ("n", True)
    assert isinstance(ask(lambda e: True, {}), NeedFacts)
