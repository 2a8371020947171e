"""Tickets: who counts as waiting, who is woken, and what is left behind."""

from __future__ import annotations

import os
import signal
import stat
from typing import TYPE_CHECKING

import attrs
import pytest

from heddle_registry.adapters import line
from heddle_registry.adapters.host import LocalHost
from heddle_registry.adapters.layout import Layout, thread_hash
from heddle_registry.core.evidence import LivenessFile, Owner, Subject
from heddle_registry.errors import StoreUnavailable
from tests.process_helpers import in_fork, python

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
    assert not [path for path in _open_descriptors() if path.startswith(layout.root)]


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
