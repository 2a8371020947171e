"""The store's lock between OS threads, strangers and bad files; forks are in reliability/."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import subprocess
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import flock, lock_file
from heddle_registry.adapters.flock import DirectoryLock, release_shared, try_shared
from heddle_registry.errors import LockTimeout, LockUnsupported, StoreUnavailable
from tests.process_helpers import (
    as_nobody,
    flock_holder,
    flock_waiters,
    locked_elsewhere,
    needs_flock_command,
    needs_other_user,
    needs_proc_locks,
    public_folder,
    python,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WITH_LOCKF = SimpleNamespace(LOCK_NB=fcntl.LOCK_NB, LOCK_UN=fcntl.LOCK_UN, flock=fcntl.lockf)
WITHOUT_UNLOCK = SimpleNamespace(
    LOCK_NB=fcntl.LOCK_NB,
    LOCK_UN=fcntl.LOCK_UN,
    flock=lambda fd, operation: operation == fcntl.LOCK_UN or fcntl.flock(fd, operation),
)


@pytest.fixture(autouse=True)
def _planted_bugs_leave_nothing_behind() -> Iterator[None]:
    until(lambda: not lock_file._open, "the end of the waits that other tests left")
    yield
    for gate in flock._gates.values():
        if gate.file is not None:
            gate.file.drop()
    flock._gates.clear()


def planted(bug: object) -> object:
    """A variant with a bug that the test must catch."""
    return pytest.param(bug, marks=pytest.mark.xfail(strict=True, raises=AssertionError))


def in_thread(function: Callable[[], object]) -> object:
    answer: list[object] = []
    thread = threading.Thread(target=lambda: answer.append(function()))
    thread.start()
    thread.join(60)
    return answer[0]


@pytest.mark.parametrize("mechanism", [fcntl, planted(WITH_LOCKF)])
def test_a_plain_flock_and_the_lock_exclude_each_other_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: object
) -> None:
    monkeypatch.setattr(lock_file, "fcntl", mechanism)
    lock = DirectoryLock(str(tmp_path))
    with flock_holder(tmp_path / ".lock"):
        assert lock.acquire(blocking=False) is False
    with lock.held(60):
        assert locked_elsewhere(tmp_path / ".lock")
    assert not locked_elsewhere(tmp_path / ".lock")


def test_no_time_to_wait_is_none_on_a_machine_that_has_just_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = DirectoryLock(str(tmp_path))
    with flock_holder(tmp_path / ".lock"):
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        monkeypatch.setattr(lock_file, "_Sleeper", lambda *_: pytest.fail("it waits"))
        assert lock.acquire(blocking=False) is False
        with pytest.raises(LockTimeout) as caught:
            lock.acquire(0)
        assert caught.value.timeout_s == 0
        assert try_shared(lock.path, 0) is None


@pytest.mark.parametrize("left_s", [0.0, -5.0, 7.0])
def test_the_line_of_this_process_is_waited_in_for_as_long_as_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_s: float
) -> None:
    waits: list[tuple[object, ...]] = []
    lock = DirectoryLock(str(tmp_path))

    def turn() -> SimpleNamespace:
        return SimpleNamespace(acquire=lambda *given: waits.append(given), locked=lambda: False)

    def attempt() -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(flock._thread, "allocate_lock", turn)
            patched.setattr(time, "monotonic", lambda: 10.0)
            return bool(flock._gates[lock._key].enter(1, 10.0 + left_s))

    with lock.held():
        assert in_thread(attempt) is False
    assert waits == [(), (True, max(left_s, 0))]


def test_a_reader_waits_for_a_writer_at_most_twenty_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float | None] = []

    def take(_: lock_file.LockFile, operation: int, deadline: float | None) -> bool:
        assert operation == lock_file.LOCK_SH
        deadlines.append(deadline)
        return False

    monkeypatch.setattr(lock_file.LockFile, "take", take)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    assert try_shared(str(tmp_path / ".lock")) is None
    assert deadlines == [5.02]


@needs_flock_command
def test_the_flock_command_waits_for_the_lock(tmp_path: Path) -> None:
    command = ["flock", "--nonblock", str(tmp_path / ".lock"), "true"]
    with DirectoryLock(str(tmp_path)).held():
        assert subprocess.run(command, check=False).returncode == 1
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize("mechanism", [fcntl, planted(WITHOUT_UNLOCK)])
def test_a_release_frees_the_lock_although_a_child_before_exec_has_a_copy_of_the_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mechanism: object
) -> None:
    monkeypatch.setattr(lock_file, "fcntl", mechanism)
    lock = DirectoryLock(str(tmp_path))
    lock.acquire()
    copy = os.dup(next(iter(lock_file._open)))
    lock.release()
    try:
        assert not locked_elsewhere(tmp_path / ".lock")
    finally:
        os.close(copy)


def test_the_holding_thread_gets_the_lock_again_and_owes_as_many_releases(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    assert lock.acquire()
    assert lock.acquire(timeout_s=0)
    assert lock.acquire(blocking=False) is False  # as the Rust tool's try_write
    lock.release()
    assert lock.is_held
    assert locked_elsewhere(lock.path)
    lock.release()
    assert not lock.is_held
    assert not locked_elsewhere(lock.path)
    with pytest.raises(RuntimeError, match="not locked by this thread"):
        lock.release()


def test_every_spelling_of_the_folder_is_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "alias").symlink_to("agents")
    monkeypatch.chdir(tmp_path)
    with DirectoryLock(str(tmp_path / "agents")).held():
        for spelling in ("alias", "agents/../alias/", "./agents"):
            with DirectoryLock(spelling).held(0):  # a second flock would wait for the first
                assert in_thread(lambda: DirectoryLock("agents").acquire(blocking=False)) is False


def test_another_thread_is_refused_and_told_that_this_process_holds_it(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))

    def attempt() -> tuple[bool, int | None]:
        assert lock.acquire(blocking=False) is False
        with pytest.raises(LockTimeout) as caught:
            lock.acquire(timeout_s=0.02)
        with pytest.raises(RuntimeError):
            lock.release()
        return lock.is_held, caught.value.holder_pid

    with lock.held():
        held, pid = in_thread(attempt)  # type: ignore[misc]
        assert not held
        assert pid == (os.getpid() if os.path.exists("/proc/locks") else None)
    assert in_thread(lambda: lock.acquire(blocking=False) and lock.release() is None)


def test_threads_get_the_lock_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    order: list[int] = []

    def wait(number: int) -> None:
        with lock.held(60 if number % 2 else None):
            order.append(number)

    threads = []
    with lock.held():
        gate = flock._gates[lock._key]
        for number in range(6):
            threads.append(threading.Thread(target=wait, args=(number,)))
            threads[-1].start()
            until(lambda n=number: len(gate.queue) == n + 1, "a queued thread")
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3, 4, 5]


@needs_proc_locks
def test_a_timeout_names_the_holder_and_leaves_nothing_held(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    with flock_holder(tmp_path / ".lock") as holder:
        for timeout_s in (0, 0.05):
            with pytest.raises(LockTimeout) as caught:
                lock.acquire(timeout_s)
            assert caught.value.holder_pid == holder.pid
            assert caught.value.timeout_s == timeout_s
            assert str(holder.pid) in str(caught.value)
            assert not lock.is_held
    until(lambda: not locked_elsewhere(lock.path), "the abandoned wait's end")
    until(lambda: not lock_file._open, "no descriptor left open")
    assert not lock_file._idle


@needs_proc_locks
def test_waits_that_time_out_again_and_again_share_one_sleeping_thread(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))

    def in_vain() -> list[int]:
        with pytest.raises(LockTimeout):
            lock.acquire(0.005)
        return flock_waiters(lock.path)

    with flock_holder(tmp_path / ".lock") as holder:
        until(in_vain, "a thread that came to sleep before its wait was over")
        for _ in range(10):
            assert in_vain() == [os.getpid()]
        # The next waiter inherits the place in the kernel's line, and the grant.
        threading.Timer(0.05, holder.tell).start()
        with lock.held(60):
            assert locked_elsewhere(lock.path)
    assert not lock_file._idle
    assert not locked_elsewhere(lock.path)


@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_a_wait_asks_the_kernel_twice_however_long_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None
) -> None:
    asked = []

    def counted(fd: int, operation: int) -> None:
        asked.append(operation)
        if operation == fcntl.LOCK_EX:
            threading.Timer(0.2, holder.tell).start()
        fcntl.flock(fd, operation)

    monkeypatch.setattr(
        lock_file,
        "fcntl",
        SimpleNamespace(LOCK_NB=fcntl.LOCK_NB, LOCK_UN=fcntl.LOCK_UN, flock=counted),
    )
    with flock_holder(tmp_path / ".lock") as holder:
        DirectoryLock(str(tmp_path)).acquire(timeout_s)
    assert asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    DirectoryLock(str(tmp_path)).release()


@needs_proc_locks
@pytest.mark.parametrize("timeout_s", [None, 30.0])
def test_an_interrupt_ends_the_wait_and_leaves_nothing_held(
    tmp_path: Path, timeout_s: float | None
) -> None:
    code = f"""if True:
        import sys
        from heddle_registry.adapters.flock import DirectoryLock
        lock = DirectoryLock(sys.argv[1])
        try:
            lock.acquire({timeout_s})
        except KeyboardInterrupt:
            print("interrupted", lock.is_held, flush=True)
        sys.stdin.readline()
        with lock.held(60):
            print("works again", flush=True)
        """
    path = tmp_path / ".lock"
    with flock_holder(path) as holder, python(code, tmp_path) as waiter:
        until(lambda: flock_waiters(path), "the waiter's sleep")
        waiter.send(signal.SIGINT)
        assert waiter.line() == "interrupted False"
        holder.kill()
        until(lambda: not locked_elsewhere(path), "the abandoned wait's end")
        waiter.tell()
        assert waiter.line() == "works again"


@needs_proc_locks
def test_a_signal_handler_on_top_of_a_wait_is_refused_instead_of_hanging(tmp_path: Path) -> None:
    code = """if True:
        import signal, sys
        from heddle_registry.adapters.flock import DirectoryLock
        from heddle_registry.errors import LockTimeout
        lock = DirectoryLock(sys.argv[1])
        def handler(number, frame):
            try:
                lock.acquire(5)
            except LockTimeout as error:
                print("refused after", error.timeout_s, "s", flush=True)
        signal.signal(signal.SIGUSR1, handler)
        with lock.held():
            print("held", flush=True)
        """
    path = tmp_path / ".lock"
    with flock_holder(path) as holder, python(code, tmp_path) as waiter:
        until(lambda: flock_waiters(path), "the waiter's sleep")
        waiter.send(signal.SIGUSR1)
        assert waiter.line() == "refused after 0.0 s"
        holder.kill()
        assert waiter.line() == "held"


def test_a_look_that_is_refused_leaves_no_descriptor_open(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with flock_holder(path):
        before = dict(lock_file._open)
        for _ in range(3):
            assert try_shared(str(path), wait_s=0) is None
        assert lock_file._open == before


@needs_proc_locks
def test_a_look_of_our_own_that_keeps_us_out_is_not_told_as_another_holder(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    with lock.held():
        pass
    look = try_shared(lock.path)
    assert look is not None
    with pytest.raises(LockTimeout) as caught:
        lock.acquire(0.05)
    release_shared(look)
    assert caught.value.holder_pid is None


@needs_proc_locks
def test_a_lock_file_replaced_during_the_wait_is_let_go_for_the_new_one(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    with flock_holder(lock.path) as holder:
        old = os.open(lock.path, os.O_RDWR)
        thread = threading.Thread(target=lambda: lock.acquire(60) and lock.release())
        thread.start()
        until(lambda: flock_waiters(lock.path), "the waiter's sleep")
        os.rename(lock.path, tmp_path / "moved")
        with flock_holder(lock.path) as newcomer:
            holder.kill()
            until(lambda: flock_waiters(lock.path), "the waiter's move to the new file")
            newcomer.tell()
            thread.join(60)
        assert not thread.is_alive()
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(old)


def test_what_others_keep_in_the_lock_file_stays(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("not ours")
    with DirectoryLock(str(tmp_path)).held():
        pass
    assert (tmp_path / ".lock").read_text() == "not ours"


def test_a_link_in_the_locks_place_is_refused_and_its_target_not_made(tmp_path: Path) -> None:
    (tmp_path / ".lock").symlink_to(tmp_path / "target")
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        DirectoryLock(str(tmp_path)).acquire()
    assert not (tmp_path / "target").exists()
    (tmp_path / "target").touch()
    with pytest.raises(StoreUnavailable, match="symbolic link"):
        DirectoryLock(str(tmp_path)).acquire()
    assert try_shared(str(tmp_path / ".lock")) is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_fifo_or_folder_in_the_locks_place_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / ".lock")
    with pytest.raises(StoreUnavailable):
        DirectoryLock(str(tmp_path)).acquire()
    assert try_shared(str(tmp_path / ".lock")) is None
    assert not lock_file._open


def test_a_missing_folder_is_made_by_the_caller_or_reported(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "agents"
    with pytest.raises(StoreUnavailable) as caught:
        DirectoryLock(str(folder)).acquire()
    assert caught.value.errno == errno.ENOENT
    assert not folder.parent.exists()
    with DirectoryLock(str(folder), make_dir=lambda: folder.mkdir(parents=True)).held():
        assert (folder / ".lock").exists()


@pytest.mark.parametrize(
    ("folder_mode", "file_mode"), [(0o700, 0o600), (0o755, 0o640), (0o2770, 0o660)]
)
def test_a_new_lock_file_gets_the_folders_policy_whatever_the_umask(
    tmp_path: Path, folder_mode: int, file_mode: int
) -> None:
    tmp_path.chmod(folder_mode)
    before = os.umask(0o077)
    try:
        with DirectoryLock(str(tmp_path)).held():
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == file_mode


@needs_other_user
def test_a_folder_of_another_user_is_an_error_that_names_the_owner() -> None:
    with public_folder() as folder:

        def attempt() -> tuple[int | None, str]:
            with pytest.raises(StoreUnavailable) as caught:
                DirectoryLock(str(folder)).acquire()
            return caught.value.errno, caught.value.hint

        for _ in range(2):  # without a lock file, then with one that only its owner may write
            code, hint = as_nobody(attempt)
            assert code == errno.EACCES
            assert "belongs to root" in hint
            (folder / ".lock").touch(0o644)


@pytest.mark.parametrize(
    "code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF]
)
def test_a_file_system_that_does_not_lock_is_refused_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(_fd: int, _operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_file, "fcntl", SimpleNamespace(**vars(WITH_LOCKF) | {"flock": refuse}))
    lock = DirectoryLock(str(tmp_path))
    with pytest.raises(LockUnsupported, match="cannot be locked"):
        lock.acquire(1)
    assert try_shared(lock.path) is None
    assert not lock.is_held
    assert not lock_file._open


def test_readers_share_the_lock_and_writers_wait_for_them(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    assert try_shared(lock.path) is None  # no lock file: a look makes none
    assert not (tmp_path / ".lock").exists()
    with lock.held():
        assert in_thread(lambda: try_shared(lock.path)) is None
        assert try_shared(lock.path, wait_s=3600) is None  # never waits for itself
    first, second = try_shared(lock.path), try_shared(lock.path)
    assert first is not None
    assert second is not None
    assert lock.acquire(blocking=False) is False
    release_shared(first)
    release_shared(second)
    with lock.held(60):
        assert locked_elsewhere(lock.path, shared=True)


@needs_proc_locks
def test_a_reader_gets_the_lock_as_soon_as_the_writer_passes(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with flock_holder(path) as holder:
        got: list[int | None] = []
        thread = threading.Thread(target=lambda: got.append(try_shared(str(path), 60)))
        thread.start()
        until(lambda: flock_waiters(path), "the reader's sleep")
        holder.tell()
        thread.join(60)
    assert got[0] is not None
    release_shared(got[0])
    assert not locked_elsewhere(path)


@needs_other_user
def test_a_reader_needs_no_write_permission() -> None:
    with public_folder() as folder:
        (folder / ".lock").touch(0o644)

        def look() -> bool:
            fd = try_shared(str(folder / ".lock"))
            try:
                return fd is not None and locked_by_a_reader(fd)
            finally:
                release_shared(fd or -1)

        def locked_by_a_reader(fd: int) -> bool:
            return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY

        assert as_nobody(look)
        (folder / ".lock").chmod(0o600)
        assert as_nobody(lambda: try_shared(str(folder / ".lock"))) is None
