"""Verdicts on real processes: ended, stopped, replaced, and seen from where they cannot be seen."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry.adapters.host import LocalHost
from heddle_registry.core.evidence import Owner, ProcessState, Subject, VerdictKind, judge
from tests.namespaces import PID, PID_WITHOUT_PROC, TIME, needs_private, run_private
from tests.process_helpers import as_nobody, needs_other_user, python, until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="threads with pids, /proc and namespaces"
)

ALIVE, DEAD, UNKNOWN = VerdictKind.ALIVE, VerdictKind.DEAD, VerdictKind.UNKNOWN
HOST = LocalHost()
WAITS = "import sys; print('up', flush=True); sys.stdin.readline()"


def verdict(owner: Owner) -> tuple[VerdictKind, str]:
    subject = Subject(session_id="agent-a", owner=owner)
    judged = judge(subject, HOST.observe(subject))
    return judged.kind, judged.evidence[0].code


def verdict_on_pid(pid: int) -> VerdictKind:
    # As of an entry that the Rust tool wrote: `pid` and `boot_id`, nothing else.
    subject = Subject(session_id="agent-a", pid=pid, boot_id=own_owner().boot_id)
    return judge(subject, HOST.observe(subject)).kind


def own_owner() -> Owner:
    owner = HOST.owner_for(os.getpid())
    assert owner is not None
    return owner


def test_a_killed_process_is_dead_at_once_and_a_zombie_does_not_pass_for_alive() -> None:
    with python(WAITS) as child:
        child.line()
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        child.send(signal.SIGKILL)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        os.kill(child.pid, 0)  # the original asks only this, and it says "exists"
        assert verdict(owner) == (DEAD, "zombie")
        assert verdict_on_pid(child.pid) is DEAD
        child.ends()
        assert verdict(owner) == (DEAD, "exited")
        assert verdict_on_pid(child.pid) is DEAD


def test_a_stopped_process_is_alive() -> None:
    with python(WAITS) as child:
        child.line()
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        child.send(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert verdict(owner) == (ALIVE, "process")
        assert HOST.owner_for(child.pid) == owner, "run records its command while it is stopped"


def test_exec_keeps_the_identity_under_another_name() -> None:
    code = (
        "import os, sys\n"
        "print('up', flush=True); sys.stdin.readline()\n"
        "os.execvp('sh', ['sh', '-c', 'echo again; read line'])\n"
    )
    with python(code) as child:
        child.line()
        before = HOST.owner_for(child.pid)
        child.tell()
        assert child.line() == "again"
        after = HOST.owner_for(child.pid)
        assert before is not None
        assert before.is_same_process(after)
        assert before.command != after.command if after else False
        assert verdict(before) == (ALIVE, "process")


def test_an_operating_system_thread_is_no_process() -> None:
    stop, ids = threading.Event(), []
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), stop.wait()))
    thread.start()
    try:
        thread_id = until(lambda: ids and ids[0], "the thread's start")
        os.kill(thread_id, 0)  # "exists", by the original's question
        assert os.path.exists(f"/proc/{thread_id}/stat")
        assert HOST.owner_for(thread_id) is None
        assert verdict_on_pid(thread_id) is DEAD
        assert verdict(attrs.evolve(own_owner(), pid=thread_id)) == (DEAD, "exited")
    finally:
        stop.set()
        thread.join()


def test_a_process_whose_main_thread_has_ended_is_alive_until_the_last_one_ends() -> None:
    # The kernel shows the leader as a zombie then, though the process writes on.
    code = (
        "import ctypes, sys, threading\n"
        "def work():\n"
        "    print('up', flush=True); sys.stdin.readline()\n"
        "threading.Thread(target=work).start()\n"
        "ctypes.CDLL(None).syscall(60 if sys.argv[1] == 'x86_64' else 93, 0)\n"  # exit, not _group
    )
    machine = os.uname().machine
    if machine not in ("x86_64", "aarch64", "riscv64"):
        pytest.skip("the number of the exit call is not known here")
    with python(code, machine) as child:
        child.line()

        def leader_ended() -> bool:
            with open(f"/proc/{child.pid}/stat") as stat:
                return stat.read().rpartition(")")[2].split()[0] == "Z"

        until(leader_ended, "the end of the main thread")
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        assert verdict(owner) == (ALIVE, "process")
        child.send(signal.SIGKILL)
        child.ends()
        assert verdict(owner) == (DEAD, "exited")


def test_a_name_that_looks_like_a_stat_line_deceives_nobody(tmp_path: object) -> None:
    name = ") Z 1 (x"  # a fake state and parent
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL(None).prctl(15, sys.argv[1].encode())\n"
        "print('up', flush=True); sys.stdin.readline()\n"
    )
    with python(code, name) as child:
        child.line()
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        assert owner.command == name
        assert verdict(owner) == (ALIVE, "process")
        shown = next(info for info in HOST.processes() if info.pid == child.pid)
        assert shown.ppid == os.getpid()


LOOK = """
import os, signal, subprocess, time
import attrs
from heddle_registry.adapters.host import LocalHost
from heddle_registry.core.evidence import Owner, Subject, judge

