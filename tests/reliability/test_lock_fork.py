"""The lock and forks: a child never holds, never frees and never keeps alive its parent's lock."""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters import lock_file
from heddle_registry.adapters.flock import DirectoryLock, release_shared, try_shared
from heddle_registry.errors import LockTimeout
from tests.process_helpers import (
    Fork,
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
    from pathlib import Path

pytestmark = [
    forks_with_threads,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
]


def test_a_child_that_leaves_its_parents_with_block_does_not_free_the_parents_lock(
    tmp_path: Path,
) -> None:
    lock = DirectoryLock(str(tmp_path))

    def leave_both_blocks() -> bool:
        lock.release()
        lock.release()
        with pytest.raises(RuntimeError):
            lock.release()  # a third one was never owed
        return lock.is_held

    with lock.held(), lock.held():
        assert in_fork(leave_both_blocks) is False
        assert locked_elsewhere(lock.path)
        assert lock.is_held
    assert not locked_elsewhere(lock.path)


def test_a_child_of_a_thread_that_held_nothing_owes_no_release(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    answers: list[str] = []

    def release() -> str:
        try:
            lock.release()
        except RuntimeError:
            return "it is not locked by this thread"
        return "released"

    with lock.held():
        other = threading.Thread(target=lambda: answers.append(in_fork(release)))
        other.start()
        other.join(60)
    assert answers == ["it is not locked by this thread"]


def test_a_child_starts_without_the_lock_and_can_take_it_after_its_parent(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    reads, writes = os.pipe()

    def compete() -> tuple[bool, int | None]:
        assert not lock.is_held
        assert lock.acquire(blocking=False) is False
        with pytest.raises(LockTimeout) as caught:
            lock.acquire(0.02)
        os.write(writes, b"!")
        return lock.acquire(60), caught.value.holder_pid

    with lock.held():
        child = Fork(compete)
        os.close(writes)
        refused = os.read(reads, 1)
    with child:
        holder = os.getpid() if os.path.exists("/proc/locks") else None
        assert child.answer() == (True, holder)
    os.close(reads)
    assert refused


@pytest.mark.parametrize("who", ["the holding thread", "another thread"])
def test_a_child_closes_the_descriptors_it_inherits(tmp_path: Path, who: str) -> None:
    lock = DirectoryLock(str(tmp_path))
    inherited: list[list[int]] = []

    def look() -> list[int]:
        inode = os.stat(lock.path).st_ino
        found = []
        for fd in range(3, os.sysconf("SC_OPEN_MAX")):
            try:
                if os.fstat(fd).st_ino == inode:
                    found.append(fd)
            except OSError:
                continue
        return found

    with lock.held():
        reader = try_shared(str(tmp_path / ".other"))
        if who == "the holding thread":
            inherited.append(in_fork(look))
        else:
            thread = threading.Thread(target=lambda: inherited.append(in_fork(look)))
            thread.start()
            thread.join(60)
        assert look()
        release_shared(reader or -1)
    assert inherited == [[]]


def test_a_descriptor_number_that_names_another_file_by_now_is_left_alone(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    lock.acquire()
    fd = next(iter(lock_file._open))
    os.close(fd)  # as a daemon does that closes all it finds
    stranger = os.open(tmp_path / "stranger", os.O_RDWR | os.O_CREAT)
    if stranger != fd:
        os.dup2(stranger, fd)
        os.close(stranger)

    def still_open() -> str:
        return os.readlink(f"/proc/self/fd/{fd}") if sys.platform == "linux" else str(os.fstat(fd))

    assert in_fork(still_open)
    lock.release()
    assert still_open()
    os.close(fd)


PARENT = """if True:
    import os, sys, threading, time
    from heddle_registry.adapters import lock_file
    from heddle_registry.adapters.flock import DirectoryLock
    how = sys.argv[2]
    lock = DirectoryLock(sys.argv[1])
    if how == "waits":
        threading.Thread(target=lambda: lock.acquire(60), daemon=True).start()
        print("waiting", os.getpid(), flush=True)
        sys.stdin.readline()
    else:
        lock.acquire()
    if "untracked" in how:
        lock_file._open.clear()
    def fork():
        child = os.fork()
        if child == 0:
            print("child", os.getpid(), flush=True)
            time.sleep(60)
            os._exit(0)
    if "thread" in how:
        threading.Thread(target=fork).start()
    else:
        fork()
    time.sleep(60)
"""


@needs_proc_locks
@pytest.mark.parametrize(
    "how",
    [
        "holds",
        "holds, another thread forks",
        "waits",
        pytest.param(
            "holds untracked", marks=pytest.mark.xfail(strict=True, raises=AssertionError)
        ),
    ],
)
def test_a_child_that_outlives_a_killed_parent_does_not_keep_the_lock(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / ".lock"
    orphan = 0
    with ExitStack() as stack:
        holder = stack.enter_context(flock_holder(path)) if how == "waits" else None
        parent = stack.enter_context(python(PARENT, tmp_path, how))
        try:
            if holder is not None:
                assert parent.line().startswith("waiting")
                until(lambda: flock_waiters(path), "the parent's wait")
                parent.tell()
            orphan = int(parent.line().split()[1])
            assert locked_elsewhere(path)
            parent.kill()
            if holder is not None:
                holder.kill()
            os.kill(orphan, 0)
            assert not locked_elsewhere(path)
        finally:
            if orphan:
                os.kill(orphan, 9)


def test_a_child_forked_behind_pythons_back_closes_and_does_not_unlock(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    libc = ctypes.PyDLL(None)  # keeps the GIL, runs no fork hooks: as an extension module may

    def leave_the_block() -> None:
        lock.release()

    with lock.held():
        with Fork(leave_the_block, fork=libc.fork) as child:
            child.answer()
        assert locked_elsewhere(lock.path)


def test_a_program_started_while_the_lock_is_held_does_not_inherit_it(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    lock.acquire()
    program = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        lock.release()
        fd = os.open(lock.path, os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)
        if sys.platform == "linux":
            inode = os.stat(lock.path).st_ino
            until(lambda: os.readlink(f"/proc/{program.pid}/exe").endswith("sleep"), "the exec")
            descriptors = f"/proc/{program.pid}/fd"
            assert all(
                os.stat(f"{descriptors}/{name}").st_ino != inode for name in os.listdir(descriptors)
            )
    finally:
        program.kill()
        program.wait(60)


def test_no_release_is_lost_while_another_thread_starts_programs(tmp_path: Path) -> None:
    lock = DirectoryLock(str(tmp_path))
    done = threading.Event()

    def start_programs() -> None:
        while not done.is_set():
            subprocess.run(["true"], check=True)

    thread = threading.Thread(target=start_programs)
    thread.start()
    try:
        refused = 0
        for _ in range(1500):
            refused += not lock.acquire(blocking=False)
            lock.release()
    finally:
        done.set()
        thread.join(60)
    assert refused == 0


def test_a_child_waits_for_itself_though_its_parent_once_waited_in_vain(tmp_path: Path) -> None:
    # The parent's sleeper stays behind, asleep in the kernel, for its next wait. In a child there
    # is no such thread, and nobody would wake it.
    lock = DirectoryLock(str(tmp_path))
    with flock_holder(lock.path) as holder:

        def wait_in_vain() -> list[int]:
            with pytest.raises(LockTimeout):
                lock.acquire(0.05)
            return flock_waiters(lock.path)

        until(wait_in_vain, "a sleeper of the parent's")

        def wait() -> bool:
            return lock.acquire(60)

        with Fork(wait) as child:
            until(lambda: len(flock_waiters(lock.path)) >= 2, "parent's sleeper and child's")
            holder.kill()
            assert child.answer() is True
