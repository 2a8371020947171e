"""Tickets: who counts as waiting, who is woken, and what is left behind."""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry.adapters import line
from heddle_registry.adapters.host import LocalHost
from heddle_registry.adapters.layout import Layout, thread_hash
from heddle_registry.core.evidence import LivenessFile, Owner, Subject
from heddle_registry.core.limits import MAX_TTL_S
from heddle_registry.errors import StoreUnavailable
from tests.process_helpers import in_fork, python, until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not line.HAS_LINES, reason="no lines on this system")
HOST = LocalHost()
FOR_EVER_S = 600.0


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / ".heddle"))


def join(layout: Layout, thread: str = "main", deadline_s: float = 60) -> line.Place:
    return line.join(layout, thread, deadline_s, HOST.now)


def living(layout: Layout, thread: str = "main") -> tuple[str, ...]:
    return line.living_tickets(layout, thread, HOST.now())


def test_tickets_grow_also_past_those_who_left_and_each_branch_has_its_own(layout: Layout) -> None:
    assert living(layout) == ()
    first, second = join(layout), join(layout)
    elsewhere = join(layout, "feature/x")
    assert living(layout) == (first.ticket, second.ticket)
    assert living(layout, "feature/x") == (elsewhere.ticket,)
    first.leave()
    third = join(layout)
    assert living(layout) == (second.ticket, third.ticket)
    for place in (second, third, elsewhere):
        place.leave()
        place.leave()
    assert os.listdir(os.path.join(layout.wait, thread_hash("main"))) == []


def test_whoever_died_in_line_is_passed_over_and_tidied_by_the_next_who_joins(
    layout: Layout,
) -> None:
    with python(
        "import sys\n"
        "from heddle_registry.adapters import line\n"
        "from heddle_registry.adapters.host import LocalHost\n"
        "from heddle_registry.adapters.layout import Layout\n"
        "place = line.join(Layout(sys.argv[1]), 'main', 60, LocalHost().now)\n"
        "print(place.ticket, flush=True); sys.stdin.readline()",
        layout.root,
    ) as child:
        dead = child.line()
        mine = join(layout)
        assert living(layout) == (dead, mine.ticket)
        child.send(signal.SIGKILL)
        child.ends()
    assert living(layout) == (mine.ticket,)
    line.wake_first(layout, "main", HOST.now())
    mine.wait(FOR_EVER_S, None)  # woken already, though the dead one stood first
    last = join(layout)
    folder = os.path.join(layout.wait, thread_hash("main"))
    assert sorted(name for name in os.listdir(folder) if name.isdigit()) == [
        mine.ticket,
        last.ticket,
    ]
    mine.leave()
    last.leave()


def test_who_outstays_the_time_it_gave_no_longer_counts(layout: Layout) -> None:
    patient, hasty = join(layout, deadline_s=600), join(layout, deadline_s=10)
    now = HOST.now()

    def after(seconds: float) -> tuple[str, ...]:
        later = attrs.evolve(now, awake_ns=now.awake_ns + int(seconds * 1e9))
        return line.living_tickets(layout, "main", later)

    assert after(9) == (patient.ticket, hasty.ticket)
    assert after(11) == (patient.ticket, hasty.ticket), "its last look may be a little late"
    assert after(10 + line.OVERDUE_AFTER_S + 1) == (patient.ticket,)
    another_clock = attrs.evolve(now, boot_id="another boot", awake_ns=2**62)
    assert line.living_tickets(layout, "main", another_clock) == (patient.ticket, hasty.ticket)
    patient.leave()
    with open(os.path.join(layout.wait, thread_hash("main"), hasty.ticket), "wb") as ticket:
        ticket.write(b"\xff what another version may write")
    assert after(1000) == (hasty.ticket,)
    hasty.leave()


def test_leaving_wakes_the_next_and_a_wake_without_anybody_is_harmless(layout: Layout) -> None:
    line.wake_first(layout, "main", HOST.now())
    first, second = join(layout), join(layout)
    first.leave()
    second.wait(FOR_EVER_S, None)
    second.leave()
    line.wake_first(layout, "main", HOST.now())