host = LocalHost()

def verdict(owner):
    subject = Subject(session_id="agent-a", owner=owner)
    judged = judge(subject, host.observe(subject))
    return [judged.kind, judged.evidence[0].code]

def verdict_on_pid(pid):
    subject = Subject(session_id="agent-a", pid=pid, boot_id=host.now().boot_id)
    judged = judge(subject, host.observe(subject))
    return [judged.kind, judged.evidence[0].code]
"""


@needs_private(*PID)
def test_a_pid_that_was_used_again_is_not_its_former_owner() -> None:
    code = """
try:
    last = open("/proc/sys/kernel/ns_last_pid", "r+")
except OSError:
    answer("no ns_last_pid")
    sys.exit()
first = subprocess.Popen(["sleep", "60"])
owner = host.owner_for(first.pid)
seen = [verdict(owner)]
first.kill(); first.wait()
seen.append(verdict(owner))
while True:
    # Start ticks are 10 ms wide: come back until the newcomer's differ.
    last.seek(0); last.write(str(first.pid - 1)); last.flush()
    second = subprocess.Popen(["sleep", "60"])
    if second.pid != first.pid:
        seen.append("another pid"); break
    if host.owner_for(second.pid).start_ticks != owner.start_ticks:
        seen += [verdict(owner), verdict(host.owner_for(second.pid)), verdict_on_pid(first.pid)]
        break
    second.kill(); second.wait()
second.kill(); second.wait()
answer(seen)
"""
    seen = run_private(PID, LOOK + code)
    if seen == "no ns_last_pid":
        pytest.skip("this kernel lets nobody choose the next pid")
    assert seen == [
        ["alive", "process"],
        ["dead", "exited"],
        ["dead", "pid_reused"],
        ["alive", "process"],
        ["alive", "pid_exists"],  # all that the original's two fields can tell
    ]


@needs_private(*PID)
def test_from_another_pid_namespace_a_living_owner_is_never_dead_and_its_pid_proves_nothing() -> (
    None
):
    with python(WAITS) as child:
        child.line()
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        code = """
owner = Owner(**given[0])
first = attrs.evolve(owner, pid=1, start_ticks=host.owner_for(1).start_ticks)
mine = host.owner_for(os.getpid())
answer([verdict(owner), verdict(first), verdict_on_pid(owner.pid), verdict(mine),
        attrs.asdict(mine), len(host.processes()), len(host.ancestors())])
"""
        seen = run_private(PID, LOOK + code, attrs.asdict(owner))
        outer, same_pid, by_pid, mine, inner, processes, ancestors = seen
        assert outer == ["unknown", "other_namespace"]
        assert same_pid == ["unknown", "other_namespace"], "pid 1 is there, and somebody else"
        assert by_pid == ["unknown", "inner_namespace"], "the original reaps the living here"
        assert mine == ["alive", "process"]
        assert (inner["pid"], processes, ancestors) == (1, 1, 0)
        assert inner["boot_id"] == owner.boot_id, "one kernel: the boot ids cannot tell them apart"
        assert inner["pid_ns"] != owner.pid_ns
        assert verdict(Owner(**inner)) == (UNKNOWN, "other_namespace"), "nor the other way round"


@needs_private(*PID_WITHOUT_PROC)
def test_a_proc_of_another_pid_namespace_is_not_believed() -> None:
    # Its process 1 is the machine's, not ours; our own pid there names a stranger, or nobody.
    code = """
child = subprocess.Popen(["sleep", "60"])
mine, other = host.owner_for(os.getpid()), host.owner_for(child.pid)
seen = [os.getpid(), mine.start_ticks, verdict(other), len(host.ancestors()), len(host.processes())]
child.kill(); child.wait()
answer([*seen, verdict(other)])
"""
    seen = run_private(PID_WITHOUT_PROC, LOOK + code)
    assert seen == [1, None, ["unknown", "no_start_time"], 0, 0, ["dead", "exited"]]


@needs_private(*TIME)
def test_start_ticks_are_not_compared_across_time_namespaces() -> None:
    with python(WAITS) as child:
        child.line()
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        code = """
owner = Owner(**given[0])
mine = host.owner_for(owner.pid)
answer([verdict(owner), verdict(mine), attrs.asdict(mine)])
"""
        outer, inner, mine = run_private(TIME, LOOK + code, attrs.asdict(owner))
        assert mine["start_ticks"] != owner.start_ticks, "the same process, counted from elsewhere"
        assert outer == ["unknown", "other_namespace"]
        assert inner == ["alive", "process"], "whoever recorded it there can tell"
        assert verdict(Owner(**mine)) == (UNKNOWN, "other_namespace")


@needs_private(*TIME)
def test_an_owner_in_another_time_namespace_can_be_recorded_from_here_and_judged_from_there() -> (
    None
):
    # An orchestrator here starts an agent there. Its pid and ticks were read here, so they are
    # named after this namespace; were they named after the agent's, an observer beside the agent
    # would compare its own reading with ours and find another process.
    code = """
