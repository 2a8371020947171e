"""Entries and transcripts together: everybody's own, once, and written where it belongs."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry import (
    AgentEntry,
    AgentRegistry,
    AgentStatus,
    EntryExtension,
    Harness,
    Timestamp,
    UsageRecord,
    hookimpl,
)
from heddle_registry.plugins import Plugins
from heddle_registry.spending import fill_running, fill_usage, spending_of_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Acme:
    """A made-up harness: ``{"id", "out", "at", "who", "parent"}``, each but the first optional."""

    @hookimpl
    def heddle_harnesses(self) -> list[Harness]:
        return [Harness(name="acme")]

    @hookimpl
    def heddle_usage(self, source: Any) -> Iterator[UsageRecord]:
        for line in source.json_lines(b'"out"'):
            if "parent" in line:
                source.link(line["who"], line["parent"])
            yield UsageRecord(
                line["id"],
                output=line["out"],
                at=line.get("at"),
                actor=line.get("who"),
                model="m",
                cost_micros_usd=line.get("cost"),
            )


class Place:
    """A registry, a folder of transcripts, and the plugin that reads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.registry = AgentRegistry(folder / ".heddle")
        self.plugins = Plugins([("acme", Acme())])

    def write(self, name: str, *lines: dict[str, Any]) -> str:
        path = self.folder / name
        with path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        return str(path)

    def put(self, *sources: str, **fields: Any) -> AgentEntry:
        base = AgentEntry(
            session_id="",
            thread="main",
            base_state="0",
            harness="acme",
            started_at=Timestamp("2026-07-01T12:00:00Z"),
            status=AgentStatus.ACTIVE,
            extension=EntryExtension(usage_sources=sources),
        )
        return self.registry.create_generated_entry(
            lambda session_id: attrs.evolve(base, session_id=session_id, **fields)
        )

    def outputs(self, **options: Any) -> dict[str | None, int | None]:
        account = spending_of_registry(self.registry, self.plugins, **options)
        return {
            one.entry.session_id if one.entry is not None else one.actor: one.own.totals
            and one.own.totals.output_tokens
            for one in account.actors
        }


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def at(hour: int) -> str:
    return f"2026-07-01T{hour}:30:00Z"


def test_a_resumed_session_is_divided_among_its_entries_by_time(place: Place) -> None:
    path = place.write(
        "s.jsonl",
        {"id": "0", "out": 1},
        {"id": "a", "out": 2, "at": at(11)},
        {"id": "b", "out": 4, "at": at(12)},
        {"id": "c", "out": 8, "at": at(14)},
        {"id": "d", "out": 16, "at": at(16)},
    )
    key = "acme:session:1"
    first, second, third = (
        place.put(path, native_actor_key=key, started_at=Timestamp(f"2026-07-01T{hour}:00:00Z"))
        for hour in (12, 13, 15)
    )
    assert place.outputs() == {first.session_id: 7, second.session_id: 8, third.session_id: 16}
    since_s = Timestamp("2026-07-01T14:00:00Z").unix_ns / 1e9
    assert place.outputs(since_s=since_s) == {
        first.session_id: 0,
        second.session_id: 8,
        third.session_id: 16,
    }


def test_strangers_in_a_shared_transcript_are_not_counted_and_sub_agents_are(place: Place) -> None:
    path = place.write(
        "all.jsonl",
        {"id": "a", "out": 1, "who": "session:1"},
        {"id": "b", "out": 2, "who": "session:2"},
        {"id": "c", "out": 4, "who": "agent:3", "parent": "session:1"},
        {"id": "d", "out": 8, "who": "agent:4", "parent": "agent:3"},
        {"id": "e", "out": 16, "who": "agent:5", "parent": "session:2"},
    )
    own = place.put(path, native_actor_key="acme:session:1", thread="feature")
    assert place.outputs() == {own.session_id: 1, "acme:agent:3": 4, "acme:agent:4": 8}
    account = spending_of_registry(place.registry, place.plugins)
    assert {one.thread for one in account.actors} == {"feature"}