def test_a_wait_ends_when_its_subject_has_died_or_lets_its_lock_go(
    layout: Layout, tmp_path: Path
) -> None:
    place = join(layout)
    with python("import sys; print('up', flush=True); sys.stdin.readline()") as child:
        child.line()
        owner = HOST.owner_for(child.pid)
        assert owner is not None
        subject = Subject(session_id="agent-a", owner=owner)
        if hasattr(os, "pidfd_open"):
            child.send(signal.SIGKILL)
            place.wait(FOR_EVER_S, subject)
            child.ends()
            place.wait(FOR_EVER_S, subject)  # gone before anybody could wait for it
    layout.make_folder(layout.live)
    path = os.path.join(layout.live, "agent-b")
    lock = line.hold_liveness(path)
    locked = Subject(
        session_id="agent-b", liveness=LivenessFile(device=lock.device, inode=lock.inode)
    )
    place.wait(0.05, locked)
    lock.release()
    place.wait(FOR_EVER_S, locked)
    place.wait(0.01, Subject(session_id="agent-c", owner=Owner(pid=-5)))
    place.wait(0.01, attrs.evolve(locked, session_id="agent-that-has-no-file"))
    place.leave()
    until(  # of several who watched one lock, the last may still be about to end
        lambda: not [path for path in _open_descriptors() if path.startswith(layout.root)],
        "every descriptor closed",
    )


def test_a_program_can_end_while_it_still_watches_a_holder(layout: Layout) -> None:
    layout.make_folder(layout.live)
    lock = line.hold_liveness(os.path.join(layout.live, "agent-b"))
    held = LivenessFile(device=lock.device, inode=lock.inode)
    place = join(layout)
    before = set(threading.enumerate())
    reads, writes = os.pipe()
    try:
        place._await_release(Subject(session_id="agent-b", liveness=held), FOR_EVER_S, writes)
        [watcher] = set(threading.enumerate()) - before
        assert (watcher.name, watcher.daemon) == ("watch a liveness lock", True)
        lock.release()
        assert os.read(reads, 1) == b"f"
        watcher.join(60)
    finally:
        os.close(reads)
        place.leave()


def _open_descriptors() -> list[str]:
    folder = "/proc/self/fd"
    if not os.path.isdir(folder):
        return []
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(os.path.join(folder, name)))
        except OSError:
            continue
    return found


def test_a_forked_child_does_not_keep_its_parents_place(layout: Layout) -> None:
    place = join(layout)

    def look() -> tuple[str, ...]:
        return living(layout)

    assert in_fork(look) == (place.ticket,)
    place.leave()
    assert living(layout) == ()


def test_strange_files_in_the_line_are_nobody(layout: Layout) -> None:
    mine = join(layout)
    folder = os.path.join(layout.wait, thread_hash("main"))
    os.mkdir(os.path.join(folder, "0000000000000000"))
    os.symlink("nowhere", os.path.join(folder, "0000000000000000.wake"))
    with open(os.path.join(folder, "notes"), "w") as notes:
        notes.write("x")
    assert living(layout) == (mine.ticket,)
    line.wake_first(layout, "main", HOST.now())
    mine.wait(FOR_EVER_S, None)
    mine.leave()


def test_a_line_that_cannot_be_made_is_a_clear_error(layout: Layout) -> None:
    layout.make()
    with open(layout.wait, "w") as in_the_way:
        in_the_way.write("x")
    with pytest.raises(StoreUnavailable, match="no folder is in the way"):
        join(layout)


def test_tickets_are_private_where_the_registry_is(layout: Layout) -> None:
    place = join(layout)
    folder = os.path.join(layout.wait, thread_hash("main"))
    for name in os.listdir(folder):
        assert stat.S_IMODE(os.lstat(os.path.join(folder, name)).st_mode) & 0o077 == 0
    place.leave()


def test_where_there_are_no_lines_one_only_looks_again() -> None:
    place = line.LonelyPlace()
    place.wait(0.01, None)
    place.leave()
    assert place.ticket == ""


