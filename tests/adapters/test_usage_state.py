from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import usage_state
from heddle_registry.adapters.json_parser import standard_parser
from heddle_registry.adapters.position import Position
from heddle_registry.adapters.procfs import Procfs
from heddle_registry.adapters.transcripts import SourceFault
from heddle_registry.adapters.usage_state import KeptAnswer, UsageState, remove_state
from heddle_registry.core.usage import UsageRecord

if TYPE_CHECKING:
    from pathlib import Path

AT = Position(
    device=1,
    inode=2,
    size=30,
    mtime_ns=4,
    ctime_ns=5,
    offset=20,
    check="ab",
    skipping=True,
    companion=(6, 7),
)

BOOT = ["boot-1"]


def filled(path: Path, *, boot: str = "boot-1") -> UsageState:
    BOOT[0] = boot
    state = UsageState(str(path))
    state.begin()
    return state


@pytest.fixture(autouse=True)
def _own_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Procfs, "boot_id", lambda _self: BOOT[0])


def join(state: UsageState, source: int, path: str, record: UsageRecord) -> None:
    actor = state.records.names.actor("acme", "acme:session:1", source)
    rows = state.records.of("acme", source, {None: actor})
    rows.add([record])
    state.records.join(source, (0.0, 0, path), rows.rows)


def add(state: UsageState, path: str, output: int) -> None:
    known = state.source("acme", path) or state.add_source(1)
    join(state, known.source, path, UsageRecord(f"{path}{output}", output=output))
    state.save_source("acme", path, known)
    state.release()


def output(state: UsageState) -> int:
    (row,) = state.records.groups([1, 2]) or [None]
    return 0 if row is None else sum(group.output for group in row[4])


def test_what_is_known_of_a_source_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    path = tmp_path / "usage.sqlite"
    state = filled(path)
    known = state.add_source(9)
    known.position, known.began, known.memory = AT, 1.5, {"model": "m", "n": [1]}
    known.faults = [SourceFault(path="/log", code="binary", detail="x")]
    state.save_source("acme", "/log", known)
    state.commit()
    state.close()
    state = filled(path)
    assert state.source("acme", "/log") == known
    assert known.rank("/log") == (1.5, 9, "/log")
    assert state.source("other", "/log") is None
    assert state.stamps([("acme", "/log")]) == {("acme", "/log"): (1, b"")}  # faulty: look again
    state.close()
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_was_not_committed_or_was_taken_back_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "usage.sqlite"
    state = filled(path)
    add(state, "/one", 1)
    join(state, 2, "", UsageRecord("lost", output=8))
    state.rollback()
    assert output(state) == 1
    state.commit()
    state.begin()
    add(state, "/two", 2)
    state.close()
    state = filled(path)
    assert output(state) == 1
    assert state.sources_of(["acme:session:1", "nobody"]) == {"acme:session:1": [("acme", "/one")]}
    state.close()


@pytest.mark.parametrize("is_fast", [True, False])
def test_an_answer_is_kept_with_what_it_tells_of_until_that_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_fast: bool
) -> None:
    if not is_fast:
        monkeypatch.setattr(usage_state, "json_parser", standard_parser)
        monkeypatch.setattr(usage_state, "json_text", json.dumps)
    path = tmp_path / "usage.sqlite"
    state = filled(path)
    add(state, "/one", 1)
    found, fault = state.records.groups([1]), SourceFault(path="/one", code="torn", detail="x")
    state.commit(b"asked", [1], found, [fault])
    state.begin()
    assert state.answer(b"other") is None
    assert state.answer(b"asked") == KeptAnswer([1], found, [fault])
    state.commit(b"other", [1], found)
    state.begin()
    assert state.answer(b"other") is None, "that alone is not worth a write"
    state.commit()
    state.close()
    state = filled(path, boot="boot-2")
    assert state.answer(b"asked") is None, "sums are proved, an answer is not"
    state.commit(b"asked", [1], found)
    state.begin()
    assert state.answer(b"asked") is not None
    add(state, "/two", 2)
    state.commit(b"both", [1, 2], state.records.groups([1, 2]))
    state.begin()
    assert state.answer(b"both") is not None
    add(state, "/two", 4)
    state.commit()
    state.begin()
    assert state.answer(b"both") is None
    state.commit()
    state.close()


@pytest.mark.parametrize(
    "other",
    ["", "[", "null", "[1,2]", "[[1],[[1]],[]]", "[[1],[],[[1]]]", "[[1],5,[]]",
     '[[1],[["k","h",null,[1],[[1,2]]]],[]]'],
)  # fmt: skip
def test_an_answer_of_another_form_is_none(tmp_path: Path, other: str) -> None:
    state = filled(tmp_path / "usage.sqlite")
    add(state, "/one", 1)
    state.commit(b"asked", [1], state.records.groups([1]))
    state.close()
    db = sqlite3.connect(tmp_path / "usage.sqlite", isolation_level=None)
    db.execute("UPDATE answer SET found = ?", (other.encode(),))
    db.close()
    state = filled(tmp_path / "usage.sqlite")
    assert state.answer(b"asked") is None
    state.close()


def test_a_state_of_another_boot_is_trusted_only_if_its_sums_are_those_of_its_records(
    tmp_path: Path,
) -> None:
    path = tmp_path / "usage.sqlite"
    state = filled(path)
    add(state, "/one", 1)
    state.records.write_sums()
    state.commit()
    state.close()
    state = filled(path, boot="boot-2")
    assert output(state) == 1
    state.commit()
    state.close()
    database = sqlite3.connect(path)
    database.execute("UPDATE sums SET output = 5")
    database.commit()
    database.close()
    state = filled(path, boot="boot-2")
    assert output(state) == 5, "nobody looks within one boot"
    state.close()
    state = filled(path, boot="boot-3")
    assert output(state) == 0, "made anew"
    state.close()
    remove_state(str(path))
    remove_state(str(path))
    assert list(tmp_path.iterdir()) == []
