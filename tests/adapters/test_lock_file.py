"""One lock file by itself: what its descriptors do over forks, waits and failures."""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry.adapters import lock_file
from heddle_registry.adapters.lock_file import LOCK_EX, LOCK_SH, LockFile
from heddle_registry.errors import LockUnsupported, StoreUnavailable
from tests.process_helpers import (
    ROOT,
    flock_holder,
    flock_waiters,
    forks_with_threads,
    in_fork,
    locked_elsewhere,
    needs_proc_locks,
    python,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="flock is POSIX")


@pytest.fixture(autouse=True)
def _other_tests_waits_are_over() -> None:
    until(lambda: not lock_file._open, "the end of the waits that other tests left")


@pytest.fixture
def _every_wait_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short a wait is, its thread is there before it is given up."""
    real = lock_file._Sleeper.granted_within

    def granted_within(sleeper: lock_file._Sleeper, timeout_s: float) -> bool:
        until(lambda: sleeper._running or sleeper.done, "a thread that sleeps")
        return real(sleeper, timeout_s)

    monkeypatch.setattr(lock_file._Sleeper, "granted_within", granted_within)


WINDOWS = """if True:
    import errno, fasteners, os, sys
    del os.register_at_fork, os.fchmod, os.O_NOFOLLOW, os.O_NONBLOCK, os.O_CLOEXEC, os.O_NOCTTY
    sys.platform = "win32"
    sys.modules["fcntl"] = None
    from heddle_registry.adapters import flock, liveness_file
    from heddle_registry.adapters.atomic_file import read_file, replace_file
    folder = sys.argv[1]
    lock = flock.DirectoryLock(folder)
    with lock.held(1), lock.held(1):
        for data in (b"old", b"new"):
            replace_file(folder, "a.toml", data, tmp_dir=folder + os.sep + "tmp")
        print(read_file(folder + os.sep + "a.toml", 10), flock.try_shared(lock.path))
    print(flock.try_shared(lock.path))
    print(liveness_file.observe_liveness(lock.path, 1, 2), lock.is_held)
    """
LIGHT = """if True:
    import sys
    package = type(sys)("heddle_registry")  # what the package itself imports is not the lock's
    package.__path__ = [sys.argv[2]]
    sys.modules["heddle_registry"] = package
    before = set(sys.modules)
    import heddle_registry.adapters.atomic_file, heddle_registry.adapters.liveness_file
    import heddle_registry.adapters.flock
    with heddle_registry.adapters.flock.DirectoryLock(sys.argv[1]).held(1):
        pass
    new = {name for name in set(sys.modules) - before if not name.startswith("heddle_registry")}
    print(*sorted(new))
    """


def test_dropping_twice_or_before_taking_is_harmless(tmp_path: Path) -> None:
    file = LockFile(str(tmp_path / "lock"))
    file.drop()
    assert file.take(LOCK_EX, 0.0)
    fd = file.fd
    file.drop()
    stranger = os.open(tmp_path, os.O_RDONLY)
    file.drop()
    assert stranger == fd  # the number was free and is another's by now
    os.fstat(stranger)
    os.close(stranger)


@forks_with_threads
def test_a_descriptor_meant_to_survive_a_fork_does_and_the_child_cannot_unlock_it(
    tmp_path: Path,
) -> None:
    file = LockFile(str(tmp_path / "lock"), survives_fork=True)
    assert file.take(LOCK_EX, 0.0)

    def drop_in_child() -> bool:
        fd = file.fd
        file.drop()
        return os.fstat(fd).st_ino == os.stat(file.path).st_ino

    assert in_fork(drop_in_child)
    assert locked_elsewhere(file.path)
    file.drop()
    assert not locked_elsewhere(file.path)


def test_a_lock_file_that_is_not_open_has_the_descriptor_of_a_closed_socket(
    tmp_path: Path,
) -> None:
    file = LockFile(str(tmp_path / "lock"))
    assert file.fd == -1
    assert file.take(LOCK_EX, 0.0)
    assert file.fd >= 0
    file.drop()
    assert file.fd == -1
    with flock_holder(file.path):
        assert not file.take(LOCK_EX, time.monotonic() + 0.02)
        assert file.fd == -1


@pytest.mark.parametrize("is_granted", [False, True])
def test_an_interrupt_of_a_wait_leaves_nothing_held_and_nobody_shut_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_granted: bool
) -> None:
    path = str(tmp_path / "lock")
    file = LockFile(path)
    real = lock_file._Sleeper.granted_within
    with flock_holder(path) as holder:

        def interrupted(sleeper: lock_file._Sleeper, timeout_s: float) -> bool:
            if is_granted:
                holder.tell()
                assert real(sleeper, timeout_s)
            until(lambda: sleeper._running, "a thread that sleeps")
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(lock_file._Sleeper, "granted_within", interrupted)
            with pytest.raises(KeyboardInterrupt):
                file.take(LOCK_EX, time.monotonic() + 60)
        file.drop()
        # A thread that is still asleep has the descriptor, and closes it when it wakes.
        assert len(lock_file._open) == (0 if is_granted else 1)
        next_one = LockFile(path)
        if is_granted:
            assert not locked_elsewhere(path)
        else:
            threading.Timer(0.05, holder.tell).start()
        assert next_one.take(LOCK_EX, time.monotonic() + 60)
        assert locked_elsewhere(path)
        next_one.drop()
    until(lambda: not lock_file._open, "every descriptor closed")
    assert not lock_file._idle


def test_a_wait_that_is_given_up_twice_leaves_one_thread_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The interrupt comes when the time is over. Two who took the same thread would share a lock.
    path = str(tmp_path / "lock")
    file = LockFile(path)
    real = lock_file._Sleeper.give_up

    def interrupted(sleeper: lock_file._Sleeper) -> bool:
        until(lambda: sleeper._running, "a thread that sleeps")
        real(sleeper)
        raise KeyboardInterrupt

    with flock_holder(path):
        with monkeypatch.context() as patched:
            patched.setattr(lock_file._Sleeper, "give_up", interrupted)
            with pytest.raises(KeyboardInterrupt):
                file.take(LOCK_EX, time.monotonic() + 0.02)
        file.drop()
        assert [len(left) for left in lock_file._idle.values()] == [1]
    until(lambda: not lock_file._open, "every descriptor closed")


@pytest.mark.usefixtures("_every_wait_sleeps")
@pytest.mark.parametrize("is_noted", [True, False])
def test_a_wait_interrupted_while_its_thread_is_noted_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_noted: bool
) -> None:
    class Interrupting(dict[Any, Any]):
        """Where sleepers are noted: Ctrl-C comes in as the list for them is made or found."""

        def setdefault(self, *given: Any) -> Any:
            if is_noted:
                super().setdefault(*given)
            raise KeyboardInterrupt

    path = str(tmp_path / "lock")
    file = LockFile(path)
    with flock_holder(path):
        with monkeypatch.context() as patched:
            patched.setattr(lock_file, "_idle", Interrupting())
            with pytest.raises(KeyboardInterrupt):
                file.take(LOCK_EX, time.monotonic() + 0.05)
        file.drop()
    until(lambda: not lock_file._open, "every descriptor closed")
    assert not locked_elsewhere(path)


def test_a_lock_on_a_file_that_was_removed_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever comes next makes another file, and would have it too.
    path = tmp_path / "lock"
    real = lock_file.try_flock
    removed = []

    def removed_meanwhile(fd: int, operation: int) -> bool:
        if not removed:
            removed.append(path.unlink())
        return real(fd, operation)

    monkeypatch.setattr(lock_file, "try_flock", removed_meanwhile)
    file = LockFile(str(path))
    assert file.take(LOCK_EX, 0.0)
    assert locked_elsewhere(path)
    file.drop()


def test_what_cannot_be_unlocked_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    fd = lock_file.open_lock(str(tmp_path / "lock"), write=True, create=True)
    monkeypatch.setattr(lock_file.fcntl, "flock", refuse)
    lock_file.close_lock(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@forks_with_threads
def test_a_lock_file_that_is_open_for_a_look_is_not_open_in_a_child(tmp_path: Path) -> None:
    fd = lock_file.open_lock(str(tmp_path / "lock"), write=True, create=True)

    def is_open() -> bool:
        try:
            return os.fstat(fd).st_ino == os.stat(tmp_path / "lock").st_ino
        except OSError:
            return False

    assert not in_fork(is_open)
    assert is_open()
    lock_file.close_lock(fd)


def test_what_fails_while_asleep_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    real = lock_file.fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if operation == LOCK_EX:
            raise OSError(errno.ENOLCK, "No locks available")
        real(fd, operation)

    with flock_holder(path):
        monkeypatch.setattr(lock_file.fcntl, "flock", flock)
        with pytest.raises(LockUnsupported):
            LockFile(str(path)).take(LOCK_EX, time.monotonic() + 60)
    assert not lock_file._open


def test_who_waits_after_others_gave_up_takes_over_their_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    started: list[object] = []
    real = lock_file._thread.start_new_thread
    asleep = threading.Barrier(3, timeout=60)
    granted_within = lock_file._Sleeper.granted_within

    def together(sleeper: lock_file._Sleeper, _: float) -> bool:
        until(lambda: sleeper._running, "a thread that sleeps")
        asleep.wait()  # nobody gives up before all wait
        return granted_within(sleeper, 0.01)

    def start(run: Callable[..., object], arguments: tuple[object, ...]) -> int:
        started.append(run)
        return real(run, arguments)

    def wait_together() -> None:
        waiters = [LockFile(str(path)) for _ in range(3)]
        for waiter in waiters:
            waiter.fd = waiter._opened()
        late = time.monotonic() + 600
        threads = [
            threading.Thread(target=lambda w=waiter: w._sleep(LOCK_EX, late) or w.drop())
            for waiter in waiters
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with flock_holder(path):
        monkeypatch.setattr(lock_file._thread, "start_new_thread", start)
        monkeypatch.setattr(lock_file._Sleeper, "granted_within", together)
        wait_together()
        assert len(started) == 3
        wait_together()
        assert len(started) == 3
    until(lambda: not lock_file._open, "every descriptor closed")
    assert not lock_file._idle


@needs_proc_locks
@pytest.mark.usefixtures("_every_wait_sleeps")
def test_readers_and_writers_that_left_their_waits_sleep_apart_and_all_let_go(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    with flock_holder(path):
        for sleepers, operation in ((1, LOCK_EX), (2, LOCK_SH), (2, LOCK_EX), (2, LOCK_SH)):
            assert not LockFile(str(path)).take(operation, time.monotonic() + 0.02)
            until(lambda n=sleepers: len(flock_waiters(path)) >= n, "its sleep in the kernel")
        assert len(flock_waiters(path)) == 2
    until(lambda: not lock_file._open, "every descriptor closed")
    assert not lock_file._idle
    assert not locked_elsewhere(path)


@needs_proc_locks
@pytest.mark.usefixtures("_every_wait_sleeps")
def test_a_left_wait_on_a_replaced_file_is_not_taken_for_one_on_the_new(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with flock_holder(path):
        assert not LockFile(str(path)).take(LOCK_EX, time.monotonic() + 0.02)
        path.rename(tmp_path / "moved")
        with flock_holder(path) as holder:
            threading.Timer(0.05, holder.tell).start()
            file = LockFile(str(path))
            assert file.take(LOCK_EX, time.monotonic() + 60)
            assert locked_elsewhere(path)
            file.drop()
    until(lambda: not lock_file._open, "every descriptor closed")


def test_without_a_thread_to_spare_a_wait_is_an_error_and_nothing_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    path = tmp_path / "lock"
    with flock_holder(path):
        monkeypatch.setattr(lock_file._thread, "start_new_thread", refuse)
        with pytest.raises(StoreUnavailable, match="no OS thread"):
            LockFile(str(path)).take(LOCK_EX, time.monotonic() + 60)
        assert not lock_file._open


def test_a_system_without_flock_and_fork_imports_all_and_locks_by_fasteners(
    tmp_path: Path,
) -> None:
    with python(WINDOWS, tmp_path) as child:
        assert child.line() == "b'new' None"
        assert child.line() == "None"
        assert child.line() == "None False"


def test_taking_the_lock_imports_nothing_heavy(tmp_path: Path) -> None:
    with python(LIGHT, tmp_path, ROOT / "heddle_registry") as child:
        assert child.line() == "__future__ errno fcntl"


@pytest.mark.parametrize(("rounds", "is_had"), [(1, True), (2, True), (3, False)])
def test_a_lock_file_that_comes_and_goes_is_tried_for_three_times(
    rounds: int, is_had: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between the two looks of a round somebody makes it, before the next somebody removes it.
    races = [FileNotFoundError(2, "not there"), FileExistsError(17, "there now")] * rounds
    real = lock_file.open_lock

    def racing(path: str, **how: bool) -> int:
        if races:
            raise races.pop(0)
        return real(path, **how)

    monkeypatch.setattr(lock_file, "open_lock", racing)
    lock = LockFile(str(tmp_path / ".lock"))
    try:
        if is_had:
            assert lock.take(LOCK_EX, 0.0)
        else:
            with pytest.raises(StoreUnavailable):
                lock.take(LOCK_EX, 0.0)
    finally:
        lock.drop()
    assert races == []