def folder_of(layout: Layout, thread: str = "main") -> str:
    return os.path.join(layout.wait, thread_hash(thread))


def is_woken(layout: Layout, place: line.Place) -> bool:
    """Take a wake that lies in the place's pipe, without waiting for one."""
    fd = os.open(
        os.path.join(folder_of(layout), place.ticket + ".wake"), os.O_RDONLY | os.O_NONBLOCK
    )
    try:
        return os.read(fd, 10) == b"w"
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def test_one_wake_wakes_the_first_who_is_still_in_time_and_nobody_else(layout: Layout) -> None:
    late, first, second = join(layout, deadline_s=10), join(layout), join(layout)
    now = HOST.now()
    later = attrs.evolve(now, awake_ns=now.awake_ns + int(30 * 1e9))
    line.wake_first(layout, "main", later)
    assert [is_woken(layout, place) for place in (late, first, second)] == [False, True, False]
    line.wake_first(layout, "other", now)
    assert not any(is_woken(layout, place) for place in (late, first, second))
    line.wake_first(layout, "main", now)
    assert [is_woken(layout, place) for place in (late, first, second)] == [True, False, False]
    for place in (second, first, late):
        place.leave()


def test_a_wake_is_used_up_by_the_wait_that_it_ended(layout: Layout) -> None:
    place = join(layout)
    for _ in range(3):
        line.wake_first(layout, "main", HOST.now())
    place.wait(FOR_EVER_S, None)
    assert not is_woken(layout, place)
    place.leave()


def test_what_stands_in_a_pipes_place_is_neither_written_to_nor_in_the_way(layout: Layout) -> None:
    first, second = join(layout), join(layout)
    pipe = os.path.join(folder_of(layout), first.ticket + ".wake")
    os.unlink(pipe)
    with open(pipe, "wb") as stranger:
        stranger.write(b"kept")
    line.wake_first(layout, "main", HOST.now())
    assert is_woken(layout, second)
    with open(pipe, "rb") as stranger:
        assert stranger.read() == b"kept"
    first.leave()
    second.leave()


