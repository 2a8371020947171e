"""What every store must do: a suite for whoever writes one.

Subclass `StoreSuite` in a test file, answer `open_store`, and let pytest find it::

    class TestAcmeStore(StoreSuite):
        def open_store(self, host, place):
            return AcmeStore(place / "acme.db", host)

Each test gets an empty folder as ``place``. Two stores opened at one place by one test are two
views of the same records, as two processes would have them; a store that lives in one process
alone answers the same object again.
"""

# ruff: noqa: D102, S101, PLR2004 - the assertions are the product, and the names say what of
from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from heddle_registry.core.claim import Claim, ClaimHolder, EndCause
from heddle_registry.core.entry import (
    AgentEntry,
    AgentUsageSummary,
    ContextQueryEntry,
    EntryExtension,
)
from heddle_registry.core.evidence import LivenessFact, LivenessFile, Owner, Subject
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.limits import MAX_SWEEP
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.core.token import hash_token
from heddle_registry.core.transaction import (
    Decision,
    KeepQueries,
    Keys,
    NeedFacts,
    PutClaim,
    PutEntry,
    RemoveEntry,
)
from heddle_registry.errors import Held
from heddle_registry.ports.query import Query
from heddle_registry.testing.fake_host import FakeHost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from heddle_registry.core.timestamp import Instant
    from heddle_registry.core.transaction import Effect, Facts, Loaded
    from heddle_registry.ports import Host, Store

_DAY_S = 86_400.0
_PATIENCE_S = 30.0


def _entry(session_id: str, minute: int = 0, **fields: Any) -> AgentEntry:
    given: dict[str, Any] = {
        "thread": "main",
        "base_state": "b",
        "started_at": Timestamp(f"2026-07-01T11:{minute:02d}:00Z"),
        "status": AgentStatus.ACTIVE,
        **fields,
    }
    return AgentEntry(session_id=session_id, **given)


def _ended(session_id: str, at: Timestamp, **fields: Any) -> AgentEntry:
    return _entry(session_id, status=AgentStatus.COMPLETE, completed_at=at, **fields)


def _holder(session_id: str, now: Instant, **fields: Any) -> ClaimHolder:
    return ClaimHolder(session_id=session_id, granted_at=now.at, renewed_at=now, **fields)


def _write(store: Store, *effects: Effect, freed: tuple[str, ...] = ()) -> None:
    store.transact(Keys(), lambda *_: Decision(effects=effects, freed=freed), {})


def _load(store: Store, **keys: Any) -> Loaded:
    """Load through both ways in, which must agree."""
    seen: list[Loaded] = []

    def decide(loaded: Loaded, _now: Instant, _facts: Facts) -> Decision[None]:
        seen.append(loaded)
        return Decision()

    store.transact(Keys(**keys), decide, {})
    peeked, _ = store.peek(Keys(**keys))
    assert (dict(peeked.entries), dict(peeked.claims)) == (
        dict(seen[0].entries),
        dict(seen[0].claims),
    )
    return seen[0]


