"""Entries without claims: the table of their life, and what no door may change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentStatus,
    ContextQueryEntry,
    IllegalTransition,
    LiveOwner,
    Timestamp,
    UnknownEntry,
    UsageError,
)
from heddle_registry.core.lifecycle import EVENT_OF_STATUS, TRANSITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.registry.world import World


@pytest.mark.parametrize("wanted", list(AgentStatus))
@pytest.mark.parametrize("status", list(AgentStatus))
def test_every_door_to_a_status_goes_through_the_table(
    world: World, status: AgentStatus, wanted: AgentStatus
) -> None:
    ended_at = None if status is AgentStatus.ACTIVE else world.host.now().at
    for door in ("update_status", "save", "release"):
        if door == "release" and wanted is AgentStatus.ACTIVE:
            continue
        before = world.entry(
            f"agent-{door.replace('_', '-')}", status=status, completed_at=ended_at
        )
        world.registry.save(before)
        world.host.advance(60)
        after = TRANSITIONS[status].get(EVENT_OF_STATUS[wanted])

        def call(door: str = door, session_id: str = before.session_id) -> object:
            if door == "save":
                at = None if wanted is AgentStatus.ACTIVE else world.host.now().at
                changed = attrs.evolve(world.loaded(session_id), status=wanted, completed_at=at)
                same = status is wanted
                return world.registry.save(world.loaded(session_id) if same else changed)
            return getattr(world.registry, door)(session_id, wanted)

        if after is None:
            with pytest.raises(IllegalTransition):
                call()
            assert world.loaded(before.session_id) == before
        else:
            call()
            found = world.loaded(before.session_id)
            assert found.status is after
            assert (found.completed_at is None) == (after is AgentStatus.ACTIVE)
            if ended_at is not None:
                assert found.completed_at == ended_at, "the first one stays"


@pytest.mark.parametrize(
    "changes",
    [
        {"session_id": "agent-b"},
        {"thread": "other"},
        {"status": AgentStatus.COMPLETE},
        {"status": AgentStatus.COMPLETE, "completed_at": Timestamp("2026-07-01T12:00:00Z")},
        {"completed_at": Timestamp("2026-07-01T12:00:00Z")},
        {"started_at": Timestamp("2026-07-01T11:00:00Z")},
        {"reservation_token": "mine now"},
        {"harness": 7},
        {"pid": -1},
        {"heartbeat_at": "yesterday"},
        {"heartbeat_at": datetime(2026, 7, 1)},  # noqa: DTZ001 - that is the mistake
        {"usage_summary": None},
        {"attach_precedence": None},
        {"attach_precedence": (1,)},
        {"context_queries": None},
        {"base_state": "lone \udcff"},
    ],
)
def test_an_update_may_not_touch_what_other_doors_keep_nor_write_nonsense(
    world: World, changes: dict[str, Any]
) -> None:
    world.present("agent-a")
    before = world.records()
    with pytest.raises(UsageError):
        world.registry.update_entry("agent-a", lambda found: attrs.evolve(found, **changes))
    assert world.records() == before
    for no_entry in (None, {"session_id": "agent-a"}):
        with pytest.raises(UsageError):
            world.registry.update_entry("agent-a", lambda _, answer=no_entry: answer)
    assert world.records() == before


def test_an_update_that_raises_changes_nothing_and_frees_the_store(world: World) -> None:
    world.present("agent-a")
    with pytest.raises(ZeroDivisionError):
        world.registry.update_entry("agent-a", lambda _: 1 / 0)
    changed = world.registry.update_entry("agent-a", lambda e: attrs.evolve(e, harness="codex"))
    assert changed == world.loaded("agent-a")
    assert changed.harness == "codex"
    world.registry.update_status("agent-a", "complete")
    with pytest.raises(IllegalTransition):
        world.registry.update_entry("agent-a", lambda e: attrs.evolve(e, harness="pi"))


def test_the_folder_of_a_claim_stays_and_that_of_mere_presence_may_change(
    world: World, tmp_path: Path
) -> None:
    held = world.reserve(path=str(tmp_path))
    world.present("agent-here", "other", path=str(tmp_path))
    moved = str(tmp_path / "moved")
    world.registry.update_entry("agent-here", lambda e: attrs.evolve(e, path=moved))
    with pytest.raises(UsageError, match="path"):
        world.registry.update_entry(held.entry.session_id, lambda e: attrs.evolve(e, path=moved))
    with pytest.raises(UsageError, match="path"):
        world.registry.save(attrs.evolve(held.entry, path=moved))


def test_no_door_takes_a_claim_or_an_owner_from_what_an_entry_says(world: World) -> None:
    held = world.reserve(pid=world.host.own_pid())
    forged = attrs.evolve(held.entry, session_id="agent-forged")
    world.registry.save(forged)
    world.registry.create_generated_entry(lambda new: attrs.evolve(forged, session_id=new))
    world.registry.find_or_create_active_entry(
        lambda _: False, lambda e: e, lambda new: attrs.evolve(forged, session_id=new)
    )
    world.present("agent-late")
    world.registry.update_entry(
        "agent-late", lambda e: attrs.evolve(e, extension=held.entry.extension)
    )
    for entry in world.registry.list():
        if entry.session_id != held.entry.session_id:
            assert (entry.fence, entry.owner) == (None, None)
    world.registry.release(held.entry.session_id, token=held.token)
    assert isinstance(world.try_reserve(), LiveOwner), "present they are, as the original has it"


def test_save_makes_what_is_new_and_gives_the_ended_the_time_of_their_end(world: World) -> None:
    done = world.entry("agent-done", status=AgentStatus.MERGED)
    world.registry.save(done)
    assert world.loaded("agent-done").completed_at == world.host.now().at
    with pytest.raises(UsageError):
        world.registry.save(world.entry("agent-a", completed_at=world.host.now().at))
    before = world.records()
    world.registry.save(world.loaded("agent-done"))
    assert world.records() == before


def test_saving_a_holder_as_ended_ends_its_claim(world: World) -> None:
    held = world.reserve()
    ended = attrs.evolve(world.loaded(held.entry.session_id), status=AgentStatus.COMPLETE)
    world.registry.save(ended)
    assert not world.registry.check("main", held.fence).valid
    assert world.reserve().fence == held.fence + 1


def test_times_may_be_given_as_aware_datetimes(world: World) -> None:
    at = datetime(2026, 7, 1, 14, 30, 0, 120_000, tzinfo=timezone(timedelta(hours=2)))
    text = Timestamp("2026-07-01T12:30:00.120Z")
    entry: Any = world.entry("agent-a", started_at=at, last_progress_at=at)
    query: Any = ContextQueryEntry(path="p", queried_at=at)  # type: ignore[arg-type]
    world.registry.save(attrs.evolve(entry, context_queries=(query,)))
    assert world.registry.log_context_query("agent-a", query)
    found = world.loaded("agent-a")
    assert (found.started_at, found.last_progress_at) == (text, text)
    assert [logged.queried_at for logged in found.context_queries] == [text, text]
    naive: Any = ContextQueryEntry(path="p", queried_at=datetime.now(UTC).replace(tzinfo=None))
    with pytest.raises(UsageError, match="time zone"):
        world.registry.log_context_query("agent-a", naive)


def test_the_newest_living_match_is_reused_and_else_one_is_made(world: World) -> None:
    gone = world.host.spawn(["x"])
    for minute, (name, fields) in enumerate(
        {
            "agent-old": {},
            "agent-new": {},
            "agent-dead": {"pid": gone},
            "agent-other": {"harness": "pi"},
        }.items()
    ):
        started_at = Timestamp(f"2026-07-01T11:0{minute}:00Z")
        world.present(name, started_at=started_at, **{"harness": "codex", **fields})
    world.host.kill(gone)
    done = world.entry("agent-done", status=AgentStatus.COMPLETE, harness="codex")
    world.registry.save(done)
    found, created = world.registry.find_or_create_active_entry(
        lambda e: e.harness == "codex",
        lambda e: attrs.evolve(e, model="gpt-5"),
        world.building(harness="codex"),
    )
    assert (found.session_id, created, found.model) == ("agent-new", False, "gpt-5")
    assert found == world.loaded("agent-new")
    made, created = world.registry.find_or_create_active_entry(
        lambda e: e.harness == "aider", lambda e: e, world.building(harness="aider")
    )
    assert created
    assert made == world.loaded(made.session_id)


def test_queries_are_logged_for_the_running_alone_and_the_newest_hundred_stay(
    world: World,
) -> None:
    world.present("agent-a")
    at = world.host.now().at
    for number in range(103):
        assert world.registry.log_context_query(
            "agent-a", ContextQueryEntry(path=f"src/{number}", queried_at=at)
        )
    kept = world.loaded("agent-a").context_queries
    assert [query.path for query in kept] == [f"src/{number}" for number in range(3, 103)]
    overflow = world.folder / "queries" / "agent-a.jsonl"
    if world.folder.exists():
        lines = overflow.read_text().splitlines()
        assert [line.partition('"path": "')[2][:5] for line in lines] == ["src/0", "src/1", "src/2"]
    world.registry.update_status("agent-a", "complete")
    assert not world.registry.log_context_query(
        "agent-a", ContextQueryEntry(path="late", queried_at=at)
    )
    assert world.loaded("agent-a").context_queries == kept
    bad: Any = ContextQueryEntry(path=None, queried_at=at)  # type: ignore[arg-type]
    world.present("agent-b")
    for query in (bad, None, {"path": "p"}):
        with pytest.raises(UsageError):
            world.registry.log_context_query("agent-b", query)


def test_what_is_deleted_is_gone_with_all_that_was_kept_of_it(world: World) -> None:
    world.present("agent-a")
    at = world.host.now().at
    for _ in range(101):
        world.registry.log_context_query("agent-a", ContextQueryEntry(path="p", queried_at=at))
    world.registry.delete("agent-a")
    assert world.registry.load("agent-a") is None
    assert not list(world.folder.rglob("agent-a*"))
    with pytest.raises(UnknownEntry):
        world.registry.delete("agent-a")


def test_a_child_keeps_its_ancestors_whoever_is_pruned(world: World) -> None:
    world.present("agent-root", native_actor_key="root")
    world.present("agent-mid", native_actor_key="mid", native_parent_actor_key="root")
    world.registry.create_generated_entry_with(
        lambda: "agent-leaf",
        lambda new: world.entry(new, native_actor_key="leaf", native_parent_actor_key="mid"),
    )
    for parent in ("agent-mid", "agent-root"):
        world.registry.delete(parent)
        chain = world.registry.actor_chain_for_session("agent-leaf")
        assert [node.session_id for node in chain] == ["agent-root", "agent-mid", "agent-leaf"]
    world.present("agent-grandchild", native_actor_key="g", native_parent_actor_key="leaf")
    world.registry.delete("agent-leaf")
    chain = world.registry.actor_chain_for_session("agent-grandchild")
    names = ["agent-root", "agent-mid", "agent-leaf", "agent-grandchild"]
    assert [node.session_id for node in chain] == names