def test_a_transcript_that_names_nobody_is_that_of_the_entry_that_names_it(place: Place) -> None:
    path = place.write("one.jsonl", {"id": "a", "out": 1})
    keyed = place.put(path, native_actor_key="acme:session:1")
    other = place.write("two.jsonl", {"id": "b", "out": 2})
    keyless = place.put(other)
    by_instance = place.put(
        native_instance_key="acme:instance:" + place.write("three.jsonl", {"id": "c", "out": 4})
    )
    several = place.put(
        place.write(
            "many.jsonl",
            {"id": "d", "out": 8, "who": "session:8"},
            {"id": "e", "out": 8, "who": "session:9"},
        )
    )
    assert place.outputs() == {
        keyed.session_id: 1,
        keyless.session_id: 2,
        by_instance.session_id: 4,
        several.session_id: None,
    }


def test_an_entry_that_the_rust_tool_rewrote_is_known_by_its_key(place: Place) -> None:
    path = place.write("s.jsonl", {"id": "a", "out": 1})
    entry = place.put(path, native_actor_key="acme:session:1")
    assert place.outputs() == {entry.session_id: 1}
    file = place.folder / ".heddle" / "agents" / f"{entry.session_id}.toml"
    file.write_text(file.read_text().partition("[heddle_registry]")[0])
    place.write("s.jsonl", {"id": "b", "out": 2})
    assert place.outputs() == {entry.session_id: 3}


def test_usage_is_filled_before_an_entry_ends_and_never_after(place: Place) -> None:
    path = place.write("s.jsonl", {"id": "a", "out": 1, "cost": 7})
    parent = place.put(path, native_actor_key="acme:session:1")
    child = place.put(
        native_actor_key="acme:agent:2", native_parent_actor_key="acme:session:1", thread="kid"
    )
    place.write("s.jsonl", {"id": "b", "out": 2, "who": "agent:2", "parent": "session:1"})
    filled = fill_usage(place.registry, child.session_id, place.plugins)
    assert filled is not None
    assert filled.usage_summary.output_tokens == 2
    filled = fill_usage(place.registry, parent.session_id, place.plugins)
    assert filled is not None
    assert (filled.usage_summary.output_tokens, filled.usage_summary.cost_micros_usd) == (1, 7)
    assert fill_usage(place.registry, "agent-unknown", place.plugins) is None

    account = spending_of_registry(place.registry, place.plugins)
    place.registry.update_status(parent.session_id, AgentStatus.COMPLETE)
    place.write("s.jsonl", {"id": "c", "out": 99})
    assert fill_usage(place.registry, parent.session_id, place.plugins) is None
    changed = [
        attrs.evolve(
            one, own=attrs.evolve(one.own, totals=attrs.evolve(one.own.totals, requests=9))
        )
        for one in account.actors
        if one.own.totals is not None
    ]
    assert fill_running(place.registry, SimpleNamespace(actors=changed)) is None  # type: ignore[arg-type]
    kept = place.registry.load(parent.session_id)
    assert kept is not None
    assert kept.usage_summary.output_tokens == 1


def test_an_entry_that_ended_meanwhile_is_told_and_keeps_no_other_from_being_filled(
    place: Place,
) -> None:
    entries = [
        place.put(
            place.write(f"{n}.jsonl", {"id": str(n), "out": n}),
            native_actor_key=f"acme:session:{n}",
        )
        for n in (1, 2)
    ]
    account = spending_of_registry(place.registry, place.plugins)
    place.registry.update_status(entries[0].session_id, AgentStatus.ABANDONED)
    problem = fill_running(place.registry, account)
    assert problem is not None
    assert problem.code == "illegal_transition"
    written = place.registry.load(entries[1].session_id)
    assert written is not None
    assert written.usage_summary.output_tokens == 2
