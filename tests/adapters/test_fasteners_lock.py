"""fasteners' interface to the store's lock, and fasteners' mechanism under the store's gate."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import fasteners
import pytest

from heddle_registry.adapters import flock
from heddle_registry.adapters.fasteners_lock import FlockLock, MechanismFile
from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.errors import LockTimeout, StoreUnavailable
from tests.process_helpers import flock_holder, locked_elsewhere, python, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def refused_in_another_thread(attempt: Callable[[], bool]) -> bool:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(attempt()))
    thread.start()
    thread.join(60)
    return answers == [False]


@pytest.mark.parametrize(
    "kind",
    [
        FlockLock,
        pytest.param(
            fasteners.InterProcessLock,
            marks=pytest.mark.xfail(strict=True, raises=AssertionError, reason="takes lockf"),
        ),
    ],
)
def test_a_holder_of_a_plain_flock_excludes_it_and_it_excludes_threads(
    tmp_path: Path, request: pytest.FixtureRequest, kind: type[fasteners.InterProcessLock]
) -> None:
    lock, other = kind(tmp_path / ".lock"), kind(tmp_path / ".lock")
    for made in (lock, other):  # fasteners keeps its file open when the test below it fails
        request.addfinalizer(lambda made=made: made.lockfile and made.lockfile.close())
    with flock_holder(tmp_path / ".lock"):
        assert lock.acquire(timeout=0.02) is False
        assert lock.acquire(blocking=False) is False
        assert not lock.acquired
    with lock:
        assert lock.acquired
        assert lock.exists()
        assert refused_in_another_thread(lambda: other.acquire(blocking=False))
    assert not lock.acquired
    until(lambda: not locked_elsewhere(tmp_path / ".lock"), "the wait that timed out to let go")


def test_it_is_the_stores_own_lock_and_makes_missing_folders(tmp_path: Path) -> None:
    lock = FlockLock(tmp_path / "deep" / "agents" / ".lock")
    assert lock.acquire()
    assert lock.acquire(timeout=1)
    lock.release()
    store = DirectoryLock(str(tmp_path / "deep" / "agents"))
    assert store.is_held
    assert lock.acquired
    lock.release()
    assert not lock.acquired
    with pytest.raises(RuntimeError):
        lock.release()
    with pytest.raises(ValueError, match="Timeout"):
        lock.acquire(timeout=-1)


def test_trylock_and_unlock_are_the_mechanism_that_fasteners_asks_for(tmp_path: Path) -> None:
    lock = FlockLock(tmp_path / ".lock")
    lock.trylock()
    assert locked_elsewhere(tmp_path / ".lock")
    with pytest.raises(BlockingIOError):
        lock.trylock()
    lock.unlock()
    assert not locked_elsewhere(tmp_path / ".lock")


HOLDER = """if True:
    import sys, fasteners
    with fasteners.InterProcessLock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.readline()
    """


def test_without_flock_the_gate_stands_before_fasteners_own_mechanism(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flock, "_HAS_FLOCK", False)
    folder = tmp_path / "agents"
    lock = DirectoryLock(str(folder), make_dir=folder.mkdir)
    with lock.held(), lock.held(0):
        assert refused_in_another_thread(lambda: lock.acquire(blocking=False))
    with python(HOLDER, lock.path) as holder:
        assert holder.line() == "held"
        assert lock.acquire(blocking=False) is False
        with pytest.raises(LockTimeout):
            lock.acquire(0.05)
        holder.tell()
        with lock.held(60):
            assert lock.is_held
    assert flock.try_shared(lock.path) is None


def test_a_mechanism_that_cannot_open_its_file_is_the_stores_error(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    file = MechanismFile(str(tmp_path / "lock"))
    with pytest.raises(StoreUnavailable):
        file.take(0, time.monotonic())
    file.drop()
