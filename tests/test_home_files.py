from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

import pytest

from heddle_registry.home_files import HomeFiles

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_outside_of_home_and_working_directory_is_read(tmp_path: Path) -> None:
    home, secret = tmp_path / "home", tmp_path / "secret"
    home.mkdir()
    secret.write_text("no")
    (home / "notes").write_text("yes")
    files = HomeFiles(str(home))
    assert files.read(str(home / "notes"), limit=9) == b"yes"
    assert files.read(str(secret), limit=9) is None
    assert files.read(f"{home}/../secret", limit=9) is None
    assert files.read("notes", limit=9) is None
    assert files.names(str(tmp_path)) == []
    assert files.database(str(secret)) is None


def test_a_home_that_had_another_name_is_found_again(tmp_path: Path) -> None:
    log = tmp_path / ".acme" / "log"
    log.parent.mkdir()
    log.write_text("x")
    assert HomeFiles(str(tmp_path), recorded_home="/home/dev").resolve(
        "/home/dev/.acme/log"
    ) == str(log)
    # Without the recorded name the dot folder tells where the home ended.
    assert HomeFiles(str(tmp_path)).resolve("/Users/someone/.acme/log") == str(log)
    assert HomeFiles(str(tmp_path)).resolve("/Users/someone/.acme/other") is None


def test_only_regular_files_are_opened_and_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = HomeFiles(str(tmp_path))
    assert files.read(str(tmp_path / "pipe"), limit=9) is None
    assert files.read(str(tmp_path), limit=9) is None
    assert files.modified_at(str(tmp_path / "missing")) is None


def test_the_end_of_a_big_file_begins_at_a_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"line {n}\n" for n in range(1000)))
    end = HomeFiles(str(tmp_path)).read(str(tmp_path / "log"), limit=25, tail=True)
    assert end == b"line 998\nline 999\n"


def test_a_database_is_read_with_its_log_while_it_is_written_and_never_changed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=wal")
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (1)")
    writer.commit()
    reader = HomeFiles(str(tmp_path)).database(str(path))
    try:
        assert reader.execute("SELECT x FROM t").fetchall() == [(1,)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("INSERT INTO t VALUES (2)")
    finally:
        reader.close()
        writer.close()