def test_a_ticket_says_in_which_clock_and_until_when_its_waiter_waits(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = HOST.now()
    for asked_s, kept_s in ((60, 60), (1e12, MAX_TTL_S)):
        place = line.join(layout, "main", asked_s, lambda: now)
        with open(os.path.join(folder_of(layout), place.ticket)) as ticket:
            boot_id, time_ns, until_ns = ticket.read().split("\n")
        assert (boot_id, time_ns) == (now.boot_id, now.time_ns)
        assert int(until_ns) == now.awake_ns + int(kept_s * 10**9)
        grace_ns = int(line.OVERDUE_AFTER_S * 10**9)
        for late_ns, counts in ((grace_ns, True), (grace_ns + 1, False)):
            later = attrs.evolve(now, awake_ns=int(until_ns) + late_ns)
            assert (line.living_tickets(layout, "main", later) == (place.ticket,)) is counts
            elsewhere = attrs.evolve(later, time_ns="another")
            assert line.living_tickets(layout, "main", elsewhere) == (place.ticket,)
        place.leave()


@pytest.mark.parametrize("timeout_s", [0.0, 0.0001, 2.5, 60.0])
def test_a_wait_sleeps_in_the_kernel_for_as_long_as_it_was_told(
    layout: Layout, timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Poll:
        def register(self, fd: int, events: int) -> None:
            os.fstat(fd)
            assert events == select.POLLIN

        def poll(self, timeout_ms: int) -> list[int]:
            asked.append(timeout_ms)
            return []

    place = join(layout)
    monkeypatch.setattr(select, "poll", Poll)
    place.wait(timeout_s, None)
    assert asked == [max(1, int(timeout_s * 1000))]
    place.leave()


def test_a_line_that_is_a_link_is_nobodys_and_nobody_joins_it(
    layout: Layout, tmp_path: Path
) -> None:
    place = join(layout)
    (tmp_path / "moved").mkdir()
    os.rename(folder_of(layout), tmp_path / "moved" / "line")
    os.symlink(tmp_path / "moved" / "line", folder_of(layout))
    assert living(layout) == ()
    with pytest.raises(StoreUnavailable, match="link"):
        join(layout)
    assert len(os.listdir(tmp_path / "moved" / "line")) == 2
    place.leave()


@pytest.mark.parametrize("call", ["mkfifo", "open", "write"])
def test_a_place_that_cannot_be_made_is_an_error_and_leaves_nothing_behind(
    layout: Layout, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    join(layout).leave()
    before = Counter(_open_descriptors())
    real = getattr(os, call)

    def fail(*given: object, **named: object) -> object:
        if call == "open" and not str(given[0]).endswith(".wake"):
            return real(*given, **named)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StoreUnavailable, match="No space left") as caught:
            join(layout)
    assert caught.value.errno == 28
    assert os.listdir(folder_of(layout)) == []
    # What another test left may close meanwhile.
    assert not Counter(_open_descriptors()) - before


def test_only_a_living_process_of_its_own_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def pidfd_open(pid: int) -> int:
        opened.append(pid)
        if pid == 13:
            raise PermissionError(1, "not yours")
        if pid == 14:
            raise ProcessLookupError(3, "gone")
        return 99

    monkeypatch.setattr(os, "pidfd_open", pidfd_open, raising=False)
    by_pid = Subject(session_id="a", pid=5)
    assert line._pidfd(by_pid) == 99
    assert line._pidfd(attrs.evolve(by_pid, owner=Owner(pid=6))) == 99
    assert opened == [5, 6]
    locked = attrs.evolve(by_pid, liveness=LivenessFile(device=1, inode=2))
    for nobody in (None, locked, *(attrs.evolve(by_pid, pid=pid) for pid in (None, 0, -1))):
        assert line._pidfd(nobody) == -1
    assert opened == [5, 6]
    assert line._pidfd(attrs.evolve(by_pid, pid=1)) == 99
    assert line._pidfd(attrs.evolve(by_pid, pid=13)) == -1
    with pytest.raises(ProcessLookupError):
        line._pidfd(attrs.evolve(by_pid, pid=14))


def test_a_ticket_is_sixteen_digits_and_nothing_else(layout: Layout) -> None:
    place = join(layout)
    assert place.ticket == "0000000000000001"
    for name in (
        "000000000000002",
        "00000000000000003",
        "000000000000000\u0664",
        "abcdefghijklmnop",
    ):
        held = line.hold_liveness(os.path.join(folder_of(layout), name))
        assert living(layout) == (place.ticket,)
        held.release()
    with open(os.path.join(folder_of(layout), "9999999999999998"), "wb"):
        pass
    last = join(layout)
    assert last.ticket == "9999999999999999"
    assert "9999999999999998" not in os.listdir(folder_of(layout)), "nobody holds it"
    place.leave()
    last.leave()


def test_a_locked_subject_without_a_file_is_no_reason_to_sleep_for_ever(layout: Layout) -> None:
    place = join(layout)
    gone = Subject(session_id="agent-x", liveness=LivenessFile(device=1, inode=2))
    before = Counter(_open_descriptors())
    place.wait(0.01, gone)
    until(lambda: not Counter(_open_descriptors()) - before, "the watch's own descriptor's end")
    place.leave()


def test_where_there_are_no_lines_a_wait_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(line.time, "sleep", slept.append)
    line.LonelyPlace().wait(60.0, None)
    line.LonelyPlace().wait(0.1, None)
    assert slept == [0.2, 0.1]


def test_where_there_are_no_lines_nobody_is_woken(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = join(layout)
    monkeypatch.setattr(line, "HAS_LINES", False)
    line.wake_first(layout, "main", HOST.now())
    assert not is_woken(layout, place)
    place.leave()


def test_a_ticket_that_goes_while_one_looks_is_nobodys(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "_tickets", lambda _: ["0000000000000009"])
    assert living(layout) == ()
