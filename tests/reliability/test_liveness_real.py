"""Who holds a branch, seen through real processes, forks and liveness files."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from heddle_registry import AgentRegistry, ClaimLost, LiveOwner, Reserved
from heddle_registry.adapters import line
from heddle_registry.explain import why_branch
from heddle_registry.registry.attempt import Terms
from heddle_registry.registry.scripting import build_entry, try_reserve
from tests.process_helpers import Fork, forks_with_threads, python, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not line.HAS_LINES, reason="no liveness locks on this system"),
    forks_with_threads,
]

# Says its pid and fence once it holds; does what it is told by lines.
HOLDER = """if True:
    import os, signal, subprocess, sys
    from heddle_registry import AgentRegistry
    registry = AgentRegistry(sys.argv[1])
    options = {"ttl_s": float(sys.argv[2])} if sys.argv[2:] else {}
    with registry.reserve("main", **options) as claim:
        print(os.getpid(), claim.fence, flush=True)
        for line in sys.stdin:
            if line == "fork\\n":
                pid = os.fork()
                if pid == 0:
                    print("forked", os.getpid(), flush=True)
                    signal.pause()  # what is said on stdin is for its parent
                    os._exit(0)
            elif line == "leave\\n":
                break
            elif line == "command\\n":
                command = subprocess.Popen(["sleep", "60"], close_fds=False)
                print("started", command.pid, flush=True)
    """


@pytest.fixture
def heddle_dir(tmp_path: Path) -> Path:
    return tmp_path / ".heddle"


@pytest.fixture
def registry(heddle_dir: Path) -> AgentRegistry:
    return AgentRegistry(heddle_dir, lock_timeout_s=30)


def attempt(registry: AgentRegistry) -> Reserved | LiveOwner:
    return try_reserve(registry, "main", terms=Terms(ttl_s=60.0))


def evidence(registry: AgentRegistry) -> list[str]:
    story = why_branch(registry, "main")
    assert story.verdict is not None
    return [one.code for one in story.verdict.evidence]


def live_file(heddle_dir: Path) -> Path:
    (path,) = (heddle_dir / "live").iterdir()
    return path


def test_a_killed_holder_frees_the_branch_at_once_and_even_as_a_zombie(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    for reaped in (False, True):
        with python(HOLDER, heddle_dir) as holder:
            pid, fence = map(int, holder.line().split())
            assert isinstance(attempt(registry), LiveOwner)
            assert evidence(registry)[0] == "lock_held"
            holder.send(signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            if reaped:
                holder.ends()
            assert not registry.check("main", fence).valid
            taken = attempt(registry)
            assert isinstance(taken, Reserved)
            registry.release(taken.entry.session_id, token=taken.token)


def opened(pid: int) -> list[str]:
    """Return what a process has open, which may be starting and closing files meanwhile."""
    links = []
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(entry.path))
    return links


def test_a_fork_inside_the_block_keeps_neither_lock_nor_branch(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    with python(HOLDER, heddle_dir) as holder:
        holder.line()
        holder.tell("fork")
        child = int(holder.line().split()[1])
        holder.tell("command")
        command = int(holder.line().split()[1])
        try:
            if os.path.isdir(f"/proc/{child}/fd"):
                for pid in (child, command):
                    assert not [link for link in opened(pid) if ".heddle/live" in link]
            holder.send(signal.SIGKILL)
            holder.ends()
            os.kill(child, 0)
            os.kill(command, 0)
            assert isinstance(attempt(registry), Reserved), "what it started is not the holder"
        finally:
            for pid in (child, command):
                os.kill(pid, signal.SIGKILL)


def held_by_a_fork(registry: AgentRegistry, owner_pid: int) -> tuple[Reserved, Any]:
    terms = Terms(owner=registry.owner_for(owner_pid), hold_liveness=True, inheritable=True)
    outcome, lock = registry.reserve_on_terms("main", build_entry(registry, "main"), terms)
    assert isinstance(outcome, Reserved)
    assert lock is not None
    return outcome, lock


def test_a_fork_that_was_to_inherit_the_lock_holds_the_branch_after_its_parents_death(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    # A runner's command, or what the command leaves behind in the background.
    asked, answer = os.pipe()

    def run() -> None:
        held, _lock = held_by_a_fork(registry, os.getpid())
        grandchild = os.fork()
        if grandchild == 0:
            signal.pause()
            os._exit(0)
        os.write(answer, f"{grandchild} {held.fence}\n".encode())
        signal.pause()

    with Fork(run) as runner:
        grandchild, fence = map(int, os.read(asked, 100).split())
        try:
            runner.kill()
            assert isinstance(attempt(registry), LiveOwner)
            assert evidence(registry)[:2] == ["lock_held", "exited"]
            assert registry.check("main", fence).valid
            if sys.platform.startswith("linux"):
                details = why_branch(registry, "main").verdict
                assert details is not None
                assert f"open in process {grandchild}" in [one.detail for one in details.evidence]
        finally:
            os.kill(grandchild, signal.SIGKILL)
        until(lambda: _granted(registry), "the branch to come free")
    os.close(asked)
    os.close(answer)


@pytest.mark.parametrize("deed", ["deleted", "replaced", "made unreadable"])
def test_without_its_liveness_file_the_process_itself_decides(
    registry: AgentRegistry, heddle_dir: Path, deed: str
) -> None:
    with python(HOLDER, heddle_dir) as holder:
        _, fence = map(int, holder.line().split())
        path = live_file(heddle_dir)
        if deed == "made unreadable":
            path.chmod(0)
        else:
            path.unlink()
        if deed == "replaced":
            path.write_text("a stranger's, and free")
        if deed != "made unreadable" or os.geteuid() != 0:
            assert isinstance(attempt(registry), LiveOwner), "a missing fact makes nobody dead"
            assert evidence(registry) == ["process"]
        assert registry.check("main", fence).valid
        holder.send(signal.SIGKILL)
        holder.ends()
        assert isinstance(attempt(registry), Reserved)


def test_a_stopped_holder_keeps_the_branch_and_one_past_its_ttl_loses_it(
    registry: AgentRegistry, heddle_dir: Path
) -> None:
    with python(HOLDER, heddle_dir) as stopped:
        stopped.line()
        stopped.send(signal.SIGSTOP)
        assert isinstance(attempt(registry), LiveOwner)
    with python(HOLDER, heddle_dir, 1) as stopped:
        _, fence = map(int, stopped.line().split())
        stopped.send(signal.SIGSTOP)
        session_id = registry.list()[0].session_id
        taken = until(lambda: _granted(registry), "the end of its TTL")
        assert taken.fence == fence + 1
        assert not registry.check("main", fence).valid
        old = registry.load(session_id)
        assert old is not None
        assert old.status.value == "abandoned"
        stopped.send(signal.SIGCONT)
        stopped.tell("leave")
        assert stopped.ends() != 0
        assert f"taken over by {taken.entry.session_id}" in stopped.complaint()
    assert registry.check("main", taken.fence).valid, "its end harms nobody else's claim"
    with pytest.raises(ClaimLost):
        registry.heartbeat(session_id, "guess")


def _granted(registry: AgentRegistry) -> Reserved | None:
    outcome = attempt(registry)
    return outcome if isinstance(outcome, Reserved) else None
