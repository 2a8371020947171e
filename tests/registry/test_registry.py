"""Heartbeats, releases, hand-overs and fences: what a holder may do, and what it is told after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentRegistry,
    AgentStatus,
    ClaimLost,
    IllegalTransition,
    LiveOwner,
    Reserved,
    UnknownEntry,
    UsageError,
)
from heddle_registry.core.claim import Claim
from heddle_registry.core.transaction import Decision, Keys, PutEntry, RemoveEntry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.registry.world import World


def lost_by(call: Any) -> ClaimLost:
    with pytest.raises(ClaimLost) as lost:
        call()
    return lost.value


def stranger_writes(world: World, *effects: Any) -> None:
    """What a program that knows no claims does to entries."""
    world.store.transact(Keys(), lambda *_: Decision(effects=effects), {})


def rewritten(world: World, session_id: str, **changes: Any) -> PutEntry:
    """The Rust tool's rewrite: our table is dropped."""
    found = world.loaded(session_id)
    return PutEntry(attrs.evolve(found, extension=None, heartbeat_at=None, **changes))


def test_a_heartbeat_prolongs_and_is_seen_though_only_the_claim_is_written(world: World) -> None:
    held = world.reserve()
    file = world.folder / "agents" / f"{held.entry.session_id}.toml"
    before = file.read_bytes() if file.exists() else None
    for _ in range(3):
        world.host.advance(299)
        beaten = world.registry.heartbeat(held.entry.session_id, held.token)
        assert (beaten.fence, beaten.renew_within_s) == (held.fence, 300)
        assert beaten.entry.heartbeat_at == world.host.now().at
        assert world.loaded(held.entry.session_id) == beaten.entry
        assert world.registry.list() == [beaten.entry]
    assert (file.read_bytes() if file.exists() else None) == before
    released = world.registry.release(held.entry.session_id, token=held.token)
    assert released.heartbeat_at == beaten.entry.heartbeat_at, "its next write keeps it"
    assert world.loaded(held.entry.session_id).heartbeat_at == beaten.entry.heartbeat_at


@pytest.mark.parametrize("token", [None, "", "guess", "\udc80", "ü" * 5000])
def test_without_the_token_nothing_is_done_and_nothing_is_said(
    world: World, token: str | None
) -> None:
    held = world.reserve()
    before = world.records()
    session_id = held.entry.session_id
    for call in (
        lambda: world.registry.heartbeat(session_id, token),
        lambda: world.registry.release(session_id, token=token),
        lambda: world.registry.hand_over(session_id, token, to_ttl_s=60),
    ):
        lost = lost_by(call)
        assert lost.by == ""
        assert lost.why in ("token refused", _NO_TOKEN)
    assert world.records() == before


_NO_TOKEN = "no token was shown (--token, or HEDDLE_AGENT_TOKEN)"


def test_what_is_unknown_or_ended_has_no_heartbeat(world: World) -> None:
    world.present("agent-done")
    world.registry.update_status("agent-done", "complete")
    with pytest.raises(IllegalTransition):
        world.registry.heartbeat("agent-done")
    for call in (world.registry.heartbeat, world.registry.release):
        with pytest.raises(UnknownEntry):
            call("agent-no")
    for bad in ("../agent", "", "A", "a" * 201, "a\n"):
        for call in (world.registry.heartbeat, world.registry.release, world.registry.load):
            with pytest.raises(UsageError):
                call(bad)


def test_presence_has_a_heartbeat_that_gives_no_claim(world: World) -> None:
    world.present("agent-here")
    world.host.advance(10)
    beaten = world.registry.heartbeat("agent-here")
    assert (beaten.fence, beaten.renew_within_s) == (None, None)
    assert world.loaded("agent-here").heartbeat_at == world.host.now().at


