"""Parsed once while unchanged, and never believed longer than that."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.record_files import CLOCK_TICK_NS, RecordFile, RecordFiles
from heddle_registry.core.limits import MAX_ENTRY_BYTES
from heddle_registry.errors import RecordCorrupt, StoreUnavailable
from tests.process_helpers import until

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.adapters.record_files import Stamp


class Folder:
    """A folder of files whose "record" is their text; `parsed` tells which were read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parsed: list[str] = []
        self.files = RecordFiles(str(path), self._parse)

    def _parse(self, data: bytes, path: str) -> str:
        self.parsed.append(os.path.basename(path))
        if data.startswith(b"bad"):
            raise RecordCorrupt(path, ["it is bad"])
        return data.decode()

    def put(self, name: str, text: str) -> None:
        temp = self.path / "temp"
        temp.write_text(text)
        temp.replace(self.path / name)

    def settle(self) -> None:
        """Let the files grow older than a tick of the clock that stamps them."""
        newest = max(path.lstat().st_ctime_ns for path in self.path.iterdir())
        until(lambda: time.time_ns() - newest > 2 * CLOCK_TICK_NS, "that time goes on")

    def scanned(self) -> dict[str, str | None]:
        self.parsed.clear()
        return {file.name: file.record for file in self.files.scan()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    path = tmp_path / "records"
    path.mkdir()
    return Folder(path)


def test_a_settled_file_is_parsed_once_and_a_changed_one_again(folder: Folder) -> None:
    folder.put("a.toml", "one")
    folder.put("b.toml", "two")
    folder.settle()
    assert folder.scanned() == {"a.toml": "one", "b.toml": "two"}
    assert folder.scanned() == {"a.toml": "one", "b.toml": "two"}
    assert folder.parsed == []
    assert folder.files.one("a.toml") is not None
    assert folder.parsed == []
    folder.put("a.toml", "new")
    assert folder.scanned() == {"a.toml": "new", "b.toml": "two"}
    assert folder.parsed == ["a.toml"]
    (folder.path / "b.toml").unlink()
    assert folder.scanned() == {"a.toml": "new"}
    assert folder.files.one("b.toml") is None


def test_an_edit_in_place_of_the_same_length_within_one_tick_is_seen(folder: Folder) -> None:
    path = folder.path / "a.toml"
    path.write_text("one")
    for text in ("two", "six", "ten"):
        assert folder.files.one("a.toml") is not None
        state = path.stat()
        with path.open("r+") as file:
            file.write(text)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        found = folder.files.one("a.toml")
        assert found is not None
        assert found.record == text
        assert folder.scanned() == {"a.toml": text}


def test_what_the_caller_is_about_to_change_is_read_again(folder: Folder) -> None:
    folder.put("a.toml", "one")
    folder.settle()
    folder.scanned()
    folder.files.forget("a.toml")
    assert folder.scanned() == {"a.toml": "one"}
    assert folder.parsed == ["a.toml"]


def test_only_the_names_of_records_are_looked_at(folder: Folder) -> None:
    for name in (".toml", "a.TOML", "a.toml~", "toml", ".lock"):
        (folder.path / name).write_text("bad")
    (folder.path / ".hidden.toml").write_text("one")
    assert folder.scanned() == {".hidden.toml": "one"}


def test_each_thing_that_is_no_record_says_why_and_hides_nobody(folder: Folder) -> None:
    folder.put("a.toml", "one")
    folder.put("bad.toml", "bad news")
    (folder.path / "folder.toml").mkdir()
    (folder.path / "link.toml").symlink_to("a.toml")
    os.mkfifo(folder.path / "fifo.toml")
    with (folder.path / "huge.toml").open("wb") as huge:
        huge.truncate(MAX_ENTRY_BYTES + 1)
    os.close(os.open(os.fsencode(folder.path) + b"/\xff.toml", os.O_CREAT | os.O_WRONLY))
    found = {file.name: file for file in folder.files.scan()}
    assert found.pop("a.toml").record == "one"
    assert found.pop("\udcff.toml").path.endswith(r"\xff.toml"), "a path that can be printed"
    assert set(found) == {"bad.toml", "folder.toml", "link.toml", "fifo.toml", "huge.toml"}
    for file in found.values():
        assert file.record is None
        assert isinstance(file.error, RecordCorrupt)
        assert str(folder.path) in str(file.error)
    assert found["bad.toml"].data == b"bad news", "a line of it may still tell something"


def test_a_missing_folder_is_empty_and_a_closed_one_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Folder(tmp_path / "missing")
    assert missing.files.scan() == []
    assert missing.files.stamps() == {}
    assert missing.files.one("a.toml") is None

    def refuse(path: str, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    for call in ("scandir", "listdir", "open"):
        monkeypatch.setattr(os, call, refuse)
    for look in (missing.files.scan, missing.files.stamps):
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            look()


def test_stamps_tell_what_changed_and_what_is_gone(folder: Folder) -> None:
    for name in ("a.toml", "b.toml", "c.toml"):
        folder.put(name, name)
    known = folder.files.stamps()
    assert set(known) == {"a.toml", "b.toml", "c.toml"}
    folder.put("a.toml", "another")
    (folder.path / "b.toml").unlink()
    folder.put("d.toml", "new")
    changed, gone = folder.files.changed_since(known)
    assert {file.name: file.record for file in changed} == {"a.toml": "another", "d.toml": "new"}
    assert gone == ["b.toml"]
    assert stat.S_ISREG((folder.path / "c.toml").lstat().st_mode)


def test_a_listing_is_verified_file_by_file(folder: Folder) -> None:
    for name in ("a.toml", "b.toml", "c.toml"):
        folder.put(name, name)
    folder.settle()
    files = folder.files.scan()
    folder.parsed.clear()
    assert folder.files.verified(files) == files
    assert folder.parsed == []
    folder.put("a.toml", "new")
    (folder.path / "b.toml").unlink()
    now = folder.files.verified(files)
    assert [(file.name, file.record) for file in sorted(now, key=lambda f: f.name)] == [
        ("a.toml", "new"),
        ("c.toml", "c.toml"),
    ]
    assert folder.parsed == ["a.toml"]
    shutil.rmtree(folder.path)
    assert folder.files.verified(files) == []


@pytest.mark.parametrize("call", ["open", "stat"])
def test_a_listing_that_cannot_be_verified_is_an_error_and_leaves_nothing_open(
    folder: Folder, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abcdefghijkl":
        folder.put(f"{name}.toml", "one")
    files = folder.files.scan()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None

    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        patched.setattr(os, "supports_dir_fd", {os.stat})
        with pytest.raises(StoreUnavailable, match="Permission denied") as caught:
            folder.files.verified(files)
    assert (caught.value.errno, caught.value.path) == (13, str(folder.path))
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before


def test_where_descriptors_of_folders_are_not_to_be_had_the_answers_are_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.toml", "b.toml"):
        folder.put(name, name)
    real_stat, real_open = os.stat, os.open

    def stat_by_path(path: object, **named: object) -> os.stat_result:
        assert named.get("dir_fd") is None
        return real_stat(path, **named)

    def open_files(path: object, *given: int) -> int:
        assert path != str(folder.path)
        return real_open(path, *given)

    monkeypatch.setattr(os, "stat", stat_by_path)
    monkeypatch.setattr(os, "open", open_files)
    monkeypatch.setattr(os, "supports_dir_fd", set())
    (folder.path / ".toml").touch()
    (folder.path / "letter").touch()
    folder.settle()
    files = folder.files.scan()
    assert set(folder.files.stamps()) == {"a.toml", "b.toml"}
    (folder.path / "b.toml").unlink()
    assert [file.name for file in folder.files.verified(files)] == ["a.toml"]
    assert set(folder.files.stamps()) == {"a.toml"}


def test_what_was_just_written_is_known_without_being_read(folder: Folder) -> None:
    folder.put("a.toml", "one")
    folder.settle()
    folder.files.remember("a.toml", "one")
    assert folder.scanned() == {"a.toml": "one"}
    assert folder.parsed == []
    folder.files.remember("gone.toml", "never")
    assert folder.files.one("gone.toml") is None
    folder.files.forget_all()
    assert folder.scanned() == {"a.toml": "one"}
    assert folder.parsed == ["a.toml"]


def test_what_was_written_within_the_last_tick_is_looked_at_again(folder: Folder) -> None:
    folder.files.tick_ns = 3_600 * 10**9  # the machine may need longer than a real one
    folder.put("a.toml", "one")
    folder.files.remember("a.toml", "one")
    assert folder.scanned() == {"a.toml": "one"}
    assert folder.parsed == ["a.toml"]
    folder.files.tick_ns = 0  # every change has a time of its own there
    folder.files.remember("a.toml", "one")
    assert folder.scanned() == {"a.toml": "one"}
    assert folder.parsed == []


def test_a_file_is_settled_only_when_it_was_read_more_than_a_tick_after_its_last_change() -> None:
    file: RecordFile[str] = RecordFile("a.toml", "/x/a.toml", 0)
    file.stamp = (1, 2, 1_000, 2_000)
    for read_at_ns, still in ((2_010, False), (2_011, True), (1_990, False)):
        file.read_at_ns = read_at_ns
        assert file.is_still((1, 2, 1_000, 2_000), 10) is still
    assert file.is_still((1, 2, 1_000, 2_000), 0)
    for at in range(4):
        other = [1, 2, 1_000, 2_000]
        other[at] += 1
        assert not file.is_still((other[0], other[1], other[2], other[3]), 0)
    assert file.stem == "a"


class KnownRow:
    """What an index might know of one file."""

    def __init__(self, name: str, stamp: Stamp, *, says_all: bool = True) -> None:
        self.name = name
        self.stamp = stamp
        self.says_all = says_all
        self.ticks: list[int] = []
        self.built = 0

    def makes_record(self, tick_ns: int) -> bool:
        self.ticks.append(tick_ns)
        return self.says_all

    def record(self) -> str:
        self.built += 1
        return "from the index"


def test_a_file_that_the_index_knows_is_built_from_it_and_any_other_read(folder: Folder) -> None:
    folder.put("a.toml", "one")
    stamp = folder.files.stamps()["a.toml"]
    row = KnownRow("a.toml", stamp)
    (found,) = folder.files.resolve([row], 7)
    assert (found.record, found.is_sound, found.stamp) == ("from the index", True, stamp)
    assert (row.ticks, row.built, folder.parsed) == ([7], 1, [])
    assert folder.files.resolve([row], 7) == [found]
    assert row.built == 1, "it is known now"
    folder.files.forget_all()
    (read,) = folder.files.resolve([KnownRow("a.toml", stamp, says_all=False)], 7)
    assert (read.record, read.is_sound) == ("one", False)
    folder.put("a.toml", "new")
    (changed,) = folder.files.resolve([row], 7)
    assert (changed.record, row.built) == ("new", 1)
    (folder.path / "a.toml").unlink()
    assert folder.files.resolve([row], 7) == []
    assert folder.files.one("a.toml") is None


def test_a_file_that_goes_between_two_looks_is_left_out(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("a.toml", "one")
    (known,) = folder.files.scan()
    known.stamp = None  # it changed
    (folder.path / "b.toml").symlink_to("b.toml.real")
    with monkeypatch.context() as patched:
        patched.setattr(folder.files, "one", lambda _: None)
        assert folder.files.resolve([KnownRow("a.toml", (0, 0, 0, 0))], 0) == []
        assert folder.files.verified([known]) == []
        assert folder.files.changed_since({}) == ([], [])
    (folder.path / "b.toml").unlink()
    real_list, real_scan = os.listdir, os.scandir

    def list_first(path: str) -> list[str]:
        names = real_list(path)
        (folder.path / "a.toml").unlink(missing_ok=True)
        return names

    monkeypatch.setattr(os, "listdir", list_first)
    assert folder.files.stamps() == {}
    folder.put("a.toml", "one")
    items = list(real_scan(folder.path))
    monkeypatch.setattr(os, "scandir", lambda _: nullcontext(items))
    (folder.path / "a.toml").unlink()
    assert folder.files.scan() == []


def test_a_file_that_is_asked_for_again_is_not_parsed_again(folder: Folder) -> None:
    folder.put("a.toml", "one")
    folder.settle()
    first = folder.files.one("a.toml")
    assert first is not None
    assert folder.files.one("a.toml") is first
    assert folder.parsed == ["a.toml"]


def test_a_link_that_leads_nowhere_is_there_all_the_same(folder: Folder) -> None:
    # Left out, it would be a problem that nobody is told of.
    (folder.path / "a.toml").symlink_to("nowhere")
    assert list(folder.files.stamps()) == ["a.toml"]
    files = folder.files.scan()
    assert [file.error is not None for file in files] == [True]
    assert [file.name for file in folder.files.verified(files)] == ["a.toml"]


@pytest.mark.parametrize(("count", "opened"), [(8, 0), (9, 1)])
def test_a_folder_is_opened_for_many_files_and_not_for_few(
    folder: Folder, count: int, opened: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.stat not in os.supports_dir_fd:
        pytest.skip("this system asks by path")
    for number in range(count):
        folder.put(f"{number}.toml", "one")
    folder.settle()
    files = folder.files.scan()
    opens: list[object] = []
    asked: list[bool] = []
    real_open, real_stat = os.open, os.stat

    def open_noted(path: object, *given: int) -> int:
        opens.append(path)
        return real_open(path, *given)

    def stat_noted(path: str, **named: object) -> os.stat_result:
        asked.append(os.path.isabs(path))
        return real_stat(path, **named)

    monkeypatch.setattr(os, "open", open_noted)
    monkeypatch.setattr(os, "stat", stat_noted)
    monkeypatch.setattr(os, "supports_dir_fd", {stat_noted})
    monkeypatch.setattr(os, "lstat", lambda _: pytest.fail("one look a file is enough"))
    folder.parsed.clear()
    assert folder.files.verified(files) == files
    assert opens == [str(folder.path)] * opened
    assert asked == [not opened] * count, "by a short name where the folder is open"
    assert folder.parsed == []


def test_files_that_the_caller_has_just_looked_at_are_not_looked_at_again(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("a.toml", "one")
    seen = folder.files.stamps()
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("its stamp is at hand"))
    row = KnownRow("a.toml", seen["a.toml"])
    (found,) = folder.files.resolve([row], 0, seen)
    assert found.record == "from the index"
    assert folder.files.resolve([row], 0, {}) == []


def test_a_pipe_in_the_place_of_the_folder_is_not_waited_for(folder: Folder) -> None:
    for number in range(9):
        folder.put(f"{number}.toml", "one")
    files = folder.files.scan()
    shutil.rmtree(folder.path)
    os.mkfifo(folder.path)
    with pytest.raises(StoreUnavailable):
        folder.files.verified(files)


def test_a_file_that_the_index_vouched_for_stays_known_whatever_the_clock(folder: Folder) -> None:
    folder.put("a.toml", "one")
    row = KnownRow("a.toml", folder.files.stamps()["a.toml"])
    (found,) = folder.files.resolve([row], 0)
    assert folder.files.tick_ns == CLOCK_TICK_NS
    assert folder.files.verified([found]) == [found]
    assert folder.parsed == []


def test_a_file_that_could_not_be_read_and_is_gone_is_listed_no_longer(folder: Folder) -> None:
    unread: RecordFile[str] = RecordFile("gone.toml", str(folder.path / "gone.toml"), 0)
    for tick_ns in (0, CLOCK_TICK_NS):
        folder.files.tick_ns = tick_ns
        assert folder.files.verified([unread]) == []
        (folder.path / "gone.toml").symlink_to("nowhere")
        link = folder.files.one("gone.toml")
        assert link is not None
        assert link.error is not None
        (folder.path / "gone.toml").unlink()
        assert folder.files.resolve([KnownRow("gone.toml", (0, 0, 0, 0))], tick_ns) == []


def test_a_file_of_which_nothing_can_be_learnt_is_an_error_and_not_missing(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.put("a.toml", "one")
    folder.settle()
    folder.scanned()

    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", refuse)
        with pytest.raises(StoreUnavailable, match="Permission denied"):
            folder.files.resolve([KnownRow("a.toml", (0, 0, 0, 0))], 0)
    monkeypatch.setattr(os, "lstat", refuse)
    found = folder.files.one("a.toml")
    assert found is not None
    assert found.record == "one"


@pytest.mark.parametrize(("code", "hint"), [(errno.EACCES, "permission"), (errno.EIO, "")])
def test_a_file_that_may_not_be_read_is_no_damage(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    folder.put("a.toml", "one")

    def refuse(path: object, *_: object, **__: object) -> int:
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "open", refuse)
    found = folder.files.one("a.toml")
    assert found is not None
    assert isinstance(found.error, StoreUnavailable)
    assert found.error.errno == code
    assert hint in found.error.hint
    assert bool(found.error.hint) == bool(hint)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors cannot be counted here")
def test_no_look_at_a_folder_leaves_a_descriptor_open(folder: Folder) -> None:
    folder.put("a.toml", "one")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        known = folder.files.stamps()
        folder.files.verified(folder.files.scan())
        folder.files.changed_since(known)
        folder.files.resolve([KnownRow("a.toml", known["a.toml"])], 0)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_no_other_thread_sees_a_file_before_its_record_is_there(folder: Folder) -> None:
    folder.put("a.toml", "one")
    seen: list[object] = []

    class Looking(KnownRow):
        def record(self) -> str:
            other = folder.files.one("a.toml")  # as another OS thread would, at this moment
            seen.append(other.record if other is not None else None)
            return super().record()

    row = Looking("a.toml", folder.files.stamps()["a.toml"])
    (found,) = folder.files.resolve([row], 0)
    assert (found.record, seen) == ("from the index", ["one"])
