"""An index that is made anew has every record, or is not there at all."""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import index_building
from heddle_registry.adapters.folders import Folders
from heddle_registry.adapters.index_building import build_index
from heddle_registry.adapters.index_tables import INDEXES, VERSION
from heddle_registry.adapters.layout import Layout
from heddle_registry.codec import claim_to_toml, entry_to_toml
from heddle_registry.core.claim import Claim
from heddle_registry.core.entry import AgentEntry
from heddle_registry.core.lifecycle import AgentStatus
from heddle_registry.core.timestamp import Timestamp

if TYPE_CHECKING:
    from pathlib import Path

NAMES = [f"agent-{number}.toml" for number in range(5)]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / ".heddle"))
    made.make_folder(made.claims)
    for name in NAMES:
        entry = AgentEntry(
            session_id=name.removesuffix(".toml"),
            thread="main",
            base_state="b",
            started_at=Timestamp("2026-07-01T12:00:00Z"),
            status=AgentStatus.ACTIVE,
        )
        with open(os.path.join(made.agents, name), "wb") as file:
            file.write(entry_to_toml(entry))
    for thread in ("main", "other"):
        with open(os.path.join(made.claims, made.claim_name(thread)), "wb") as file:
            file.write(claim_to_toml(Claim(thread=thread)))
    return made


def build(layout: Layout, told: list[tuple[int, int]] | None = None) -> str | None:
    folders = Folders(layout)
    tell = (lambda *at: told.append(at)) if told is not None else lambda *_: None
    return build_index(layout, folders.agents, folders.claims, "boot", tell)


def asked(path: str, question: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(question).fetchall()
    finally:
        connection.close()


def test_it_has_a_row_of_each_record_and_tells_how_far_it_is(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_building, "_ROWS_AT_ONCE", 2)
    told: list[tuple[int, int]] = []
    path = build(layout, told)
    assert path is not None
    assert told == [(0, 5), (2, 5), (4, 5)]
    assert asked(path, "SELECT name FROM entries") == [(name,) for name in NAMES]
    claims = {(layout.claim_name(thread),) for thread in ("main", "other")}
    assert set(asked(path, "SELECT name FROM claims")) == claims
    assert asked(path, "PRAGMA user_version") == [(VERSION,)]
    assert [row[:3] for row in asked(path, "SELECT * FROM meta")] == [("boot", None, None)]
    made = asked(path, "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND sql != ''")
    assert made == [(INDEXES.count("CREATE INDEX"),)]


def test_it_is_one_file_of_the_folders_own_mode_beside_the_old_index(layout: Layout) -> None:
    os.chmod(layout.root, 0o750)
    path = build(layout)
    assert path is not None
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    files = [name for name in os.listdir(layout.root) if name.startswith("index")]
    assert files == [os.path.basename(path)]


def test_what_an_earlier_builder_left_is_no_part_of_it_and_no_link_is_written_through(
    layout: Layout, tmp_path: Path
) -> None:
    fresh = layout.index + ".building"
    with open(fresh, "w") as file:
        file.write("torn")
    assert build(layout) == fresh
    os.unlink(fresh)
    (tmp_path / "home.sqlite").touch()
    os.symlink(tmp_path / "home.sqlite", fresh)
    assert build(layout) == fresh
    assert (tmp_path / "home.sqlite").read_bytes() == b""
    assert not os.path.islink(fresh)


@pytest.mark.parametrize("cause", ["a record", "the rows", "the mode"])
def test_what_fails_leaves_no_index_behind_and_the_next_builder_succeeds(
    layout: Layout, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    if cause == "a record":
        # Nobody could read it just now: an index without it would hide it.
        monkeypatch.setattr(index_building, "is_closed", lambda file: file.name == NAMES[-1])
    elif cause == "the rows":
        monkeypatch.setattr(index_building, "PUT_ENTRY", "no SQL")
    else:
        monkeypatch.setattr(os, "chmod", fail)
    opened = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else None
    assert build(layout) is None
    assert not os.path.lexists(layout.index + ".building")
    if opened is not None:
        assert len(os.listdir("/dev/fd")) <= opened
    monkeypatch.undo()
    assert build(layout) is not None
    assert [name for name in os.listdir(layout.root) if name.endswith("journal")] == []


def test_where_none_can_be_opened_there_is_none(layout: Layout) -> None:
    os.mkdir(layout.index + ".building")
    assert build(layout) is None
