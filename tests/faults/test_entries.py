"""Faults of the original in the life of entries, in look-ups and locks (SEED.md §5, by number)."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.faults.checks import attempt, is_refused
from tests.faults.sides import LATE_S, Fields, Side, entry, now_text
from tests.process_helpers import PATIENCE_S, flock_holder, in_fork, until

if TYPE_CHECKING:
    from collections.abc import Callable


def _loaded(side: Side, session_id: str) -> Fields:
    found = side.load(session_id)
    assert found is not None
    return found


def test_03_nothing_leads_back_to_active(side: Side) -> None:
    side.save(entry("agent-a", "merged", completed_at=now_text()))
    before = _loaded(side, "agent-a")
    attempt(side, lambda: side.update_status("agent-a", "active"))
    assert _loaded(side, "agent-a") == before


def test_03_the_first_completed_at_stays(side: Side) -> None:
    side.save(entry("agent-a"))
    side.update_status("agent-a", "complete")
    first = _loaded(side, "agent-a")["completed_at"]
    side.pass_time(3600)
    side.update_status("agent-a", "complete")
    assert _loaded(side, "agent-a")["completed_at"] == first


@pytest.mark.parametrize("door", ["update_status", "log_query", "delete", "heartbeat", "update"])
def test_12_a_missing_id_is_told(side: Side, door: str) -> None:
    side.save(entry("agent-a"))
    calls: dict[str, Callable[[], object]] = {
        "update_status": lambda: side.update_status("agent-no", "complete"),
        "log_query": lambda: side.log_query("agent-no", "src/lib.rs"),
        "delete": lambda: side.delete("agent-no"),
        "heartbeat": lambda: side.heartbeat("agent-no"),
        "update": lambda: side.update_entry("agent-no", harness="codex"),
    }
    assert is_refused(calls[door])


def test_16_a_builder_that_names_another_session_does_not_overwrite_it(side: Side) -> None:
    side.save(entry("agent-old", thread="precious"))
    before = (side.agents / "agent-old.toml").read_bytes()
    attempt(side, lambda: side.create(lambda _: entry("agent-old", thread="main")))
    attempt(side, lambda: side.try_reserve("main", lambda _: entry("agent-old", thread="main")))
    assert (side.agents / "agent-old.toml").read_bytes() == before


def test_18_of_two_entries_with_one_native_key_chain_and_find_take_the_same(side: Side) -> None:
    side.save(entry("agent-old", native_actor_key="k", started_at="2026-01-01T00:00:00Z"))
    side.save(entry("agent-new", native_actor_key="k", started_at="2026-02-01T00:00:00Z"))
    side.save(entry("agent-leaf", native_actor_key="l", native_parent_actor_key="k"))
    found = side.find("native_actor_key", "k")
    assert found is not None
    assert side.chain("agent-leaf") == [found["session_id"], "agent-leaf"]


def test_19_a_pruned_parent_does_not_cut_the_chain(side: Side) -> None:
    side.save(entry("agent-root", native_actor_key="root"))
    side.save(entry("agent-mid", native_actor_key="mid", native_parent_actor_key="root"))
    side.save(entry("agent-leaf", native_actor_key="leaf", native_parent_actor_key="mid"))
    side.update_status("agent-mid", "complete")
    side.pass_time(8 * 86_400)
    side.try_reserve("main", lambda new: entry(new, thread="main"))  # a writer prunes
    assert not (side.agents / "agent-mid.toml").exists()
    assert side.chain("agent-leaf") == ["agent-root", "agent-mid", "agent-leaf"]


def test_20_an_entry_does_not_grow_with_every_query(side: Side) -> None:
    side.save(entry("agent-a"))
    for number in range(150):
        side.log_query("agent-a", f"src/file_{number}.rs")
    assert len(_loaded(side, "agent-a")["context_queries"]) <= 100


_opened: list[str] = []


def _note_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].endswith(".toml"):
        _opened.append(arguments[0])


def test_21_a_second_look_up_does_not_read_every_file(side: Side) -> None:
    for number in range(60):
        side.save(entry(f"agent-{number}", native_actor_key=f"k{number}"))
    newest_ns = max(path.stat().st_ctime_ns for path in side.agents.glob("*.toml"))
    # A file is read again while it is younger than a tick of the kernel's clock.
    until(lambda: time.time_ns() - newest_ns > 50_000_000, "that time goes on")
    assert side.find("native_actor_key", "k3") is not None

    def files_read() -> int:
        sys.addaudithook(_note_opened)  # for the rest of this process
        assert side.find("native_actor_key", "k3") is not None
        return len(_opened)

    assert in_fork(files_read) <= 2


def test_22_a_wait_for_the_lock_ends_and_names_the_holder(side: Side) -> None:
    side.save(entry("agent-a"))
    with flock_holder(side.agents / ".lock") as holder:

        def blocked() -> str:
            try:
                side.hurried().save(entry("agent-b"))
            except TimeoutError as error:
                return str(error)
            return "no error"

        patience_s = PATIENCE_S if side.name == "ours" else LATE_S
        assert f"process {holder.pid} " in in_fork(blocked, patience_s)
    assert not (side.agents / "agent-b.toml").exists()


def test_24_no_update_ends_an_entry_without_the_time_of_its_end(side: Side) -> None:
    side.save(entry("agent-a", started_at=now_text(days_ago=8)))
    attempt(side, lambda: side.update_entry("agent-a", status="complete"))
    left = side.load("agent-a")
    assert left is not None, "it looks as if it had ended when it began, and is pruned"
    assert left["status"] == "active" or "completed_at" in left


def test_25_a_generator_of_used_ids_is_an_error_not_a_loop(side: Side) -> None:
    side.save(entry("agent-taken"))
    drawn = 0

    def generate() -> str:
        nonlocal drawn
        drawn += 1
        assert drawn < 1_000, "it would go on for ever, and under the lock"
        return "agent-taken"

    with pytest.raises(side.errors):
        side.create_with(generate, lambda new: entry(new, thread="main"))
    assert os.listdir(side.agents).count("agent-taken.toml") == 1
