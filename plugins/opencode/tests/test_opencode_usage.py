from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from heddle_registry_opencode.usage import records

from heddle_registry.adapters.usage_reader import read_usage

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.adapters.usage_report import UsageReport


def message(name: str, session: str = "s1", **more: Any) -> dict[str, Any]:
    tokens = {"input": 100, "output": 20, "reasoning": 0, "cache": {"read": 40, "write": 5}}
    tokens |= more.pop("tokens", {})
    return {
        "id": name,
        "sessionID": session,
        "role": "assistant",
        "modelID": "m",
        "cost": 0.5,
        "tokens": tokens,
        "time": {"created": 1_767_322_000_000},
    } | more


def read(*paths: Path, state: Path | None = None) -> UsageReport:
    return read_usage(
        [("opencode", str(path), None) for path in paths], {"opencode": records}, state
    )


def database(path: Path, *, mode: str = "delete") -> sqlite3.Connection:
    store = sqlite3.connect(path, isolation_level=None)
    store.execute(f"PRAGMA journal_mode={mode}")
    store.execute("CREATE TABLE session (id TEXT PRIMARY KEY, parent_id TEXT)")
    store.execute("CREATE TABLE message (id TEXT, session_id TEXT, time_updated INT, data TEXT)")
    store.execute("CREATE TABLE part (id TEXT, message_id TEXT, data TEXT)")
    store.execute("INSERT INTO session VALUES ('s1', NULL), ('s2', 's1')")
    return store


def insert(store: sqlite3.Connection, found: dict[str, Any], updated: int) -> None:
    text = json.dumps(found)
    store.execute(
        "INSERT INTO message VALUES (?, ?, ?, ?)", (found["id"], found["sessionID"], updated, text)
    )


@pytest.mark.parametrize(
    ("tokens", "output", "sure"),
    [
        ({"reasoning": 0}, 20, True),
        ({"reasoning": 8, "total": 165}, 20, True),
        ({"reasoning": 8, "total": 173}, 28, True),
        ({"reasoning": 8, "total": 120}, 20, True),
        ({"reasoning": 8}, 20, False),
        ({"reasoning": 8, "total": 7}, 20, False),
    ],
)
def test_the_stored_total_tells_whether_reasoning_is_inside_output(
    tmp_path: Path, tokens: dict[str, int], output: int, sure: bool
) -> None:
    path = tmp_path / "export.json"
    found = {"info": {"id": "s1"}, "messages": [{"info": message("m1", tokens=tokens)}]}
    path.write_text(json.dumps(found))
    report = read(path)
    assert report.totals.output_tokens == output
    assert report.totals.lower_bound is not sure
    assert report.totals.reasoning_tokens == tokens["reasoning"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_is_read_as_it_grows_with_what_is_only_in_its_log(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "opencode.db"
    store = database(path, mode=mode)
    insert(store, message("m1", tokens={"output": 1}), 1)
    assert read(path, state=tmp_path).totals.output_tokens == 1
    store.execute("UPDATE message SET time_updated = 2, data = ?", (json.dumps(message("m1")),))
    insert(store, message("m2", "s2", cost=0), 3)
    store.execute("INSERT INTO part VALUES ('p', 'm2', '{\"type\":\"tool\"}'), ('q', 'm2', 'no')")
    rows = {row.actor: row for row in read(path, state=tmp_path).rows}
    assert rows["opencode:session:s1"].totals.cost_micros_usd == 500_000
    child = rows["opencode:session:s2"]
    assert child.parent == "opencode:session:s1"
    assert (child.totals.tool_calls, child.totals.cost_micros_usd) == (1, None)
    assert {row.actor: row.totals for row in read(path).rows} == {
        actor: row.totals for actor, row in rows.items()
    }
    store.close()


def test_reading_a_database_at_rest_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "opencode.db"
    store = database(path, mode="wal")
    insert(store, message("m1"), 1)
    store.close()
    before = sorted(tmp_path.iterdir())
    assert read(path).totals.output_tokens == 20
    assert sorted(tmp_path.iterdir()) == before


def test_a_broken_database_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "opencode.db"
    path.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    report = read(path)
    assert [fault.code for fault in report.faults] == ["unreadable"]


def test_files_and_the_database_they_were_moved_to_count_once(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    for folder in ("message/s1", "part/m1", "session/p"):
        (storage / folder).mkdir(parents=True)
    (storage / "message/s1/m1.json").write_text(json.dumps(message("m1"), indent=1))
    (storage / "message/s1/m2.json").write_text("{torn")
    (storage / "part/m1/p1.json").write_text('{"type": "tool"}')
    (storage / "session/p/s1.json").write_text('{"id": "s1", "parentID": "s0"}')
    files = read(storage, state=tmp_path)
    (row,) = files.rows
    assert (row.parent, row.totals.tool_calls) == ("opencode:session:s0", 1)
    assert [fault.code for fault in files.faults] == ["unparsable"]
    store = database(tmp_path / "opencode.db")
    insert(store, message("m1"), 1)
    insert(store, message("m3"), 2)
    store.close()
    both = read(storage, tmp_path / "opencode.db", state=tmp_path)
    assert (both.totals.requests, both.totals.output_tokens) == (2, 40)
    (storage / "message/s1/m2.json").write_text(json.dumps(message("m2")))
    assert read(storage, state=tmp_path).totals.requests == 3
    assert read(storage / "message" / "s1").totals.requests == 2
    assert read(storage / "message" / "s1" / "m1.json").totals.tool_calls == 1
