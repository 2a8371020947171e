"""What a set of keys names among the records."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry.core.claim import ClaimState
from heddle_registry.core.lifecycle import EntryEvent
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.selection import select
from heddle_registry.core.selection_maps import RecordMaps
from heddle_registry.core.transaction import Damage, Keys
from heddle_registry.errors import RecordCorrupt, StoreUnavailable
from tests.core.exploration_records import BRANCH, FENCE, NOW, make_entry
from tests.core.exploration_shapes import DEAD, Branch
from tests.core.situations import (
    ALICE,
    BOB,
    HOLDER,
    IN_STATE,
    Situation,
    days_ago,
    present,
)


def held() -> Situation:
    return Situation(IN_STATE[ClaimState.HELD])


def test_a_session_comes_with_its_ancestors_and_the_claim_on_its_branch():
    situation = held()
    situation.add(present("root", ALICE, thread="elsewhere"))
    situation.add(present("child", BOB, native_parent_actor_key="actor-root"))
    loaded = situation.load(sessions=("child",))
    assert set(loaded.entries) == {"child", "root", HOLDER}
    assert set(loaded.claims) == {BRANCH}


def test_a_branch_comes_with_its_claim_its_holder_and_the_active_entries_on_it():
    situation = held()
    situation.add(present("p", ALICE))
    situation.add(present("q", ALICE, thread="elsewhere"))
    situation.add(make_entry("done", ALICE, "complete", mark=False))
    assert set(situation.load(threads=(BRANCH,)).entries) == {HOLDER, "p"}


def test_a_folder_comes_with_every_claim_that_names_it_and_their_holders():
    situation = Situation()
    situation.reserve(ALICE, session_id="a", thread="one", path="/w")
    situation.reserve(BOB, session_id="b", thread="two", path="/v")
    for loaded in (situation.load(path="/w"), situation.load(sessions=("a",))):
        assert set(loaded.claims) == {"one"}
        assert set(loaded.entries) == {"a"}


def test_a_session_without_an_entry_still_finds_the_claims_that_name_it():
    situation = held()
    del situation.entries[HOLDER]
    assert set(situation.load(sessions=(HOLDER,)).claims) == {BRANCH}
    situation.reserve(BOB, force_reason="x")
    assert set(situation.load(sessions=(HOLDER,)).claims) == {BRANCH}


def test_an_actor_is_its_newest_active_entry():
    situation = Situation()
    situation.add(present("old", ALICE, native_actor_key="k", started_at=days_ago(2)))
    situation.add(present("new", ALICE, native_actor_key="k", started_at=days_ago(1)))
    assert set(situation.load(actors=("k",)).entries) == {"new"}


def test_all_active_entries_come_with_the_claims_of_their_branches():
    situation = held()
    situation.add(present("q", ALICE, thread="elsewhere"))
    situation.add(make_entry("done", ALICE, "complete", mark=False))
    loaded = situation.load(all_active=True)
    assert set(loaded.entries) == {HOLDER, "q"}
    assert set(loaded.claims) == {BRANCH}


def test_sixteen_stale_entries_are_offered_or_all_of_them_and_none_that_was_not_asked_for():
    situation = Situation()
    for at in range(MAX_SWEEP + 4):
        entry = make_entry(f"old-{at:02d}", ALICE, "complete", mark=False)
        situation.add(attrs.evolve(entry, completed_at=days_ago(8)))
    assert len(situation.load(stale=True).stale_ids) == MAX_SWEEP
    assert len(situation.load(all_stale=True).stale_ids) == MAX_SWEEP + 4
    assert situation.load().stale_ids == ()
    assert situation.load(sessions=("old-03",)).stale_ids == ("old-03",)


def test_of_many_stale_entries_those_that_ended_first_are_offered():
    situation = Situation()
    for days in (9, 11, 8, 10):
        entry = make_entry(f"old-{days}", ALICE, "complete", mark=False)
        situation.add(attrs.evolve(entry, completed_at=days_ago(days)))
    undated = make_entry("old-12", ALICE, "complete", mark=False)  # then its start counts
    situation.add(attrs.evolve(undated, completed_at=None, started_at=days_ago(12)))
    records = RecordMaps(entries=situation.entries, claims={})

    def offered(most: int | None) -> list[str]:
        return [entry.session_id for entry in records.ended_before(NOW, most)]

    assert offered(3) == ["old-12", "old-11", "old-10"]
    assert sorted(offered(5)) == sorted(offered(None)) == sorted(situation.entries)


def test_a_session_that_cannot_be_read_is_named_where_it_is_to_be_spared():
    error = RecordCorrupt("agents/b.toml", ["not TOML"])
    records = RecordMaps(
        entries={"a": make_entry("a", ALICE)}, claims={}, damaged_entries={"b": error}
    )
    loaded = select(Keys(sessions=("b", "a"), spares_unreadable=True), records, NOW)
    assert (loaded.unreadable, set(loaded.entries)) == ({"b"}, {"a"})
    with pytest.raises(RecordCorrupt):
        select(Keys(sessions=("a", "b")), records, NOW)


def test_ids_in_use_are_told_also_those_of_unreadable_files():
    error = RecordCorrupt("agents/b.toml", ["not TOML"])
    records = RecordMaps(
        entries={"a": make_entry("a", ALICE)}, claims={}, damaged_entries={"b": error}
    )
    loaded = select(Keys(fresh_ids=("a", "b", "c")), records, NOW)
    assert loaded.used_ids == {"a", "b"}


def test_a_claim_that_cannot_be_read_is_damage_of_its_branch_only():
    error = RecordCorrupt("claims/x.toml", ["not TOML"])
    situation = held()
    records = RecordMaps(
        entries=situation.entries, claims=situation.claims, damaged_claims={"bad": error}
    )
    loaded = select(Keys(threads=("bad", BRANCH)), records, NOW)
    assert loaded.damaged_claims == {"bad": error}
    assert set(loaded.claims) == {BRANCH}


def test_a_folder_whose_claims_cannot_all_be_read_is_told_and_hides_no_other():
    error = StoreUnavailable("claims/x.toml", "input/output error")

    class Records(RecordMaps):
        def claims_naming(self, path):
            if path == "/w":
                raise error
            return super().claims_naming(path)

    situation = Situation()
    situation.reserve(ALICE, session_id="a", thread="one", path="/w")
    situation.reserve(BOB, session_id="b", thread="two", path="/v")
    records = Records(entries=situation.entries, claims=situation.claims)
    for keys in (Keys(path="/w"), Keys(sessions=("a",)), Keys(sessions=("a",), path="/v")):
        loaded = select(keys, records, NOW)
        assert loaded.unread_folders == {"/w": error}
        assert loaded.folder_error("/w") is error
        assert loaded.folder_error("/v") is loaded.folder_error(None) is None
        assert ("two" in loaded.claims) is (keys.path == "/v")
    assert select(Keys(path="/v"), records, NOW).unread_folders == {}


def test_copies_of_a_missing_claim_come_with_any_session_on_the_branch():
    situation = Situation(Branch())
    situation.add(make_entry("o", DEAD, fence=3))
    situation.add(present("p", ALICE))
    loaded = situation.load(sessions=("p",))
    assert loaded.claim_on(BRANCH, NOW).holder.session_id == "o"


def test_a_missing_claim_is_not_below_a_fence_that_any_entry_remembers():
    situation = Situation(Branch())
    situation.add(make_entry("done", ALICE, "complete", fence=7))
    situation.add(make_entry("elsewhere", ALICE, "complete", fence=9, thread="elsewhere"))
    for keys in ({"threads": (BRANCH,)}, {"sessions": ("done",)}):
        stand_in = situation.load(**keys).claim_on(BRANCH, NOW)
        assert (stand_in.fence, stand_in.holder) == (7, None)
    situation.add(make_entry("o", ALICE, fence=3))
    stand_in = situation.load(threads=(BRANCH,)).claim_on(BRANCH, NOW)
    assert (stand_in.fence, stand_in.holder.session_id) == (7, "o")


def test_a_claim_that_is_there_is_asked_and_no_entry():
    situation = held()
    situation.add(make_entry("done", ALICE, "complete", fence=FENCE + 9))
    loaded = situation.load(threads=(BRANCH,), sessions=("done",))
    assert loaded.claim_on(BRANCH, NOW).fence == FENCE
    assert loaded.fences == {}


def test_every_held_claim_comes_with_its_holder_whatever_became_of_that():
    situation = held()
    situation.reserve(ALICE, session_id="a", thread="gone")
    situation.reserve(ALICE, session_id="b", thread="free")
    situation.release(EntryEvent.COMPLETE, "token of b", "b")
    del situation.entries["a"]
    situation.add(make_entry(HOLDER, ALICE, "complete", FENCE))
    loaded = situation.load(all_held=True)
    assert set(loaded.claims) == {BRANCH, "gone"}
    assert set(loaded.entries) == {HOLDER}


def test_the_entry_of_a_claims_holder_is_not_offered_as_stale():
    situation = held()
    ended = make_entry(HOLDER, ALICE, "complete", FENCE)
    situation.add(attrs.evolve(ended, completed_at=days_ago(8)))
    assert situation.load(stale=True).stale_ids == ()
    assert situation.load(all_stale=True).stale_ids == ()
    situation.release(EntryEvent.MERGE)
    assert situation.load(stale=True).stale_ids == (HOLDER,)


def test_an_entry_is_loaded_with_the_heartbeat_that_its_claim_has():
    situation = held()
    situation.renew()
    assert situation.entries[HOLDER].heartbeat_at is None
    assert situation.load(sessions=(HOLDER,)).entries[HOLDER].heartbeat_at == NOW.at


class CountingMaps(RecordMaps):
    """Records that note which claims and threads they are asked for."""

    asked: list = []  # noqa: RUF012 - one list for each test, see `counting`

    def claim(self, thread):
        self.asked.append(("claim", thread))
        return super().claim(thread)

    def active_on(self, thread):
        self.asked.append(("active on", thread))
        return super().active_on(thread)


def counting(**records):
    CountingMaps.asked = []
    return CountingMaps(**records)


def test_what_is_named_twice_is_read_once_be_it_readable_or_not():
    situation = held()
    situation.add(present("p", ALICE))
    situation.add(present("q", ALICE, thread="bad"))
    situation.add(present("r", ALICE, thread="bad"))
    situation.add(present("s", ALICE, thread="free"))
    error = RecordCorrupt("claims/x.toml", ["not TOML"])
    records = counting(
        entries=situation.entries, claims=situation.claims, damaged_claims={"bad": error}
    )
    keys = Keys(sessions=(HOLDER, "p", "q", "r"), threads=(BRANCH, "bad"))
    loaded = select(keys, records, NOW)
    assert set(loaded.claims) == {BRANCH}
    assert loaded.damaged_claims == {"bad": error}
    assert loaded.fences == {}, "a claim that cannot be read is not stood in for"
    assert sorted(what for what in records.asked if what[0] == "claim") == [
        ("claim", "bad"),
        ("claim", BRANCH),
    ]
    select(Keys(sessions=("s",)), records, NOW)
    assert ("active on", "free") not in records.asked, "no entry there remembers a fence"


def test_only_copies_of_a_claim_stand_in_for_it():
    situation = Situation(Branch())
    situation.add(make_entry("o", DEAD, fence=3))
    for name in ("p", "q"):
        situation.add(present(name, ALICE))
    assert set(situation.load(sessions=("p",)).entries) == {"p", "o"}


def test_other_claims_on_a_folder_come_for_its_bearer_and_not_for_who_names_the_branch():
    situation = held()
    situation.reserve(BOB, session_id="b", thread="other")
    for thread in (BRANCH, "other"):
        situation.claims[thread] = attrs.evolve(situation.claims[thread], path="/w")
    assert set(situation.load(sessions=(HOLDER,)).claims) == {BRANCH, "other"}
    assert set(situation.load(threads=(BRANCH,)).claims) == {BRANCH}
    assert situation.load(path="/elsewhere").claims == {}


def test_a_look_up_brings_every_active_entry_that_has_the_value_and_their_claims():
    situation = held()
    situation.add(present("p", ALICE, client_instance_id="c", thread="elsewhere"))
    situation.add(attrs.evolve(situation.entries[HOLDER], client_instance_id="c"))
    situation.add(present("q", ALICE, client_instance_id="d", thread="third"))
    loaded = situation.load(lookups=(("client_instance_id", "c"),))
    assert set(loaded.entries) == {HOLDER, "p"}
    assert set(loaded.claims) == {BRANCH}


def test_damage_is_told_to_whoever_decides_on_a_branch_or_lists_and_to_no_other():
    damage = Damage(path="x", error=RecordCorrupt("x", ["?"]), thread=BRANCH)
    records = RecordMaps(entries={}, claims={}, damaged=(damage,))
    for keys in (Keys(threads=("any",)), Keys(all_active=True)):
        assert select(keys, records, NOW).damage == (damage,)
    for keys in (Keys(), Keys(fresh_ids=("n",)), Keys(path="/w"), Keys(all_held=True)):
        assert select(keys, records, NOW).damage == ()


def test_an_entry_that_cannot_be_read_is_an_error_to_whoever_asks_for_it_and_hides_no_claim():
    error = RecordCorrupt("agents/h.toml", ["not TOML"])
    situation = held()
    records = RecordMaps(entries={}, claims=situation.claims, damaged_entries={HOLDER: error})
    with pytest.raises(RecordCorrupt):
        select(Keys(sessions=(HOLDER,)), records, NOW)
    loaded = select(Keys(threads=(BRANCH,)), records, NOW)
    assert (set(loaded.claims), loaded.entries) == ({BRANCH}, {})


def test_where_nobody_remembers_a_fence_the_first_one_is_still_to_be_given():
    situation = Situation()
    situation.add(present("s", ALICE, thread="elsewhere"))
    assert situation.load(sessions=("s",)).fences == {"elsewhere": 0}
    assert situation.load(threads=("nobodys",)).fences == {"nobodys": 0}
