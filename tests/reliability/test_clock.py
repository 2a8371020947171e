"""What counts as time for a TTL: awake time where readings compare, else the wall clock."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from heddle_registry.adapters.flock import DirectoryLock
from heddle_registry.adapters.host import LocalHost
from heddle_registry.core.timestamp import Instant, Timestamp
from heddle_registry.core.transaction import Keys
from tests.namespaces import TIME, needs_private, run_private
from tests.process_helpers import in_fork, python
from tests.registry.world import World

if TYPE_CHECKING:
    from pathlib import Path

linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="reads Linux's clocks by name"
)
HOST = LocalHost()

READ = """
from heddle_registry.adapters.host import LocalHost
now = LocalHost().now()
"""


@needs_private(*TIME)
def test_a_reading_from_another_time_namespace_is_compared_by_the_wall_clock() -> None:
    earlier = HOST.now()
    fields = run_private(
        TIME,
        READ + "answer([str(now.at), now.awake_ns, now.boot_id, now.time_ns])\n",
    )
    inside = Instant(
        at=Timestamp(fields[0]), awake_ns=fields[1], boot_id=fields[2], time_ns=fields[3]
    )
    assert inside.boot_id == earlier.boot_id, "the boot id alone would not tell"
    assert inside.awake_ns - earlier.awake_ns > 90_000 * 10**9, "the trap: a day ahead"
    for one, other in ((inside, earlier), (HOST.now(), inside)):
        elapsed_s, wall = one.seconds_since(other)
        assert wall
        assert abs(elapsed_s) < 60


@needs_private(*TIME)
def test_a_host_made_before_a_fork_into_a_time_namespace_tells_where_it_is_now() -> None:
    code = """
import ctypes, os
from heddle_registry.adapters.host import LocalHost
host = LocalHost()
before = host.now()
assert ctypes.CDLL(None).unshare(0x80) == 0
with open("/proc/self/timens_offsets", "w") as offsets:
    offsets.write("monotonic 700000 0")
asked, answered = os.pipe()
if os.fork() == 0:
    elapsed_s, wall = host.now().seconds_since(before)
    os.write(answered, json.dumps([round(elapsed_s) < 60, wall]).encode())
    os._exit(0)
os.close(answered)
inside = json.loads(os.read(asked, 4096))
os.wait()
elapsed_s, wall = host.now().seconds_since(before)
answer([inside, [round(elapsed_s) < 60, wall]])
"""
    inside, outside = run_private(TIME, code)
    assert inside == [True, True]
    assert outside == [True, False], "who only unshared for its children has not moved"


@linux_only
def test_the_awake_clock_is_the_one_that_stands_still_in_suspend() -> None:
    low = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    reading = HOST.now().awake_ns
    assert low <= reading <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@linux_only
def test_two_processes_read_one_awake_clock() -> None:
    earlier = HOST.now()
    elapsed_s, wall = in_fork(lambda: HOST.now().seconds_since(earlier))
    assert not wall
    assert 0 <= elapsed_s < 60


def test_a_stepped_wall_clock_is_invisible_while_the_awake_clock_compares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No private clock can be stepped (a time namespace has no wall clock of its own), so the
    # system's answer is replaced; everything behind it is real.
    earlier = HOST.now()
    true_ns = time.time_ns
    for step_s in (3_600, -3_600):
        monkeypatch.setattr(time, "time_ns", lambda step_s=step_s: true_ns() + step_s * 10**9)
        now = HOST.now()
        shown_s = (now.at.unix_ns - earlier.at.unix_ns) / 1e9
        assert abs(shown_s - step_s) < 60
        elapsed_s, wall = now.seconds_since(earlier)
        if wall:
            pytest.skip("no awake clock that compares on this system")
        assert 0 <= elapsed_s < 60
        # After a reboot there is only the wall clock, and it is believed.
        rebooted = attrs.evolve(now, boot_id="another")
        assert rebooted.seconds_since(earlier) == (pytest.approx(shown_s), True)


@linux_only
def test_time_goes_on_for_a_stopped_process() -> None:
    code = """
import sys
from heddle_registry.adapters.host import LocalHost
host = LocalHost()
earlier = host.now()
print(earlier.awake_ns, flush=True)
sys.stdin.readline()
elapsed_s, wall = host.now().seconds_since(earlier)
print(round(elapsed_s * 1e9), wall, flush=True)
"""
    with python(code) as child:
        began_ns = int(child.line())
        child.send(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        stopped_ns = HOST.now().awake_ns
        child.send(signal.SIGCONT)
        child.tell()
        elapsed_ns, wall = child.line().split()
        assert wall == "False"
        assert int(elapsed_ns) >= stopped_ns - began_ns, "its TTL ran while it stood still"


def test_a_renewal_that_waited_for_the_lock_counts_from_when_it_had_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World("directory", tmp_path)
    held = world.reserve()  # for 300 s
    comes = threading.Event()
    acquire = DirectoryLock.acquire

    def acquiring(self: DirectoryLock, *given: Any, **named: Any) -> bool:
        if threading.current_thread() is not threading.main_thread():
            comes.set()
        return acquire(self, *given, **named)

    monkeypatch.setattr(DirectoryLock, "acquire", acquiring)
    renewing = threading.Thread(
        target=world.registry.heartbeat, args=(held.entry.session_id, held.token)
    )
    with world.store.lock().held():  # type: ignore[attr-defined]
        renewing.start()
        assert comes.wait(60)
        world.host.advance(200)
    renewing.join(60)
    world.host.advance(299)
    claim = world.store.peek(Keys(threads=("main",)))[0].claims["main"]
    assert claim.holder is not None
    assert world.host.now().seconds_since(claim.holder.renewed_at)[0] == 299
    world.refused()
    world.host.advance(2)
    assert world.reserve().fence == 2
