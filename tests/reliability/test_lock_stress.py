"""Many processes and threads at one lock, with strangers and kills among them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from heddle_registry.adapters.flock import DirectoryLock
from tests.process_helpers import needs_flock_command, python

if TYPE_CHECKING:
    from pathlib import Path

# Reads a number, lets everybody else run, and writes it back plus one: two at once lose a count.
# `inside` is made exclusively and removed again, so an overlap is also an error where it happens.
WORKER = """if True:
    import os, sys, threading, time
    from heddle_registry.adapters.flock import DirectoryLock
    folder, threads, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    lock = DirectoryLock(folder)
    failures = []
    def work():
        try:
            for _ in range(turns):
                with lock.held(60):
                    fd = os.open(folder + "/inside", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                    with open(folder + "/count") as file:
                        count = int(file.read())
                    time.sleep(0)
                    with open(folder + "/count", "w") as file:
                        file.write(str(count + 1))
                    os.close(fd)
                    os.unlink(folder + "/inside")
        except BaseException as error:
            failures.append(error)
    print("ready", flush=True)
    sys.stdin.readline()
    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    print(failures or "fine", flush=True)
    """

STRANGER = """
for i in $(seq "$2"); do
    flock "$1/.lock" sh -c '
        set -C; : > "$0/inside" || exit 9
        n=$(cat "$0/count"); rm "$0/count"; echo $((n + 1)) > "$0/count"; rm "$0/inside"
    ' "$1" || exit
done
"""


@needs_flock_command
def test_no_count_is_lost_among_processes_threads_and_the_flock_command(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    processes, threads, turns, strangers_turns = 4, 3, 40, 60
    with ExitStack() as stack:
        workers = [
            stack.enter_context(python(WORKER, tmp_path, threads, turns)) for _ in range(processes)
        ]
        for worker in workers:
            assert worker.line(60) == "ready"
        for worker in workers:
            worker.tell()
        stranger = subprocess.run(
            ["sh", "-c", STRANGER, "sh", str(tmp_path), str(strangers_turns)], check=False
        )
        assert [worker.line(60) for worker in workers] == ["fine"] * processes
    assert stranger.returncode == 0
    count = int((tmp_path / "count").read_text())
    assert count == processes * threads * turns + strangers_turns


GREEDY = """if True:
    import os, sys, time
    from heddle_registry.adapters.flock import DirectoryLock
    folder, all_turns = sys.argv[1], int(sys.argv[2])
    lock = DirectoryLock(folder)
    log = os.open(folder + "/log", os.O_WRONLY | os.O_APPEND)
    print("ready", flush=True)
    sys.stdin.readline()
    has_had_it = False
    while True:
        with lock.held(60):
            if os.path.exists(folder + "/counts") and os.fstat(log).st_size >= all_turns:
                break
            os.write(log, sys.argv[3].encode())
            time.sleep(0.001)
        if not has_had_it:
            has_had_it = True
            print("had it", flush=True)
    print("done", flush=True)
    """


def test_no_process_starves_while_others_take_the_lock_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    turns = 900
    with ExitStack() as stack:
        workers = [stack.enter_context(python(GREEDY, tmp_path, turns, name)) for name in "abcdef"]
        for worker in workers:
            assert worker.line(60) == "ready"
        for worker in workers:
            worker.tell()
        # Whoever the machine let come last had no part in what was before.
        assert {worker.line(60) for worker in workers} == {"had it"}
        with DirectoryLock(str(tmp_path)).held(60):
            os.truncate(tmp_path / "log", 0)
            (tmp_path / "counts").touch()
        assert {worker.line(60) for worker in workers} == {"done"}
    log = (tmp_path / "log").read_text()
    # Polling gave one process 1 turn in 1,048. The kernel's queue gives each about a sixth, and
    # on a machine with several times more work than cores still a twentieth.
    assert min(log.count(name) for name in "abcdef") > turns / 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_killed_holders_and_waiters_leave_the_lock_to_the_next(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    choices = random.Random(seed)
    lock = DirectoryLock(str(tmp_path))
    with lock.held():
        pass

    def start() -> int:
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    with lock.held(30 if os.getpid() % 2 else None):
                        pass
            finally:
                os._exit(1)
        return pid

    running = [start() for _ in range(3)]
    kills = 0
    deadline = time.monotonic() + 2.0
    try:
        while time.monotonic() < deadline:
            time.sleep(choices.random() * 0.005)
            victim = running.pop(choices.randrange(len(running)))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            kills += 1
            with lock.held(60):  # the kernel freed it, or one of the others passes it on
                pass
            running.append(start())
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert lock.acquire(blocking=False), f"seed {seed}, {kills} kills"
    lock.release()