def test_a_token_in_clear_text_is_asked_for_and_then_only_its_hash_is_kept(world: World) -> None:
    there = world.entry("agent-rust", reservation_token="clear")
    stranger_writes(world, PutEntry(there))
    assert lost_by(lambda: world.registry.heartbeat("agent-rust")).why == _NO_TOKEN
    assert lost_by(lambda: world.registry.heartbeat("agent-rust", "clea")).why == "token refused"
    for _ in range(2):
        world.registry.heartbeat("agent-rust", "clear")
        assert world.loaded("agent-rust").reservation_token is None
        assert lost_by(lambda: world.registry.heartbeat("agent-rust")).why == _NO_TOKEN


def test_an_expired_claim_that_nobody_took_is_renewed_under_the_same_fence(world: World) -> None:
    held = world.reserve()
    world.host.advance(5_000)
    assert world.registry.check("main", held.fence).valid
    assert world.registry.heartbeat(held.entry.session_id, held.token).fence == held.fence
    assert isinstance(world.try_reserve(), LiveOwner)


def test_an_expired_claim_is_not_renewed_where_its_folder_was_taken(
    world: World, tmp_path: Path
) -> None:
    held = world.reserve("one", path=str(tmp_path))
    world.host.advance(301)
    taker = world.reserve("two", path=str(tmp_path))
    lost = lost_by(lambda: world.registry.heartbeat(held.entry.session_id, held.token))
    assert "its folder now belongs to the claim on 'two'" in lost.why
    world.registry.release(taker.entry.session_id, token=taker.token)
    again = world.registry.heartbeat(held.entry.session_id, held.token)
    assert again.fence == held.fence
    assert isinstance(world.try_reserve("two", path=str(tmp_path)), LiveOwner)


@pytest.mark.parametrize("status", ["complete", "merged", "abandoned"])
def test_a_release_ends_entry_and_claim_and_raises_the_next_fence(
    world: World, status: str
) -> None:
    held = world.reserve()
    ended = world.registry.release(held.entry.session_id, status, token=held.token)
    assert (ended.status.value, ended.completed_at) == (status, world.host.now().at)
    assert world.loaded(held.entry.session_id) == ended
    answer = world.registry.check("main", held.fence)
    assert (answer.valid, answer.holder) == (False, None)
    assert "it was released at" in answer.why
    lost = lost_by(lambda: world.registry.heartbeat(held.entry.session_id, held.token))
    assert "it was released at" in lost.why
    assert world.reserve().fence == held.fence + 1


def test_a_release_of_what_holds_no_claim_is_the_entrys_event_alone(world: World) -> None:
    held = world.reserve()
    session_id = held.entry.session_id
    world.registry.release(session_id, token=held.token)
    first = world.loaded(session_id).completed_at
    world.host.advance(60)
    assert world.registry.release(session_id).completed_at == first
    merged = world.registry.release(session_id, AgentStatus.MERGED)
    assert (merged.status, merged.completed_at) == (AgentStatus.MERGED, first)
    for status in ("complete", "abandoned"):
        with pytest.raises(IllegalTransition):
            world.registry.release(session_id, status)
    for bad in ("active", "bogus", ""):
        with pytest.raises(UsageError):
            world.registry.release(session_id, bad)


def test_the_bearer_may_release_after_its_owners_death_and_after_its_ttl(world: World) -> None:
    pid = world.host.spawn(["agent"])
    dead = world.reserve("one", pid=pid)
    world.host.kill(pid)
    expired = world.reserve("two")
    world.host.advance(301)
    for held in (dead, expired):
        released = world.registry.release(held.entry.session_id, token=held.token)
        assert released.status is AgentStatus.COMPLETE


def test_the_librarys_own_doors_end_a_claim_without_a_token(world: World) -> None:
    doors = {
        "it was released": lambda i: world.registry.update_status(i, "merged"),
        "its entry was deleted": world.registry.delete,
        "it was released at": lambda i: world.registry.release(i, ask_token=False),
    }
    for number, (story, door) in enumerate(doors.items()):
        held = world.reserve()
        assert held.fence == number + 1
        door(held.entry.session_id)
        assert not world.registry.check("main", held.fence).valid
        lost = lost_by(
            lambda held=held: world.registry.heartbeat(held.entry.session_id, held.token)
        )
        assert story in lost.why


