"""Replacing a file under every failing call, at every power loss, and under SIGKILL.

The first two are exhaustive: the n-th call fails for n = 1, 2, … until a run meets no failure, and
every state a disk may be in after a power cut is derived from the recorded calls. The model of the
disk is pessimistic: data is on it once the file is synced, a name once its folder is; before
that each may be there or not, in any order, and data may be there in part.
"""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters import atomic_file
from heddle_registry.adapters.atomic_file import remove_file, replace_file, sweep_temps
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.errors import OutcomeUnknown, StoreUnavailable
from tests.process_helpers import forks_with_threads

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD = b"the old content"
NEW = b"the new content, a little longer"
CALLS = frozenset(
    {"open", "write", "fsync", "close", "replace", "unlink", "stat", "lstat", "fstat", "fchmod"}
    | {"mkdir", "chmod"}
)


class Killed(BaseException):
    """The process died here: nothing of it runs any more."""


class NthCallFails:
    """``os``, in which the n-th call fails; with ``code`` 0 that call and all later ones die."""

    def __init__(self, nth: int, code: int) -> None:
        self.count = 0
        self.failed_call = ""
        self.renamed = False
        self._nth = nth
        self._code = code

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            if self.count >= self._nth and not self._code:
                raise Killed
            if self.count == self._nth:
                self.failed_call = name
                if name == "close":
                    real(*args, **kwargs)  # Linux frees the number even where close fails
                raise OSError(self._code, os.strerror(self._code))
            answer = real(*args, **kwargs)
            self.renamed |= name == "replace"
            return answer

        return call


def folders(root: Path) -> tuple[str, str]:
    agents, tmp = root / "agents", root / "tmp"
    agents.mkdir(0o750)  # so that fchmod is among the calls
    tmp.mkdir()
    return str(agents), str(tmp)


@pytest.mark.parametrize(
    "code",
    [errno.EIO, errno.ENOSPC, errno.EROFS, errno.EINTR, errno.EACCES, errno.EDQUOT, 0],
    ids=lambda code: errno.errorcode.get(code, "killed"),
)
def test_whichever_call_fails_the_error_class_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    agents, tmp = folders(tmp_path)
    target = tmp_path / "agents/a.toml"
    failed = []
    for nth in range(1, 100):
        replace_file(agents, "a.toml", OLD, tmp_dir=tmp)
        faulty = NthCallFails(nth, code)
        monkeypatch.setattr(atomic_file, "os", faulty)
        raised: BaseException | None = None
        try:
            replace_file(agents, "a.toml", NEW, tmp_dir=tmp)
        except (StoreUnavailable, OutcomeUnknown, Killed) as error:
            raised = error
        monkeypatch.undo()

        assert target.read_bytes() == (NEW if faulty.renamed else OLD)
        if raised is None:
            assert faulty.renamed
            assert not faulty.failed_call or code == errno.EINTR  # repeated, so done after all
        elif not isinstance(raised, Killed):
            assert type(raised) is (OutcomeUnknown if faulty.renamed else StoreUnavailable)
            assert getattr(raised, "errno", code) == code
            assert os.listdir(tmp) == []
        assert sweep_temps(tmp) <= isinstance(raised, Killed)
        if faulty.count < nth:
            break
        failed.append(faulty.failed_call)
    else:
        pytest.fail("the calls never ended")
    if code:
        assert failed.count("open") == failed.count("fsync") == failed.count("close") == 2
        assert {"write", "replace", "fchmod", "lstat"} <= set(failed)


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES])
def test_whichever_call_of_a_removal_fails_the_error_class_tells_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    agents, tmp = folders(tmp_path)
    for nth in range(1, 5):
        replace_file(agents, "a.toml", OLD, tmp_dir=tmp)
        monkeypatch.setattr(atomic_file, "os", NthCallFails(nth, code))
        with pytest.raises(StoreUnavailable if nth == 1 else OutcomeUnknown):
            remove_file(agents, "a.toml")
        monkeypatch.undo()
        assert (tmp_path / "agents/a.toml").exists() == (nth == 1)


class Recorder:
    """``os``, which writes down what reaches the disk, and when."""

    def __init__(self, without: str = "") -> None:
        self.trace: list[tuple[str, Any, Any]] = []
        self._open: dict[int, str] = {}
        self._without = without  # a planted bug: this kind of sync is left out

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        fd = os.open(path, flags, mode)
        self._open[fd] = path
        if flags & os.O_CREAT:
            self.trace.append(("create", path, None))
        return fd

    def write(self, fd: int, data: bytes) -> int:
        written = os.write(fd, data[:10])  # short, so that a power loss may come in between
        self.trace.append(("write", self._open[fd], bytes(data[:written])))
        return written

    def fsync(self, fd: int) -> None:
        kind = "folder" if os.path.isdir(self._open[fd]) else "file"
        if kind != self._without:
            os.fsync(fd)
            self.trace.append(("sync " + kind, self._open[fd], None))

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)
        self.trace.append(("rename", source, target))

    def unlink(self, path: str) -> None:
        os.unlink(path)
        self.trace.append(("unlink", path, None))


