"""Cleaning up: on proof only, a part at a time, and one bad entry stops nothing."""

from __future__ import annotations

import attrs
import pytest

from heddle_registry import AgentStatus, ClaimLost, Timestamp, UsageError
from heddle_registry.core.entry import SCHEMA
from heddle_registry.core.transaction import Decision, Keys, PutEntry, RemoveEntry
from heddle_registry.explain import why_branch
from heddle_registry.ports.query import Query
from tests.registry.world import World


def test_the_dead_are_abandoned_the_stale_removed_and_the_unknown_kept_with_a_reason(
    world: World,
) -> None:
    gone, lives = world.host.spawn(["gone"]), world.host.spawn(["lives"])
    holder = world.reserve("one", pid=gone)
    world.reserve("two", pid=lives)
    ttl = world.reserve("three")
    world.present("agent-dead", "four", pid=gone)
    world.present("agent-unknown", "five")
    long_ago = Timestamp("2026-06-01T12:00:00Z")
    for name, ended_at in (("agent-stale", long_ago), ("agent-done", world.host.now().at)):
        done = {"status": AgentStatus.COMPLETE, "completed_at": ended_at}
        world.registry.save(world.entry(name, "x", **done))
    world.host.kill(gone)
    before = world.records()
    plan = world.registry.sweep(dry_run=True)
    assert world.records() == before
    assert world.registry.sweep() == plan
    assert set(plan.reaped) == {holder.entry.session_id, "agent-dead"}
    assert plan.pruned == ("agent-stale",)
    assert dict(plan.kept) == {ttl.entry.session_id: "ttl_running", "agent-unknown": "no_process"}
    for session_id in plan.reaped:
        ended = world.loaded(session_id)
        assert (ended.status, ended.completed_at) == (AgentStatus.ABANDONED, world.host.now().at)
    assert world.registry.sweep().reaped == ()
    assert world.registry.reap_dead() == 0
    assert world.reserve("one").fence == 2
    with pytest.raises(ClaimLost, match="its owner was found dead"):
        world.registry.heartbeat(holder.entry.session_id, holder.token)


def test_reaping_prunes_nothing_and_one_thread_is_one_thread(world: World) -> None:
    gone = world.host.spawn(["gone"])
    world.registry.save(world.entry("agent-stale", "one", status=AgentStatus.COMPLETE))
    for thread in ("one", "two"):
        world.present(f"agent-{thread}", thread, pid=gone)
    world.host.kill(gone)
    world.host.advance(8 * 86_400)
    assert world.registry.reap_dead_for_thread("one") == 1
    assert world.loaded("agent-two").is_active
    assert world.registry.reap_dead() == 1
    assert len(world.registry.look(Query(include_stale=True)).entries) == 3
    with pytest.raises(UsageError):
        world.registry.reap_dead_for_thread("a\nb")


def test_an_expired_holder_is_ended_only_when_asked_and_never_called_dead(world: World) -> None:
    pid = world.host.spawn(["lives"])
    held = world.on_terms(owner=world.host.owner_for(pid), ttl_s=60)
    world.host.advance(61)
    swept = world.registry.sweep()
    assert (swept.reaped, swept.kept) == ((), ())
    silent = world.reserve("other")
    world.host.advance(301)
    assert dict(world.registry.sweep().kept) == {silent.entry.session_id: "expired"}
    ended = world.registry.sweep(end_expired=True)
    assert held.entry is not None
    assert set(ended.reaped) == {held.entry.session_id, silent.entry.session_id}
    with pytest.raises(ClaimLost, match="its TTL had passed"):
        world.registry.heartbeat(silent.entry.session_id, silent.token)


def test_more_than_one_transaction_can_hold_are_swept_all_the_same(world: World) -> None:
    gone = world.host.spawn(["gone"])
    effects = []
    for number in range(150):
        fields = {"pid": gone, "boot_id": world.host.boot_id}
        effects.append(PutEntry(world.entry(f"agent-{number:03d}", f"t{number}", **fields)))
    world.store.transact(Keys(), lambda *_: Decision(effects=tuple(effects)), {})
    world.host.kill(gone)
    assert world.registry.reap_dead() == 150
    world.host.advance(8 * 86_400)
    assert len(world.registry.sweep().pruned) == 150
    assert world.registry.look(Query(include_stale=True)).entries == ()


