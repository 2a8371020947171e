"""One-shot reservations: who owns them, who asks, and that no shell gets a branch twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import AgentEntry, AgentRegistry, LiveOwner, Reserved, UsageError
from heddle_registry.adapters.memory import MemoryStore
from heddle_registry.core.edit import decide_attach
from heddle_registry.core.transaction import Keys
from heddle_registry.registry.scripting import find_asker, script_terms, try_reserve
from heddle_registry.testing.fake_host import FakeHost

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.core.timestamp import Instant
    from tests.registry.world import World


def reserve(world: World, thread: str = "main", **options: Any) -> Reserved | LiveOwner:
    terms = script_terms(world.registry, **options)
    return try_reserve(world.registry, thread, terms=terms, base_state="b")


def attached(world: World, session_id: str, pid: int, **keys: str) -> AgentEntry:
    entry = world.entry(session_id, pid=pid, boot_id=world.host.boot_id, **keys)
    entry = entry.extended(owner=world.host.owner_for(pid))
    world.store.transact(Keys(), lambda loaded, *_: decide_attach(entry, loaded), {})
    return world.loaded(session_id)


def test_a_named_owner_counts_more_than_a_ttl_and_both_more_than_the_harness(
    world: World,
) -> None:
    claude = world.host.spawn(["claude"])
    job = world.host.spawn(["make"])
    shell = world.host.spawn(["bash"], ppid=claude, act_as=True)
    both = script_terms(world.registry, owner_pid=job, ttl_s=60)
    assert both.owner is not None
    assert (both.owner.pid, both.ttl_s) == (job, 60)
    ttl = script_terms(world.registry, ttl_s=60)
    assert ttl.recorded_owner is not None
    assert (ttl.owner, ttl.recorded_owner.pid) == (None, claude)
    harness = script_terms(world.registry)
    assert harness.owner is not None
    assert (harness.owner.pid, harness.ttl_s) == (claude, None)
    nobody = script_terms(world.registry, detection=False)
    assert (nobody.owner, nobody.recorded_owner, nobody.ttl_s) == (None, None, 300)
    with pytest.raises(UsageError):
        script_terms(world.registry, owner_pid=shell + 1000)


def test_a_one_shot_command_never_records_itself(world: World) -> None:
    held = reserve(world)
    assert isinstance(held, Reserved)
    assert (held.entry.pid, held.entry.owner) == (None, None)
    assert held.entry.extension is not None
    assert held.entry.extension.ttl_s == 300
    command = world.host.own_pid()
    world.host.spawn(["bash"], ppid=1, act_as=True)
    world.host.kill(command)
    assert isinstance(reserve(world), LiveOwner)
    world.host.advance(301)
    assert isinstance(reserve(world), Reserved)


def test_with_a_harness_around_it_the_branch_lasts_as_long_as_that_lives(world: World) -> None:
    claude = world.host.spawn(["claude"], ppid=1)
    world.host.spawn(["bash"], ppid=claude, act_as=True)
    held = reserve(world)
    assert isinstance(held, Reserved)
    assert held.entry.pid == claude
    world.host.advance(86_400)
    assert isinstance(reserve(world), LiveOwner)
    world.host.spawn(["bash"], ppid=1, act_as=True)
    world.host.kill(claude)
    assert isinstance(reserve(world), Reserved)


def test_two_sub_agents_with_equal_environments_never_both_get_the_branch(world: World) -> None:
    codex = world.host.spawn(["codex"], ppid=1)
    root = attached(world, "agent-root", codex, native_actor_key="codex:thread:1")
    outcomes = []
    for _ in range(2):
        world.host.spawn(["bash"], ppid=codex, act_as=True)
        world.host.variables = {"CODEX_THREAD_ID": "1"}
        outcomes.append(reserve(world))
    first, second = outcomes
    assert isinstance(first, Reserved), "the attached agent is its own family"
    assert first.entry.native_parent_actor_key == "codex:thread:1"
    assert first.present == (root,)
    assert isinstance(second, LiveOwner)
    assert second.entry == first.entry


def test_the_token_of_a_parent_in_the_environment_gives_a_child_no_branch(world: World) -> None:
    held = reserve(world, ttl_s=60)
    assert isinstance(held, Reserved)
    world.host.variables = {
        "HEDDLE_AGENT_TOKEN": held.token or "",
        "HEDDLE_AGENT_SESSION_ID": held.entry.session_id,
    }
    assert isinstance(reserve(world, ttl_s=60), LiveOwner)
    assert isinstance(reserve(world, ttl_s=60, token=held.token), Reserved)


def test_who_asks_is_the_innermost_actor_whose_very_process_is_an_ancestor(world: World) -> None:
    outer = world.host.spawn(["claude"], ppid=1)
    inner = world.host.spawn(["codex"], ppid=outer)
    shell = world.host.spawn(["bash"], ppid=inner, act_as=True)
    assert find_asker(world.registry) is None
    attached(world, "agent-outer", outer, native_actor_key="o")
    attached(world, "agent-shell", shell, native_actor_key="not an ancestor of itself")
    found = find_asker(world.registry)
    assert found is not None
    assert found.session_id == "agent-outer"
    attached(world, "agent-keyless", inner)
    attached(world, "agent-sub", inner, native_actor_key="s", native_parent_actor_key="i")
    attached(world, "agent-inner", inner, native_actor_key="i")
    found = find_asker(world.registry)
    assert found is not None
    assert found.session_id == "agent-inner", "of several in one process, the root"
    world.host.reuse(inner)
    world.host.spawn(["bash"], ppid=inner, act_as=True)
    assert find_asker(world.registry) is None, "the number alone is nobody"


class OtherClock(FakeHost):
    """As on macOS, where the clock has another id than the boot."""

    def now(self) -> Instant:
        return attrs.evolve(super().now(), boot_id="the awake clock")


def test_an_asker_is_found_where_clock_and_boot_have_different_ids(tmp_path: Path) -> None:
    from tests.registry.world import World

    world = World("memory", tmp_path)
    world.host = OtherClock()
    world.store = MemoryStore(world.host)
    world.registry = AgentRegistry(store=world.store, host=world.host)
    pid = world.host.spawn(["codex"], ppid=1)
    world.host.spawn(["bash"], ppid=pid, act_as=True)
    there = attached(world, "agent-a", pid, native_actor_key="k")
    assert find_asker(world.registry) == there
