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
from heddle_registry.core.transaction import IdTaken, KeepQueries, NeedFacts, PutClaim, RemoveEntry
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


def test_nobody_ends_an_entry_that_is_not_there():
    decision = decide_status("nobody", AgentStatus.COMPLETE, held().load(), NOW)
    assert isinstance(decision.refusal, UnknownEntry)


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


def test_an_entry_of_which_we_keep_nothing_gets_no_table_of_ours():
    plain = new_entry("plain")
    loaded = Situation().load(fresh_ids=("plain",))
    for decision in (
        decide_create(plain, loaded),
        decide_save(plain, loaded, NOW),
    ):
        assert decision.answer.extension is None
    situation = Situation()
    situation.add(plain)
    loaded = situation.load(sessions=("plain",))
    changed = decide_update("plain", lambda entry: attrs.evolve(entry, model="m"), loaded, NOW)
    assert (changed.answer.extension, changed.answer.model) == (None, "m")
    assert [effect.entry for effect in changed.effects] == [changed.answer]
    dropped = attrs.evolve(situation.add(present("p", ALICE)), extension=None)
    kept = decide_update("p", lambda _: dropped, situation.load(sessions=("p",)), NOW).answer
    assert kept.extension.owner == owner_of(ALICE)
    wish = attrs.evolve(plain, extension=attrs.evolve(GRANTED, continues="before"))
    ours = decide_update("plain", lambda _: wish, situation.load(sessions=("plain",)), NOW).answer
    assert ours.extension == EntryExtension(continues="before")


def test_a_new_entry_keeps_its_ancestry_for_the_day_when_its_parents_are_pruned():
    situation = Situation()
    root = situation.add(present("root", ALICE, thread="elsewhere"))
    parent = situation.add(present("parent", BOB, native_parent_actor_key="actor-root"))
    loaded = situation.load(all_active=True, fresh_ids=("n",))
    child = new_entry(native_parent_actor_key="actor-parent")
    ancestors = (root.chain_node(), parent.chain_node())
    for decision in (
        decide_create(child, loaded),
        decide_attach(child, loaded),
        decide_save(child, loaded, NOW),
    ):
        assert decision.answer.extension.ancestors == ancestors
    told = (parent.chain_node(),)
    knows = attrs.evolve(child, extension=EntryExtension(ancestors=told))
    assert decide_create(knows, loaded).answer.extension.ancestors == told
    assert decide_attach(new_entry(), loaded).answer.extension == EntryExtension()
    for key in ("actor-nobody", None):
        stray = attrs.evolve(child, native_parent_actor_key=key)
        assert decide_create(stray, loaded).answer.extension is None
    own = attrs.evolve(parent, native_parent_actor_key="actor-parent", extension=None)
    alone = Situation()
    assert decide_save(own, alone.load(), NOW).answer.extension is None


def test_only_the_holders_folder_is_fixed_and_only_while_it_holds_the_claim():
    def move(situation, session_id):
        loaded = situation.load(sessions=(session_id,), threads=(BRANCH,))
        return decide_update(
            session_id, lambda entry: attrs.evolve(entry, path="/moved"), loaded, NOW
        )

    situation = held()
    situation.claims[BRANCH] = attrs.evolve(situation.claim, path="/w")
    situation.add(present("beside", BOB))
    assert isinstance(move(situation, HOLDER).refusal, UsageError)
    assert move(situation, "beside").answer.path == "/moved"
    situation.claims[BRANCH] = attrs.evolve(situation.claim, holder=None)
    assert move(situation, HOLDER).answer.path == "/moved"


def test_the_status_alone_is_not_changed_by_an_update():
    loaded = held().load(sessions=(HOLDER,))
    decision = decide_update(
        HOLDER, lambda entry: attrs.evolve(entry, status=AgentStatus.ABANDONED), loaded, NOW
    )
    assert "status" in decision.refusal.message
    assert decision.effects == ()


def test_what_a_caller_saves_of_a_running_entry_is_an_update_and_of_an_ended_one_refused():
    situation = held()
    changed = attrs.evolve(situation.entries[HOLDER], model="m", extension=GRANTED)
    loaded = situation.load(sessions=(HOLDER,))
    saved = situation.keep(decide_save(changed, loaded, NOW))
    assert saved.answer == situation.entries[HOLDER]
    assert saved.answer.model == "m"
    assert saved.answer.extension == HELD.entries[HOLDER].extension
    bent = decide_save(attrs.evolve(changed, thread="other"), loaded, NOW)
    assert isinstance(bent.refusal, UsageError)
    bad = decide_save(attrs.evolve(changed, pid=-1), loaded, NOW)
    assert isinstance(bad.refusal, UsageError)
    done = situation.add(make_entry("done", ALICE, "complete", mark=False))
    loaded = situation.load(sessions=("done",))
    assert decide_save(done, loaded, NOW).refusal is None
    late = decide_save(attrs.evolve(done, model="m"), loaded, NOW)
    assert isinstance(late.refusal, IllegalTransition)


