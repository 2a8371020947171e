from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.position import (
    Position,
    absolute,
    continues,
    digest_of,
    digest_of_stamps,
    look,
    samples_digest,
    stamp_of,
)

if TYPE_CHECKING:
    from pathlib import Path

TEXT = b"".join(b'{"n":%d}\n' % n for n in range(4_000))


def read_to_its_end(path: Path) -> Position:
    found = look(str(path))
    assert found is not None
    with path.open("rb") as file:
        check = samples_digest(file.fileno(), found.size)
    return found._replace(offset=found.size, check=check)


def still(before: Position, path: Path) -> bool:
    now = look(str(path))
    assert now is not None
    assert now.stamp != before.stamp, "the change itself went unseen"
    return continues(before, now, str(path))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    path.write_bytes(TEXT)
    os.utime(path, ns=(1, 1))
    return path


def test_a_file_that_grew_or_was_touched_goes_on_where_it_was(log: Path) -> None:
    before = read_to_its_end(log)
    os.utime(log)
    assert still(before, log)
    with log.open("ab") as file:
        file.write(b'{"more":1}\n')
    assert still(before, log)


@pytest.mark.parametrize("path", ["/a/b", "/a/./b/", "//a/../b", "a", "./a/../b", "", "."])
def test_a_path_is_made_absolute_as_everywhere(path: str) -> None:
    assert absolute(path) == os.path.abspath(path)


@pytest.mark.parametrize("at", [0, len(TEXT) // 4, len(TEXT) // 2, len(TEXT) - 500])
def test_a_file_rewritten_in_place_begins_anew_though_its_size_is_the_same(
    log: Path, at: int
) -> None:
    before = read_to_its_end(log)
    with log.open("r+b") as file:
        file.seek(at)
        file.write(b"x")
    assert not still(before, log)


@pytest.mark.parametrize("size", [0, 1, 100, 1000, 5000, len(TEXT)])
def test_a_text_in_memory_is_sampled_as_its_file_is(log: Path, size: int) -> None:
    with log.open("rb") as file:
        assert digest_of(memoryview(TEXT)[:size]) == samples_digest(file.fileno(), size)


def test_a_shorter_one_another_one_and_a_document_begin_anew(log: Path) -> None:
    before = read_to_its_end(log)
    other = log.with_name("other")
    other.write_bytes(TEXT + b"{}\n")
    os.replace(other, log)
    assert not still(before, log)
    log.write_bytes(TEXT + b"{}\n")
    document = read_to_its_end(log)._replace(whole=True)
    os.utime(log)
    assert not still(document, log)
    before = read_to_its_end(log)
    log.write_bytes(TEXT[:100])
    assert not still(before, log)


def test_a_database_is_touched_by_its_write_ahead_log(tmp_path: Path) -> None:
    database = tmp_path / "opencode.db"
    database.touch()
    before = look(str(database))
    (tmp_path / "opencode.db-wal").write_bytes(b"page")
    after = look(str(database))
    assert before is not None
    assert after is not None
    assert before.stamp != after.stamp
    assert look(str(tmp_path / "nothing.db")) is None
    assert look(str(database / "below")) is None


def test_a_stamp_tells_of_a_log_beside_a_database_and_of_any_year(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    alone = stamp_of(str(path))
    (tmp_path / "a.db-wal").write_bytes(b"log")
    found = look(str(path))
    assert found is not None
    assert (found.stamp, found.companion[0]) == (stamp_of(str(path)), 3)
    assert found.stamp != alone
    os.utime(path, (1 << 34, 1 << 34))
    far = look(str(path))
    assert far is not None
    assert far.stamp != found.stamp
    assert far.mtime_ns in {(1 << 63) - 1, os.stat(path).st_mtime_ns}


def test_one_digest_stands_for_files_that_are_all_there_and_are_no_folders(log: Path) -> None:
    def digest(*paths: Path) -> bytes:
        return digest_of_stamps({("acme", str(path)): stamp_of(str(path)) for path in paths})

    assert digest(log) == digest(log) != b""
    other = log.with_name("other")
    other.hardlink_to(log)
    assert len({digest(log), digest(other), digest(log, other), digest()}) == 4
    for odd in (log.parent, log / "below", log.with_name("gone")):
        assert digest(log, odd) == b""
    before = digest(log)
    os.utime(log)
    assert digest(log) != before
