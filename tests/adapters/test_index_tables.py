"""What a row of the index says of a file, and when it may be believed."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry.adapters.folders import Folders
from heddle_registry.adapters.index_tables import (
    PUT_ENTRY,
    TABLES,
    EntryRow,
    Known,
    entry_values,
    file_values,
    new_stamp,
    newest_first,
    open_database,
    put_claim_file,
    read_known,
    tick_of,
)
from heddle_registry.adapters.layout import Layout
from heddle_registry.adapters.record_files import CLOCK_TICK_NS
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp

if TYPE_CHECKING:
    from pathlib import Path

ENTRY = AgentEntry(
    session_id="agent-a",
    thread="main",
    base_state="b",
    started_at=Timestamp("2026-07-01T12:00:00Z"),
    status=AgentStatus.ACTIVE,
)
STAMP = (11, 22, 33, 1_000)


@pytest.mark.parametrize(("after_ns", "tick_ns", "is_sure"), [
    (1, 0, True), (0, 0, True), (20, 20, False), (21, 20, True), (19, 20, False),
])  # fmt: skip
def test_a_row_makes_the_record_of_a_file_that_cannot_have_changed_unseen(
    after_ns: int, tick_ns: int, is_sure: bool
) -> None:
    values = list(entry_values("agent-a.toml", STAMP, STAMP[3] + 1, ENTRY))
    values[5] = STAMP[3] + after_ns
    row = EntryRow(tuple(values))
    assert (row.name, row.stamp, row.thread) == ("agent-a.toml", STAMP, "main")
    assert row.makes_record(tick_ns) is is_sure
    assert row.record() == ENTRY


def test_a_row_that_is_made_long_after_its_file_was_read_is_of_the_moment_of_reading(
    tmp_path: Path,
) -> None:
    # Within the tick of its last change it may have been changed again before the row was made.
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    with open(os.path.join(layout.agents, "agent-a.toml"), "wb") as file:
        file.write(entry_to_toml(ENTRY))
    (read,) = Folders(layout).agents.scan()
    assert read.stamp is not None
    read.read_at_ns = read.stamp[3] + CLOCK_TICK_NS
    assert not EntryRow(file_values(read)).makes_record(CLOCK_TICK_NS)
    read.read_at_ns += 1
    assert EntryRow(file_values(read)).makes_record(CLOCK_TICK_NS)


def test_a_row_that_holds_not_all_of_an_entry_never_makes_it() -> None:
    unusual = attrs.evolve(ENTRY, unknown={"newer": {"deep": [1]}})
    row = EntryRow(entry_values("agent-a.toml", STAMP, STAMP[3] + 1, unusual))
    assert row.thread == "main", "it is found by that all the same"
    assert not row.makes_record(0)


def test_rows_are_listed_newest_first_and_equal_starts_by_session_id() -> None:
    starts = {"agent-b": "00", "agent-c": "05", "agent-a": "00", "agent-d": "05.000000001"}
    rows = [
        entry_values(
            f"{name}.toml",
            STAMP,
            STAMP[3] + 1,
            attrs.evolve(
                ENTRY, session_id=name, started_at=Timestamp(f"2026-07-01T12:00:{second}Z")
            ),
        )
        for name, second in starts.items()
    ]
    newest_first(rows)
    assert [row[0] for row in rows] == [
        "agent-d.toml",
        "agent-c.toml",
        "agent-a.toml",
        "agent-b.toml",
    ]


def test_what_is_known_is_the_stamp_of_each_file_and_nothing_without_a_moment(
    tmp_path: Path,
) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make_folder(layout.claims)
    contents = {
        os.path.join(layout.agents, "agent-a.toml"): entry_to_toml(ENTRY),
        os.path.join(layout.agents, "torn.toml"): b"torn",
        os.path.join(layout.claims, layout.claim_name("main")): claim_to_toml(Claim(thread="main")),
        os.path.join(layout.claims, "torn.toml"): b"torn",
    }
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)
    connection = open_database("file::memory:")
    try:
        connection.executescript(TABLES)
        folders = Folders(layout)
        for entry_file in folders.agents.scan():
            connection.execute(PUT_ENTRY, file_values(entry_file))
        for claim_file in folders.claims.scan():
            put_claim_file(connection, claim_file)
        assert read_known(connection) is None
        connection.execute("INSERT INTO meta VALUES ('boot', 1, 2, 0)")
        assert read_known(connection) == Known(
            ("boot", 1, 2, 0), folders.agents.stamps(), folders.claims.stamps()
        )
    finally:
        connection.close()


def test_a_change_of_the_index_waits_for_no_disk_and_leaves_its_journal_in_place(
    tmp_path: Path,
) -> None:
    connection = open_database(f"file:{tmp_path}/index?mode=rwc")
    try:
        connection.executescript(TABLES)
        assert connection.execute("PRAGMA synchronous").fetchone() == (0,)
    finally:
        connection.close()
    assert sorted(os.listdir(tmp_path)) == ["index", "index-journal"]


def test_a_record_under_another_ones_name_is_none(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make_folder(layout.claims)
    for name in ("agent-a.toml", "agent-b.toml"):
        with open(os.path.join(layout.agents, name), "wb") as file:
            file.write(entry_to_toml(ENTRY))
    for name in (layout.claim_name("main"), layout.claim_name("other")):
        with open(os.path.join(layout.claims, name), "wb") as file:
            file.write(claim_to_toml(Claim(thread="main")))
    folders = Folders(layout)
    connection = open_database("file::memory:")
    try:
        connection.executescript(TABLES)
        for entry_file in folders.agents.scan():
            connection.execute(PUT_ENTRY, file_values(entry_file))
        for claim_file in folders.claims.scan():
            put_claim_file(connection, claim_file)
        for table, name in (("entries", "agent-b.toml"), ("claims", layout.claim_name("other"))):
            bad = connection.execute(f"SELECT name FROM {table} WHERE is_record = 0")
            assert bad.fetchall() == [(name,)]
    finally:
        connection.close()


def test_a_file_whose_name_is_no_text_has_its_row_too(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path / ".heddle"))
    layout.make()
    name = os.fsdecode(b"\xff.toml")
    try:
        with open(os.path.join(layout.agents, name), "wb"):
            pass
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    (file,) = Folders(layout).agents.scan()
    connection = open_database("file::memory:")
    try:
        connection.executescript(TABLES)
        connection.execute(PUT_ENTRY, file_values(file))
        assert connection.execute("SELECT name FROM entries").fetchall() == [(b"\xff.toml",)]
    finally:
        connection.close()


def test_a_stamp_of_ours_lies_in_the_last_seconds_and_is_another_each_time() -> None:
    # A folder whose time lay ahead would look changed, or unchanged, to whoever compares.
    stamps = [new_stamp() for _ in range(50)]
    now_ns = time.time_ns()
    assert all(now_ns - 5 * 10**9 < stamp < now_ns for stamp in stamps)
    assert len(set(stamps)) == 50


def test_a_stamp_of_ours_is_below_every_clock_and_one_of_a_thousand_million(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_ns = 5 << 30
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    made = []
    for drawn in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
        monkeypatch.setattr(os, "urandom", lambda size, drawn=drawn: drawn[:size])
        made.append(new_stamp())
    assert made == [now_ns - 1, now_ns - 2**30]


@pytest.mark.parametrize("kind", ["torn", "link"])
def test_what_a_killed_builder_left_hinders_no_look_at_the_clock(tmp_path: Path, kind: str) -> None:
    left = tmp_path / "index.tick"
    if kind == "link":
        (tmp_path / "home").write_text("mine")
        left.symlink_to(tmp_path / "home")
    else:
        left.write_text("torn")
    assert tick_of(str(tmp_path / "index")) in (0, CLOCK_TICK_NS)
    assert not os.path.lexists(left)
    assert kind == "torn" or (tmp_path / "home").read_text() == "mine"


@pytest.mark.parametrize(("step", "tick_ns"), [(1, 0), (0, CLOCK_TICK_NS)])
def test_a_file_system_is_trusted_that_gives_each_change_a_time_of_its_own(
    tmp_path: Path, step: int, tick_ns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[bytes] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda _, data: changes.append(data))
        patched.setattr(os, "fstat", lambda _: SimpleNamespace(st_ctime_ns=step * len(changes)))
        told = tick_of(str(tmp_path / "index"))
    assert told == tick_ns