class StoreSuite:
    """The promises of `heddle_registry.ports.Store`, one test each."""

    def open_store(self, host: Host, place: Path) -> Store:
        """Return a store over the records at ``place``."""
        raise NotImplementedError

    def test_what_was_written_is_read_back_as_it_was(self, tmp_path: Path) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        now = host.now()
        at = Timestamp("2026-07-01T11:59:59.000120000Z")
        owner = Owner(pid=7, boot_id="boot-1", host="h", pid_ns="p", start_ticks=2**63, command="x")
        full = _entry(
            "agent-full",
            thread='strange/"thread" \\ \u00e9',
            pid=7,
            boot_id="boot-1",
            path="/tmp/a b",  # noqa: S108
            heartbeat_at=at,
            provider="line\nbreak",
            usage_summary=AgentUsageSummary(input_tokens=2**64 - 1, unknown={"later": 1}),
            attach_precedence=("one", "two"),
            probe_confidence=0.75,
            context_queries=(ContextQueryEntry(path="p", scope="s", queried_at=at),),
            extension=EntryExtension(
                owner=owner,
                fence=3,
                ttl_s=12.5,
                token=hash_token("t", b"salt"),
                continues="agent-x",
            ),
            unknown={"newer": {"deep": [1, 2]}},
        )
        holder = _holder(
            "agent-full", now, owner=owner, ttl_s=1.5, liveness=LivenessFile(device=1, inode=2)
        )
        claim = Claim(thread=full.thread, fence=2).ended(EndCause.FORCED, at)
        claim = claim.granted(holder, 3, "/repo/tree")
        claim = claim.ended(EndCause.EXPIRED, at, by="agent-y", reason="r").granted(holder, 4, None)
        _write(store, PutEntry(full), PutClaim(claim))
        loaded = _load(self.open_store(host, tmp_path), sessions=("agent-full",))
        assert (loaded.entries, loaded.claims) == ({"agent-full": full}, {full.thread: claim})
        assert loaded.entries["agent-full"].unknown == full.unknown
        assert loaded.entries["agent-full"].usage_summary.unknown == {"later": 1}

    def test_effects_are_made_in_order_and_the_last_one_stands(self, tmp_path: Path) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        query = ContextQueryEntry(path="p", queried_at=host.now().at)
        first, second = _entry("agent-a", harness="one"), _entry("agent-a", harness="two")
        _write(store, PutEntry(first), PutEntry(_entry("agent-b")), PutEntry(second))
        _write(store, RemoveEntry("agent-b"), RemoveEntry("agent-never"))
        _write(store, KeepQueries("agent-a", (query, query)))
        assert _load(store, all_active=True).entries == {"agent-a": second}

    def test_a_decision_that_needs_facts_writes_nothing_and_is_asked_again(
        self, tmp_path: Path
    ) -> None:
        store = self.open_store(FakeHost(), tmp_path)
        subject = Subject(session_id="agent-a", pid=1)
        key = ("agent-a", None, None)
        asked: list[dict[Any, Any]] = []

        def decide(_loaded: Loaded, _now: Instant, facts: Facts) -> Decision[str] | NeedFacts:
            asked.append(dict(facts))
            if key not in facts:
                return NeedFacts((subject,))
            return Decision(answer="done", effects=(PutEntry(_entry("agent-a")),))

        first = store.transact(Keys(), decide, {})
        assert first == NeedFacts((subject,))
        assert _load(store, all_active=True).entries == {}
        second = store.transact(Keys(), decide, {key: None})
        assert isinstance(second, Decision)
        assert second.answer == "done"
        assert {key: None} in asked
        assert list(_load(store, all_active=True).entries) == ["agent-a"]

    def test_a_refusal_comes_back_after_its_effects_and_an_exception_undoes_nothing_else(
        self, tmp_path: Path
    ) -> None:
        store = self.open_store(FakeHost(), tmp_path)
        refusal = Held("main")

        def refuse(*_: object) -> Decision[None]:
            return Decision(refusal=refusal, effects=(PutEntry(_entry("agent-a")),))

        def fail(*_: object) -> Decision[None]:
            raise LookupError("the caller's own")

        answered = store.transact(Keys(), refuse, {})
        assert isinstance(answered, Decision)
        assert answered.refusal is refusal
        with suppress(LookupError):
            store.transact(Keys(), fail, {})
            raise AssertionError("it swallowed the caller's error")
        _write(store, PutEntry(_entry("agent-b")))  # the exclusion is free again
        assert set(_load(store, all_active=True).entries) == {"agent-a", "agent-b"}

    def test_each_key_loads_what_it_names_and_what_that_needs(self, tmp_path: Path) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        now = host.now()
        holder = _entry("agent-holder", native_parent_actor_key="parent")
        parent = _entry("agent-parent", thread="other", native_actor_key="parent")
        older = _entry("agent-older", thread="other", native_actor_key="parent", minute=0)
        parent = attrs.evolve(parent, started_at=Timestamp("2026-07-01T11:30:00Z"))
        beside = _entry("agent-beside")
        done = _ended("agent-done", now.at)
        claim = Claim(thread="main").granted(_holder("agent-holder", now), 1, "/tree")
        past = Claim(thread="gone").granted(_holder("agent-gone", now), 1, None)
        past = past.ended(EndCause.DELETED, now.at)
        _write(
            store,
            *map(PutEntry, (holder, parent, older, beside, done)),
            *map(PutClaim, (claim, past)),
        )
        by_session = _load(store, sessions=("agent-holder",))
        assert set(by_session.entries) == {"agent-holder", "agent-parent"}
        assert by_session.claims == {"main": claim}
        by_thread = _load(store, threads=("main", "free"))
        assert {"agent-holder", "agent-beside", "agent-parent"} == set(by_thread.entries)
        assert by_thread.claims == {"main": claim}
        by_path = _load(store, path="/tree")
        assert by_path.claims == {"main": claim}
        assert "agent-holder" in by_path.entries
        assert _load(store, path="/tre").claims == {}
        assert set(_load(store, actors=("parent", "nobody")).entries) == {"agent-parent"}
        assert _load(store, sessions=("agent-gone",)).claims == {"gone": past}
        assert _load(store, fresh_ids=("agent-done", "agent-new")).used_ids == {"agent-done"}
        everybody = _load(store, all_active=True)
        assert "agent-done" not in everybody.entries
        assert len(everybody.entries) == 4
        assert everybody.claims == {"main": claim}
        ex = _ended("agent-ex", now.at, thread="ex").extended(fence=4)
        _write(store, RemoveEntry("agent-holder"), PutEntry(ex))
        assert _load(store, all_held=True).claims == {"main": claim}
        assert _load(store, threads=("ex",)).claim_on("ex", now).fence == 4

    def test_the_stale_are_named_to_writers_and_hidden_from_lookers(self, tmp_path: Path) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        ended_at = host.now().at
        names = [f"agent-{number:02d}" for number in range(MAX_SWEEP + 4)]
        _write(store, *(PutEntry(_ended(name, ended_at)) for name in names))
        host.advance(7 * _DAY_S - 1)
        assert len(store.look(Query()).entries) == len(names)
        assert _load(store, all_stale=True).stale_ids == ()
        host.advance(1)
        assert (store.look(Query()).entries, store.load(names[0])) == ((), None)
        assert len(store.look(Query(include_stale=True)).entries) == len(names)
        assert sorted(_load(store, all_stale=True).stale_ids) == names
        some = _load(store, stale=True).stale_ids
        assert (len(some), set(some) < set(names)) == (MAX_SWEEP, True)
        _write(store, PutClaim(Claim(thread="main", fence=1, holder=_holder(names[0], host.now()))))
        assert sorted(_load(store, all_stale=True).stale_ids) == names[1:]

    def test_a_look_narrows_by_every_field_and_is_newest_first(self, tmp_path: Path) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        folder = tmp_path / "tree"
        folder.mkdir()
        (tmp_path / "link").symlink_to(folder)
        fields: dict[str, Any] = {
            "native_actor_key": "k",
            "native_parent_actor_key": "pk",
            "native_instance_key": "ik",
            "client_instance_id": "c",
            "heddle_session_id": "h",
            "pid": 7,
        }
        match = _entry("agent-match", 5, thread="here", path=str(tmp_path / "link"), **fields)
        done = _ended("agent-done", host.now().at, thread="here", **fields)
        _write(store, *map(PutEntry, (match, done, _entry("agent-a", 9), _entry("agent-b", 1))))
        assert [entry.session_id for entry in store.look(Query()).entries] == [
            "agent-a",
            "agent-match",
            "agent-b",
            "agent-done",
        ]
        narrow: list[dict[str, Any]] = [{name: fields[name]} for name in fields if name != "pid"]
        narrow += [{"session_id": "agent-match"}, {"thread": "here"}, {"owner_pids": (7, 8)}]
        narrow += [{"path": str(folder.resolve())}]
        for query in narrow:
            assert store.look(Query(active_only=True, **query)).entries == (match,), query
        assert store.look(Query(thread="here", native_actor_key="k")).entries == (match, done)
        assert store.look(Query(session_id="agent-no")).entries == ()

    def test_a_look_shows_the_claims_of_its_threads_and_the_newer_heartbeat(
        self, tmp_path: Path
    ) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        granted = host.now()
        claim = Claim(thread="main").granted(_holder("agent-a", granted), 1, None)
        assert claim.holder is not None
        host.advance(10)
        renewed = attrs.evolve(claim, holder=attrs.evolve(claim.holder, renewed_at=host.now()))
        _write(store, PutEntry(_entry("agent-a")), PutClaim(renewed), PutClaim(Claim(thread="x")))
        look = store.look(Query(session_id="agent-a"))
        assert (look.claims, look.now) == ({"main": renewed}, host.now())
        assert look.entries[0].heartbeat_at == host.now().at
        assert (store.load("agent-a"), store.load("agent-b")) == (look.entries[0], None)
        assert store.look(Query(thread="x")).claims == {"x": Claim(thread="x")}

    def test_no_change_is_lost_between_two_views(self, tmp_path: Path) -> None:
        host = FakeHost()
        views = [self.open_store(host, tmp_path) for _ in range(2)]
        turns = 25

        def count(store: Store) -> None:
            def decide(loaded: Loaded, now: Instant, _facts: Facts) -> Decision[None]:
                claim = loaded.claims.get("main", Claim(thread="main"))
                grown = claim.granted(_holder("agent-a", now), claim.fence + 1, None)
                return Decision(effects=(PutClaim(grown),))

            for _ in range(turns):
                store.transact(Keys(threads=("main",)), decide, {})

        _in_threads(*(lambda store=view: count(store) for view in views for _ in range(2)))
        for view in views:
            assert _load(view, threads=("main",)).claims["main"].fence == 4 * turns

    def test_waiters_stand_in_the_order_in_which_they_came(self, tmp_path: Path) -> None:
        store = self.open_store(FakeHost(), tmp_path)
        with store.join_line("main", 60) as first, store.join_line("main", 60) as second:
            if not first.ticket:
                return  # a system without lines
            with store.join_line("other", 60):
                assert _load(store, line_of="main").line == (first.ticket, second.ticket)
            first.wait(0.01, None)
            first.leave()
            first.leave()
            assert store.peek(Keys(line_of="main"))[0].line == (second.ticket,)
            assert _load(store, threads=("main",)).line == ()
        assert _load(store, line_of="main").line == ()

    def test_who_frees_a_branch_wakes_the_first_and_who_leaves_wakes_the_next(
        self, tmp_path: Path
    ) -> None:
        store = self.open_store(FakeHost(), tmp_path)
        with store.join_line("main", 60) as first, store.join_line("main", 60) as second:
            if not first.ticket:
                return
            woken: list[str] = []

            def wait() -> None:
                first.wait(10 * _PATIENCE_S, None)
                woken.append("first")
                first.leave()

            def wait_next() -> None:
                second.wait(10 * _PATIENCE_S, None)
                woken.append("second")

            _in_threads(
                wait,
                wait_next,
                lambda: _write(store, PutClaim(Claim(thread="main")), freed=("main",)),
            )
            assert woken == ["first", "second"]

    def test_a_liveness_lock_tells_held_from_free(self, tmp_path: Path) -> None:
        host = FakeHost()
        store = self.open_store(host, tmp_path)
        subject = Subject(session_id="agent-a", pid=host.own_pid())
        assert store.observe(host, subject) == host.observe(subject)
        lock = store.hold_liveness("agent-a")
        if lock is None:
            return
        other = self.open_store(host, tmp_path)
        watched = attrs.evolve(subject, liveness=lock.file)
        assert other.observe(host, watched).liveness is LivenessFact.HELD
        assert other.observe(host, watched).process is host.observe(subject).process
        lock.release()
        lock.release()
        assert other.observe(host, watched).liveness is LivenessFact.FREE
        again = store.hold_liveness("agent-a")
        assert again is not None
        again.discard()
        assert other.observe(host, watched).liveness is None


def _in_threads(*work: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=run, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
        assert not thread.is_alive(), "it was not woken, or the exclusion never came free"
    assert not failures, failures
