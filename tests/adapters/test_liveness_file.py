"""A liveness lock is held exactly as long as somebody who has it lives."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import liveness_file, lock_file
from heddle_registry.adapters.liveness_file import (
    hold_liveness,
    is_held,
    liveness_holders,
    observe_liveness,
    wait_until_free,
)
from heddle_registry.errors import LockTimeout, LockUnsupported, StoreUnavailable
from tests.process_helpers import (
    as_nobody,
    flock_holder,
    forks_with_threads,
    in_fork,
    needs_other_user,
    needs_proc_locks,
    public_folder,
    python,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="flock is POSIX")

RUNNER = """if True:
    import subprocess, sys
    from heddle_registry.adapters.liveness_file import hold_liveness
    lock = hold_liveness(sys.argv[1], inheritable=True)
    command = subprocess.Popen(["sleep", "60"], pass_fds=[lock.fd], stdout=subprocess.DEVNULL)
    print(lock.device, lock.inode, command.pid, flush=True)
    sys.stdin.readline()
    """


def test_it_is_held_until_released_and_then_free(tmp_path: Path) -> None:
    path = str(tmp_path / "live" / "agent-1")
    lock = hold_liveness(path, make_dir=lambda: os.mkdir(tmp_path / "live"))
    assert not os.get_inheritable(lock.fd)
    assert observe_liveness(path, lock.device, lock.inode) == "held"
    lock.release()
    lock.release()
    assert observe_liveness(path, lock.device, lock.inode) == "free"


def test_whether_anybody_holds_it_is_told_without_knowing_the_file(tmp_path: Path) -> None:
    path = str(tmp_path / "agent-1")
    assert not is_held(path)
    lock = hold_liveness(path)
    assert is_held(path)
    (tmp_path / "link").symlink_to(path)
    assert not is_held(str(tmp_path / "link"))
    lock.release()
    assert not is_held(path)


def test_without_the_recorded_file_there_is_no_fact(tmp_path: Path) -> None:
    path = str(tmp_path / "agent-1")
    lock = hold_liveness(path)
    assert observe_liveness(path, lock.device, lock.inode + 1) is None
    assert observe_liveness(path, lock.device + 1, lock.inode) is None
    os.rename(path, path + ".moved")
    assert observe_liveness(path, lock.device, lock.inode) is None
    os.symlink(path + ".moved", path)
    assert observe_liveness(path, lock.device, lock.inode) is None
    os.unlink(path)
    os.mkfifo(path)
    assert observe_liveness(path, lock.device, lock.inode) is None
    assert not wait_until_free(path, lock.device, lock.inode, 3600)
    lock.release()


@needs_other_user
def test_an_observer_needs_to_read_and_without_that_there_is_no_fact() -> None:
    with public_folder() as folder:
        lock = hold_liveness(str(folder / "agent-1"))

        def look() -> str | None:
            return observe_liveness(str(folder / "agent-1"), lock.device, lock.inode)

        assert as_nobody(look) is None
        (folder / "agent-1").chmod(0o644)
        assert as_nobody(look) == "held"
        lock.release()
        assert as_nobody(look) == "free"

        def wait() -> bool:
            return wait_until_free(str(folder / "agent-1"), lock.device, lock.inode, 60)

        assert as_nobody(wait)


def test_a_killed_runner_frees_it_only_when_its_command_ends_too(tmp_path: Path) -> None:
    path = str(tmp_path / "agent-1")
    with python(RUNNER, path) as runner:
        device, inode, command = map(int, runner.line().split())
        try:
            if sys.platform == "linux":
                until(lambda: os.readlink(f"/proc/{command}/exe").endswith("sleep"), "the exec")
                assert liveness_holders(device, inode) == tuple(sorted([runner.pid, command]))
            runner.kill()
            assert observe_liveness(path, device, inode) == "held"
            if sys.platform == "linux":
                with open(path, "rb"):  # as whoever looks has it
                    assert liveness_holders(device, inode) == (command,)
            assert not wait_until_free(path, device, inode, 0.02)
        finally:
            os.kill(command, signal.SIGKILL)
        assert wait_until_free(path, device, inode, 60)
        assert observe_liveness(path, device, inode) == "free"
        assert liveness_holders(device, inode) == ()


@forks_with_threads
def test_a_fork_of_the_holder_does_not_keep_it_unless_it_was_to_be_inherited(
    tmp_path: Path,
) -> None:
    for inheritable in (False, True):
        lock = hold_liveness(str(tmp_path / str(inheritable)), inheritable=inheritable)

        def has_it_open(fd: int = lock.fd, inode: int = lock.inode) -> bool:
            try:
                return os.fstat(fd).st_ino == inode
            except OSError:
                return False

        assert in_fork(has_it_open) is inheritable
        assert os.get_inheritable(lock.fd) is inheritable
        assert observe_liveness(str(tmp_path / str(inheritable)), lock.device, lock.inode) == "held"
        lock.release()


def test_observers_disturb_neither_each_other_nor_the_runner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_file, "OBSERVER_GRACE_S", 60)
    path = str(tmp_path / "agent-1")
    first = hold_liveness(path)
    first.release()
    with flock_holder(path, shared=True) as observer:  # one that is slow in the middle of its look
        assert observe_liveness(path, first.device, first.inode) == "free"
        threading.Timer(0.05, observer.tell).start()
        lock = hold_liveness(path)
    assert observe_liveness(path, lock.device, lock.inode) == "held"
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    os.close(fd)
    lock.release()


@needs_proc_locks
def test_a_second_runner_is_refused_and_told_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness_file, "OBSERVER_GRACE_S", 0.02)
    with flock_holder(tmp_path / "agent-1") as other:
        with pytest.raises(LockTimeout) as caught:
            hold_liveness(str(tmp_path / "agent-1"))
        assert caught.value.holder_pid == other.pid


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent-1").symlink_to("target")
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        hold_liveness(str(tmp_path / "agent-1"))
    assert not (tmp_path / "target").exists()


@pytest.fixture
def _nothing_stays_open() -> Iterator[None]:
    before = set(lock_file._open)  # a wait that another test left may still be ending
    yield
    assert set(lock_file._open) <= before


@pytest.mark.usefixtures("_nothing_stays_open")
def test_a_file_that_cannot_be_made_is_an_error_and_leaves_nothing_locked(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        hold_liveness(str(tmp_path / "missing" / "agent-1"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreUnavailable):
        hold_liveness(str(tmp_path / "folder"))


@pytest.mark.usefixtures("_nothing_stays_open")
def test_what_fails_after_the_lock_was_taken_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "agent-1")

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for fault, error in ((fail, StoreUnavailable), (stop, KeyboardInterrupt)):
        with monkeypatch.context() as patched:
            patched.setattr(os, "set_inheritable", fault)
            with pytest.raises(error):
                hold_liveness(path, inheritable=True)
        state = os.stat(path)
        assert observe_liveness(path, state.st_dev, state.st_ino) == "free"


@pytest.mark.usefixtures("_nothing_stays_open")
def test_a_look_leaves_no_lock_and_no_descriptor_behind(tmp_path: Path) -> None:
    path = str(tmp_path / "agent-1")
    lock = hold_liveness(path)
    for device in (lock.device, lock.device + 1):
        observe_liveness(path, device, lock.inode)
    lock.release()
    for _ in range(2):
        assert observe_liveness(path, lock.device, lock.inode) == "free"
        assert wait_until_free(path, lock.device, lock.inode, 0)
    hold_liveness(path).release()


@pytest.mark.usefixtures("_nothing_stays_open")
def test_a_file_that_another_took_the_place_of_while_one_waited_is_no_fact(tmp_path: Path) -> None:
    path = tmp_path / "agent-1"
    with flock_holder(path):
        state = path.stat()

        def replace() -> None:
            path.rename(tmp_path / "moved")
            path.touch()

        assert observe_liveness(str(path), state.st_dev, state.st_ino) == "held"
        replace()
        assert observe_liveness(str(path), state.st_dev, state.st_ino) is None
        assert not wait_until_free(str(path), state.st_dev, state.st_ino, 60)


def test_without_flock_nothing_is_known_and_nothing_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "agent-1")
    lock = hold_liveness(path)
    monkeypatch.setattr(liveness_file, "_HAS_FLOCK", False)
    assert observe_liveness(path, lock.device, lock.inode) is None
    with pytest.raises(LockUnsupported, match="no flock"):
        hold_liveness(path)
    lock.release()


@pytest.mark.usefixtures("_nothing_stays_open")
def test_a_file_system_that_does_not_lock_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "agent-1")
    lock = hold_liveness(path)

    def refuse(*_: object) -> bool:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(liveness_file, "try_flock", refuse)
    assert observe_liveness(path, lock.device, lock.inode) is None
    monkeypatch.undo()
    lock.release()


def test_nobody_waits_for_another_file_than_the_recorded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "agent-1"
    with flock_holder(path):
        state = path.stat()
        assert not wait_until_free(str(path), state.st_dev, state.st_ino + 1, 3600)
    assert not wait_until_free(str(tmp_path / "missing"), state.st_dev, state.st_ino, 3600)
    assert not (tmp_path / "missing").exists()

    def fail(*_: object) -> bool:
        raise StoreUnavailable(str(path), "it went away")

    monkeypatch.setattr(lock_file.LockFile, "take", fail)
    assert not wait_until_free(str(path), state.st_dev, state.st_ino, 3600)
