"""Faults of the original that give a branch to two, or to the dead (SEED.md §5, by number)."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.checks import attempt, is_refused
from tests.faults.sides import Fields, Side, dead, entry, living, now_text
from tests.namespaces import PID, needs_private, run_private
from tests.process_helpers import ROOT, python, until

if TYPE_CHECKING:
    from pathlib import Path


def _without_pid(session_id: str) -> Fields:
    return entry(session_id, thread="main")


def _by_me(session_id: str) -> Fields:
    return living(session_id, "main")


@pytest.mark.parametrize("door", ["update_status", "update_entry", "create", "find", "save"])
def test_04_no_other_door_makes_a_second_owner(side: Side, door: str) -> None:
    side.save(entry("agent-old", "complete", completed_at=now_text(), thread="main", pid=1))
    side.save(entry("agent-off", thread="elsewhere", pid=1))
    outcome, holder = side.try_reserve("main", _by_me)
    assert outcome == "reserved"
    calls = {
        "update_status": lambda: side.update_status("agent-old", "active"),
        "update_entry": lambda: side.update_entry("agent-off", thread="main"),
        "create": lambda: side.create(_by_me),
        "find": lambda: side.find_or_create(lambda _: False, _by_me),
        "save": lambda: side.save(_by_me("agent-z")),
    }
    attempt(side, calls[door])
    assert side.owners("main") == [holder["session_id"]]


@pytest.mark.parametrize(
    "by", ["find_or_create", "path", "client_instance_id", "native_actor_key", "instance at path"]
)
def test_05_a_dead_owners_entry_is_nobody_to_attach_to(side: Side, by: str, tmp_path: Path) -> None:
    keys = {
        "native_actor_key": "codex:thread:1",
        "native_instance_key": "codex:instance:1",
        "client_instance_id": "client-1",
        "path": str(tmp_path),
    }
    side.save(dead("agent-dead", "main", **keys))
    match by:
        case "find_or_create":
            key = keys["native_actor_key"]
            found = side.find_or_create(lambda e: e.get("native_actor_key") == key, _by_me)
        case "instance at path":
            found = side.find("native_instance_key_at_path", "codex:instance:1", tmp_path)
        case _:
            found = side.find(by, keys[by])
    assert found is None or found["session_id"] != "agent-dead"


def test_06_a_zombie_holds_nothing(side: Side) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        side.save(living("agent-z", "main", pid))
        assert side.try_reserve("main", _by_me)[0] == "reserved"
    finally:
        os.waitpid(pid, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="OS threads with pids")
def test_06_an_operating_system_thread_is_no_process(side: Side) -> None:
    stop, ids = threading.Event(), []
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), stop.wait()))
    thread.start()
    try:
        side.save(living("agent-t", "main", until(lambda: ids and ids[0])))
        assert side.verdict("agent-t") != "alive"
    finally:
        stop.set()
        thread.join()


@needs_private(*PID)
def test_06_another_process_under_the_owners_pid_is_not_the_owner(side: Side) -> None:
    code = """
import subprocess
from pathlib import Path
from tests.faults.sides import SIDES
side = SIDES[given[0]](Path(given[1]))
try:
    last = open("/proc/sys/kernel/ns_last_pid", "r+")
except OSError:
    answer("no ns_last_pid")
    sys.exit()

def started(): return open(f"/proc/{sleeper.pid}/stat").read().rpartition(")")[2].split()[19]

sleeper = subprocess.Popen(["sleep", "60"])
first, born = sleeper.pid, started()
side.reserve("main", first)
while True:
    # Start ticks are 10 ms wide: come back until the newcomer's differ.
    sleeper.kill(); sleeper.wait()
    last.seek(0); last.write(str(first - 1)); last.flush()
    sleeper = subprocess.Popen(["sleep", "60"])
    if sleeper.pid == first and started() != born:
        break
outcome = side.reserve("main", os.getpid())[0] if sleeper.pid == first else "another pid"
sleeper.kill(); sleeper.wait()
answer(outcome)
"""
    seen = run_private(PID, "import os\n" + code, side.name, str(side.dir))
    if seen == "no ns_last_pid":
        pytest.skip("this kernel lets nobody choose the next pid")
    assert seen == "reserved"


def test_07_nobody_is_reaped_from_another_machine(side: Side) -> None:
    _, holder = side.reserve("main", os.getpid())
    other = side.on_another_machine()
    assert other.reap_dead() == 0
    assert other.try_reserve("main", _without_pid)[0] == "live_owner"
    assert side.owners("main") == [holder["session_id"]]


@needs_private(*PID)
def test_07_from_an_inner_pid_namespace_a_living_owner_is_not_dead(side: Side) -> None:
    with python("import sys; print('up', flush=True); sys.stdin.readline()") as owner:
        owner.line()
        side.reserve("main", owner.pid)
        code = """
import os
from pathlib import Path
from tests.faults.sides import SIDES
answer(SIDES[given[0]](Path(given[1])).reserve("main", os.getpid())[0])
"""
        assert run_private(PID, code, side.name, str(side.dir)) == "live_owner"


def test_08_a_one_shot_reserve_outlives_its_own_process(side: Side) -> None:
    code = "import sys; from tests.faults.sides import main; main(*sys.argv[1:])"

    def command() -> Any:
        done = subprocess.run(
            [sys.executable, "-c", code, side.name, str(side.dir)],
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
            cwd=ROOT,
        )
        return json.loads(done.stdout)

    assert command()[0] == "reserved"
    assert command()[0] == "live_owner"


def test_09_an_owner_without_a_pid_does_not_block_for_ever(side: Side) -> None:
    side.try_reserve("main", _without_pid)
    side.pass_time(10 * 365 * 86_400)
    assert side.try_reserve("main", _without_pid)[0] == "reserved"


def test_10_heartbeats_prolong_a_reservation_and_silence_ends_it(side: Side) -> None:
    _, holder = side.try_reserve("main", _without_pid)
    token = holder.get("reservation_token")
    for _ in range(3):
        side.pass_time(200)
        side.heartbeat(holder["session_id"], token)
    after_heartbeats = side.try_reserve("main", _without_pid)[0]
    side.pass_time(301)
    assert (after_heartbeats, side.try_reserve("main", _without_pid)[0]) == (
        "live_owner",
        "reserved",
    )


def test_11_the_token_is_in_no_file(side: Side) -> None:
    _, holder = side.reserve("main", os.getpid())
    secret = holder["reservation_token"]
    assert secret
    assert not [
        path
        for path in side.dir.rglob("*")
        if path.is_file() and secret.encode() in path.read_bytes()
    ]


def test_11_nobody_else_may_read_an_entry(side: Side) -> None:
    _, holder = side.reserve("main", os.getpid())
    file = side.agents / (holder["session_id"] + ".toml")
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0


def test_11_a_heartbeat_without_the_token_is_refused(side: Side) -> None:
    _, holder = side.reserve("main", os.getpid())
    assert is_refused(lambda: side.heartbeat(holder["session_id"]))
    assert is_refused(lambda: side.heartbeat(holder["session_id"], "a guess"))
