"""What the suite of all stores does not ask of the one in memory."""

from __future__ import annotations

import inspect
import multiprocessing
import sys
import threading

import attrs
import pytest

from heddle_registry.adapters.directory import DirectoryStore
from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.core.edit import decide_create, decide_log_query
from heddle_registry.core.entry import AgentEntry, ContextQueryEntry
from heddle_registry.core.evidence import LivenessFile, Subject
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.transaction import Decision, Keys
from heddle_registry.ports import Store
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost


def create(store: MemoryStore, session_id: str, **changes) -> None:
    entry = AgentEntry(
        session_id=session_id,
        thread="main",
        base_state="b",
        started_at=FakeHost().now().at,
        status=AgentStatus.ACTIVE,
    )
    wish = attrs.evolve(entry, **changes)
    keys = Keys(fresh_ids=(session_id,))
    store.transact(keys, lambda loaded, now, facts: decide_create(wish, loaded), {})


def names(store: MemoryStore) -> list[str]:
    return [entry.session_id for entry in store.look(Query()).entries]


@pytest.mark.parametrize("store", [MemoryStore, DirectoryStore])
def test_a_store_is_asked_as_the_port_says_with_what_it_says_where_nothing_is_said(store: type):
    asked = {name: call for name, call in vars(Store).items() if inspect.isfunction(call)}
    assert {"transact", "tidy", "observe", "hold_liveness"} <= asked.keys()
    for name, call in asked.items():
        of_port, ours = inspect.signature(call), inspect.signature(getattr(store, name))
        told = [
            [(one.name, one.kind, one.default) for one in signature.parameters.values()]
            for signature in (of_port, ours)
        ]
        assert told[0] == told[1], name


def test_two_stores_share_nothing():
    one, two = MemoryStore(FakeHost()), MemoryStore(FakeHost())
    create(one, "a")
    assert (names(one), names(two)) == (["a"], [])


def _create_in_child(store, answers):
    create(store, "child")
    answers.put(names(store))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_a_copy_that_nobody_else_sees():
    store = MemoryStore(FakeHost())
    create(store, "parent")
    forking = multiprocessing.get_context("fork")
    answers = forking.SimpleQueue()
    child = forking.Process(target=_create_in_child, args=(store, answers))
    child.start()
    seen = answers.get()
    child.join()
    assert sorted(seen) == ["child", "parent"]
    assert names(store) == ["parent"]


def test_a_log_that_runs_over_leaves_the_newest_hundred_in_the_entry():
    store = MemoryStore(FakeHost())
    create(store, "a")
    for number in range(103):
        query = ContextQueryEntry(path=f"/{number}", queried_at=FakeHost().now().at)
        store.transact(
            Keys(sessions=("a",)),
            lambda loaded, now, facts, query=query: decide_log_query("a", query, loaded),
            {},
        )
    (entry,) = store.look(Query()).entries
    assert [query.path for query in entry.context_queries] == [f"/{n}" for n in range(3, 103)]


def test_a_waiter_sleeps_until_it_is_woken_and_each_waking_wakes_it_once():
    store = MemoryStore(FakeHost())
    with store.join_line("main", 60) as place:
        for _ in range(2):  # the second time the first waking is over
            waiter = threading.Thread(target=place.wait, args=(600, None), daemon=True)
            waiter.start()
            waiter.join(0.1)
            assert waiter.is_alive(), "nobody woke it"
            store.transact(Keys(), lambda *_: Decision(freed=("main",)), {})
            waiter.join(60)
            assert not waiter.is_alive()
        waiter = threading.Thread(target=place.wait, args=(0.01, None), daemon=True)
        waiter.start()
        waiter.join(60)
        assert not waiter.is_alive(), "nor does it sleep longer than was asked"


def test_there_is_no_liveness_lock_and_none_is_believed():
    host = FakeHost()
    store = MemoryStore(host)
    assert store.hold_liveness("a") is None
    owner = host.owner_for(host.own_pid())
    subject = Subject(session_id="a", owner=owner, liveness=LivenessFile(device=1, inode=1))
    assert store.observe(host, subject).liveness is None
    assert store.observe(host, subject).process is not None


def test_nothing_is_ever_left_behind_or_unsafe():
    store = MemoryStore(FakeHost())
    assert (store.tidy(), store.tidy(dry_run=True), store.examine(FakeHost())) == ((), (), ())
