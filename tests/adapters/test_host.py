from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry.adapters.host import MAX_ANCESTORS, LocalHost
from heddle_registry.adapters.procfs import Procfs
from heddle_registry.adapters.psutil_host import PsutilMachine
from heddle_registry.core.evidence import ProcessState, Subject, VerdictKind, judge
from heddle_registry.errors import UsageError
from heddle_registry.ports.process import ProcessInfo
from heddle_registry.testing.fake_host import FakeHost
from tests.process_helpers import ROOT, in_fork, python, until

if TYPE_CHECKING:
    from pathlib import Path

    from heddle_registry.core.evidence import Owner
    from heddle_registry.ports import Host

MACHINES = [
    pytest.param(
        Procfs, marks=pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
    ),
    PsutilMachine,
]


@pytest.fixture(params=MACHINES)
def host(request: pytest.FixtureRequest) -> LocalHost:
    return LocalHost(request.param())


def verdict(host: Host, owner: Owner) -> tuple[VerdictKind, str]:
    judged = judge(
        Subject(session_id="a", owner=owner), host.observe(Subject(session_id="a", owner=owner))
    )
    return judged.kind, judged.evidence[0].code


WAITS = "import sys; print('up', flush=True); sys.stdin.readline()"


def test_an_owner_is_alive_while_it_runs_a_zombie_when_it_ended_and_gone_when_reaped(
    host: LocalHost,
) -> None:
    with python(WAITS) as child:
        assert child.line() == "up"
        owner = host.owner_for(child.pid)
        assert owner is not None
        assert owner.start_ticks is not None
        assert owner.command
        assert verdict(host, owner) == (VerdictKind.ALIVE, "process")
        os.kill(child.pid, 9)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert verdict(host, owner) == (VerdictKind.DEAD, "zombie")
        assert host.owner_for(child.pid) is None, "a zombie can own nothing"
        assert child.ends() == -9
    assert verdict(host, owner) == (VerdictKind.DEAD, "exited")
    assert host.owner_for(child.pid) is None


def test_two_looks_at_one_process_agree_and_two_processes_differ(host: LocalHost) -> None:
    mine, again = host.owner_for(os.getpid()), host.owner_for(os.getpid())
    assert mine is not None
    assert mine.is_same_process(again)
    assert not mine.is_same_process(host.owner_for(os.getppid()))


@pytest.mark.parametrize("pid", [0, -1, 2**31, 2**64])
def test_a_pid_that_can_belong_to_nobody_owns_nothing_and_breaks_nothing(
    host: LocalHost, pid: int
) -> None:
    assert host.owner_for(pid) is None
    seen = host.observe(Subject(session_id="a", pid=pid))
    # Zero is what a parent outside of a pid namespace is called: nobody knows how it is.
    assert seen.process is (ProcessState.HIDDEN if pid <= 0 else ProcessState.MISSING)
    assert seen.start_ticks is None


def test_ancestors_are_nearest_first_with_all_that_a_probe_asks_for(
    host: LocalHost, tmp_path: Path
) -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1], *sys.argv[2:]], check=True)\n"
    )
    look = (
        "import sys, os\n"
        "from heddle_registry.adapters.host import LocalHost\n"
        f"from {type(host._machine).__module__} import {type(host._machine).__name__} as Machine\n"
        "near, far, *rest = LocalHost(Machine()).ancestors()\n"
        "print(near.pid, far.pid, os.getpid() in [p.pid for p in rest], flush=True)\n"
        "print(near.argv[-1], os.path.samefile(near.exe, sys.executable), near.cwd, flush=True)\n"
        "print(near.ppid == far.pid and near.start_ticks >= far.start_ticks, flush=True)\n"
    )
    with python(code, look, "two words ) (", cwd=tmp_path) as child:
        # The grandchild writes to the same pipe.
        near, far, itself = child.line().split()
        assert (int(near), int(far), itself) == (child.pid, os.getpid(), "False")
        assert child.line() == f"two words ) ( True {tmp_path}"
        assert child.line() == "True"
        assert child.ends() == 0