def after_power_loss(trace: list[tuple[str, Any, Any]], target: str) -> set[bytes | None]:
    """Return every content ``target`` may have when the power fails after these calls."""
    written: dict[str, list[bytes]] = {target: [OLD]}  # what each write made of the file
    synced: dict[str, int] = {target: 0}
    inodes = {target: target}
    possible: set[str | None] = {target}  # the inodes the name may lead to
    for call, path, detail in trace:
        if call == "create":
            inodes[path] = path
            written[path] = [b""]
            synced[path] = 0
        elif call == "write":
            contents = written[inodes[path]]
            contents.append(contents[-1] + detail)
        elif call == "sync file":
            synced[inodes[path]] = len(written[inodes[path]]) - 1
        elif call == "rename":
            inodes[detail] = inodes.pop(path)
            possible.add(inodes[detail])
        elif call == "unlink":
            inodes.pop(path)
            possible.add(None)
        elif call == "sync folder" and path == os.path.dirname(target):
            possible = {inodes.get(target)}
    return {
        content
        for inode in possible
        for content in ([None] if inode is None else written[inode][synced[inode] :])
    }


def planted(bug: str) -> object:
    return pytest.param(bug, marks=pytest.mark.xfail(strict=True, raises=AssertionError))


@pytest.mark.parametrize("without", ["", planted("file"), planted("folder")])
def test_a_power_loss_at_any_moment_leaves_the_old_or_the_new_and_a_return_means_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    agents, tmp = folders(tmp_path)
    target = agents + "/a.toml"
    replace_file(agents, "a.toml", OLD, tmp_dir=tmp)
    recorder = Recorder(without)
    monkeypatch.setattr(atomic_file, "os", recorder)
    replace_file(agents, "a.toml", NEW, tmp_dir=tmp)
    for moment in range(len(recorder.trace) + 1):
        assert after_power_loss(recorder.trace[:moment], target) <= {OLD, NEW}
    assert after_power_loss(recorder.trace, target) == {NEW}


@pytest.mark.parametrize("without", ["", planted("folder")])
def test_a_removed_file_does_not_come_back_after_a_power_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    agents, tmp = folders(tmp_path)
    replace_file(agents, "a.toml", OLD, tmp_dir=tmp)
    recorder = Recorder(without)
    monkeypatch.setattr(atomic_file, "os", recorder)
    remove_file(agents, "a.toml")
    assert after_power_loss(recorder.trace, agents + "/a.toml") == {None}


def _record(number: int) -> bytes:
    body = b"%d %s" % (number, b"x" * (number * 37 % 9000))
    return b"%08x " % zlib.crc32(body) + body


def _number_in(data: bytes) -> int:
    checksum, body = data[:8], data[9:]
    assert int(checksum, 16) == zlib.crc32(body), "torn"
    return int(body.split()[0])


@forks_with_threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_writers_tear_nothing_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    agents, tmp = folders(tmp_path)
    lock = DirectoryLock(agents)
    target = tmp_path / "agents/a.toml"
    replace_file(agents, "a.toml", _record(0), tmp_dir=tmp)
    reads, acknowledges = os.pipe()
    os.set_blocking(reads, False)

    def write_for_ever() -> None:
        while True:
            with lock.held(30):
                sweep_temps(tmp)
                number = _number_in(target.read_bytes()) + 1
                replace_file(agents, "a.toml", _record(number), tmp_dir=tmp)
                os.write(acknowledges, b"%12d" % number)

    seed = random.randrange(1 << 32)
    choices = random.Random(seed)
    running = [_fork(write_for_ever) for _ in range(4)]
    kills = acknowledged = 0
    deadline = time.monotonic() + 3
    try:
        while time.monotonic() < deadline:
            if kills % 2:  # on a slow disk all would be killed before they wrote anything
                assert select.select([reads], [], [], 60)[0], "nobody writes any more"
            time.sleep(choices.random() * 0.01)
            victim = running.pop(choices.randrange(len(running)))
            _kill(victim)
            kills += 1
            acknowledged = max([acknowledged, *_numbers_from(reads)])
            assert _number_in(target.read_bytes()) >= acknowledged, f"lost; seed {seed}"
            running.append(_fork(write_for_ever))
    finally:
        for pid in running:
            _kill(pid)
    acknowledged = max([acknowledged, *_numbers_from(reads)])
    os.close(reads)
    os.close(acknowledges)
    with lock.held(60):
        sweep_temps(tmp)
        assert os.listdir(tmp) == []
    assert os.listdir(agents) in (["a.toml", ".lock"], [".lock", "a.toml"])
    assert _number_in(target.read_bytes()) >= acknowledged > 0, f"{kills} kills, seed {seed}"


def _fork(function: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(1)
    return pid


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _numbers_from(pipe: int) -> list[int]:
    try:
        said = os.read(pipe, 12 * 5000)
    except BlockingIOError:
        return []
    return [int(said[at : at + 12]) for at in range(0, len(said), 12)]
