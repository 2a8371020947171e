"""Look-ups: the newest living, nothing stale, and no trouble from what others wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import AgentStatus, Timestamp, UsageError, VerdictKind

if TYPE_CHECKING:
    from pathlib import Path

    from tests.registry.world import World


@pytest.mark.parametrize(
    "by",
    [
        "path",
        "heddle_session_id",
        "client_instance_id",
        "native_actor_key",
        "native_instance_key_at_path",
    ],
)
def test_the_newest_living_entry_is_found_and_nobody_else(
    world: World, by: str, tmp_path: Path
) -> None:
    keys: dict[str, Any] = {
        "path": str(tmp_path),
        "heddle_session_id": "h",
        "client_instance_id": "c",
        "native_actor_key": "n",
        "native_instance_key": "i",
    }
    arguments = {
        "path": (tmp_path,),
        "native_instance_key_at_path": ("i", tmp_path),
    }.get(by, (keys.get(by),))
    find = getattr(world.registry, f"find_active_by_{by}")
    assert find(*arguments) is None
    gone = world.host.spawn(["x"])
    for minute, (name, fields) in enumerate(
        {"agent-old": {}, "agent-new": {}, "agent-dead": {"pid": gone}}.items()
    ):
        at = Timestamp(f"2026-07-01T11:0{minute}:00Z")
        world.present(name, started_at=at, **keys, **fields)
    ended = {"status": AgentStatus.COMPLETE, "completed_at": world.host.now().at}
    world.registry.save(world.entry("agent-done", **keys, **ended))
    assert find(*arguments).session_id == "agent-dead", "it lives as yet"
    world.host.kill(gone)
    assert find(*arguments).session_id == "agent-new"
    others = {"path": (tmp_path / "x",), "native_instance_key_at_path": ("i", tmp_path / "x")}
    assert find(*others.get(by, ("another",))) is None


def test_a_list_is_newest_first_and_hides_what_ended_a_week_ago(world: World) -> None:
    for minute, name in enumerate(("agent-c", "agent-a", "agent-b")):
        world.present(name, started_at=Timestamp(f"2026-07-01T11:0{minute}:00Z"))
    world.registry.update_status("agent-a", "complete")
    world.host.advance(7 * 86_400 - 1)
    assert [e.session_id for e in world.registry.list()] == ["agent-b", "agent-a", "agent-c"]
    world.host.advance(1)
    before = world.records()
    assert [e.session_id for e in world.registry.list()] == ["agent-b", "agent-c"]
    assert world.registry.load("agent-a") is None
    assert world.registry.actor_chain_for_session("agent-a") == []
    assert world.records() == before, "a look removes nothing"


def test_a_holder_is_judged_by_its_claims_owner_and_an_ended_entry_is_dead(world: World) -> None:
    pid = world.host.spawn(["agent"])
    held = world.reserve(pid=pid)
    assert world.registry.liveness_for(held.entry).kind is VerdictKind.ALIVE
    world.host.reuse(pid)
    verdict = world.registry.liveness_for(world.loaded(held.entry.session_id))
    assert (verdict.kind, verdict.evidence[0].code) == (VerdictKind.DEAD, "pid_reused")
    world.registry.reap_dead()
    ended = world.registry.liveness_for(world.loaded(held.entry.session_id))
    assert (ended.kind, ended.evidence[0].code) == (VerdictKind.DEAD, "ended")
    expiring = world.reserve("other")
    assert world.registry.liveness_for(expiring.entry).evidence[0].code == "ttl_running"
    world.host.advance(301)
    late = world.registry.liveness_for(expiring.entry)
    assert (late.kind, late.evidence[0].code) == (VerdictKind.UNKNOWN, "expired")


def test_of_equal_native_keys_the_chain_takes_the_newest_living(world: World) -> None:
    world.present("agent-old", native_actor_key="k", started_at=Timestamp("2026-07-01T11:00:00Z"))
    world.present("agent-new", native_actor_key="k", started_at=Timestamp("2026-07-01T11:01:00Z"))
    world.present("agent-leaf", native_parent_actor_key="k")
    for living in ("agent-new", "agent-old"):
        chain = world.registry.actor_chain_for_session("agent-leaf")
        assert [node.session_id for node in chain] == [living, "agent-leaf"]
        found = world.registry.find_active_by_native_actor_key("k")
        assert found is not None
        assert found.session_id == living
        world.registry.update_status(living, "complete")


def test_a_path_that_can_be_none_finds_nobody_and_hides_nobody(
    world: World, tmp_path: Path
) -> None:
    world.present("agent-a", path=str(tmp_path))
    world.present("agent-hostile", path=f"\0{tmp_path}")
    world.present("agent-relative", path=".")
    found = world.registry.find_active_by_path(tmp_path)
    assert found is not None
    assert found.session_id == "agent-a"
    with pytest.raises(UsageError):
        world.registry.find_active_by_path("a\0b")