def test_the_walk_to_the_root_is_bounded_and_survives_a_cycle() -> None:
    class Odd(Procfs):
        def __init__(self, parents: dict[int, int]) -> None:
            self.parents = parents

        def read(self, pid: int) -> ProcessInfo | None:
            ppid = self.parents.get(pid)
            return None if ppid is None else ProcessInfo(pid=pid, ppid=ppid, start_ticks=1)

    me = os.getpid()
    cycle = LocalHost(Odd({me: 10**7, 10**7: 10**7 + 1, 10**7 + 1: 10**7}))
    assert [info.pid for info in cycle.ancestors()] == [10**7, 10**7 + 1]
    endless = {10**7 + n: 10**7 + n + 1 for n in range(1_000)}
    assert len(LocalHost(Odd({me: 10**7, **endless})).ancestors()) == MAX_ANCESTORS


def test_an_ancestor_that_started_after_its_child_is_another_process_under_its_pid() -> None:
    class Reused(Procfs):
        def read(self, pid: int) -> ProcessInfo | None:
            return ProcessInfo(pid=pid, ppid=77, start_ticks=900 if pid == 77 else 100)

    assert LocalHost(Reused()).ancestors() == ()


def test_all_processes_are_listed_without_the_dead(host: LocalHost) -> None:
    with python(WAITS) as child, python("") as dead:
        assert child.line() == "up"
        os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)
        pids = {info.pid for info in host.processes()}
        assert {os.getpid(), child.pid} <= pids
        assert dead.pid not in pids


def test_the_awake_clock_goes_on_and_both_clocks_count_the_same_boot(host: LocalHost) -> None:
    earlier, later = host.now(), host.now()
    assert later.awake_ns >= earlier.awake_ns
    elapsed_s, wall = later.seconds_since(earlier)
    assert 0 <= elapsed_s < 60
    assert wall == (earlier.boot_id == "")


def test_the_kernels_own_clock_needs_no_wall_clock() -> None:
    host = LocalHost()
    assert host.now().seconds_since(host.now())[1] is not sys.platform.startswith("linux")


def test_random_bytes_are_not_twice_the_same(host: LocalHost) -> None:
    assert len(host.random_bytes(20)) == 20
    assert host.random_bytes(20) != host.random_bytes(20)


