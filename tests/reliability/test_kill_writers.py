"""A thousand SIGKILLs of writers: nothing damaged, nothing acknowledged lost, nothing left over."""

from __future__ import annotations

import contextlib
import io
import os
import random
import select
import signal
import sys
import time
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry import AgentEntry, AgentRegistry, AgentStatus, Reserved
from heddle_registry.__main__ import main
from heddle_registry.beat import beat
from heddle_registry.core.transaction import Keys
from heddle_registry.ports.query import Query
from heddle_registry.registry.attempt import Terms
from tests.process_helpers import forks_with_threads, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KILLS = 1_000
WRITERS = 4
AT_ONCE = 2
THREADS = ("one", "two")

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system"),
    forks_with_threads,
]


def building(registry: AgentRegistry, thread: str) -> Callable[[str], AgentEntry]:
    return lambda new: AgentEntry(
        session_id=new,
        thread=thread,
        base_state="b",
        started_at=registry.host.now().at,
        status=AgentStatus.ACTIVE,
        pid=os.getpid(),
    )


def write(heddle_dir: Path, say: Callable[..., None], rounds: int = 1_000_000) -> None:
    """Go through all doors; tell of each change when it was acknowledged, never before."""
    registry = AgentRegistry(heddle_dir, lock_timeout_s=60)
    choices = random.Random(os.getpid())
    for _ in range(rounds):
        thread = choices.choice(THREADS)
        outcome = registry.try_reserve_thread(thread, building(registry, thread))
        if isinstance(outcome, Reserved):
            session_id = outcome.entry.session_id
            say("fence", thread, outcome.fence)
            registry.heartbeat(session_id, outcome.token)
            registry.update_entry(session_id, lambda e: attrs.evolve(e, harness="told"))
            say("told", session_id)
            registry.release(session_id, token=outcome.token)
            say("ended", session_id)
        made = registry.create_generated_entry(building(registry, "presence"))
        say("made", made.session_id)
        registry.update_status(made.session_id, "complete")
        say("ended", made.session_id)
        if choices.random() < 0.9:
            registry.delete(made.session_id)
            say("deleted", made.session_id)


class Writers:
    """Processes at work on one folder, and what they were acknowledged."""

    def __init__(self, heddle_dir: Path) -> None:
        self._dir = heddle_dir
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._reads, False)
        self._unread = b""
        self._pids: list[int] = []
        self.fences: dict[str, int] = {}
        self.entries: dict[str, str] = {}
        self.said = 0

    def start(self) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                write(self._dir, self._say)
            finally:
                os._exit(7)  # it was to be killed
        self._pids.append(pid)

    def _say(self, *words: object) -> None:
        os.write(self._writes, (" ".join(map(str, words)) + "\n").encode())

    def kill(self, at: int) -> None:
        pid = self._pids.pop(at)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "a writer failed by itself"

    def wait_for_word(self) -> None:
        assert select.select([self._reads], [], [], 60)[0], "nobody writes any more"

    def hear(self) -> None:
        try:
            while part := os.read(self._reads, 1 << 16):
                self._unread += part
        except BlockingIOError:
            pass
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            what, name, *number = line.decode().split()
            self.said += 1
            if what == "fence":
                assert int(number[0]) > self.fences.get(name, 0), "a fence was given twice"
                self.fences[name] = int(number[0])
            else:
                self.entries[name] = what

    def end(self) -> None:
        while self._pids:
            self.kill(0)
        self.hear()
        os.close(self._reads)
        os.close(self._writes)


def check(heddle_dir: Path, writers: Writers) -> None:
    registry = AgentRegistry(heddle_dir, lock_timeout_s=60)
    look = registry.look(Query(include_stale=True))
    assert look.problems == ()
    found = {entry.session_id: entry for entry in look.entries}
    for session_id, told in writers.entries.items():
        entry = found.get(session_id)
        match told:
            case "made":
                assert entry is not None, "lost"
            case "told":
                assert entry is not None, "lost"
                assert entry.harness == "told"
            case "ended":
                # It may have been deleted, and its writer killed before it could say so.
                assert entry is None or entry.status is AgentStatus.COMPLETE
            case "deleted":
                assert entry is None, "it came back"
    claims = registry.store.peek(Keys(threads=THREADS))[0].claims
    for thread, fence in writers.fences.items():
        assert claims[thread].fence >= fence


