"""Replace, remove, read and sweep on real files, and what each kind of failure tells the user."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters import atomic_file
from heddle_registry.adapters.atomic_file import (
    UnreadableFile,
    folder_mode,
    read_file,
    read_with_stat,
    remove_file,
    replace_file,
    sweep_temps,
    sync_folder,
)
from heddle_registry.errors import OutcomeUnknown, StoreUnavailable
from tests.process_helpers import (
    as_nobody,
    in_fork,
    needs_other_user,
    notes_of_syncs,
    public_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FailingOs:
    """``os``, in which one call fails each time: ``replace`` say, with an errno."""

    def __init__(self, call: str, code: int, *, after: bool = False, first: int = 1) -> None:
        self._call = call
        self._code = code
        self._after = after
        self._skip = first - 1

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self._call:
            return real

        def failing(*args: Any) -> Any:
            if self._skip:
                self._skip -= 1
                return real(*args)
            if self._after:
                real(*args)
            raise OSError(self._code, os.strerror(self._code))

        return failing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    (tmp_path / "agents").mkdir(0o700)
    (tmp_path / "tmp").mkdir(0o700)
    return tmp_path


def replace(folder: Path, data: bytes, **options: Any) -> None:
    replace_file(str(folder / "agents"), "a.toml", data, tmp_dir=str(folder / "tmp"), **options)


def test_a_file_is_made_and_replaced_whole_and_no_temporary_file_stays(folder: Path) -> None:
    for data in (b"one", b"", b"x" * 3_000_000):
        replace(folder, data)
        assert (folder / "agents/a.toml").read_bytes() == data
    assert os.listdir(folder / "tmp") == []
    assert os.listdir(folder / "agents") == ["a.toml"]


def test_a_reader_with_the_old_file_open_keeps_the_old_content(folder: Path) -> None:
    replace(folder, b"old")
    with open(folder / "agents/a.toml", "rb") as reader:
        replace(folder, b"new")
        assert reader.read() == b"old"


def test_short_writes_are_completed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class ShortWrites(FailingOs):
        def __getattr__(self, name: str) -> Any:
            if name == "write":
                return lambda fd, data: os.write(fd, data[:3])
            return getattr(os, name)

    monkeypatch.setattr(atomic_file, "os", ShortWrites("", 0))
    replace(folder, b"0123456789")
    assert (folder / "agents/a.toml").read_bytes() == b"0123456789"


@pytest.mark.parametrize(
    ("folder_bits", "file_bits"),
    [(0o700, 0o600), (0o755, 0o640), (0o750, 0o640), (0o775, 0o660), (0o2770, 0o660)],
)
def test_a_file_gets_its_folders_policy_whatever_the_umask_and_the_file_before(
    folder: Path, folder_bits: int, file_bits: int
) -> None:
    (folder / "agents").chmod(folder_bits)
    (folder / "agents/a.toml").touch(0o644)
    before = os.umask(0o077)
    try:
        replace(folder, b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((folder / "agents/a.toml").stat().st_mode) == file_bits
    assert folder_mode((folder / "agents").stat()) == file_bits


@pytest.mark.parametrize(("make", "why"), [
    (os.mkdir, "folder"), (os.mkfifo, "no regular file"), (lambda p: os.symlink("x", p), "link"),
])  # fmt: skip
def test_what_is_no_file_is_not_replaced_and_named(
    folder: Path, make: Callable[[str], None], why: str
) -> None:
    make(str(folder / "agents/a.toml"))
    before = os.lstat(folder / "agents/a.toml")
    with pytest.raises(StoreUnavailable, match=why):
        replace(folder, b"new")
    assert os.path.samestat(os.lstat(folder / "agents/a.toml"), before)
    assert os.listdir(folder / "tmp") == []


def test_a_file_that_is_as_long_as_it_says_is_read_by_one_call_and_hardly_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It lies under every look at every record.
    sizes: list[int] = []

    class NotedReads(FailingOs):
        def __getattr__(self, name: str) -> Any:
            if name == "read":
                return lambda fd, size: sizes.append(size) or os.read(fd, size)
            return getattr(os, name)

    replace(folder, b"0123456789")
    monkeypatch.setattr(atomic_file, "os", NotedReads("", 0))
    assert read_file(str(folder / "agents/a.toml"), 1_000) == b"0123456789"
    assert sizes == [11]


def test_of_a_file_that_grows_without_end_one_byte_over_the_limit_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Else a runaway writer would fill the memory of whoever looks.
    path = str(folder / "agents/a.toml")
    whole: list[int] = []

    class GrowingFile(FailingOs):
        def __getattr__(self, name: str) -> Any:
            if name == "read":
                return self._read
            return getattr(os, name)

        def _read(self, fd: int, size: int) -> bytes:
            with open(path, "ab") as file:
                file.write(b"x" * 100)
            data = os.read(fd, min(size, 7))
            whole.append(len(data))
            return data

    for size, limit in ((10, 50), (50, 50)):
        replace(folder, b"x" * size)
        whole.clear()
        with monkeypatch.context() as patched:
            patched.setattr(atomic_file, "os", GrowingFile("", 0))
            with pytest.raises(UnreadableFile, match="grew"):
                read_file(path, limit)
        assert sum(whole) == limit + 1


@needs_other_user
def test_a_shared_folders_group_is_kept_although_the_temporary_folder_has_another(
    folder: Path,
) -> None:
    os.chown(folder / "agents", 0, 12345)
    (folder / "agents").chmod(0o2770)
    replace(folder, b"new")
    found = (folder / "agents/a.toml").stat()
    assert (found.st_gid, found.st_uid) == (12345, os.getuid())


@pytest.mark.parametrize("parent_bits", [0o700, 0o2770])
def test_a_lost_temporary_folder_is_made_again_under_its_parents_policy(
    folder: Path, parent_bits: int
) -> None:
    folder.chmod(parent_bits)
    (folder / "tmp").rmdir()
    replace(folder, b"new")
    assert stat.S_IMODE((folder / "tmp").stat().st_mode) == parent_bits
    assert (folder / "agents/a.toml").read_bytes() == b"new"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("target", path)])
def test_what_is_no_regular_file_is_never_replaced(
    folder: Path, make: Callable[[Path], None]
) -> None:
    target = folder / "agents/a.toml"
    make(target)
    kind = stat.S_IFMT(target.lstat().st_mode)
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        replace(folder, b"new")
    assert stat.S_IFMT(target.lstat().st_mode) == kind
    assert os.listdir(folder / "tmp") == []
    assert not (folder / "agents/target").exists()


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        ("write", errno.ENOSPC, "disk is full"),
        ("write", errno.EDQUOT, "quota"),
        ("fsync", errno.EIO, "input/output error"),
        ("open", errno.EROFS, "read-only"),
        ("open", errno.EACCES, "no permission"),
        ("replace", errno.EXDEV, "another file system"),
        ("open", errno.EMFILE, "too many files open"),
    ],
)
def test_a_failure_before_the_rename_changes_nothing_and_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, says: str
) -> None:
    replace(folder, b"old")
    monkeypatch.setattr(atomic_file, "os", FailingOs(call, code))
    with pytest.raises(StoreUnavailable, match=says) as caught:
        replace(folder, b"new")
    assert caught.value.errno == code
    assert caught.value.hint
    assert caught.value.path == str(folder / "agents/a.toml")
    assert (folder / "agents/a.toml").read_bytes() == b"old"
    assert os.listdir(folder / "tmp") == []


@pytest.mark.parametrize("call", ["open", "fsync", "close"])
def test_a_failure_to_sync_the_folder_is_an_unknown_outcome_of_a_visible_change(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    replace(folder, b"old")
    monkeypatch.setattr(atomic_file, "os", FailingOs(call, errno.EIO, first=2))
    with pytest.raises(OutcomeUnknown, match=r"a\.toml"):
        replace(folder, b"new")
    monkeypatch.undo()
    assert (folder / "agents/a.toml").read_bytes() == b"new"
    monkeypatch.setattr(atomic_file, "os", FailingOs(call, errno.EIO))
    with pytest.raises(OutcomeUnknown):
        remove_file(str(folder / "agents"), "a.toml")
    assert not (folder / "agents/a.toml").exists()


def test_a_rename_that_happened_although_it_failed_is_an_unknown_outcome(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(folder, b"old")
    monkeypatch.setattr(atomic_file, "os", FailingOs("replace", errno.EIO, after=True))
    with pytest.raises(OutcomeUnknown):
        replace(folder, b"new")
    assert (folder / "agents/a.toml").read_bytes() == b"new"


def test_an_interrupt_removes_the_temporary_file_and_keeps_the_old_content(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(folder, b"old")

    def interrupted(_fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_file.os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace(folder, b"new")
    assert (folder / "agents/a.toml").read_bytes() == b"old"
    assert os.listdir(folder / "tmp") == []


@needs_other_user
def test_in_another_users_folder_the_error_names_the_owner_and_the_asker() -> None:
    with public_folder() as folder:
        (folder / "agents").mkdir()
        (folder / "tmp").mkdir()
        (folder / "agents/a.toml").write_bytes(b"old")

        def attempt() -> tuple[str, str]:
            with pytest.raises(StoreUnavailable) as caught:
                replace(folder, b"new")
            with pytest.raises(StoreUnavailable) as removing:
                remove_file(str(folder / "agents"), "a.toml")
            return caught.value.hint, removing.value.hint

        for hint in as_nobody(attempt):
            assert "belongs to root" in hint
            assert "you are nobody" in hint
        assert (folder / "agents/a.toml").read_bytes() == b"old"


def test_removing_says_whether_there_was_a_file_and_refuses_folders(folder: Path) -> None:
    replace(folder, b"old")
    (folder / "agents/folder").mkdir()
    assert remove_file(str(folder / "agents"), "a.toml") is True
    assert remove_file(str(folder / "agents"), "a.toml") is False
    with pytest.raises(StoreUnavailable):
        remove_file(str(folder / "agents"), "folder")


def test_a_sweep_removes_every_left_over_and_follows_no_link(folder: Path) -> None:
    (folder / "keep").write_text("kept")
    (folder / "tmp/.a.toml.0123.tmp").write_text("torn")
    (folder / "tmp/.link.tmp").symlink_to(folder / "keep")
    (folder / "tmp/folder").mkdir()
    (folder / "tmp/letter.doc").write_text("a stranger's")
    assert sweep_temps(str(folder / "tmp")) == 2
    assert sorted(os.listdir(folder / "tmp")) == ["folder", "letter.doc"]
    assert (folder / "keep").read_text() == "kept"
    assert sweep_temps(str(folder / "none")) == 0


def test_where_nobody_can_tell_whether_the_rename_took_place_nobody_says_it_did_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A network that went away: the rename fails, and so does the look for what was renamed.
    replace(folder, b"old")
    real = os.lstat

    def fail(path: str, *_: object) -> Any:
        if "tmp" in os.path.basename(path):
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(os, "replace", fail)
    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", fail)
        with pytest.raises(OutcomeUnknown):
            replace(folder, b"new")
    with pytest.raises(StoreUnavailable):
        replace(folder, b"new")


def test_only_what_bears_a_temporary_files_name_is_swept(folder: Path) -> None:
    # The folder may be one that a link led to.
    for name in (".profile", "letter.tmp", "letter", ".a.toml.0123.tmp", ".tmp"):
        (folder / "tmp" / name).touch()
    assert sweep_temps(str(folder / "tmp")) == 2
    assert sorted(os.listdir(folder / "tmp")) == [".profile", "letter", "letter.tmp"]


def test_on_windows_where_no_folder_can_be_opened_none_is_synced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_file, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr(atomic_file, "os", FailingOs("open", errno.EACCES))
    sync_folder(str(folder))


def test_reading_gives_the_content_with_the_state_it_was_read_in_or_none(folder: Path) -> None:
    replace(folder, b"content")
    path = str(folder / "agents/a.toml")
    assert read_file(path, 7) == b"content"
    found = read_with_stat(path, 1000)
    assert found is not None
    assert found[0] == b"content"
    assert found[1].st_ino == os.stat(path).st_ino
    assert read_file(path + ".missing", 7) is None
    assert read_file(str(folder / "missing/a.toml"), 7) is None


def _socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (os.mkfifo, "special"),
        (_socket, "special"),
        (os.mkdir, "folder"),
        (lambda path: os.symlink("dangling", path), "link"),
        (lambda path: os.symlink("/dev/null", path), "link"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 11), "too_large"),
    ],
)
def test_what_is_no_record_is_refused_without_being_read_or_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], None], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make("record")
    monkeypatch.setattr(atomic_file, "os", FailingOs("read", errno.EIO))
    with pytest.raises(UnreadableFile) as caught:
        read_file("record", 10)
    assert caught.value.code == code
    assert caught.value.path == "record"


def test_a_file_that_grows_while_it_is_read_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record"
    path.write_bytes(b"x" * 10)

    def grow(fd: int, size: int) -> bytes:
        with open(path, "ab") as file:
            file.write(b"x" * 100)
        monkeypatch.undo()
        return os.read(fd, size)

    monkeypatch.setattr(atomic_file.os, "read", grow)
    with pytest.raises(UnreadableFile) as caught:
        read_file(str(path), 10)
    assert caught.value.code == "too_large"


def test_an_unreadable_disk_and_a_missing_permission_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "record").touch()
    for code, named in (
        (errno.EIO, "io"),
        (errno.EACCES, "no_permission"),
        (errno.EPERM, "no_permission"),
        (errno.ELOOP, "link"),
        (errno.ENXIO, "special"),
        (errno.EISDIR, "folder"),
    ):
        monkeypatch.setattr(atomic_file, "os", FailingOs("open", code))
        with pytest.raises(UnreadableFile) as caught:
            read_file(str(tmp_path / "record"), 10)
        assert (caught.value.code, caught.value.errno) == (named, code)


def open_descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors cannot be counted here")
@pytest.mark.parametrize("call", ["fstat", "write", "fsync", "replace", "read", "fchmod"])
def test_no_descriptor_stays_open_whatever_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (folder / "agents").chmod(0o770)
    path = str(folder / "agents/a.toml")
    before = open_descriptors()
    for first in (1, 2, 3):
        replace(folder, b"old")
        monkeypatch.setattr(atomic_file, "os", FailingOs(call, errno.EIO, first=first))
        with contextlib.suppress(StoreUnavailable, OutcomeUnknown):
            replace(folder, b"new")
        with contextlib.suppress(UnreadableFile):
            read_file(path, 10)
        with contextlib.suppress(OutcomeUnknown):
            remove_file(str(folder / "agents"), "a.toml")
        monkeypatch.undo()
    assert open_descriptors() <= before


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_file_of_any_size_up_to_the_limit_is_read_whole(folder: Path, size: int) -> None:
    data = os.urandom(size)
    path = folder / "agents/a.toml"
    path.write_bytes(data)
    assert read_file(str(path), size) == data
    if size:
        with pytest.raises(UnreadableFile) as caught:
            read_file(str(path), size - 1)
        assert caught.value.code == "too_large"
        assert f"{size:,} bytes" in str(caught.value)


def test_a_call_that_is_interrupted_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptedOnce(FailingOs):
        def __getattr__(self, name: str) -> Any:
            real = getattr(os, name)
            if name not in ("open", "write", "fsync", "unlink", "read"):
                return real

            def call(*args: Any) -> Any:
                if name not in seen:
                    seen.add(name)
                    raise InterruptedError
                return real(*args)

            return call

    seen: set[str] = set()
    monkeypatch.setattr(atomic_file, "os", InterruptedOnce("", 0))
    replace(folder, b"new")
    assert read_file(str(folder / "agents/a.toml"), 10) == b"new"
    assert remove_file(str(folder / "agents"), "a.toml")
    assert seen >= {"open", "write", "fsync", "read", "unlink"}


@needs_other_user
@pytest.mark.parametrize("gives_its_group", [False, True])
def test_who_may_not_give_a_file_the_folders_group_leaves_it_private(
    *, gives_its_group: bool
) -> None:
    with public_folder() as folder:
        shared = folder / "agents"
        shared.mkdir()
        (folder / "tmp").mkdir()
        for path in (shared, folder / "tmp"):
            os.chown(path, 0, 12345 if gives_its_group or path == shared else 0)
            path.chmod(0o2777 if gives_its_group else 0o777)

        def attempt() -> int:
            replace(folder, b"new")
            return stat.S_IMODE((shared / "a.toml").stat().st_mode)

        assert as_nobody(attempt) == (0o660 if gives_its_group else 0o600)


def test_a_private_folders_file_is_as_it_was_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Three calls fewer under every command.
    for call in ("fchmod", "fchown"):
        monkeypatch.setattr(os, call, lambda *_: pytest.fail("it has that mode"))
    replace(folder, b"new")
    assert stat.S_IMODE((folder / "agents/a.toml").stat().st_mode) == 0o600


def test_a_system_without_modes_does_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "agents").chmod(0o770)
    monkeypatch.delattr(os, "fchmod")
    replace(folder, b"new")
    assert (folder / "agents/a.toml").read_bytes() == b"new"


def test_an_interrupt_at_the_rename_is_let_through_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace(folder, b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic_file.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace(folder, b"new")
    assert (folder / "agents/a.toml").read_bytes() == b"old"
    assert os.listdir(folder / "tmp") == []


def test_the_folder_is_synced_unless_the_caller_does_without(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = notes_of_syncs(monkeypatch)
    replace(folder, b"one")
    replace(folder, b"two", durable_dir=False)
    assert synced == [False, True, False]
    synced.clear()
    assert remove_file(str(folder / "agents"), "a.toml", durable_dir=False)
    assert synced == []
    replace(folder, b"one", durable_dir=False)
    assert remove_file(str(folder / "agents"), "a.toml")
    assert synced == [False, True]


def test_a_folder_that_cannot_be_synced_is_named_where_no_file_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_file, "os", FailingOs("fsync", errno.EIO))
    for changed, named in ((None, str(folder)), ("a.toml", "a.toml")):
        with pytest.raises(OutcomeUnknown) as caught:
            sync_folder(str(folder), changed=changed)
        assert caught.value.path == named


@pytest.mark.parametrize(
    ("code", "falls_back"), [(None, False), (errno.EINVAL, True), (errno.ENOTTY, True)]
)
def test_on_a_mac_a_file_is_synced_down_to_the_platter_where_the_disk_knows_how(
    folder: Path, monkeypatch: pytest.MonkeyPatch, code: int | None, falls_back: bool
) -> None:
    asked = []

    def full_sync(fd: int, operation: int) -> None:
        asked.append(operation)
        if code is not None:
            raise OSError(code, os.strerror(code))

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", full_sync)
    synced = notes_of_syncs(monkeypatch)
    monkeypatch.setattr(atomic_file, "sys", SimpleNamespace(platform="darwin"))
    replace(folder, b"new")
    assert asked == [51]
    assert synced == ([False, True] if falls_back else [True])


def test_on_a_mac_a_failed_sync_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(atomic_file, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(StoreUnavailable):
        replace(folder, b"new")


@pytest.mark.parametrize("busy", [0, 1, 5, 6])
def test_on_windows_a_file_that_somebody_has_open_is_tried_again_for_a_moment(
    folder: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    real, tries, pauses = os.replace, [], []

    def replace_later(*given: str) -> None:
        tries.append(given)
        if len(tries) <= busy:
            raise PermissionError(errno.EACCES, "somebody has it open")
        real(*given)

    monkeypatch.setattr(os, "replace", replace_later)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(atomic_file, "sys", SimpleNamespace(platform="win32"))
    if busy > 5:
        with pytest.raises(StoreUnavailable, match="permission"):
            replace(folder, b"new")
    else:
        replace(folder, b"new")
        assert (folder / "agents/a.toml").read_bytes() == b"new"
    assert pauses == [0.01, 0.02, 0.05, 0.1, 0.2][:busy]


@pytest.mark.parametrize("step", [1, 3, 9])
def test_short_reads_are_completed_up_to_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    class ShortReads(FailingOs):
        def __getattr__(self, name: str) -> Any:
            if name == "read":
                return lambda fd, size: os.read(fd, min(size, step))
            return getattr(os, name)

    replace(folder, b"0123456789")
    monkeypatch.setattr(atomic_file, "os", ShortReads("", 0))
    path = str(folder / "agents/a.toml")
    assert read_file(path, 10) == b"0123456789"
    assert read_file(path, 1_000) == b"0123456789"


def test_elsewhere_a_refused_rename_is_an_error_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    pauses: list[float] = []
    monkeypatch.setattr(os, "replace", refuse)
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(atomic_file, "sys", SimpleNamespace(platform="linux"))
    with pytest.raises(StoreUnavailable, match="permission"):
        replace(folder, b"new")
    assert pauses == []


def test_a_process_without_a_standard_input_leaves_nothing_open_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_file, "os", FailingOs("write", errno.EIO))

    def attempt() -> str:
        os.close(0)  # the next file to be opened gets its number
        with pytest.raises(StoreUnavailable):
            replace(folder, b"new")
        try:
            os.fstat(0)
        except OSError:
            return "closed"
        return "open"

    assert in_fork(attempt) == "closed"