import ctypes
assert ctypes.CDLL(None, use_errno=True).unshare(0x80) == 0
with open("/proc/self/timens_offsets", "w") as offsets:
    offsets.write("boottime 500000 0")
asked, answered = os.pipe()
go, told = os.pipe()
pid = os.fork()
if pid == 0:
    fields = json.loads(os.read(go, 4096))
    os.write(answered, json.dumps([verdict(Owner(**fields)), verdict(host.owner_for(os.getpid()))])
             .encode())
    os.read(go, 1)  # lives until it was judged from outside
    os._exit(0)
owner = host.owner_for(pid)
os.write(told, json.dumps(attrs.asdict(owner)).encode())
os.close(answered)
inside = json.loads(os.read(asked, 4096))
answer([verdict(owner), *inside])
os.write(told, b"!")
os.waitpid(pid, 0)
"""
    here, there, itself = run_private(TIME, LOOK + code)
    assert here == ["alive", "process"]
    assert there == ["unknown", "other_namespace"]
    assert itself == ["alive", "process"], "a host object made before the fork sees where it is now"


def test_a_boot_that_is_over_is_death_on_the_same_machine_alone() -> None:
    before = attrs.evolve(own_owner(), boot_id="before")
    known = attrs.evolve(before, host=before.host or "x")
    assert verdict(attrs.evolve(known, host="another")) == (UNKNOWN, "other_host")
    assert verdict(attrs.evolve(known, host="")) == (UNKNOWN, "other_host")
    if before.host:
        assert verdict(before) == (DEAD, "rebooted")


@needs_other_user
def test_another_user_s_process_is_seen_without_permission_to_signal_it() -> None:
    owner = own_owner()

    def seen_by_nobody() -> tuple[str, str]:
        kind, code = verdict(owner)
        return str(kind), code

    assert as_nobody(seen_by_nobody) == ("alive", "process")


@needs_other_user
@needs_private("--mount", "--pid", "--fork", "--kill-child")
@pytest.mark.parametrize(("hidepid", "believed"), [("1", "hidden"), ("2", "hidden")])
def test_a_process_that_proc_hides_is_never_dead(hidepid: str, believed: str) -> None:
    code = """
done = subprocess.run(["mount", "-t", "proc", "-o", "hidepid=" + given[0], "proc", "/proc"])
if done.returncode:
    answer("no hidepid")
    sys.exit()
child = subprocess.Popen(["sleep", "60"])
owner = host.owner_for(child.pid)
asked, answered = os.pipe()
if os.fork() == 0:
    try:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    except OSError:
        os.write(answered, b'"no other user"')
        os._exit(0)
    state = host.observe(Subject(session_id="a", owner=owner)).process
    hidden = host.owner_for(child.pid)
    os.write(answered, json.dumps([state, verdict(owner), hidden.start_ticks]).encode())
    os._exit(0)
os.close(answered)
seen = json.loads(os.read(asked, 4096))
child.kill(); child.wait(); os.wait()
answer(seen if isinstance(seen, str) else [*seen, verdict(owner)])
"""
    flags = ("--mount", "--pid", "--fork", "--kill-child")
    seen = run_private(flags, LOOK + code, hidepid)
    if isinstance(seen, str):
        pytest.skip(f"this machine has {seen}")
    assert seen == [believed, ["unknown", "no_start_time"], None, ["dead", "exited"]]


class _NoProc(LocalHost):
    """As in a sandbox that hides the boot id."""

    def __init__(self) -> None:
        super().__init__()
        machine = type(self._machine)

        class Nameless(machine):  # type: ignore[misc, valid-type]
            boot_id: Callable[[object], str] = lambda _: ""

        self._machine = Nameless()


def test_without_a_boot_id_nobody_is_dead() -> None:
    host = _NoProc()
    with python(WAITS) as child:
        child.line()
        owner = host.owner_for(child.pid)
        assert owner is not None
        child.kill()
        subject = Subject(session_id="a", owner=owner)
        assert host.observe(subject).process is ProcessState.MISSING
        assert judge(subject, host.observe(subject)).kind is UNKNOWN
