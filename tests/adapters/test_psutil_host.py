from __future__ import annotations

import os
import struct
import threading
from typing import TYPE_CHECKING

import psutil
import pytest

from heddle_registry.adapters import psutil_host
from heddle_registry.adapters.host import LocalHost, machine_here
from heddle_registry.adapters.psutil_host import PsutilMachine, boottime_text
from heddle_registry.core.evidence import ProcessState, Subject
from tests.process_helpers import until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    psutil_host._constants.clear()
    yield
    psutil_host._constants.clear()


def test_the_boot_id_of_macos_is_spelt_as_sysctl_prints_it() -> None:
    raw = struct.pack("=qixxxx", 1_782_907_200, 123_456)
    assert boottime_text(raw) == "{ sec = 1782907200, usec = 123456 }"
    assert boottime_text(b"") == ""


def test_macos_counts_a_ttl_under_an_id_that_the_wall_clock_does_not_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {
        "kern.boottime": struct.pack("=qixxxx", 1, 2),
        "kern.bootsessionuuid": b"SESSION\0",
    }
    monkeypatch.setattr(psutil_host, "_PLATFORM", "darwin")
    monkeypatch.setattr(psutil_host, "_sysctl", lambda name, size: answers[name])
    machine = PsutilMachine()
    assert machine.boot_id() == "{ sec = 1, usec = 2 }"
    answers["kern.boottime"] = struct.pack("=qixxxx", 3_601, 2)
    assert machine.boot_id() == "{ sec = 3601, usec = 2 }", "the clock was set"
    assert machine.clock_id() == "SESSION"


@pytest.mark.parametrize("platform", ["win32", "freebsd14", "darwin"])
def test_a_system_that_does_not_name_itself_is_unknown_rather_than_an_error(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On this Linux every call that only those systems have fails, as on one that refuses it.
    monkeypatch.setattr(psutil_host, "_PLATFORM", platform)
    machine = PsutilMachine()
    assert machine.host() == ""
    assert machine.boot_id() == ""
    assert machine.clock_id() == ""
    now = LocalHost(machine).now()
    assert now.seconds_since(now) == (0.0, True), "the wall clock tells where no boot is known"


def test_where_no_boot_has_an_id_the_machine_stands_in_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil_host, "_PLATFORM", "win32")
    monkeypatch.setattr(psutil_host, "_windows_machine_guid", lambda: "guid\0name")
    machine = PsutilMachine()
    assert machine.boot_id() == f"host:{machine.host()}"
    assert "guid" not in machine.boot_id()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (psutil.AccessDenied, ProcessState.HIDDEN),
        (psutil.NoSuchProcess, ProcessState.MISSING),
        (psutil.ZombieProcess, ProcessState.ZOMBIE),
    ],
)
def test_what_psutil_cannot_tell_is_hidden_and_only_its_word_makes_a_process_dead(
    error: type[psutil.Error], state: ProcessState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int) -> psutil.Process:
        raise error(pid)

    monkeypatch.setattr(psutil, "Process", refuse)
    assert PsutilMachine().look(os.getpid()) == (state, None)
    assert PsutilMachine().read(os.getpid()) is None


def test_arguments_that_may_not_be_read_leave_the_rest_of_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: psutil.Process) -> list[str]:
        raise psutil.AccessDenied(self.pid)

    monkeypatch.setattr(psutil.Process, "cmdline", refuse)
    monkeypatch.setattr(psutil.Process, "cwd", refuse)
    seen = PsutilMachine().read(os.getpid())
    assert seen is not None
    assert (seen.argv, seen.cwd, seen.ppid) == ((), None, os.getppid())


def test_an_operating_system_thread_is_no_process_here_either() -> None:
    stop, ids = threading.Event(), []
    thread = threading.Thread(target=lambda: (ids.append(threading.get_native_id()), stop.wait()))
    thread.start()
    try:
        thread_id = until(lambda: ids and ids[0], "the thread's start")
        host = LocalHost(PsutilMachine())
        assert host.owner_for(thread_id) is None
        seen = host.observe(Subject(session_id="a", pid=thread_id))
        assert seen.process is ProcessState.MISSING
    finally:
        stop.set()
        thread.join()


def test_start_times_do_not_follow_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = PsutilMachine()
    before = machine.look(os.getpid())
    # What psutil takes a process's wall-clock start from: as after a step of 100 s.
    shift = psutil.boot_time() + 100
    monkeypatch.setattr(psutil, "boot_time", lambda: shift)
    monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: shift)  # type: ignore[attr-defined]
    assert machine.look(os.getpid()) == before


def test_this_system_has_a_machine_of_its_own() -> None:
    assert machine_here().look(os.getpid())[0] is ProcessState.RUNNING
