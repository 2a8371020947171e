"""Queries beside the entry: appended whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters.query_log import append_queries, cut_queries
from heddle_registry.core.entry import ContextQueryEntry
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.errors import OutcomeUnknown, StoreUnavailable
from tests.process_helpers import notes_of_syncs

if TYPE_CHECKING:
    from pathlib import Path

AT = Timestamp("2026-07-01T12:00:00.000000001Z")


def query(path: str, scope: str | None = None) -> ContextQueryEntry:
    return ContextQueryEntry(path=path, scope=scope, queried_at=AT)


def test_queries_are_one_json_object_a_line_whatever_they_hold(tmp_path: Path) -> None:
    append_queries(str(tmp_path), "agent-a", (query("one"), query("two\nlines", "\u2028")))
    append_queries(str(tmp_path), "agent-a", (query("three"),))
    file = tmp_path / "agent-a.jsonl"
    *lines, rest = file.read_bytes().split(b"\n")
    read = [json.loads(line) for line in lines]
    assert rest == b"", "each line ends, and none is empty"
    assert [(line["path"], line["scope"]) for line in read] == [
        ("one", None),
        ("two\nlines", "\u2028"),
        ("three", None),
    ]
    assert {line["queried_at"] for line in read} == {AT.text}
    assert stat.S_IMODE(file.stat().st_mode) & 0o007 == 0


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, bytes(data)[:5]))
    append_queries(str(tmp_path), "agent-a", (query("one"), query("two")))
    lines = (tmp_path / "agent-a.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == ["one", "two"]


@pytest.mark.parametrize("fault", ["full disk after some", "full disk", "failed sync"])
def test_a_failed_append_leaves_the_file_as_it_was(
    tmp_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_queries(str(tmp_path), "agent-a", (query("one"),))
    before = (tmp_path / "agent-a.jsonl").read_bytes()
    real_write, written = os.write, []

    def fail(fd: int, data: Any = b"") -> int:
        if fault == "full disk after some" and not written:
            written.append(5)
            return real_write(fd, bytes(data)[:5])
        raise OSError(errno.ENOSPC if "full" in fault else errno.EIO, "it failed")

    monkeypatch.setattr(os, "fsync" if fault == "failed sync" else "write", fail)
    with pytest.raises(StoreUnavailable) as error:
        append_queries(str(tmp_path), "agent-a", (query("two"),))
    assert error.value.path.endswith("agent-a.jsonl")
    assert (tmp_path / "agent-a.jsonl").read_bytes() == before


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "agent-a.jsonl").symlink_to(tmp_path / "target")
    with pytest.raises(StoreUnavailable):
        append_queries(str(tmp_path), "agent-a", (query("one"),))
    assert not (tmp_path / "target").exists()
    assert (tmp_path / "agent-a.jsonl").is_symlink(), "what was not touched is not taken back"


def test_what_was_appended_can_be_taken_back(tmp_path: Path) -> None:
    folder, file = str(tmp_path), tmp_path / "agent-a.jsonl"
    size = append_queries(folder, "agent-a", (query("one"),))
    assert size is None
    cut_queries(folder, "agent-a", size)
    assert not file.exists()
    append_queries(folder, "agent-a", (query("one"),))
    before = file.read_bytes()
    size = append_queries(folder, "agent-a", (query("two"),))
    assert size == len(before)
    cut_queries(folder, "agent-a", size)
    assert file.read_bytes() == before


def test_after_a_line_that_a_dead_writer_left_unfinished_a_new_line_begins(tmp_path: Path) -> None:
    file = tmp_path / "agent-a.jsonl"
    file.write_bytes(b'{"path": "to')
    append_queries(str(tmp_path), "agent-a", (query("two"),))
    torn, whole = file.read_bytes().splitlines()
    assert torn == b'{"path": "to'
    assert json.loads(whole)["path"] == "two"
    file.write_bytes(b"")
    append_queries(str(tmp_path), "agent-a", (query("three"),))
    assert file.read_bytes().startswith(b"{")


def test_a_new_log_that_cannot_be_written_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/dev/fd")) if os.path.isdir("/dev/fd") else None
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(StoreUnavailable, match="No space left") as caught:
        append_queries(str(tmp_path), "agent-a", (query("one"),))
    assert caught.value.errno == errno.ENOSPC
    assert os.listdir(tmp_path) == []
    if before is not None:
        assert len(os.listdir("/dev/fd")) <= before


def test_an_append_that_cannot_be_taken_back_either_has_an_unknown_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_queries(str(tmp_path), "agent-a", (query("one"),))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    monkeypatch.setattr(os, "ftruncate", fail)
    with pytest.raises(OutcomeUnknown, match=r"agent-a\.jsonl"):
        append_queries(str(tmp_path), "agent-a", (query("two"),))


def test_a_new_log_is_synced_with_its_folder_and_an_old_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = notes_of_syncs(monkeypatch)
    append_queries(str(tmp_path), "agent-a", (query("one"),))
    append_queries(str(tmp_path), "agent-a", (query("two"),))
    assert synced == [False, True, False]


@pytest.mark.parametrize(("folder_bits", "file_bits"), [(0o700, 0o600), (0o2770, 0o660)])
def test_a_log_gets_its_folders_policy(tmp_path: Path, folder_bits: int, file_bits: int) -> None:
    tmp_path.chmod(folder_bits)
    append_queries(str(tmp_path), "agent-a", (query("one"),))
    assert stat.S_IMODE((tmp_path / "agent-a.jsonl").stat().st_mode) == file_bits


def test_a_pipe_in_the_logs_place_is_refused_at_once_and_left_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "agent-a.jsonl")
    with pytest.raises(StoreUnavailable):
        append_queries(str(tmp_path), "agent-a", (query("one"),))
    assert stat.S_ISFIFO((tmp_path / "agent-a.jsonl").lstat().st_mode)