def test_an_end_that_was_saved_keeps_its_moment_and_what_was_changed_with_it():
    situation = held()
    stored = situation.entries[HOLDER]
    ended = attrs.evolve(
        stored, status=AgentStatus.COMPLETE, completed_at=days_ago(1), model="m", extension=GRANTED
    )
    loaded = situation.load(sessions=(HOLDER,))
    saved = decide_save(ended, loaded, NOW).answer
    assert (saved.completed_at, saved.model) == (days_ago(1), "m")
    assert saved.extension.fence == FENCE
    moved = attrs.evolve(ended, thread="other")
    assert isinstance(decide_save(moved, loaded, NOW).refusal, UsageError)
    bad = attrs.evolve(ended, pid=-1)
    assert isinstance(decide_save(bad, loaded, NOW).refusal, UsageError)
    unsaid = attrs.evolve(ended, completed_at=None)
    assert decide_save(unsaid, loaded, NOW).answer.completed_at == NOW.at
    past = attrs.evolve(new_entry("past"), status=AgentStatus.COMPLETE, completed_at=days_ago(2))
    assert decide_save(past, loaded, NOW).answer.completed_at == days_ago(2)
    running = attrs.evolve(new_entry("runs"), completed_at=days_ago(2))
    assert isinstance(decide_save(running, loaded, NOW).refusal, UsageError)
    merged = situation.keep(decide_save(ended, loaded, NOW)).answer
    again = attrs.evolve(merged, status=AgentStatus.MERGED, completed_at=NOW.at)
    loaded = situation.load(sessions=(HOLDER,))
    assert decide_save(again, loaded, NOW).answer.completed_at == days_ago(1), "it ended once"


def test_a_deleted_bystander_costs_the_holder_nothing():
    situation = held()
    situation.add(present("beside", BOB))
    loaded = situation.load(sessions=("beside",), threads=(BRANCH,))
    decision = situation.keep(decide_delete("beside", loaded, NOW))
    assert decision.effects == (RemoveEntry("beside"),)
    assert decision.freed == (BRANCH,)
    assert situation.claim.holder.session_id == HOLDER
    alone = Situation()
    alone.claims.clear()
    alone.add(present("p", ALICE))
    assert decide_delete("p", alone.load(sessions=("p",)), NOW).effects == (RemoveEntry("p"),)


def test_a_log_with_room_hands_nothing_on_and_refuses_what_could_not_be_written():
    situation = Situation()
    situation.add(present("p", ALICE))
    loaded = situation.load(sessions=("p",))
    for number in range(MAX_KEPT_QUERIES):
        query = ContextQueryEntry(path=f"/{number}", queried_at=NOW.at)
        decision = situation.keep(decide_log_query("p", query, situation.load(sessions=("p",))))
        assert len(decision.effects) == 1
    assert len(situation.entries["p"].context_queries) == MAX_KEPT_QUERIES
    bad = ContextQueryEntry(path=7, queried_at=NOW.at)
    assert isinstance(decide_log_query("p", bad, loaded).refusal, UsageError)


def test_what_cannot_be_reused_or_made_is_refused_by_find_or_create():
    situation = Situation()
    situation.add(present("there", ALICE))
    loaded = situation.load(all_active=True, fresh_ids=("n", "there"))

    def ask(matches, update=lambda e: e, new=None):
        return decide_find_or_create(matches, update, new or new_entry(), loaded, NOW, FACTS)

    same = ask(lambda _: True)
    assert (same.answer[0].session_id, same.effects) == ("there", ())
    assert isinstance(ask(lambda _: True, lambda _: None).refusal, UsageError)
    assert ask(lambda _: False, new=new_entry("there")).answer == IdTaken("there")
    bad = ask(lambda _: False, new=attrs.evolve(new_entry(), pid=-1))
    assert isinstance(bad.refusal, UsageError)
    made = ask(lambda _: False)
    assert made.answer[1] is True
    assert len(made.effects) == 1