def test_surroundings_are_copies_of_this_process_s_own(
    host: LocalHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_TEST_MARK", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    taken = host.environment()
    monkeypatch.setenv("HEDDLE_TEST_MARK", "2")
    assert taken["HEDDLE_TEST_MARK"] == "1"
    assert (host.home(), host.cwd(), host.own_pid()) == (str(tmp_path), str(tmp_path), os.getpid())


def test_a_removed_working_directory_keeps_its_last_name_or_is_a_clear_error(
    host: LocalHost, tmp_path: Path
) -> None:
    gone = tmp_path / "worktree"
    gone.mkdir()

    def lost() -> tuple[str, str]:
        os.chdir(gone)
        gone.rmdir()
        os.environ["PWD"] = str(gone)
        named = host.cwd()
        del os.environ["PWD"]
        try:
            host.cwd()
        except UsageError as error:
            return named, error.hint
        return named, "no error"

    assert in_fork(lost) == (str(gone), "Change to a folder that exists")


def test_a_process_is_the_same_after_the_clock_moved_the_boot_id_of_macos(host: LocalHost) -> None:
    # kern.boottime is "now less uptime": setting the clock changes it, and nobody restarted.
    class ClockSet(type(host._machine)):  # type: ignore[misc]
        boot_id_follows_clock = True

        def boot_id(self) -> str:
            return "{ sec = 2, usec = 0 }"

    moved = LocalHost(ClockSet())
    mine = host.owner_for(os.getpid())
    assert mine is not None
    before = attrs.evolve(mine, boot_id="{ sec = 1, usec = 0 }")
    assert verdict(moved, before) == (VerdictKind.ALIVE, "process")
    # Nothing but the very process proves that; another one under its pid was started after all.
    assert mine.start_ticks is not None
    other = attrs.evolve(before, start_ticks=mine.start_ticks - 1)
    assert verdict(moved, other) == (VerdictKind.DEAD, "rebooted")
    elsewhere = attrs.evolve(before, host="another")
    assert verdict(moved, elsewhere)[0] is VerdictKind.UNKNOWN


def test_importing_the_host_brings_no_heavy_library() -> None:
    code = (
        "import os, sys, time, heddle_registry; before = set(sys.modules)\n"
        "import heddle_registry.adapters.host, heddle_registry.adapters.procfs\n"
        "print(sorted(name for name in set(sys.modules) - before"
        " if not name.startswith('heddle_registry')))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert shown.stdout.decode().strip() == "[]"


def test_the_fake_host_answers_as_a_real_one_does() -> None:
    host: Host = FakeHost()
    assert isinstance(host, FakeHost)
    agent = host.spawn(["/usr/bin/claude", "--resume"])
    owner = host.owner_for(agent)
    assert owner is not None
    assert verdict(host, owner) == (VerdictKind.ALIVE, "process")
    host.hide(agent)
    assert verdict(host, owner) == (VerdictKind.UNKNOWN, "no_start_time")
    host.kill(agent, zombie=True)
    assert verdict(host, owner) == (VerdictKind.DEAD, "zombie")
    assert host.owner_for(agent) is None
    host.reap(agent)
    assert verdict(host, owner) == (VerdictKind.DEAD, "exited")
    host.reuse(agent)
    assert verdict(host, owner) == (VerdictKind.DEAD, "pid_reused")
    inner = host.in_namespace(pid_ns="inner")
    assert verdict(inner, owner) == (VerdictKind.UNKNOWN, "other_namespace")
    assert verdict(host.in_namespace(time_ns="later"), owner)[0] is VerdictKind.UNKNOWN
    assert verdict(host.other_machine(), owner) == (VerdictKind.UNKNOWN, "other_host")
    host.reboot()
    assert verdict(host, owner) == (VerdictKind.DEAD, "rebooted")


def test_the_fake_clocks_move_only_as_told() -> None:
    host, start = FakeHost(), FakeHost().now()
    assert host.now() == start
    host.advance(10)
    host.suspend(3_600)
    host.step_wall(-7_200)
    assert host.now().seconds_since(start) == (10.0, False)
    assert (host.now().at.unix_ns - start.at.unix_ns) / 1e9 == 10 - 3_600
    shifted = host.in_namespace(time_ns="later")
    shifted.advance(5)
    assert shifted.now().seconds_since(start) == (15 - 3_600, True)
    assert host.now().seconds_since(start) == (15.0, False), "one passage of time for all"
    host.reboot()
    assert host.now().seconds_since(start)[1] is True
    assert FakeHost().random_bytes(8) == FakeHost().random_bytes(8) != host.random_bytes(8)


def test_the_fake_caller_has_ancestors_and_orphans_go_to_the_first_process() -> None:
    host = FakeHost()
    shell = host.spawn(["bash"])
    agent = host.spawn(["claude"], ppid=shell)
    host.spawn(["heddle-registry"], ppid=agent, act_as=True, environment={"CLAUDECODE": "1"})
    assert [info.comm for info in host.ancestors()[:2]] == ["claude", "bash"]
    assert host.environment() == {"CLAUDECODE": "1"}
    host.kill(agent)
    assert [info.comm for info in host.ancestors()] == ["init"]
    with pytest.raises(ValueError, match="no process"):
        host.spawn(["x"], ppid=agent)
    with pytest.raises(ValueError, match="in use"):
        host.spawn(["x"], pid=shell)


def test_a_look_at_a_process_that_keeps_ending_never_raises(host: LocalHost) -> None:
    # Between the directory and the file, and between two files, processes end.
    for _ in range(5):
        with python("") as child:

            def looked(pid: int = child.pid) -> bool:
                host.owner_for(pid)
                return host.observe(Subject(session_id="a", pid=pid)).process in (
                    ProcessState.ZOMBIE,
                    ProcessState.MISSING,
                )

            until(looked, "the end of the child")