def test_a_hand_over_moves_branch_and_folder_to_a_new_entry(world: World, tmp_path: Path) -> None:
    held = world.reserve(path=str(tmp_path), harness="codex", native_actor_key="k")
    pid = world.host.spawn(["successor"])
    new = world.registry.hand_over(held.entry.session_id, held.token, to_pid=pid)
    assert isinstance(new, Reserved)
    assert (new.fence, new.entry.pid) == (held.fence + 1, pid)
    assert new.entry.extension is not None
    assert new.entry.extension.continues == held.entry.session_id
    assert (new.entry.harness, new.entry.native_actor_key) == ("codex", None)
    assert new.token
    assert new.token != held.token
    assert world.loaded(new.entry.session_id) == new.entry
    assert world.loaded(held.entry.session_id).status is AgentStatus.COMPLETE
    assert isinstance(world.try_reserve("other", path=str(tmp_path)), LiveOwner)
    lost = lost_by(lambda: world.registry.heartbeat(held.entry.session_id, held.token))
    assert (lost.by, "handed over to" in lost.why) == (new.entry.session_id, True)
    assert not world.registry.check("main", held.fence).valid

    world.host.kill(pid)
    world.registry.reap_dead()
    story = lost_by(lambda: world.registry.heartbeat(held.entry.session_id, held.token)).why
    assert story.index("handed over") < story.index("found dead") < story.index("is free")
    assert world.reserve().fence == held.fence + 2


def test_a_hand_over_to_a_ttl_expires_and_needs_a_claim_that_is_held(world: World) -> None:
    pid = world.host.spawn(["agent"])
    held = world.reserve(pid=pid)
    before = world.records()
    for wrong in ({}, {"to_pid": pid, "to_ttl_s": 5}, {"to_ttl_s": 0}, {"to_pid": 99_999}):
        with pytest.raises(UsageError):
            world.registry.hand_over(held.entry.session_id, held.token, **wrong)
    assert world.records() == before
    new = world.registry.hand_over(held.entry.session_id, held.token, to_ttl_s=60)
    world.host.kill(pid)
    assert world.registry.check("main", new.fence).valid, "the old owner's death is nothing to it"
    world.host.advance(61)
    expired = lost_by(
        lambda: world.registry.hand_over(new.entry.session_id, new.token, to_ttl_s=60)
    )
    assert "renew it first" in expired.why
    world.present("agent-here", "other")
    for session_id, token in (("agent-here", None), (held.entry.session_id, held.token)):
        lost_by(lambda i=session_id, t=token: world.registry.hand_over(i, t, to_ttl_s=60))
    with pytest.raises(UnknownEntry):
        world.registry.hand_over("agent-no", "t", to_ttl_s=60)


def test_a_fence_is_good_only_while_it_is_the_newest_and_its_claim_stands(world: World) -> None:
    check = world.registry.check
    assert not check("main", 0).valid
    assert not check("main", 1).valid
    pid = world.host.spawn(["agent"])
    first = world.reserve(pid=pid)
    assert check("main", first.fence).valid
    assert check("main", first.fence).holder == first.entry.session_id
    assert check("main", 7).why == "fence 7 was never given; the newest is 1"
    assert not check("other", first.fence).valid
    world.host.kill(pid)
    assert "found dead" in check("main", first.fence).why, "before anybody reaped it"
    second = world.reserve()
    answer = check("main", first.fence)
    assert (answer.valid, answer.fence, answer.holder) == (False, 2, second.entry.session_id)
    assert "found dead" in answer.why
    for bad in ("", "a\nb"):
        with pytest.raises(UsageError):
            check(bad, 1)