def test_killed_writers_damage_nothing_and_lose_nothing(tmp_path: Path) -> None:
    heddle_dir = tmp_path / ".heddle"
    seed = random.randrange(1 << 32)
    print("seed", seed)
    choices = random.Random(seed)
    writers = Writers(heddle_dir)
    write(heddle_dir, lambda *_: None, rounds=3)  # so that no child spends its life on imports
    try:
        for _ in range(WRITERS):
            writers.start()
        for number in range(KILLS // AT_ONCE):
            if number % 2:
                writers.wait_for_word()  # on a slow disk all would be killed before their first
            time.sleep(choices.random() * 0.02)
            for left in range(WRITERS, WRITERS - AT_ONCE, -1):
                writers.kill(choices.randrange(left))
            writers.hear()
            for _ in range(AT_ONCE):
                writers.start()
            if number % 100 == 50:
                registry = AgentRegistry(heddle_dir, lock_timeout_s=60)
                assert registry.look().problems == ()
    finally:
        writers.end()
    assert writers.said > KILLS / 10, "they came to write something"
    check(heddle_dir, writers)
    registry = AgentRegistry(heddle_dir)
    for thread in THREADS:
        last = registry.try_reserve_thread(thread, building(registry, thread))
        assert isinstance(last, Reserved), "all its writers are dead"
        assert last.fence > writers.fences[thread]
    assert list((heddle_dir / "tmp").iterdir()) == []
    agents = {path.suffix for path in (heddle_dir / "agents").iterdir() if path.is_file()}
    assert agents <= {"", ".toml"}
    check(heddle_dir, writers)


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, and nothing around it that a command would read."""
    for name in [name for name in os.environ if name.startswith("HEDDLE")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".heddle"


def renew(heddle_dir: Path, held: Reserved, say: Callable[[int], object]) -> None:
    """Renew without end by either way; tell, once it was acknowledged, when it began."""
    registry = AgentRegistry(heddle_dir, lock_timeout_s=60)
    session_id, token = held.entry.session_id, str(held.token)
    words = (session_id, "--token", token, "--heddle-dir", str(heddle_dir))
    choices = random.Random(os.getpid())
    with contextlib.redirect_stdout(io.StringIO()):
        while True:
            began = registry.host.now().awake_ns
            if choices.random() < 0.3:
                registry.heartbeat(session_id, token)
            else:
                assert beat(words) == 0, "the quick one"
            say(began)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no quick heartbeat elsewhere")
def test_killed_renewals_leave_the_claim_whole_and_lose_none_that_was_acknowledged(
    plain: Path,
) -> None:
    registry = AgentRegistry(plain, lock_timeout_s=60)
    terms = Terms(ttl_s=600)
    held, _ = registry.reserve_on_terms("one", building(registry, "one"), terms)
    assert isinstance(held, Reserved)
    registry.heartbeat(held.entry.session_id, held.token)
    reads, writes = os.pipe()
    pids: list[int] = []
    told = 0
    try:
        for number in range(300):
            while len(pids) < 2:
                pid = os.fork()
                if pid == 0:
                    try:
                        renew(plain, held, lambda at: os.write(writes, b"%020d" % at))
                    finally:
                        os._exit(7)
                pids.append(pid)
            if number % 2:
                # On a slow disk all would be killed before they renewed anything.
                assert select.select([reads], [], [], 60)[0], "nobody renews any more"
            time.sleep(random.random() * 0.01)
            killed = pids.pop(0)
            os.kill(killed, signal.SIGKILL)
            assert os.WIFSIGNALED(os.waitpid(killed, 0)[1]), "a renewal failed by itself"
            newest = 0
            while select.select([reads], [], [], 0)[0]:
                newest = max(newest, int(os.read(reads, 20)))
                told += 1
            claim = registry.store.peek(Keys(threads=("one",)))[0].claims["one"]
            assert claim.holder is not None
            assert claim.holder.session_id == held.entry.session_id
            assert claim.fence == held.fence
            assert claim.holder.renewed_at.awake_ns >= newest, "an acknowledged one is lost"
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(reads)
        os.close(writes)
    assert told > 100, "they came to renew something"
    assert registry.look().problems == ()
    registry.release(held.entry.session_id, token=held.token)
    assert list((plain / "tmp").iterdir()) == []


def test_a_killed_runner_leaves_the_branch_to_its_command_and_then_to_anybody(
    plain: Path,
) -> None:
    registry = AgentRegistry(plain, lock_timeout_s=60)
    with registry.reserve("one"):
        pass
    fence, refused, never_up = 1, 0, 0

    def granted() -> Reserved | None:
        found = registry.try_reserve_thread("one", building(registry, "one"))
        return found if isinstance(found, Reserved) else None

    for number in range(60):
        stdin, tell = os.pipe()
        hear, stdout = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(tell)
                os.close(hear)
                os.dup2(stdin, 0)
                os.dup2(stdout, 1)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
                command = ("sh", "-c", "exec 3<&0; cat <&3 & echo up; wait")
                main(["run", "one", "--heddle-dir", str(plain), "--", *command])
            finally:
                os._exit(7)
        os.close(stdin)
        os.close(stdout)
        if number % 2:
            assert select.select([hear], [], [], 20)[0], "the command did not start"
        # At once every fourth time: on a quick machine the command is up in a moment.
        time.sleep(random.random() * (0.02 if number % 4 else 0))
        os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "the runner ended by itself"
        if select.select([hear], [], [], 0)[0] and os.read(hear, 3) == b"up\n":
            # What the command started waits for what it is told: nobody else may have the branch,
            # neither without the runner nor without the command itself.
            assert granted() is None, "two on one branch"
            holder = registry.store.peek(Keys(threads=("one",)))[0].claims["one"].holder
            assert holder is not None
            assert holder.owner is not None
            os.kill(holder.owner.pid, signal.SIGKILL)
            assert granted() is None, "two on one branch"
            refused += 1
        else:
            never_up += 1
        os.close(tell)
        while select.select([hear], [], [], 20)[0] and os.read(hear, 100):
            pass
        os.close(hear)
        taken = until(granted, "the branch's freedom")
        assert taken.fence > fence
        fence = taken.fence
        registry.release(taken.entry.session_id, token=taken.token)
        assert registry.look().problems == ()
    assert refused >= 30
    assert never_up, "some were killed before their command began"
    assert list((plain / "tmp").iterdir()) == []
