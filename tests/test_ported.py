"""The original's sixteen tests, one by one, against our registry over its folder.

Where a test had to change, a comment says why: ended entries are never edited, `completed_at`
belongs to the status, and a look changes nothing (a writer prunes).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentEntry,
    AgentRegistry,
    AgentStatus,
    AgentUsageSummary,
    ContextQueryEntry,
    LiveOwner,
    Reserved,
    Timestamp,
)
from tests.seed_registry import current_boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DAY_NS = 86_400 * 1_000_000_000
NEVER_A_PID = 0x7FFF_FFFF


@pytest.fixture
def registry(tmp_path: Path) -> AgentRegistry:
    return AgentRegistry(tmp_path / ".heddle", lock_timeout_s=60)


def now(registry: AgentRegistry, *, days_ago: int = 0) -> Timestamp:
    return Timestamp.from_unix_ns(registry.host.now().at.unix_ns - days_ago * DAY_NS)


def entry(
    registry: AgentRegistry,
    session_id: str,
    status: AgentStatus = AgentStatus.ACTIVE,
    **fields: Any,
) -> AgentEntry:
    given: dict[str, Any] = {
        "thread": f"agent/{session_id}",
        "base_state": "hd-base",
        "started_at": now(registry),
        **fields,
    }
    return AgentEntry(session_id=session_id, status=status, **given)


def building(
    registry: AgentRegistry, thread: str, pid: int | None = None
) -> Callable[[str], AgentEntry]:
    boot_id = None if pid is None else current_boot_id()
    return lambda new: entry(registry, new, thread=thread, pid=pid, boot_id=boot_id)


def loaded(registry: AgentRegistry, session_id: str) -> AgentEntry:
    found = registry.load(session_id)
    assert found is not None
    return found


# Original: list_prunes_stale_completed_entries
def test_a_list_hides_a_stale_complete_entry_and_a_writer_prunes_it(
    registry: AgentRegistry, tmp_path: Path
) -> None:
    stale_at = now(registry, days_ago=8)
    registry.save(entry(registry, "agent-stale", AgentStatus.COMPLETE, completed_at=stale_at))
    registry.save(entry(registry, "agent-active"))

    assert [found.session_id for found in registry.list()] == ["agent-active"]
    assert registry.load("agent-stale") is None

    registry.sweep()
    left = sorted(path.name for path in (tmp_path / ".heddle" / "agents").glob("*.toml"))
    assert left == ["agent-active.toml"]


# Original: load_returns_none_for_stale_completed_entry
def test_load_answers_none_for_a_stale_merged_entry(registry: AgentRegistry) -> None:
    stale_at = now(registry, days_ago=8)
    registry.save(entry(registry, "agent-stale", AgentStatus.MERGED, completed_at=stale_at))

    assert registry.load("agent-stale") is None


# Original: log_context_query_appends_to_active_session
def test_a_context_query_is_appended_to_an_active_entry(registry: AgentRegistry) -> None:
    registry.save(entry(registry, "agent-active"))
    query = ContextQueryEntry(
        path="src/auth/session.rs", scope="symbol:validate_token", queried_at=now(registry)
    )

    assert registry.log_context_query("agent-active", query)

    assert loaded(registry, "agent-active").context_queries == (query,)


# Original: log_context_query_no_op_for_complete_session
def test_a_context_query_of_a_complete_entry_is_not_logged(registry: AgentRegistry) -> None:
    done = entry(registry, "agent-done", AgentStatus.COMPLETE, completed_at=now(registry))
    registry.save(done)
    query = ContextQueryEntry(path="src/lib.rs", queried_at=now(registry))

    assert not registry.log_context_query("agent-done", query)

    assert loaded(registry, "agent-done").context_queries == ()


# Original: find_active_by_path_returns_matching_session
def test_an_active_entry_is_found_by_its_worktree(registry: AgentRegistry, tmp_path: Path) -> None:
    worktree = tmp_path / "checkout"
    worktree.mkdir()
    (tmp_path / "link").symlink_to(worktree)
    registry.save(entry(registry, "agent-match", path=str(worktree)))
    registry.save(entry(registry, "agent-other", path=str(tmp_path / "other-checkout")))

    for spelling in (worktree, tmp_path / "link"):
        found = registry.find_active_by_path(spelling)
        assert found is not None
        assert found.session_id == "agent-match"


# Original: create_generated_entry_retries_collisions_under_lock
def test_a_generated_id_that_exists_is_drawn_again(registry: AgentRegistry) -> None:
    registry.save(entry(registry, "agent-existing"))
    ids = iter(["agent-existing", "agent-new"])

    created = registry.create_generated_entry_with(
        lambda: next(ids), lambda new: entry(registry, new)
    )

    assert created.session_id == "agent-new"
    assert registry.load("agent-existing") is not None
    assert registry.load("agent-new") is not None


# Original: abandoning_active_entry_unblocks_subsequent_reserve_on_same_thread
# There by update_entry, which sets no status here.
def test_abandoning_an_entry_frees_its_thread(registry: AgentRegistry) -> None:
    thread = "feature/leak-repro"
    first = registry.try_reserve_thread(thread, building(registry, thread, 1))
    assert isinstance(first, Reserved)

    registry.update_status(first.entry.session_id, AgentStatus.ABANDONED)

    second = registry.try_reserve_thread(thread, building(registry, thread, 1))
    assert isinstance(second, Reserved)
    on_thread = [found for found in registry.list() if found.thread == thread]
    assert [found.session_id for found in on_thread if found.is_active] == [second.entry.session_id]
    assert len(on_thread) == 2


# Original: update_entry_persists_harness_metadata
def test_update_entry_persists_what_a_harness_tells(registry: AgentRegistry) -> None:
    registry.save(entry(registry, "agent-active"))
    told = {
        "heddle_session_id": "sess-123",
        "harness": "claude-code",
        "thinking_level": "deep",
        "report_flush_state": "pending-local",
        "attach_reason": "attached from test metadata update",
        "attach_precedence": ("matched-current-session",),
        "winning_attach_rule": "matched-current-session",
        "probe_source": "argv_env",
        "probe_confidence": 0.75,
        "last_progress_at": now(registry),
        "usage_summary": AgentUsageSummary(input_tokens=42),
    }

    registry.update_entry("agent-active", lambda found: attrs.evolve(found, **told))

    found = loaded(registry, "agent-active")
    assert {name: getattr(found, name) for name in told} == told


# Original: find_active_by_client_instance_id_returns_matching_session
def test_an_active_entry_is_found_by_its_client_instance(registry: AgentRegistry) -> None:
    registry.save(entry(registry, "agent-client", client_instance_id="client-a"))
    registry.save(entry(registry, "agent-other", client_instance_id="client-b"))

    found = registry.find_active_by_client_instance_id("client-a")
    assert found is not None
    assert found.session_id == "agent-client"


# Original: find_active_by_native_actor_key_returns_matching_session
def test_an_active_entry_is_found_by_its_native_actor(registry: AgentRegistry) -> None:
    registry.save(entry(registry, "agent-native", native_actor_key="codex:thread:thr_123"))

    found = registry.find_active_by_native_actor_key("codex:thread:thr_123")
    assert found is not None
    assert found.session_id == "agent-native"


# Original: actor_chain_follows_native_parent_keys_root_to_leaf
def test_an_actor_chain_runs_from_root_to_leaf(registry: AgentRegistry) -> None:
    root = {"native_actor_key": "human:foo", "provider": "human"}
    parent = {
        "native_actor_key": "codex:thread:parent",
        "native_parent_actor_key": "human:foo",
        "provider": "openai",
        "model": "gpt-5",
    }
    child = {
        "native_actor_key": "codex:thread:child",
        "native_parent_actor_key": "codex:thread:parent",
        "provider": "openai",
        "model": "gpt-5-mini",
    }
    registry.save(entry(registry, "agent-child", **child))
    registry.save(entry(registry, "agent-root", **root))
    registry.save(entry(registry, "agent-parent", **parent))

    chain = registry.actor_chain_for_session("agent-child")

    assert [node.session_id for node in chain] == ["agent-root", "agent-parent", "agent-child"]
    assert chain[2].native_parent_actor_key == "codex:thread:parent"
    assert registry.actor_chain_for_session("agent-nobody") == []


def dead(registry: AgentRegistry, session_id: str, thread: str) -> AgentEntry:
    return entry(
        registry, session_id, thread=thread, pid=NEVER_A_PID, boot_id="not-the-current-boot"
    )


# Original: try_reserve_thread_reaps_dead_active_entry_and_succeeds
def test_a_reserve_abandons_a_dead_owner_and_succeeds(registry: AgentRegistry) -> None:
    registry.save(dead(registry, "agent-dead", "feature/race"))

    outcome = registry.try_reserve_thread(
        "feature/race", building(registry, "feature/race", os.getpid())
    )

    assert isinstance(outcome, Reserved)
    assert outcome.entry.session_id != "agent-dead"
    abandoned = loaded(registry, "agent-dead")
    assert abandoned.status is AgentStatus.ABANDONED
    assert abandoned.completed_at is not None


# Original: try_reserve_thread_reports_live_owner_when_pid_is_alive
def test_a_reserve_is_told_the_living_owner(registry: AgentRegistry) -> None:
    registry.save(building(registry, "feature/busy", os.getpid())("agent-alive"))

    outcome = registry.try_reserve_thread("feature/busy", building(registry, "feature/busy"))

    assert isinstance(outcome, LiveOwner)
    assert outcome.entry is not None
    assert outcome.entry.session_id == "agent-alive"
    assert loaded(registry, "agent-alive").status is AgentStatus.ACTIVE


# Original: reap_dead_for_thread_only_touches_named_thread
def test_reaping_one_thread_leaves_the_others(registry: AgentRegistry) -> None:
    registry.save(dead(registry, "agent-dead-a", "feature/a"))
    registry.save(dead(registry, "agent-dead-b", "feature/b"))

    assert registry.reap_dead_for_thread("feature/a") == 1
    assert loaded(registry, "agent-dead-a").status is AgentStatus.ABANDONED
    assert loaded(registry, "agent-dead-b").status is AgentStatus.ACTIVE

    assert registry.reap_dead() == 1
    assert loaded(registry, "agent-dead-b").status is AgentStatus.ABANDONED


# Original: actor_chain_breaks_cycles_without_looping
def test_a_cycle_of_parents_ends_the_chain(registry: AgentRegistry) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        keys = {"native_actor_key": f"actor:{one}", "native_parent_actor_key": f"actor:{other}"}
        registry.save(entry(registry, f"agent-{one}", **keys))

    chain = registry.actor_chain_for_session("agent-a")

    assert [node.session_id for node in chain] == ["agent-b", "agent-a"]


# Original: try_reserve_thread_under_concurrent_load_is_race_free (the soak: 100 rounds)
def test_of_eight_os_threads_one_gets_the_branch_and_the_others_are_told_who(
    tmp_path: Path,
) -> None:
    racers = 8
    for number in range(100):
        registry = AgentRegistry(tmp_path / str(number) / ".heddle", lock_timeout_s=60)
        thread = f"feature/race-{number}"
        barrier = threading.Barrier(racers)
        outcomes: list[Reserved | LiveOwner] = []

        def race(
            registry: AgentRegistry = registry,
            thread: str = thread,
            barrier: threading.Barrier = barrier,
            outcomes: list[Reserved | LiveOwner] = outcomes,
        ) -> None:
            build = building(registry, thread, os.getpid())
            barrier.wait(60)
            outcomes.append(registry.try_reserve_thread(thread, build))

        running = [threading.Thread(target=race) for _ in range(racers)]
        for one in running:
            one.start()
        for one in running:
            one.join()

        winners = [outcome for outcome in outcomes if isinstance(outcome, Reserved)]
        losers = [outcome for outcome in outcomes if isinstance(outcome, LiveOwner)]
        assert (len(winners), len(losers)) == (1, racers - 1)
        told = {loser.entry.session_id for loser in losers if loser.entry is not None}
        assert told == {winners[0].entry.session_id}