@pytest.mark.parametrize("deed", ["abandons", "deletes"])
def test_a_claim_whose_entry_a_stranger_ends_is_lost_until_nobody_stands_behind_it(
    world: World, deed: str
) -> None:
    pid = world.host.spawn(["agent"])
    held = world.on_terms(owner=world.host.owner_for(pid), ttl_s=100)
    assert isinstance(held, Reserved)
    session_id = held.entry.session_id
    ended = rewritten(
        world, session_id, status=AgentStatus.ABANDONED, completed_at=world.host.now().at
    )
    stranger_writes(world, ended if deed == "abandons" else RemoveEntry(session_id))

    refused = world.try_reserve()
    assert isinstance(refused, LiveOwner)
    assert refused.state == "blocked"
    for call in (
        lambda: world.registry.heartbeat(session_id, held.token),
        lambda: world.registry.hand_over(session_id, held.token, to_ttl_s=5),
    ):
        assert lost_by(call).why == "another program ended its entry"
    assert world.registry.check("main", held.fence).why == "another program ended its entry"
    world.host.advance(101)
    assert isinstance(world.try_reserve(), LiveOwner), "its process may still write"
    world.host.kill(pid)
    assert world.reserve().fence == held.fence + 1


def test_a_lost_claim_never_comes_back_and_is_its_bearers_to_release_or_anyones_to_force(
    world: World,
) -> None:
    held = world.reserve()
    session_id = held.entry.session_id
    ended = {"status": AgentStatus.ABANDONED, "completed_at": world.host.now().at}
    alive = rewritten(world, session_id)
    stranger_writes(world, rewritten(world, session_id, **ended))
    lost_by(lambda: world.registry.heartbeat(session_id, held.token))
    stranger_writes(world, alive)  # and another one restores a copy of the entry
    lost_by(lambda: world.registry.heartbeat(session_id, held.token))
    assert not world.registry.check("main", held.fence).valid
    stranger_writes(world, rewritten(world, session_id, **ended))
    forced = world.on_terms(force_reason="it is lost", ttl_s=60)
    assert isinstance(forced, Reserved)
    stranger_writes(world, rewritten(world, forced.entry.session_id, **ended))
    assert isinstance(world.try_reserve(), LiveOwner)
    lost_by(lambda: world.registry.release(forced.entry.session_id, token=forced.token))
    assert world.reserve().fence == forced.fence + 1


def test_a_strangers_rewrite_that_only_drops_our_table_harms_no_claim(world: World) -> None:
    pid = world.host.spawn(["agent"])
    held = world.reserve(pid=pid)
    stranger_writes(world, rewritten(world, held.entry.session_id, model="gpt-5"))
    assert isinstance(world.try_reserve(), LiveOwner)
    assert world.registry.check("main", held.fence).valid
    world.registry.heartbeat(held.entry.session_id, held.token)
    world.host.reuse(pid)
    assert not world.registry.check("main", held.fence).valid, "its claim knows the start ticks"
    assert world.reserve().fence == held.fence + 1


def test_an_entry_whose_fence_no_claim_knows_blocks_nobody(world: World) -> None:
    held = world.reserve(pid=world.host.own_pid())
    assert held.entry.extension is not None
    orphan = attrs.evolve(held.entry, session_id="agent-orphan").extended(fence=9)
    stranger_writes(world, PutEntry(orphan))
    assert world.registry.sweep().reaped == ("agent-orphan",)
    stranger_writes(world, PutEntry(orphan))
    world.registry.release(held.entry.session_id, token=held.token)
    taken = world.reserve()
    assert taken.fence == 10, "a fence that was written anywhere is never given again"
    assert world.loaded("agent-orphan").status is AgentStatus.ABANDONED


def test_a_registry_needs_somewhere_to_be() -> None:
    with pytest.raises(UsageError):
        AgentRegistry()
    assert Claim(thread="main").fence == 0
