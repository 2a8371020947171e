"""Queries beside the entry: appended whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters.query_log import append_queries
from heddle_registry.core.entry import ContextQueryEntry
from heddle_registry.core.timestamp import Timestamp
from heddle_registry.errors import StoreUnavailable

if TYPE_CHECKING:
    from pathlib import Path

AT = Timestamp("2026-07-01T12:00:00.000000001Z")


def query(path: str, scope: str | None = None) -> ContextQueryEntry:
    return ContextQueryEntry(path=path, scope=scope, queried_at=AT)


def test_queries_are_one_json_object_a_line_whatever_they_hold(tmp_path: Path) -> None:
    append_queries(str(tmp_path), "agent-a", (query("one"), query("two\nlines", "\u2028")))
    append_queries(str(tmp_path), "agent-a", (query("three"),))
    file = tmp_path / "agent-a.jsonl"
    read = [json.loads(line) for line in file.read_bytes().split(b"\n") if line]
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