def test_the_dead_entry_of_a_newer_program_is_kept_and_stops_nobody(world: World) -> None:
    gone = world.host.spawn(["gone"])
    world.present("agent-plain", pid=gone)
    newer = world.entry("agent-newer", pid=gone, boot_id=world.host.boot_id)
    newer = newer.extended(schema=SCHEMA + 1)
    world.store.transact(Keys(), lambda *_: Decision(effects=(PutEntry(newer),)), {})
    world.host.kill(gone)
    held = world.reserve("main")
    assert held.fence == 1
    assert world.loaded("agent-plain").status is AgentStatus.ABANDONED
    swept = world.registry.sweep()
    if world.folder.exists():  # memory has no other program
        assert ("agent-newer", "newer_schema") in swept.kept
        assert world.loaded("agent-newer") == newer


def test_a_release_cut_short_is_finished_and_told_as_one(world: World) -> None:
    held = world.reserve(pid=world.host.own_pid())
    ended = attrs.evolve(held.entry, status=AgentStatus.COMPLETE, completed_at=world.host.now().at)
    world.store.transact(Keys(), lambda *_: Decision(effects=(PutEntry(ended),)), {})
    assert not world.registry.check("main", held.fence).valid
    for sweep in (lambda: None, lambda: world.registry.sweep(thread="main")):
        sweep()
        with pytest.raises(ClaimLost) as lost:
            world.registry.heartbeat(held.entry.session_id, held.token)
        assert "complete" in lost.value.why
        assert "dead" not in lost.value.why
    assert world.reserve().fence == held.fence + 1


def test_a_claim_is_swept_though_no_active_entry_is_left_on_its_branch(world: World) -> None:
    pid = world.host.spawn(["holder"])
    half, lost = world.reserve("half", pid=pid), world.reserve("lost", pid=pid)
    gone = world.reserve("gone", pid=pid)
    ended = attrs.evolve(half.entry, status=AgentStatus.COMPLETE, completed_at=world.host.now().at)
    bare = attrs.evolve(ended, session_id=lost.entry.session_id, thread="lost", extension=None)
    effects = (PutEntry(ended), PutEntry(bare), RemoveEntry(gone.entry.session_id))
    world.store.transact(Keys(), lambda *_: Decision(effects=effects), {})

    assert world.registry.sweep(dry_run=True).ended_claims == ("half",)
    assert world.registry.sweep().ended_claims == ("half",)
    assert why_branch(world.registry, "lost").state == "blocked"
    world.host.kill(pid)
    assert sorted(world.registry.sweep().ended_claims) == ["gone", "lost"]
    assert world.registry.sweep().ended_claims == ()
    for held, told in ((half, "released"), (lost, "another program"), (gone, "another program")):
        assert why_branch(world.registry, held.entry.thread).state == "free"
        with pytest.raises(ClaimLost, match=told):
            world.registry.heartbeat(held.entry.session_id, held.token)


def test_a_release_cut_short_is_still_one_after_weeks_of_pruning(world: World) -> None:
    pid = world.host.spawn(["holder"])
    held = world.reserve(pid=pid)
    ended = attrs.evolve(held.entry, status=AgentStatus.COMPLETE, completed_at=world.host.now().at)
    world.store.transact(Keys(), lambda *_: Decision(effects=(PutEntry(ended),)), {})
    world.host.advance(8 * 86_400)
    world.reserve("other", pid=pid)
    assert why_branch(world.registry, "main").state == "free"
    swept = world.registry.sweep()
    assert (swept.ended_claims, swept.pruned) == (("main",), (held.entry.session_id,))
    with pytest.raises(ClaimLost, match="complete"):
        world.registry.heartbeat(held.entry.session_id, held.token)


def test_the_fence_goes_on_where_only_ended_entries_remember_it(world: World) -> None:
    for fence in (1, 2, 3):
        held = world.reserve(pid=world.host.own_pid())
        assert held.fence == fence
        world.registry.release(held.entry.session_id, token=held.token)
    entries = [PutEntry(entry) for entry in world.registry.list()]
    other = World("memory" if world.folder.exists() else "directory", world.folder / "other")
    other.store.transact(Keys(), lambda *_: Decision(effects=tuple(entries)), {})
    assert not other.registry.check("main", 3).valid
    assert other.reserve(pid=other.host.own_pid()).fence == 4
