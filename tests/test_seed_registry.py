"""The port is the original: its tests, and its own files, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import seed_registry
from tests.seed_registry import (
    KNOWN_KEYS,
    HeddleError,
    LiveOwner,
    Reserved,
    SeedRegistry,
    current_boot_id,
    rfc3339,
)

GOLDEN = Path(__file__).parent / "data" / "golden"
NEVER_A_PID = 0x7FFF_FFFF


def now_text(*, days_ago=0):
    return rfc3339(datetime.now(UTC) - timedelta(days=days_ago))


def entry(session_id, status="active", **fields):
    return {
        "session_id": session_id,
        "thread": f"agent/{session_id}",
        "base_state": "hd-base",
        "started_at": now_text(),
        "status": status,
        **fields,
    }


def dead(session_id, thread):
    return entry(session_id, thread=thread, pid=NEVER_A_PID, boot_id="not-the-current-boot")


def living(session_id, thread, pid):
    return entry(session_id, thread=thread, pid=pid, boot_id=current_boot_id())


@pytest.fixture
def registry(tmp_path):
    return SeedRegistry(tmp_path / ".heddle")


# Original: list_prunes_stale_completed_entries
def test_list_hides_and_prunes_a_stale_complete_entry(registry):
    registry.save(entry("agent-stale", "complete", completed_at=now_text(days_ago=8)))
    registry.save(entry("agent-active"))

    assert [found["session_id"] for found in registry.list()] == ["agent-active"]
    assert registry.load("agent-stale") is None
    assert sorted(os.listdir(registry.agents_dir)) == [".lock", "agent-active.toml"]


# Original: load_returns_none_for_stale_completed_entry
def test_load_answers_none_for_a_stale_merged_entry(registry):
    registry.save(entry("agent-stale", "merged", completed_at=now_text(days_ago=8)))

    assert registry.load("agent-stale") is None


# Original: log_context_query_appends_to_active_session
def test_a_context_query_is_appended_to_an_active_entry(registry):
    registry.save(entry("agent-active"))
    query = {
        "path": "src/auth/session.rs",
        "scope": "symbol:validate_token",
        "queried_at": now_text(),
    }

    registry.log_context_query("agent-active", query)

    assert registry.load("agent-active")["context_queries"] == [query]


# Original: log_context_query_no_op_for_complete_session
def test_a_context_query_of_a_complete_entry_is_not_logged(registry):
    registry.save(entry("agent-done", "complete", completed_at=now_text()))

    registry.log_context_query("agent-done", {"path": "src/lib.rs", "queried_at": now_text()})

    assert registry.load("agent-done")["context_queries"] == []


# Original: find_active_by_path_returns_matching_session
def test_an_active_entry_is_found_by_its_worktree(registry, tmp_path):
    worktree = tmp_path / "checkout"
    worktree.mkdir()
    (tmp_path / "link").symlink_to(worktree)
    registry.save(entry("agent-match", path=str(worktree)))
    registry.save(entry("agent-other", path=str(tmp_path / "other-checkout")))

    assert registry.find_active_by_path(worktree)["session_id"] == "agent-match"
    assert registry.find_active_by_path(tmp_path / "link")["session_id"] == "agent-match"


# Original: create_generated_entry_retries_collisions_under_lock
def test_a_generated_id_that_exists_is_drawn_again(registry):
    registry.save(entry("agent-existing"))
    ids = iter(["agent-existing", "agent-new"])

    created = registry.create_generated_entry_with(lambda: next(ids), entry)

    assert created["session_id"] == "agent-new"
    assert registry.load("agent-existing") is not None
    assert registry.load("agent-new") is not None


# Original: abandoning_active_entry_unblocks_subsequent_reserve_on_same_thread
def test_abandoning_an_entry_frees_its_thread(registry):
    thread = "feature/leak-repro"

    def build(session_id):
        return living(session_id, thread, 1)

    first = registry.try_reserve_thread(thread, build)
    assert isinstance(first, Reserved)
    registry.update_entry(
        first.entry["session_id"],
        lambda found: found.update(status="abandoned", completed_at=now_text()),
    )

    assert isinstance(registry.try_reserve_thread(thread, build), Reserved)
    on_thread = [found["status"] for found in registry.list() if found["thread"] == thread]
    assert sorted(on_thread) == ["abandoned", "active"]


# Original: update_entry_persists_harness_metadata
def test_update_entry_persists_what_a_harness_tells(registry):
    registry.save(entry("agent-active"))
    told = {
        "heddle_session_id": "sess-123",
        "harness": "claude-code",
        "thinking_level": "deep",
        "report_flush_state": "pending-local",
        "attach_reason": "attached from test metadata update",
        "attach_precedence": ["matched-current-session"],
        "winning_attach_rule": "matched-current-session",
        "probe_source": "argv_env",
        "probe_confidence": 0.75,
        "last_progress_at": now_text(),
        "usage_summary": {"input_tokens": 42},
    }

    registry.update_entry("agent-active", lambda found: found.update(told))

    loaded = registry.load("agent-active")
    assert {key: loaded[key] for key in told} == told


# Original: find_active_by_client_instance_id_returns_matching_session
def test_an_active_entry_is_found_by_its_client_instance(registry):
    registry.save(entry("agent-client", client_instance_id="client-a"))
    registry.save(entry("agent-other", client_instance_id="client-b"))

    assert registry.find_active_by_client_instance_id("client-a")["session_id"] == "agent-client"


# Original: find_active_by_native_actor_key_returns_matching_session
def test_an_active_entry_is_found_by_its_native_actor(registry):
    registry.save(entry("agent-native", native_actor_key="codex:thread:thr_123"))

    found = registry.find_active_by_native_actor_key("codex:thread:thr_123")
    assert found["session_id"] == "agent-native"


# Original: actor_chain_follows_native_parent_keys_root_to_leaf
def test_an_actor_chain_runs_from_root_to_leaf(registry):
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
    registry.save(entry("agent-child", **child))
    registry.save(entry("agent-root", **root))
    registry.save(entry("agent-parent", **parent))

    chain = registry.actor_chain_for_session("agent-child")

    assert [node["session_id"] for node in chain] == ["agent-root", "agent-parent", "agent-child"]
    assert chain[2]["native_parent_actor_key"] == "codex:thread:parent"
    assert registry.actor_chain_for_session("agent-nobody") == []


# Original: try_reserve_thread_reaps_dead_active_entry_and_succeeds
def test_a_reserve_abandons_a_dead_owner_and_succeeds(registry):
    registry.save(dead("agent-dead", "feature/race"))

    outcome = registry.try_reserve_thread(
        "feature/race", lambda session_id: living(session_id, "feature/race", os.getpid())
    )

    assert isinstance(outcome, Reserved)
    assert outcome.entry["session_id"] != "agent-dead"
    abandoned = registry.load("agent-dead")
    assert abandoned["status"] == "abandoned"
    assert "completed_at" in abandoned


# Original: try_reserve_thread_reports_live_owner_when_pid_is_alive
def test_a_reserve_is_told_the_living_owner(registry):
    registry.save(living("agent-alive", "feature/busy", os.getpid()))

    outcome = registry.try_reserve_thread(
        "feature/busy", lambda session_id: entry(session_id, thread="feature/busy")
    )

    assert isinstance(outcome, LiveOwner)
    assert outcome.entry["session_id"] == "agent-alive"
    assert registry.load("agent-alive")["status"] == "active"


# Original: reap_dead_for_thread_only_touches_named_thread
def test_reaping_one_thread_leaves_the_others(registry):
    registry.save(dead("agent-dead-a", "feature/a"))
    registry.save(dead("agent-dead-b", "feature/b"))

    assert registry.reap_dead_for_thread("feature/a") == 1
    assert registry.load("agent-dead-a")["status"] == "abandoned"
    assert registry.load("agent-dead-b")["status"] == "active"
    assert registry.reap_dead() == 1
    assert registry.load("agent-dead-b")["status"] == "abandoned"


# Original: actor_chain_breaks_cycles_without_looping
def test_a_cycle_of_parents_ends_the_chain(registry):
    registry.save(entry("agent-a", native_actor_key="actor:a", native_parent_actor_key="actor:b"))
    registry.save(entry("agent-b", native_actor_key="actor:b", native_parent_actor_key="actor:a"))

    chain = registry.actor_chain_for_session("agent-a")

    assert [node["session_id"] for node in chain] == ["agent-b", "agent-a"]


def test_every_golden_file_is_rewritten_byte_for_byte(registry):
    files = sorted(GOLDEN.glob("*.toml"))
    assert len(files) == 25

    for file in files:
        original = file.read_bytes()
        registry.save(seed_registry.entry_from_toml(original.decode()))
        rewritten = Path(registry.agents_dir, file.name)
        assert rewritten.read_bytes() == original
        assert set(registry.load(file.stem)) <= set(KNOWN_KEYS)

    assert len(registry.list()) == 25


# What chrono made of these inputs is in golden-times.
@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("2026-07-01T12:00:00.120000Z", "2026-07-01T12:00:00.120Z"),
        ("2026-07-01T12:00:00.1234567Z", "2026-07-01T12:00:00.123456700Z"),
        ("2016-12-31T23:59:60.5Z", "2016-12-31T23:59:60.500Z"),
        ("+12345-01-01T00:00:00Z", "+12345-01-01T00:00:00Z"),
        ("-0001-01-01T00:00:00Z", "-0001-01-01T00:00:00Z"),
        ("2026-07-01T14:30:00.123+02:30", "2026-07-01T12:00:00.123Z"),
        ("2026-07-01 12:00:00z", "2026-07-01T12:00:00Z"),
        ("2026-07-01T23:59:59.1234567899-05:00", "2026-07-02T04:59:59.123456789Z"),
    ],
)
def test_times_are_rewritten_as_chrono_writes_them(given, written):
    assert seed_registry.format_instant(*seed_registry.parse_instant(given)) == written


MINIMAL = (GOLDEN / "golden-minimal.toml").read_text()


@pytest.mark.parametrize(
    "content",
    [
        "",
        MINIMAL.replace('thread = "agent/golden-minimal"\n', ""),
        MINIMAL.replace('"active"', '"running"'),
        MINIMAL.replace('"2026-07-01T12:00:00Z"', "2026-07-01T12:00:00Z"),
        "pid = 4294967296\n" + MINIMAL,
        "pid = true\n" + MINIMAL,
        MINIMAL + "tool_calls = -1\n",
        "status = 1\n" + MINIMAL,
        "x = " + "[" * 100_000,
    ],
    ids=["empty", "key", "status", "datetime", "u32", "bool", "negative", "twice", "deep"],
)
def test_a_file_that_serde_refuses_is_an_error(registry, content):
    os.makedirs(registry.agents_dir)
    Path(registry.agents_dir, "golden-minimal.toml").write_text(content)

    with pytest.raises(HeddleError):
        registry.load("golden-minimal")


def run_seed(heddle_dir, *arguments, status=0):
    command = [sys.executable, seed_registry.__file__, str(heddle_dir), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=60)
    assert done.returncode == status
    return json.loads(done.stdout)


def test_as_a_program_it_shares_the_folder_and_drops_foreign_keys(registry, tmp_path):
    heddle_dir = tmp_path / ".heddle"
    run_seed(heddle_dir, "save", json.dumps(entry("agent-a", thread="main")))
    file = Path(registry.agents_dir, "agent-a.toml")
    plain = file.read_text()
    file.write_text(plain + "\n[heddle_registry]\nfence = 1\n")

    assert run_seed(heddle_dir, "load", "agent-a") == registry.load("agent-a")
    assert run_seed(heddle_dir, "touch", "agent-a")["session_id"] == "agent-a"
    assert file.read_text() == plain
    blocked = run_seed(heddle_dir, "try_reserve_thread", "main", str(os.getpid()))
    assert blocked["outcome"] == "live_owner"
    assert run_seed(heddle_dir, "load", "UPPER", status=1)["error"] == "HeddleError"


def test_as_a_program_it_holds_the_lock_until_its_input_ends(registry, tmp_path):
    command = [sys.executable, seed_registry.__file__, tmp_path / ".heddle", "hold_lock", "60"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with open(Path(registry.agents_dir, ".lock"), "wb") as lock_file:
            with pytest.raises(BlockingIOError):
                seed_registry.fcntl.flock(
                    lock_file, seed_registry.fcntl.LOCK_EX | seed_registry.fcntl.LOCK_NB
                )
            holder.stdin.close()
            seed_registry.fcntl.flock(lock_file, seed_registry.fcntl.LOCK_EX)
    assert holder.returncode == 0
